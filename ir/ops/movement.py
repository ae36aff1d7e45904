"""Ops that move elements and compute nothing: reshape, permute, broadcast_to, flip, concat.

Those that take or place a part of a tensor are in `slicing`. References return fresh arrays, never
views of their operands, so that nothing that holds a result sees a later write to an operand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import check_axes, check_axis, check_same_dtype
from treadle.ir.scalar import Index
from treadle.ir.types import (
    Shape,
    Size,
    TensorType,
    shape_text,
    size_product,
)

MOVEMENT = frozenset({Trait.MOVEMENT})


def int_sizes(sizes: Sequence[Size], what: str) -> tuple[int, ...]:
    """`sizes` as ints; raises ShapeError where one is symbolic."""
    found = tuple(s for s in sizes if isinstance(s, int))
    if len(found) != len(sizes):
        raise ShapeError(f"{what} {shape_text(sizes)} has a symbolic size where ints are needed")
    return found


def is_negative(size: Size) -> bool:
    """Known to be below 0; a symbolic size is not."""
    return isinstance(size, int) and size < 0


def draw(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> Array:
    """Normally distributed elements, for samples."""
    return rng.standard_normal(shape).astype(dtype)


def moved(attrs: Attrs, *args: Array) -> Sample:
    """A sample that must agree bit for bit; its derivative is tested where it is in float64."""
    return Sample(args, attrs, differentiable=all(x.dtype == np.float64 for x in args))


# Around vector widths of 4, 8 and 16 lanes, for float32 samples.
LENGTHS = (0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17)


# --- reshape ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReshapeAttrs(Attrs):
    """`shape` of the result, without -1."""

    shape: Shape


def _reshape_infer(a: ReshapeAttrs, x: TensorType) -> TensorType:
    if any(is_negative(s) for s in a.shape):
        raise ShapeError(f"reshape to {shape_text(a.shape)}: dimensions must be at least 0")
    if size_product(a.shape) != x.size:
        raise ShapeError(
            f"cannot reshape {shape_text(x.shape)} ({x.size} elements) to {shape_text(a.shape)} "
            f"({size_product(a.shape)} elements)"
        )
    return x.with_shape(a.shape)


def reshape_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """The finest pairs of runs of axes, old and new, that hold equally many elements.

    (6, 4) -> (2, 3, 4) gives axis 0 <-> axes 0, 1 and axis 1 <-> axis 2. Each group's index is
    computed alone, so that axes which a reshape leaves alone stay affine. No size may be 0.
    """
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        groups.append((range(first_i, i), range(first_j, j)))
    return groups


def _reshape_lower(s: Any, a: ReshapeAttrs, types: Any, index: Any, load: Any) -> Any:
    old, new = types[0].static_shape, int_sizes(a.shape, "reshape's shape")
    if 0 in old:
        return s.const(0, types[0].dtype)  # no element is ever asked for
    where: list[Any] = [s.index_const(0)] * len(old)
    for old_axes, new_axes in reshape_groups(old, new):
        linear: Any = None
        for axis in new_axes:
            if new[axis] != 1 and linear is not None:
                linear = s.index_sum(s.index_mul(linear, new[axis]), index[axis])
            elif new[axis] != 1:
                linear = index[axis]
        inner = [axis for axis in old_axes if old[axis] != 1]
        for axis in reversed(inner[1:]):
            linear, where[axis] = s.index_divmod(linear, old[axis])
        if inner:
            where[inner[0]] = linear
    return load(0, tuple(where))


def _reshape_samples(rng: np.random.Generator) -> Iterable[Sample]:
    cases: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((6, 4), (2, 3, 4)), ((2, 3, 4), (6, 4)), ((6, 4), (4, 6)), ((4, 6), (24,)), ((), (1, 1)),
        ((1, 1), ()), ((0, 3), (5, 0)), ((3, 1, 5), (3, 5)), ((3, 5), (1, 3, 1, 5, 1)),
        ((2, 17), (17, 2)), ((8, 15), (2, 6, 10)),
    ]  # fmt: skip
    for old, new in cases:
        yield moved(ReshapeAttrs(new), draw(rng, *old))
    yield moved(ReshapeAttrs((2, 8)), rng.integers(0, 2, (4, 4)).astype(bool))


RESHAPE = register(
    OpDef(
        name="reshape",
        maths="y has x's elements in row-major order, in another shape",
        attrs=ReshapeAttrs,
        infer=_reshape_infer,
        ref=lambda a, x: x.reshape(a.shape).copy(),
        vjp=lambda o, a, args, outs, cts: (o.reshape(cts[0], o.type_of(args[0]).shape),),
        lower=Index(_reshape_lower),
        traits=MOVEMENT,
        samples=_reshape_samples,
    )
)


# --- permute ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PermuteAttrs(Attrs):
    """Result axis i is operand axis `perm[i]`."""

    perm: tuple[int, ...]


def _permute_infer(a: PermuteAttrs, x: TensorType) -> TensorType:
    if sorted(a.perm) != list(range(x.rank)):
        raise ShapeError(
            f"permute needs each axis of shape {shape_text(x.shape)} once, found axes {a.perm}"
        )
    return x.with_shape([x.shape[p] for p in a.perm])


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(perm)), key=lambda i: perm[i]))


def _permute_lower(s: Any, a: PermuteAttrs, types: Any, index: Any, load: Any) -> Any:
    return load(0, tuple(index[i] for i in _inverse(a.perm)))


def _permute_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        yield moved(PermuteAttrs((1, 0)), draw(rng, 3, size, dtype=np.float32))
    yield moved(PermuteAttrs(()), draw(rng))
    for perm in ((2, 0, 1), (1, 2, 0), (0, 2, 1)):
        yield moved(PermuteAttrs(perm), draw(rng, 2, 3, 5))


PERMUTE = register(
    OpDef(
        name="permute",
        maths="y's axis i is x's axis perm[i]",
        attrs=PermuteAttrs,
        infer=_permute_infer,
        ref=lambda a, x: x.transpose(a.perm).copy(),
        vjp=lambda o, a, args, outs, cts: (o.permute(cts[0], _inverse(a.perm)),),
        lower=Index(_permute_lower, affine=True),
        traits=MOVEMENT,
        samples=_permute_samples,
    )
)


# --- broadcast_to ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BroadcastToAttrs(Attrs):
    """`shape` of the result."""

    shape: Shape


def _broadcast_to_infer(a: BroadcastToAttrs, x: TensorType) -> TensorType:
    extra = len(a.shape) - x.rank
    fits = extra >= 0 and all(
        have in (1, want) for have, want in zip(x.shape, a.shape[extra:], strict=True)
    )
    if not fits or any(is_negative(s) for s in a.shape):
        raise ShapeError(
            f"cannot broadcast shape {shape_text(x.shape)} to {shape_text(a.shape)}: counted from "
            "the last axis, each of its sizes must be 1 or equal the new size"
        )
    return x.with_shape(a.shape)


def _broadcast_to_lower(s: Any, a: BroadcastToAttrs, types: Any, index: Any, load: Any) -> Any:
    shape = types[0].shape
    kept = index[len(a.shape) - len(shape) :]
    sizes = zip(kept, shape, strict=True)
    return load(0, tuple(s.index_const(0) if size == 1 else i for i, size in sizes))


def _broadcast_to_vjp(o: Any, a: Any, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    return (o.unbroadcast(cts[0], o.type_of(args[0]).shape),)


def _broadcast_to_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        yield moved(BroadcastToAttrs((2, size)), draw(rng, 1, dtype=np.float32))
        yield moved(BroadcastToAttrs((3, size)), draw(rng, size, dtype=np.float32))
    yield moved(BroadcastToAttrs((3, 4)), draw(rng))
    yield moved(BroadcastToAttrs((2, 3, 5)), draw(rng, 3, 1))


BROADCAST_TO = register(
    OpDef(
        name="broadcast_to",
        maths="y[.., i, ..] = x[.., i or 0 where x's size is 1, ..]",
        attrs=BroadcastToAttrs,
        infer=_broadcast_to_infer,
        ref=lambda a, x: np.broadcast_to(x, a.shape).copy(),
        vjp=_broadcast_to_vjp,
        lower=Index(_broadcast_to_lower, affine=True),
        traits=MOVEMENT,
        samples=_broadcast_to_samples,
    )
)


# --- flip ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlipAttrs(Attrs):
    """The `axes` whose order is reversed."""

    axes: tuple[int, ...]


def _flip_infer(a: FlipAttrs, x: TensorType) -> TensorType:
    check_axes("flip", a.axes, x.rank)
    return x


def _flip_lower(s: Any, a: FlipAttrs, types: Any, index: Any, load: Any) -> Any:
    where = list(index)
    for axis in a.axes:
        last = types[0].static_shape[axis] - 1
        where[axis] = s.index_add(s.index_mul(index[axis], -1), last)
    return load(0, tuple(where))


def _flip_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        yield moved(FlipAttrs((0,)), draw(rng, size, dtype=np.float32))
        yield moved(FlipAttrs((0,)), draw(rng, 3, size, dtype=np.float32))
    for axes in ((), (1,), (0, 2), (0, 1, 2)):
        yield moved(FlipAttrs(axes), draw(rng, 2, 3, 5))


FLIP = register(
    OpDef(
        name="flip",
        maths="y[.., i, ..] = x[.., size - 1 - i, ..] along each of axes",
        attrs=FlipAttrs,
        infer=_flip_infer,
        ref=lambda a, x: np.flip(x, a.axes).copy(),
        vjp=lambda o, a, args, outs, cts: (o.call("flip", cts[0], axes=a.axes),),
        lower=Index(_flip_lower, affine=True),
        traits=MOVEMENT,
        samples=_flip_samples,
    )
)


# --- concat ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConcatAttrs(Attrs):
    """The `axis` along which the operands are joined."""

    axis: int


def _concat_infer(a: ConcatAttrs, *xs: TensorType) -> TensorType:
    if not xs:
        raise ShapeError("concat takes one operand or more, found none")
    first = xs[0]
    check_same_dtype("concat", xs)
    check_axis("concat", a.axis, first.rank)
    for x in xs[1:]:
        apart = x.rank != first.rank or any(
            x.shape[i] != first.shape[i] for i in range(x.rank) if i != a.axis
        )
        if apart:
            raise ShapeError(
                f"concat along axis {a.axis} needs shapes that agree on all other axes, found "
                f"{' and '.join(shape_text(t.shape) for t in (first, x))}"
            )
    total: Size = 0
    for x in xs:
        total = total + x.shape[a.axis]
    return first.with_shape([total if i == a.axis else n for i, n in enumerate(first.shape)])


def _concat_lower(s: Any, a: ConcatAttrs, types: Any, index: Any, load: Any) -> Any:
    """Every operand is loaded at a clamped index; the last one that begins at or before the
    result's index is chosen."""
    sizes = int_sizes([t.shape[a.axis] for t in types], "concat's sizes")
    total = sum(sizes)
    start, chosen = 0, None
    for k, size in enumerate(sizes):
        if size == 0:
            continue
        here = s.index_clamp(s.index_add(index[a.axis], -start), size)
        x = load(k, (*index[: a.axis], here, *index[a.axis + 1 :]))
        if chosen is not None:
            x = s.select(s.index_in(index[a.axis], start, total), x, chosen)
        chosen, start = x, start + size
    return s.const(0, types[0].dtype) if chosen is None else chosen


