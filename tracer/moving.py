"""Things without a binding that a trace may have changed: iterators, arrays, contents of C objects.

Attributes and items that a function binds anew are assigned at each call. What is changed in
another way, the position of an iterator or the bytes of a NumPy array, a compiled call could not
repeat: it is found by comparing before and after, put back where that is possible, and an error.
"""

from __future__ import annotations

import io
import operator
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import AsyncGeneratorType, GeneratorType
from typing import Any

import numpy as np

from treadle.ir.errors import TraceError
from treadle.tracer.guards import content, digest
from treadle.tracer.items import SCALARS, Item, Tree, is_value
from treadle.tracer.paths import cached_tensors, context_value
from treadle.tracer.pytree import flatten
from treadle.tracer.tensor import Tensor

COPIED = 1 << 26  # bytes up to which an array is copied, so that it can be put back
_DEPTH = 8  # iterators inside of iterators


class Moving:
    """The state of everything in `tree.moving`, when this object was made."""

    def __init__(self, tree: Tree) -> None:
        self._entries = [_Entry(item) for item in tree.moving]

    def check(self, name: str) -> None:
        """Raises TraceError where one of them has changed."""
        for entry in self._entries:
            if entry.changed():
                raise TraceError(entry.message(name))

    def restore(self) -> None:
        """Put back what can be put back."""
        for entry in self._entries:
            if entry.changed():
                entry.restore()


class Caches:
    """The `functools.cache`s that a trace may have filled with its own values."""

    def __init__(self, tree: Tree) -> None:
        self._caches = list(tree.caches)

    def restore(self) -> None:
        """Empty those that hold a traced value: it would be met outside, where it has none."""
        for cache in self._caches:
            leaves = flatten(list(cached_tensors(cache).values()))[0]
            if any(isinstance(x, Tensor) and x.cell.home is not None for x in leaves):
                cache.cache_clear()


class _Entry:
    """One of them: `before` is its state, `copy` what it is put back from."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.state: Callable[[Any], Any] = _advance
        self.value = item.value
        if item.step.how == "apply":
            assert item.parent is not None
            self.value, look = item.parent.value, item.step.key
            self.state = lambda x: _content(look(x))
        elif item.kind == "array":
            self.state = _array_state
        self.copy = _copy(self.value)
        self.before = self.state(self.value)

    def changed(self) -> bool:
        return bool(self.state(self.value) != self.before)

    def message(self, name: str) -> str:
        path = self.item.path
        if self.item.kind == "array" and isinstance(self.value, np.ndarray):
            return (
                f"{name} changes the NumPy array {path} in place while it is traced, which a "
                "compiled call could not repeat; make it a tensor (treadle.tensor)"
            )
        if self.item.step.how == "apply":
            kind = type(self.value).__name__
            return (
                f"{name} changes {path}, a {kind}, while it is traced, which a compiled call could "
                "not repeat; do it outside, or keep a list or a tensor"
            )
        kind = type(self.value).__name__
        return (
            f"{name} advances {path}, a {kind}, while it is traced, which a compiled call could "
            "not repeat; call next() outside and pass what it gives as an argument"
        )

    def restore(self) -> None:
        value, copy = self.value, self.copy
        if copy is None:
            return
        if isinstance(value, np.ndarray) and value.flags.writeable:
            np.copyto(value, copy)
        elif isinstance(value, bytearray):
            value[:] = copy
        elif isinstance(value, ContextVar):
            value.set(copy)
        elif hasattr(value, "__setstate__") and isinstance(copy, int):
            value.__setstate__(copy)


def _copy(value: Any) -> Any:
    """What `value` is put back from; None where it cannot be."""
    if isinstance(value, np.ndarray):
        return np.array(value) if value.nbytes <= COPIED else None  # without a subclass
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, ContextVar):
        return context_value(value)
    parts = _reduced(value)
    return parts[2] if parts is not None and len(parts) == 3 else None  # a list's iterator


def _array_state(value: np.ndarray[Any, Any]) -> Any:
    if value.dtype.hasobject:
        return _content(value.ravel().tolist())
    return content(value) if value.nbytes <= COPIED else digest(value)


def _content(found: Any) -> Any:
    """What `look` found, for a comparison: values as they print, objects by identity."""
    if type(found) is list:
        return [_content(x) if type(x) is list else _one(x) for x in found]
    if type(found) is dict:
        return [(_one(k), _one(v)) for k, v in found.items()]
    if isinstance(found, np.ndarray):
        return _array_state(found)
    return _one(found)


def _one(x: Any) -> Any:
    return repr(x) if type(x) in SCALARS or is_value(x) else id(x)


# --- iterators -------------------------------------------------------------------------------


def _reduced(iterator: Any) -> tuple[Any, ...] | None:
    """What pickling would keep of an iterator of C code."""
    if isinstance(iterator, (GeneratorType, AsyncGeneratorType, io.IOBase)):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of itertools, Python 3.12
        try:
            parts = iterator.__reduce__()
        except Exception:
            return None  # not every iterator can be pickled
    return parts if isinstance(parts, tuple) else None


def _advance(iterator: Any, depth: int = _DEPTH) -> Any:
    """How far an iterator or a file has come."""
    if isinstance(iterator, GeneratorType):
        frame = iterator.gi_frame
        return None if frame is None else frame.f_lasti
    if isinstance(iterator, io.IOBase):
        return _position(iterator)
    parts = _reduced(iterator)
    if parts is None:
        return operator.length_hint(iterator, -1), repr(iterator)
    return [_part(x, depth) for x in parts[1:]]


def _part(x: Any, depth: int) -> Any:
    if type(x) in SCALARS:
        return x
    if depth and isinstance(x, tuple):
        return [_part(y, depth - 1) for y in x]
    if depth and hasattr(type(x), "__next__"):
        return _advance(x, depth - 1)
    return len(x) if isinstance(x, (list, str)) else None  # of a set's iterator, what is left


def _position(file: Any) -> Any:
    try:
        return file.tell() if not file.closed and file.seekable() else None
    except OSError:
        return "in the middle of a line"  # while it is iterated, a text file does not tell


def generators_in(tree: Tree) -> list[tuple[str, Any]]:
    """The generators among the moving things, also inside of `map`, `zip` and the like."""
    found = []
    for item in tree.moving:
        if item.step.how != "apply" and item.kind != "array":
            found += [(item.path, g) for g in _generators(item.value, _DEPTH)]
    return found


def _generators(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, GeneratorType):
        yield value
    elif depth and isinstance(value, tuple):
        for part in value:
            yield from _generators(part, depth - 1)
    elif depth and hasattr(type(value), "__next__"):
        yield from _generators(_reduced(value) or (), depth - 1)
