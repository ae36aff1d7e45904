"""What this thread is doing: whether differentiation is recorded, and which trace is running.

Both are per thread, so that a thread that traces or evaluates disturbs no other.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from treadle.tracer.trace import Trace

P = ParamSpec("P")
R = TypeVar("R")


class _Modes(threading.local):
    grad: bool = True
    trace: Trace | None = None


modes = _Modes()


def active_trace() -> Trace | None:
    """The trace that runs on this thread."""
    return modes.trace


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are recorded for `backward()`."""
    return modes.grad


class _GradMode:
    """Sets the grad mode inside a `with` block, or while a decorated function runs.

    One object may be entered repeatedly and recursively.
    """

    _enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(modes.grad)
        modes.grad = self._enabled

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        modes.grad = self._before.pop()

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        mode = type(self)

        @functools.wraps(fn)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with mode():  # a fresh one: calls may overlap in threads
                return fn(*args, **kwargs)

        return inside


class no_grad(_GradMode):  # noqa: N801  a lower-case name, as PyTorch's
    """Operations inside are not recorded: their results do not require grad.

    Use it as `with treadle.no_grad():` or as the decorator `@treadle.no_grad()`. Tensors that
    require grad may be changed in place inside.
    """

    _enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Records operations inside, also within `no_grad`. A context manager and a decorator."""

    _enabled = True
