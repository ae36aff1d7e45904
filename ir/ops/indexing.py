"""Ops that address elements by integer tensors: gather, scatter, scatter_add.

The index operands, one for each of `axes`, have one shape I; together they address, for each place
in I, a block of x's remaining axes. `gather` reads blocks: its result has shape I + the remaining
dimensions. `scatter` and `scatter_add` write blocks `v` of that shape. Negative indices count from
the end. An index out of range is a fault where `checked`; otherwise it is clamped to the axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, IndexFault, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import NUMBERS, check_dtype, check_same_dtype, widened
from treadle.ir.scalar import Index, Kernel
from treadle.ir.types import Shape, TensorType, int64, shape_text, size_product


@dataclass(frozen=True, slots=True)
class IndexAttrs(Attrs):
    """The `axes` that the index operands address, in their order; `checked`: faults, or clamps."""

    axes: tuple[int, ...]
    checked: bool = True


def fault_message(name: str, axis: int, size: int) -> str:
    """How the IndexFault of an index out of range begins; `, found <index>` follows."""
    return f"{name}: index out of range for axis {axis} of size {size}"


def remaining_axes(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes that no index addresses."""
    return tuple(i for i in range(rank) if i not in axes)


# --- type rules ------------------------------------------------------------------------------


def _addressed_shape(name: str, a: IndexAttrs, x: TensorType, idx: Sequence[TensorType]) -> Shape:
    """The shape of all blocks that the indices address: I + x's remaining dimensions."""
    axes = a.axes
    if not axes or len(set(axes)) != len(axes) or any(not 0 <= i < x.rank for i in axes):
        raise ShapeError(
            f"{name} of shape {shape_text(x.shape)} needs distinct axes from 0 to {x.rank - 1}, "
            f"found {axes}"
        )
    if len(idx) != len(axes):
        raise ShapeError(f"{name} needs one index tensor an axis, found {len(idx)} for axes {axes}")
    for t in idx:
        if not t.dtype.is_integer:
            raise DTypeError(f"{name} takes integer indices, found {t}")
        if t.shape != idx[0].shape:
            raise ShapeError(
                f"{name} needs index tensors of one shape, found {shape_text(idx[0].shape)} and "
                f"{shape_text(t.shape)}; broadcast them first"
            )
    for axis in axes:
        if x.shape[axis] == 0 and idx[0].size != 0:
            raise ShapeError(
                f"{name}: axis {axis} of shape {shape_text(x.shape)} has size 0, so no index is "
                f"legal; found indices of shape {shape_text(idx[0].shape)}"
            )
    return (*idx[0].shape, *(x.shape[i] for i in remaining_axes(x.rank, axes)))


def _gather_infer(a: IndexAttrs, x: TensorType, *idx: TensorType) -> TensorType:
    return x.with_shape(_addressed_shape("gather", a, x, idx))


def _scatter_rule(name: str) -> Any:
    def infer(a: IndexAttrs, x: TensorType, v: TensorType, *idx: TensorType) -> TensorType:
        check_same_dtype(name, (x, v))
        if name == "scatter_add":
            check_dtype(name, x, NUMBERS)
        expected = _addressed_shape(name, a, x, idx)
        if v.shape != expected:
            raise ShapeError(
                f"{name} into {shape_text(x.shape)} by indices of shape "
                f"{shape_text(idx[0].shape)} needs values of shape {shape_text(expected)}, found "
                f"{shape_text(v.shape)}"
            )
        return x

    return infer


# --- references ------------------------------------------------------------------------------


def resolve_indices(
    name: str, a: IndexAttrs, shape: Sequence[int], idx: Sequence[Array]
) -> list[Array]:
    """Indices as int64 in range. Raises IndexFault naming the first bad one if `a.checked`."""
    found = []
    for axis, index in zip(a.axes, idx, strict=True):
        size = shape[axis]
        wrapped = index.astype(np.int64)
        bad = (wrapped < -size) | (wrapped >= size)
        if a.checked and bad.any():
            value = int(wrapped[bad][0])
            raise IndexFault(f"{fault_message(name, axis, size)}, found {value}")
        wrapped = np.where(wrapped < 0, wrapped + size, wrapped)
        found.append(np.clip(wrapped, 0, max(size - 1, 0)))
    return found


