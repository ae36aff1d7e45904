"""Ops without operands: `const` and `iota`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import (
    NOT_DIFFERENTIABLE,
    Array,
    ArrayData,
    Attrs,
    OpDef,
    Sample,
    register,
)
from treadle.ir.scalar import Index
from treadle.ir.types import (
    DTYPES,
    DType,
    Shape,
    TensorType,
    bool_,
    normalize_axis,
    shape_text,
)

# --- const -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConstAttrs(Attrs):
    """`data`: the array that the constant is."""

    data: ArrayData


def _const_infer(a: ConstAttrs) -> TensorType:
    return TensorType(a.data.dtype, a.data.shape)


def _const_lower(s: Any, a: ConstAttrs, types: Any, index: Any, load: Any) -> Any:
    """One element everywhere becomes an immediate; other constants are buffers of the module."""
    array = a.data.array()
    if array.size == 0:
        return s.const(0, a.data.dtype)
    first = array.reshape(-1)[0]
    if array.tobytes() != first.tobytes() * array.size:
        raise ValueError(
            f"a constant of shape {shape_text(a.data.shape)} with different elements has no "
            "scalar form; it is a buffer of the module"
        )
    return s.const(first.item(), a.data.dtype)


def _const_samples(rng: np.random.Generator) -> Iterable[Sample]:
    arrays = [np.asarray(1, dtype.dtype) for dtype in DTYPES]
    arrays += [np.asarray(value, np.float32) for value in (-0.0, np.inf, np.nan)]
    arrays += [np.full(shape, 2.5) for shape in ((0,), (1,), (3, 5))]
    for array in arrays:
        yield Sample((), ConstAttrs(ArrayData.of(array)), differentiable=False)


CONST = register(
    OpDef(
        name="const",
        maths="y = data",
        attrs=ConstAttrs,
        infer=_const_infer,
        ref=lambda a: a.data.array().copy(),
        vjp=NOT_DIFFERENTIABLE,
        lower=Index(_const_lower),
        samples=_const_samples,
    )
)


# --- iota ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IotaAttrs(Attrs):
    """`shape` of the result, the `axis` along which it counts, its `dtype` (not bool)."""

    shape: Shape
    axis: int
    dtype: DType


def _iota_infer(a: IotaAttrs) -> TensorType:
    if a.dtype is bool_:
        raise DTypeError("iota counts in an integer or float dtype, found bool")
    if any(isinstance(s, int) and s < 0 for s in a.shape):
        raise ShapeError(f"iota needs dimensions of at least 0, found {shape_text(a.shape)}")
    if normalize_axis(a.axis, len(a.shape), "iota's axis") != a.axis or not a.shape:
        raise ShapeError(f"iota's axis {a.axis} is not one of shape {shape_text(a.shape)}")
    return TensorType(a.dtype, a.shape)


def _iota_ref(a: IotaAttrs) -> Array:
    shape = TensorType(a.dtype, a.shape).static_shape
    count = np.arange(shape[a.axis]).astype(a.dtype.dtype)
    along = count.reshape([-1 if i == a.axis else 1 for i in range(len(shape))])
    return np.broadcast_to(along, shape).copy()


def _iota_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for dtype in DTYPES:
        if dtype is not bool_:
            yield Sample((), IotaAttrs((17,), 0, dtype), differentiable=False)
    for shape in ((0,), (1,), (3, 5), (2, 3, 16)):
        for axis in range(len(shape)):
            yield Sample((), IotaAttrs(shape, axis, DTYPES[-1]), differentiable=False)


IOTA = register(
    OpDef(
        name="iota",
        maths="y[i0, i1, ..] = i_axis",
        attrs=IotaAttrs,
        infer=_iota_infer,
        ref=_iota_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Index(lambda s, a, types, index, load: s.from_index(index[a.axis], a.dtype)),
        samples=_iota_samples,
    )
)
