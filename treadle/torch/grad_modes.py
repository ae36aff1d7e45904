"""`no_grad`, `inference_mode` and `set_grad_enabled`, as context managers and decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.tracer.modes import modes, no_grad as _no_grad


class no_grad(_no_grad):  # noqa: N801  PyTorch's name
    """Operations inside are not recorded; `@no_grad` and `@no_grad()` alike."""

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        made = super().__new__(cls)
        if not callable(fn):
            return made
        made.__init__()  # type: ignore[misc]
        return made(fn)

    def __init__(self, fn: Callable[..., Any] | None = None) -> None:
        super().__init__()


class inference_mode(_no_grad):  # noqa: N801
    """As `no_grad`; `inference_mode(False)` changes nothing."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self._mode = mode

    def __enter__(self) -> None:
        self._before.append(modes.grad)
        if self._mode:
            modes.grad = False

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        cls, mode = type(self), self._mode

        @functools.wraps(fn)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with cls(mode):  # a fresh one: calls may overlap in threads
                return fn(*args, **kwargs)

        return inside


class set_grad_enabled(inference_mode):  # noqa: N801
    """Sets the grad mode: at once, and until the end of the block where it begins one."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._old = modes.grad
        modes.grad = bool(mode)

    def __enter__(self) -> None:
        self._before.append(self._old)
        modes.grad = bool(self._mode)

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        modes.grad = self._old  # a decorator changes nothing now
        return super().__call__(fn)
