"""Explicit keys: random numbers as functions, for code without state.

    key = treadle.random.key(0)
    for x in batches:
        key, now = treadle.random.split(key)
        x = x + treadle.random.normal(now, x.shape)

A key is an int64 tensor [2]: a seed and the number of a draw. The same key gives the same numbers
each time, so each is to be drawn from once; a trace warns where one is drawn from twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

from treadle.ir import philox
from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.graph import Loc, Value
from treadle.ir.types import DType, int64, shape_text
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.creation import as_int
from treadle.tracer.create import tensor
from treadle.tracer.execute import apply
from treadle.tracer.generator import Generator, default_generator, seed_number
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes, no_grad
from treadle.tracer.promote import as_operand, constant
from treadle.tracer.region import RegionTrace
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace
from treadle.tracer.views import Maps

Source = Tensor | Generator | None

# Keys start where no generator comes to: with the same seed the two have nothing in common.
_FIRST: Final = -(2**63)


class RandomKeyWarning(UserWarning):
    """An explicit key is drawn from twice: both draws give the same numbers."""


@array_function
def key(seed: int) -> Tensor:
    """The key that belongs to a seed, int64 [2]. Raises ArgumentError unless `seed` is an int of
    at most 64 bits."""
    return tensor([seed_number(seed), _FIRST])


@array_function
def split(key: Tensor, num: int = 2) -> Tensor:
    """`num` new keys, int64 [num, 2], each with a stream of its own; the old one is used up.

    Raises DTypeError and ShapeError where `key` is no key, ArgumentError for a negative `num`.
    """
    count = as_int(num, "split's num")
    if count < 0:
        raise ArgumentError(f"split's num must be at least 0, found {count}")
    return _from_key(
        "random_bits", key, "split", shape=(count, 2), dtype=int64, domain=philox.SPLIT
    )


@array_function
def fold_in(key: Tensor, data: Any) -> Tensor:
    """A new key for `key` and an integer (the number of a layer, of a step), int64 [2]. The key
    may be folded with other numbers too.

    Raises DTypeError and ShapeError where `key` is no key or `data` no integer of rank 0.
    """
    number = as_operand(data)
    if not number.dtype.is_integer or number.ndim:
        raise DTypeError(f"fold_in takes an integer of rank 0 as its data, found {number.type}")
    checked_key(key)
    with no_grad():
        bits = apply("random_bits", key[0], key[1], shape=(2,), dtype=int64, domain=philox.FOLD)
        wide = number if number.dtype == int64 else apply("cast", number, dtype=int64)
        zero = constant(0, int64)
        moved = apply("concat", *(apply("reshape", x, shape=(1,)) for x in (zero, wide)), axis=0)
        return apply("add", bits, moved)


def drawn(source: Source, op: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """The result of a random op from a key, a generator, or (None) the default generator."""
    if source is None:
        return default_generator.draw(op, shape, dtype)
    if isinstance(source, Generator):
        return source.draw(op, shape, dtype)
    return _from_key(op, source, "drawn from", shape=shape, dtype=dtype)


def checked_key(key: object) -> Tensor:
    """`key`; raises DTypeError or ShapeError unless it is one."""
    if not isinstance(key, Tensor) or key.dtype != int64:
        found = key.type if isinstance(key, Tensor) else f"{type(key).__name__} {key!r:.40}"
        raise DTypeError(f"expected a key (treadle.random.key), a Generator or None, found {found}")
    if key.shape != (2,):
        raise ShapeError(f"a key has shape (2,), found {shape_text(key.shape)}")
    return key


def _from_key(op: str, key: object, use: str, **attrs: Any) -> Tensor:
    found = checked_key(key)
    _note_use(found, use)
    with no_grad():
        return apply(op, found[0], found[1], **attrs)


# --- keys that are used twice ------------------------------------------------------------------

Use = tuple[Value, Maps, str]

_used: WeakKeyDictionary[Trace, dict[Use, Loc | None]] = WeakKeyDictionary()
_used_inside: WeakKeyDictionary[Trace, dict[Use, Loc | None]] = WeakKeyDictionary()
_told: set[tuple[Loc | None, Loc]] = set()


def _note_use(key: Tensor, use: str) -> None:
    """Warn where the running trace has used `key` in this way before.

    A key from outside of a loop or a branch counts there too. What bodies use is remembered apart:
    of two branches one runs, and a body may be traced again.
    """
    trace = modes.trace
    if trace is None:
        return
    here, this = user_location(), (trace.content(key), key.maps, use)
    own, inside = _tables(trace)
    first = own.get(this) or inside.get(this)
    own.setdefault(this, here)
    for around, value in _outside(trace, this[0]):
        same = (value, key.maps, use)
        own, inside = _tables(around)
        first = first or own.get(same)
        inside.setdefault(same, here)
    if first is not None and here is not None:
        _warn(first, here, use)


def _tables(trace: Trace) -> tuple[dict[Use, Loc | None], dict[Use, Loc | None]]:
    return _used.setdefault(trace, {}), _used_inside.setdefault(trace, {})


def _outside(trace: Trace, value: Value) -> Iterator[tuple[Trace, Value]]:
    """The traces around a body that have `value` too, and what it is there."""
    while isinstance(trace, RegionTrace):
        found = next((v for v, inner in trace.imports.items() if inner is value), None)
        if found is None:
            return
        trace, value = trace.outer, found
        yield trace, value


def _warn(first: Loc, here: Loc, use: str) -> None:
    if (first, here) in _told:
        return
    _told.add((first, here))
    warnings.warn_explicit(
        f"a key is {use} twice, at {first} and at {here}: both give the same numbers; use a new "
        "key for each, from treadle.random.split or fold_in",
        RandomKeyWarning,
        here.file,
        here.line,
    )
