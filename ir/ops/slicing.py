"""Ops that take a part of a tensor or place one: slice, slice_update, pad.

Starts and pads are sizes, an int or a symbolic dimension; bounds are checked wherever they are
plain numbers. A part is `starts[i] + k * steps[i]` for k from 0 to its size along axis i; steps may
be negative, an empty part may start anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, register
from treadle.ir.ops.movement import LENGTHS, MOVEMENT, draw, int_sizes, is_negative, moved
from treadle.ir.ops.rules import check_same_dtype
from treadle.ir.scalar import Index
from treadle.ir.types import Shape, Size, TensorType, shape_text


def _check_part(
    name: str, whole: Shape, starts: Sequence[Size], steps: Sequence[int], part: Shape
) -> None:
    """Raise ShapeError unless the part lies inside a tensor of shape `whole`."""
    if not len(starts) == len(steps) == len(part) == len(whole):
        raise ShapeError(
            f"{name} of shape {shape_text(whole)} needs one start, step and size an axis, found "
            f"{len(starts)} starts, {len(steps)} steps and {len(part)} sizes"
        )
    for axis, (start, step, size) in enumerate(zip(starts, steps, part, strict=True)):
        if step == 0:
            raise ShapeError(f"{name}: the step along axis {axis} is 0")
        if is_negative(size):
            raise ShapeError(f"{name}: the size along axis {axis} must be at least 0, found {size}")
        if size == 0:
            continue
        last = start + (size - 1) * step
        beyond = any(is_negative(p) or is_negative(whole[axis] - 1 - p) for p in (start, last))
        if beyond:
            raise ShapeError(
                f"{name}: elements {start} to {last} along axis {axis} are not inside its size "
                f"{whole[axis]}"
            )


def _selection(
    starts: Sequence[Size], steps: Sequence[int], part: Sequence[int]
) -> tuple[slice, ...]:
    """NumPy's slices for a part; a stop before element 0 must be written None."""
    picked = []
    for start, step, size in zip(int_sizes(starts, "starts"), steps, part, strict=True):
        stop = start + size * step
        picked.append(slice(start, stop if stop >= 0 else None, step) if size else slice(0, 0))
    return tuple(picked)


# --- slice -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SliceAttrs(Attrs):
    """Where each axis starts, its step (not 0, negative allowed), and the result's shape."""

    starts: tuple[Size, ...]
    steps: tuple[int, ...]
    shape: Shape


def _slice_infer(a: SliceAttrs, x: TensorType) -> TensorType:
    _check_part("slice", x.shape, a.starts, a.steps, a.shape)
    return x.with_shape(a.shape)


def _slice_ref(a: SliceAttrs, x: Array) -> Array:
    shape = int_sizes(a.shape, "slice's shape")
    return x[_selection(a.starts, a.steps, shape)].copy()