def _gather_ref(a: IndexAttrs, x: Array, *idx: Array) -> Array:
    where = resolve_indices("gather", a, x.shape, idx)
    front = x.transpose(*a.axes, *remaining_axes(x.ndim, a.axes))
    return np.array(front[tuple(where)])


def _flat_blocks(
    a: IndexAttrs, x: Array, v: Array, where: Sequence[Array]
) -> tuple[Array, Array, Array]:
    """x as a copy of (addressable places, block), v as (writes, block), and each write's place."""
    rest = remaining_axes(x.ndim, a.axes)
    front = x.transpose(*a.axes, *rest)
    sizes = front.shape[: len(a.axes)]
    block = int(np.prod([x.shape[i] for i in rest], dtype=np.int64))
    rows = front.reshape(int(np.prod(sizes, dtype=np.int64)), block).copy()
    place = np.zeros(where[0].shape, np.int64)
    for size, index in zip(sizes, where, strict=True):
        place = place * size + index
    return rows, v.reshape(place.size, block), place.reshape(-1)


def _unflatten(a: IndexAttrs, rows: Array, x: Array) -> Array:
    order = (*a.axes, *remaining_axes(x.ndim, a.axes))
    front = rows.reshape([x.shape[i] for i in order])
    return front.transpose(np.argsort(order)).copy()


def _scatter_add_ref(a: IndexAttrs, x: Array, v: Array, *idx: Array) -> Array:
    """Floats are added up in the next wider dtype and rounded once."""
    where = resolve_indices("scatter_add", a, x.shape, idx)
    wide = widened(x) if x.dtype.kind == "f" else x
    rows, writes, place = _flat_blocks(a, wide, v.astype(wide.dtype), where)
    np.add.at(rows, place, writes)
    return _unflatten(a, rows, x).astype(x.dtype)


def _scatter_ref(a: IndexAttrs, x: Array, v: Array, *idx: Array) -> Array:
    """The winner of each place is the greatest write number, so that the last write wins whatever
    order NumPy would assign in."""
    where = resolve_indices("scatter", a, x.shape, idx)
    rows, writes, place = _flat_blocks(a, x, v, where)
    winner = np.full(len(rows), -1, np.int64)
    np.maximum.at(winner, place, np.arange(len(writes)))
    written = winner >= 0
    rows[written] = writes[winner[written]]
    return _unflatten(a, rows, x)


# --- derivatives -----------------------------------------------------------------------------
#
# The forward op has checked the indices already, so that no op in here faults again.