def _concat_vjp(o: Any, a: ConcatAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    pieces, start = [], 0
    for x in args:
        shape = o.type_of(x).shape
        starts = tuple(start if i == a.axis else 0 for i in range(len(shape)))
        steps = (1,) * len(shape)
        pieces.append(o.call("slice", cts[0], starts=starts, steps=steps, shape=shape))
        start = start + shape[a.axis]
    return tuple(pieces)


def _concat_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        x, y = draw(rng, 3, size, dtype=np.float32), draw(rng, 3, 4, dtype=np.float32)
        yield moved(ConcatAttrs(1), x, y)
        yield moved(ConcatAttrs(0), x, x[:1].copy())
    yield moved(ConcatAttrs(0), draw(rng, 5))
    yield moved(ConcatAttrs(0), draw(rng, 2), draw(rng, 0), draw(rng, 3))
    yield moved(ConcatAttrs(0), draw(rng, 0), draw(rng, 0))
    yield moved(ConcatAttrs(1), draw(rng, 2, 1, 3), draw(rng, 2, 4, 3), draw(rng, 2, 2, 3))


CONCAT = register(
    OpDef(
        name="concat",
        maths="y is the operands, one after the other along axis",
        attrs=ConcatAttrs,
        infer=_concat_infer,
        ref=lambda a, *xs: np.concatenate(xs, a.axis),
        vjp=_concat_vjp,
        lower=Index(_concat_lower),
        traits=MOVEMENT,
        samples=_concat_samples,
    )
)