def _slice_vjp(o: Any, a: SliceAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """The cotangent placed among zeros: a pad where all steps are 1, which costs a clamp only."""
    (x,), (ct,) = args, cts
    t = o.type_of(x)
    if any(step != 1 for step in a.steps) or any(size == 0 for size in a.shape):
        zeros = o.zeros_like(x)
        return (o.call("slice_update", zeros, ct, starts=a.starts, steps=a.steps),)
    high = tuple(
        whole - size - start for whole, size, start in zip(t.shape, a.shape, a.starts, strict=True)
    )
    return (o.call("pad", ct, low=a.starts, high=high, value=0),)


def _slice_lower(s: Any, a: SliceAttrs, types: Any, index: Any, load: Any) -> Any:
    starts = int_sizes(a.starts, "slice's starts")
    parts = zip(index, starts, a.steps, strict=True)
    return load(0, tuple(s.index_add(s.index_mul(i, step), start) for i, start, step in parts))


def _slice_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        x = draw(rng, 3, 2 * size + 3, dtype=np.float32)
        yield moved(SliceAttrs((1, 2), (1, 1), (2, size)), x)
        yield moved(SliceAttrs((0, 1), (2, 2), (2, size)), x)
        yield moved(SliceAttrs((2, 2 * size + 1), (-1, -2), (3, size)), x)
    yield moved(SliceAttrs((1, 0, 3), (1, 1, -1), (1, 3, 4)), draw(rng, 2, 3, 5))
    yield moved(SliceAttrs((0, 2), (1, 1), (2, 3)), draw(rng, 2, 5))
    yield moved(SliceAttrs((4, 1), (-3, 3), (2, 2)), draw(rng, 5, 6))
    yield moved(SliceAttrs((7, 0), (1, 1), (0, 2)), draw(rng, 3, 2))
    yield moved(SliceAttrs((), (), ()), draw(rng))


SLICE = register(
    OpDef(
        name="slice",
        maths="y[.., i, ..] = x[.., starts + i * steps, ..]",
        attrs=SliceAttrs,
        infer=_slice_infer,
        ref=_slice_ref,
        vjp=_slice_vjp,
        lower=Index(_slice_lower, affine=True),
        traits=MOVEMENT,
        samples=_slice_samples,
    )
)


# --- slice_update ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SliceUpdateAttrs(Attrs):
    """Where along each axis the part starts that is written, and its step (negative allowed)."""

    starts: tuple[Size, ...]
    steps: tuple[int, ...]


def _slice_update_infer(a: SliceUpdateAttrs, x: TensorType, v: TensorType) -> TensorType:
    check_same_dtype("slice_update", (x, v))
    if v.rank != x.rank:
        raise ShapeError(
            f"slice_update of shape {shape_text(x.shape)} needs a part of the same rank, found "
            f"shape {shape_text(v.shape)}"
        )
    _check_part("slice_update", x.shape, a.starts, a.steps, v.shape)
    return x


def _slice_update_ref(a: SliceUpdateAttrs, x: Array, v: Array) -> Array:
    y = np.array(x)
    y[_selection(a.starts, a.steps, v.shape)] = v
    return y


def _slice_update_vjp(o: Any, a: Any, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    (_, v), (ct,) = args, cts
    kept = o.call("slice_update", ct, o.zeros_like(v), starts=a.starts, steps=a.steps)
    shape = o.type_of(v).shape
    return kept, o.call("slice", ct, starts=a.starts, steps=a.steps, shape=shape)


def _part_index(s: Any, i: Any, start: int, step: int, size: int) -> tuple[Any, list[Any]]:
    """The index inside the part, clamped, and the conditions under which `i` lies in it."""
    stride = abs(step)
    first = start if step > 0 else start + (size - 1) * step
    span = (size - 1) * stride + 1
    conditions = [s.index_in(i, first, first + span)]
    inside = s.index_clamp(s.index_add(i, -first), span)
    if stride > 1:
        inside, rest = s.index_divmod(inside, stride)
        conditions.append(s.index_in(rest, 0, 1))
    if step < 0:
        inside = s.index_add(s.index_mul(inside, -1), size - 1)
    return inside, conditions


def _slice_update_lower(s: Any, a: Any, types: Any, index: Any, load: Any) -> Any:
    whole, part = types[0].static_shape, types[1].static_shape
    starts = int_sizes(a.starts, "slice_update's starts")
    if 0 in part:
        return load(0, tuple(index))
    where, conditions = [], []
    for axis, i in enumerate(index):
        if part[axis] == whole[axis] and a.steps[axis] == 1:
            where.append(i)  # the whole axis: no bounds, and the load stays affine
            continue
        inside, more = _part_index(s, i, starts[axis], a.steps[axis], part[axis])
        where.append(inside)
        conditions += more
    new = load(1, tuple(where))
    return _select_if_all(s, conditions, new, lambda: load(0, tuple(index)))


def _select_if_all(s: Any, conditions: Sequence[Any], x: Any, other: Any) -> Any:
    """`x` where all conditions hold, else `other()`; x itself where there are none."""
    if not conditions:
        return x
    both = conditions[0]
    for more in conditions[1:]:
        both = s.and_(both, more)
    return s.select(both, x, other())


def _slice_update_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        x = draw(rng, 3, 2 * size + 3, dtype=np.float32)
        v = draw(rng, 2, size, dtype=np.float32)
        yield moved(SliceUpdateAttrs((1, 2), (1, 1)), x, v)
        yield moved(SliceUpdateAttrs((2, 2 * size + 1), (-2, -2)), x, v)
    yield moved(SliceUpdateAttrs((0, 1), (1, 2)), draw(rng, 2, 6), draw(rng, 2, 3))
    yield moved(SliceUpdateAttrs((0, 5), (1, -1)), draw(rng, 2, 6), draw(rng, 2, 6))
    yield moved(SliceUpdateAttrs((0, 0), (1, 1)), draw(rng, 2, 3), draw(rng, 2, 3))
    yield moved(SliceUpdateAttrs((4, 1), (-3, 3)), draw(rng, 5, 6), draw(rng, 2, 2))
    yield moved(SliceUpdateAttrs((9, 0), (1, 1)), draw(rng, 2, 3), draw(rng, 0, 3))
    yield moved(SliceUpdateAttrs((), ()), draw(rng), draw(rng))


SLICE_UPDATE = register(
    OpDef(
        name="slice_update",
        maths="y = x with y[.., starts + i * steps, ..] = v[.., i, ..]",
        attrs=SliceUpdateAttrs,
        infer=_slice_update_infer,
        ref=_slice_update_ref,
        vjp=_slice_update_vjp,
        lower=Index(_slice_update_lower),
        traits=MOVEMENT,
        samples=_slice_update_samples,
    )
)


# --- pad -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PadAttrs(Attrs):
    """How many elements of `value` come before (`low`) and after (`high`) each axis."""

    low: tuple[Size, ...]
    high: tuple[Size, ...]
    value: float | int | bool = 0


def _pad_infer(a: PadAttrs, x: TensorType) -> TensorType:
    if len(a.low) != x.rank or len(a.high) != x.rank:
        raise ShapeError(
            f"pad of shape {shape_text(x.shape)} needs {x.rank} pads before and after, found "
            f"{len(a.low)} and {len(a.high)}"
        )
    for axis, pads in enumerate(zip(a.low, a.high, strict=True)):
        if any(is_negative(p) for p in pads):
            raise ShapeError(
                f"pad: the pads of axis {axis} must be at least 0, found {pads}; slice to crop"
            )
    sizes = zip(a.low, x.shape, a.high, strict=True)
    return x.with_shape([low + size + high for low, size, high in sizes])


def _pad_ref(a: PadAttrs, x: Array) -> Array:
    low, high = int_sizes(a.low, "pad's low"), int_sizes(a.high, "pad's high")
    sizes = list(zip(low, x.shape, high, strict=True))
    y = np.full([before + size + after for before, size, after in sizes], a.value, x.dtype)
    y[tuple(slice(before, before + size) for before, size, _ in sizes)] = x
    return y


def _pad_vjp(o: Any, a: PadAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    shape = o.type_of(args[0]).shape
    return (o.call("slice", cts[0], starts=a.low, steps=(1,) * len(shape), shape=shape),)


def _pad_lower(s: Any, a: PadAttrs, types: Any, index: Any, load: Any) -> Any:
    shape = types[0].static_shape
    low, high = int_sizes(a.low, "pad's low"), int_sizes(a.high, "pad's high")
    value = s.const(a.value, types[0].dtype)
    if 0 in shape:
        return value
    where, conditions = [], []
    for axis, i in enumerate(index):
        if low[axis] == 0 and high[axis] == 0:
            where.append(i)
            continue
        conditions.append(s.index_in(i, low[axis], low[axis] + shape[axis]))
        where.append(s.index_clamp(s.index_add(i, -low[axis]), shape[axis]))
    return _select_if_all(s, conditions, load(0, tuple(where)), lambda: value)


def _pad_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        x = draw(rng, 3, size, dtype=np.float32)
        yield moved(PadAttrs((0, 1), (0, 2), 0.0), x)
        yield moved(PadAttrs((2, 0), (1, 0), -np.inf), x)
    yield moved(PadAttrs((1, 0), (2, 3), 1.5), draw(rng, 2, 3))
    yield moved(PadAttrs((0, 0), (0, 0), 1.5), draw(rng, 2, 3))
    yield moved(PadAttrs((), (), 1.5), draw(rng))
    yield moved(PadAttrs((1,), (1,), -7), rng.integers(-9, 9, 5))
    yield moved(PadAttrs((1,), (1,), True), np.zeros(3, bool))


PAD = register(
    OpDef(
        name="pad",
        maths="y[.., i, ..] = x[.., i - low, ..] inside, value outside",
        attrs=PadAttrs,
        infer=_pad_infer,
        ref=_pad_ref,
        vjp=_pad_vjp,
        lower=Index(_pad_lower),
        traits=MOVEMENT,
        samples=_pad_samples,
    )
)