def _gather_vjp(o: Any, a: IndexAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    x, *idx = args
    zeros = o.zeros_like(x)
    back = o.call("scatter_add", zeros, cts[0], *idx, axes=a.axes, checked=False)
    return (back, *(None for _ in idx))


def _scatter_add_vjp(o: Any, a: IndexAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    _, _, *idx = args
    read = o.call("gather", cts[0], *idx, axes=a.axes, checked=False)
    return (cts[0], read, *(None for _ in idx))


def _scatter_vjp(o: Any, a: IndexAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """x's gradient is 0 where it was written over; of several writes to one place only the last
    has a gradient. Which is last, a scatter of the writes' own numbers tells."""
    (x, v, *idx), (ct,) = args, cts
    tx, ti = o.type_of(x), o.type_of(idx[0])
    kept = o.call("scatter", ct, o.zeros_like(v), *idx, axes=a.axes, checked=False)
    number = o.reshape(o.iota((size_product(ti.shape),), 0, int64), ti.shape)
    nobody = o.full(tuple(tx.shape[i] for i in a.axes), -1, int64)
    every = tuple(range(len(a.axes)))
    last = o.call("scatter", nobody, number, *idx, axes=every, checked=False)
    wins = o.eq(o.call("gather", last, *idx, axes=every, checked=False), number)
    wins = o.reshape(wins, (*ti.shape, *(1 for _ in range(tx.rank - len(a.axes)))))
    read = o.call("gather", ct, *idx, axes=a.axes, checked=False)
    return (kept, o.where(wins, read, 0.0), *(None for _ in idx))


# --- lowering --------------------------------------------------------------------------------


def _gather_lower(s: Any, a: IndexAttrs, types: Any, index: Any, load: Any) -> Any:
    shape = types[0].static_shape
    rank = types[1].rank
    place, block = tuple(index[:rank]), index[rank:]
    where: list[Any] = [None] * len(shape)
    for axis, i in zip(remaining_axes(len(shape), a.axes), block, strict=True):
        where[axis] = i
    for k, axis in enumerate(a.axes):
        fault = fault_message("gather", axis, shape[axis]) if a.checked else ""
        where[axis] = s.index_of(load(k + 1, place), shape[axis], wrap=True, fault=fault)
    return load(0, tuple(where))


# --- samples ---------------------------------------------------------------------------------

_CASES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    # x's shape, axes, I
    ((5,), (0,), (7,)),
    ((5,), (0,), ()),
    ((5, 3), (0,), (4,)),
    ((5, 3), (1,), (2, 4)),
    ((4, 5, 3), (0, 2), (6,)),
    ((4, 5, 3), (2, 0), (2, 3)),
    ((2, 4, 3), (1,), (6,)),
    ((2, 4, 3, 2), (1, 2), (5,)),
    ((4, 5), (0, 1), (9,)),
    ((4, 5), (0,), (0,)),
    ((0, 5), (0,), (0,)),
    ((4, 0), (0,), (3,)),
)


def _draw_indices(
    rng: np.random.Generator, sizes: Sequence[int], shape: tuple[int, ...], checked: bool
) -> tuple[Array, ...]:
    """Indices in range, negative ones too; beyond it where they are clamped."""
    spare = 0 if checked else 2
    return tuple(
        rng.integers(-n - spare, n + spare, shape) if n else np.zeros(shape, np.int64)
        for n in sizes
    )


def _index_samples(written: bool, **bounds: float) -> Any:
    """Samples of gather, or, with an operand of values to write, of the scatters."""

    def one(
        rng: np.random.Generator, case: Any, dtype: Any, checked: bool = True, index: Any = np.int64
    ) -> Sample:
        shape, axes, places = case
        x = rng.standard_normal(shape).astype(dtype)
        idx = _draw_indices(rng, [shape[i] for i in axes], places, checked)
        v_shape = (*places, *(shape[i] for i in remaining_axes(len(shape), axes)))
        v = [rng.standard_normal(v_shape).astype(dtype)] if written else []
        args = (x, *v, *(i.astype(index) for i in idx))
        return Sample(args, IndexAttrs(axes, checked), dtype is np.float64, **bounds)

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for case in _CASES:
            yield one(rng, case, np.float64)
            yield one(rng, case, np.float32, checked=False)
        for size in (0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17):
            yield one(rng, ((3, size), (0,), (5,)), np.float32)
            yield one(rng, ((7,), (0,), (size,)), np.float32, index=np.int32)
        yield one(rng, ((5, 3), (0,), (4,)), np.int64)

    return samples


GATHER = register(
    OpDef(
        name="gather",
        maths="y[i.., r..] = x[idx[i..] on axes, r.. on the remaining axes]",
        attrs=IndexAttrs,
        infer=_gather_infer,
        ref=_gather_ref,
        vjp=_gather_vjp,
        lower=Index(_gather_lower),
        traits=frozenset({Trait.MOVEMENT, Trait.CAN_FAULT}),
        samples=_index_samples(written=False),
    )
)

SCATTER = register(
    OpDef(
        name="scatter",
        maths="y = x with y[idx[i..] on axes, r..] = v[i.., r..], the last write wins",
        attrs=IndexAttrs,
        infer=_scatter_rule("scatter"),
        ref=_scatter_ref,
        vjp=_scatter_vjp,
        lower=Kernel("scatter"),
        traits=frozenset({Trait.MOVEMENT, Trait.CAN_FAULT}),
        samples=_index_samples(written=True),
    )
)

SCATTER_ADD = register(
    OpDef(
        name="scatter_add",
        maths="y = x with y[idx[i..] on axes, r..] += v[i.., r..], repeated indices add up",
        attrs=IndexAttrs,
        infer=_scatter_rule("scatter_add"),
        ref=_scatter_add_ref,
        vjp=_scatter_add_vjp,
        lower=Kernel("scatter_add"),
        traits=frozenset({Trait.CAN_FAULT}),
        samples=_index_samples(written=True, ulps=1, scale=16),
    )
)
