"""What a callback calls, as the walk of what a jitted function reaches finds it.

The code of a callback runs outside of the trace: what it reads and changes shapes no trace, so it
is not followed and nothing of it is guarded, but for what is called: a function, the object of a
method, a `functools.partial` must be the very one that was traced.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any


def host_parts(functions: Iterable[Any]) -> dict[int, Any]:
    """The functions and objects that calling `functions` leads to at once, by id."""
    return {id(part): part for fn in functions for part in _parts(fn)}


def _parts(fn: Any) -> Iterator[Any]:
    while isinstance(fn, functools.partial):
        yield fn
        fn = fn.func
    if isinstance(fn, MethodType):
        yield fn.__self__
        fn = fn.__func__
    yield fn
    if not isinstance(fn, FunctionType):
        yield vars(type(fn)).get("__call__")
