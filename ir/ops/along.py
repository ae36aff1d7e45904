"""Ops that address elements along one axis by a tensor of indices: take_along, add_along.

The indices have x's rank; for each of their places they name the element along `axis` of x at the
same place of the other axes, whose sizes x and the indices share. Negative indices count from the
end. An index out of range is a fault where `checked`; otherwise it is clamped to the axis.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.indexing import IndexAttrs, fault_message, resolve_indices
from treadle.ir.ops.rules import NUMBERS, check_axis, check_dtype, check_same_dtype, widened
from treadle.ir.scalar import Index, Kernel
from treadle.ir.types import TensorType, shape_text


@dataclass(frozen=True, slots=True)
class AlongAttrs(Attrs):
    """The `axis` that the indices address; `checked`: faults, or clamps."""

    axis: int
    checked: bool = True


# --- type rules ------------------------------------------------------------------------------


def _check_indices(name: str, a: AlongAttrs, x: TensorType, idx: TensorType) -> None:
    check_axis(name, a.axis, x.rank)
    if not idx.dtype.is_integer:
        raise DTypeError(f"{name} takes integer indices, found {idx}")
    others = [i for i in range(x.rank) if i != a.axis]
    if idx.rank != x.rank or any(idx.shape[i] != x.shape[i] for i in others):
        raise ShapeError(
            f"{name} along axis {a.axis} of shape {shape_text(x.shape)} needs indices of that "
            f"shape but for the axis, found {shape_text(idx.shape)}"
        )
    if x.shape[a.axis] == 0 and idx.size != 0:
        raise ShapeError(
            f"{name}: axis {a.axis} of shape {shape_text(x.shape)} has size 0, so no index is "
            f"legal; found indices of shape {shape_text(idx.shape)}"
        )


def _take_infer(a: AlongAttrs, x: TensorType, idx: TensorType) -> TensorType:
    _check_indices("take_along", a, x, idx)
    return x.with_shape(idx.shape)


def _add_infer(a: AlongAttrs, x: TensorType, v: TensorType, idx: TensorType) -> TensorType:
    check_same_dtype("add_along", (x, v))
    check_dtype("add_along", x, NUMBERS)
    _check_indices("add_along", a, x, idx)
    if v.shape != idx.shape:
        raise ShapeError(
            f"add_along needs values of the indices' shape {shape_text(idx.shape)}, found "
            f"{shape_text(v.shape)}"
        )
    return x


# --- references ------------------------------------------------------------------------------


def _resolved(name: str, a: AlongAttrs, x: Array, idx: Array) -> Array:
    (found,) = resolve_indices(name, IndexAttrs((a.axis,), a.checked), x.shape, [idx])
    return found


def _take_ref(a: AlongAttrs, x: Array, idx: Array) -> Array:
    return np.take_along_axis(x, _resolved("take_along", a, x, idx), a.axis)


def _add_ref(a: AlongAttrs, x: Array, v: Array, idx: Array) -> Array:
    """Floats are added up in the next wider dtype and rounded once."""
    at = _resolved("add_along", a, x, idx)
    wide = widened(x) if x.dtype.kind == "f" else x.copy()
    places: list[Array] = list(np.indices(idx.shape, sparse=True))
    places[a.axis] = at
    np.add.at(wide, tuple(places), v.astype(wide.dtype))
    return wide.astype(x.dtype)


# --- derivatives: the forward op has checked the indices already ------------------------------


def _take_vjp(o: Any, a: AlongAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    x, idx = args
    back = o.call("add_along", o.zeros_like(x), cts[0], idx, axis=a.axis, checked=False)
    return back, None


def _add_vjp(o: Any, a: AlongAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    idx = args[2]
    return cts[0], o.call("take_along", cts[0], idx, axis=a.axis, checked=False), None


# --- lowering --------------------------------------------------------------------------------


def _take_lower(s: Any, a: AlongAttrs, types: Any, index: Any, load: Any) -> Any:
    size = types[0].static_shape[a.axis]
    fault = fault_message("take_along", a.axis, size) if a.checked else ""
    where = s.index_of(load(1, tuple(index)), size, wrap=True, fault=fault)
    return load(0, (*index[: a.axis], where, *index[a.axis + 1 :]))


# --- samples ---------------------------------------------------------------------------------

_CASES: tuple[tuple[tuple[int, ...], int, int], ...] = (
    # x's shape, axis, how many indices along it
    ((5,), 0, 7),
    ((3, 5), 1, 4),
    ((3, 5), 0, 4),
    ((2, 3, 4), 1, 5),
    ((2, 3, 4), 2, 1),
    ((3, 5), 1, 0),
    ((0, 5), 1, 3),
    ((3, 0), 1, 0),
)


def _along_samples(written: bool, **bounds: float) -> Any:
    """Samples of take_along, or, with an operand of values to add, of add_along."""

    def one(
        rng: np.random.Generator, case: Any, dtype: Any, checked: bool = True, index: Any = np.int64
    ) -> Sample:
        shape, axis, count = case
        places = (*shape[:axis], count, *shape[axis + 1 :])
        x = rng.standard_normal(shape).astype(dtype)
        size, spare = shape[axis], 0 if checked else 2
        idx = rng.integers(-size - spare, max(size + spare, 1), places).astype(index)
        v = [rng.standard_normal(places).astype(dtype)] if written else []
        return Sample(
            (x, *v, idx), AlongAttrs(axis, checked), dtype is np.float64, **bounds
        )  # fmt: skip

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for case in _CASES:
            yield one(rng, case, np.float64)
            yield one(rng, case, np.float32, checked=False)
        for size in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17):
            yield one(rng, ((3, size), 1, 5), np.float32)
            yield one(rng, ((5, size), 0, 4), np.float32, index=np.int32)
        yield one(rng, ((5, 3), 0, 4), np.int64)

    return samples


TAKE_ALONG = register(
    OpDef(
        name="take_along",
        maths="y[.., i, ..] = x[.., idx[.., i, ..], ..] along axis",
        attrs=AlongAttrs,
        infer=_take_infer,
        ref=_take_ref,
        vjp=_take_vjp,
        lower=Index(_take_lower),
        traits=frozenset({Trait.MOVEMENT, Trait.CAN_FAULT}),
        samples=_along_samples(written=False),
    )
)

ADD_ALONG = register(
    OpDef(
        name="add_along",
        maths="y = x with y[.., idx[.., i, ..], ..] += v[.., i, ..] along axis, in the order of i",
        attrs=AlongAttrs,
        infer=_add_infer,
        ref=_add_ref,
        vjp=_add_vjp,
        lower=Kernel("add_along"),
        traits=frozenset({Trait.CAN_FAULT}),
        samples=_along_samples(written=True, ulps=1, scale=16),
    )
)
