"""`treadle.watch` and `treadle.watching`: values from inside a jitted step, for whoever asks.

Where nobody asks for a name, `watch` gives back what it is given and nothing else: nothing is
recorded, so that the compiled step is the same as without it. Which names are asked for is part of
what a compiled step depends on: asking compiles another one, and both are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from treadle.ir.errors import ArgumentError, DTypeError
from treadle.ir.watchers import Handler, Watcher, watchers
from treadle.tracer.api.arguments import array_function
from treadle.tracer.execute import apply_multi
from treadle.tracer.modes import modes
from treadle.tracer.promote import as_operand, is_operand
from treadle.tracer.tensor import Tensor

T = TypeVar("T")


@array_function
def watch(name: str, t: T) -> T:
    """Hand the value of `t`, a tensor, array or number, to those who watch for `name`; returns `t`.

    Inside `with treadle.watching(handler):` the handler is called with (name, a read-only NumPy
    array) when a run comes to this place: eagerly, in a jitted step, and in the bodies of loops and
    branches, once for each time that they run. Outside of it nothing happens, at no cost: the
    compiled step is the same as without the call. `t` keeps its gradient.
    Raises ArgumentError for a name that is no string, DTypeError for a `t` that is none of these.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"watch expects a name first, found {type(name).__name__} {name!r:.40}")
    if not is_operand(t):
        raise DTypeError(f"watch({name!r}, ..) expects a tensor, found {type(t).__name__}")
    if modes.trace is not None:
        modes.trace.watched.add(name)
    if watchers.wanted(name):
        apply_multi("watch", _detached(t), name=name)
    return t


def _detached(x: object) -> Tensor:
    return as_operand(x).detach()


@contextmanager
def watching(handler: Handler, names: str | Sequence[str] = "*") -> Iterator[None]:
    """Inside, `handler(name, array)` gets the values that `treadle.watch` names.

    `names`: a pattern, or several, of the names that are wanted, as in file names (`*`, `?`,
    `[ab]`). It holds for all threads. Values come in the order of the program; what the handler
    raises, the call raises, with all state as before. A jitted function that watches a name which
    is asked for now, and was not before, is compiled once more; both versions are kept.
    Raises ArgumentError for a handler that cannot be called, or a pattern that is no string.
    """
    patterns = (names,) if isinstance(names, str) else tuple(names)
    if not callable(handler):
        raise ArgumentError(f"watching expects a function, found {type(handler).__name__}")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ArgumentError(f"a pattern of names must be a string, found {pattern!r:.40}")
    watcher = Watcher(handler, patterns)
    watchers.add(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)
