"""What op definitions share: type rules, float64 references, and safe derivative products.

A type rule is made for one op by name, so that its error names the op. All of them accept symbolic
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import Array, Attrs
from treadle.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    Shape,
    Size,
    TensorType,
    bool_,
    broadcast_shapes,
    reduced_shape,
    size_product,
)

NUMBERS: tuple[DType, ...] = INTEGERS + FLOATS
BITS: tuple[DType, ...] = (bool_, *INTEGERS)
BOOLS: tuple[DType, ...] = (bool_,)

_FAMILY_NAMES = {
    DTYPES: "tensors of any dtype",
    FLOATS: "float tensors (float32, float64)",
    INTEGERS: "integer tensors",
    NUMBERS: "numeric tensors (integers or floats)",
    BITS: "bool or integer tensors",
    BOOLS: "bool tensors",
}

Infer = Callable[..., TensorType]
Values = Sequence[Any]


@dataclass(frozen=True, slots=True)
class ReduceAttrs(Attrs):
    """Axes counted from the front, ascending; `keepdims` leaves them with size 1."""

    axes: tuple[int, ...]
    keepdims: bool = False


# --- type rules ------------------------------------------------------------------------------


def check_count(name: str, types: Sequence[TensorType], count: int) -> None:
    """Raise ShapeError unless the op got `count` operands."""
    if len(types) != count:
        raise ShapeError(f"{name} takes {count} operand(s), found {len(types)}")


def check_dtype(name: str, t: TensorType, allowed: tuple[DType, ...]) -> None:
    """Raise DTypeError unless `t` has one of the allowed dtypes."""
    if t.dtype not in allowed:
        expected = _FAMILY_NAMES.get(allowed) or " or ".join(d.name for d in allowed)
        raise DTypeError(f"{name} takes {expected}, found {t}; convert it with astype")


def check_same_dtype(name: str, types: Sequence[TensorType]) -> None:
    """Raise DTypeError unless all operands have one dtype."""
    if any(t.dtype != types[0].dtype for t in types):
        listed = ", ".join(map(str, types))
        raise DTypeError(f"the operands of {name} must have one dtype, found {listed}")


def elementwise_rule(
    name: str, count: int, allowed: tuple[DType, ...], result: DType | None = None
) -> Infer:
    """`count` operands of one allowed dtype broadcast together; `result` overrides the dtype."""

    def infer(a: Attrs, *types: TensorType) -> TensorType:
        check_count(name, types, count)
        for t in types:
            check_dtype(name, t, allowed)
        check_same_dtype(name, types)
        shape = types[0].shape if count == 1 else broadcast_shapes(*(t.shape for t in types))
        return TensorType(result or types[0].dtype, shape)

    return infer


def check_axis(name: str, axis: int, rank: int) -> None:
    """Raise ShapeError unless 0 <= axis < rank: attributes hold axes counted from the front."""
    if not 0 <= axis < rank:
        raise ShapeError(f"{name}: axis {axis} is out of range for a tensor of rank {rank}")


def check_axes(name: str, axes: tuple[int, ...], rank: int) -> None:
    """Raise ShapeError unless the axes are in range, ascending and distinct."""
    for axis in axes:
        check_axis(name, axis, rank)
    if any(i >= j for i, j in pairwise(axes)):
        raise ShapeError(f"{name}: axes {axes} must be ascending and distinct")


def reduction_rule(
    name: str,
    allowed: tuple[DType, ...],
    result: DType | None = None,
    *,
    empty: bool = True,
    single: bool = False,
) -> Infer:
    """Reduces `a.axes`. `empty` says that no elements reduce to an identity; `single` asks for
    exactly one axis."""

    def infer(a: ReduceAttrs, *types: TensorType) -> TensorType:
        check_count(name, types, 1)
        (t,) = types
        check_dtype(name, t, allowed)
        check_axes(name, a.axes, t.rank)
        if single and len(a.axes) != 1:
            raise ShapeError(f"{name} reduces exactly one axis, found axes {a.axes}")
        if not empty and any(t.shape[i] == 0 for i in a.axes):
            raise ShapeError(f"{name} of no elements: {t} has size 0 along axes {a.axes}")
        return TensorType(result or t.dtype, reduced_shape(t.shape, a.axes, a.keepdims))

    return infer


# --- references ------------------------------------------------------------------------------

_WIDER: dict[Any, Any] = {
    np.dtype(np.float32): np.float64,
    np.dtype(np.float64): np.longdouble,
}


def widened(x: Array) -> Array:
    """A float array in the next wider type, in which references accumulate. (Where the platform's
    long double is a double, float64 stays as it is.)"""
    wide: Array = x.astype(_WIDER[x.dtype])
    return wide


def in_float64(fn: Callable[..., Any]) -> Callable[..., Array]:
    """A reference that computes `fn` in float64 and rounds once to the operands' dtype.

    For float32 this is correctly rounded but for the rare near-tie; NumPy's float32 loops are
    off by up to 4 ULP.
    """

    def ref(a: Attrs, *xs: Array) -> Array:
        return np.asarray(fn(*(x.astype(np.float64) for x in xs))).astype(xs[0].dtype)

    return ref


def numpy_ref(fn: Callable[..., Any]) -> Callable[..., Array]:
    """A reference that is one NumPy function of the arrays."""
    return lambda a, *xs: np.asarray(fn(*xs))


# --- derivatives -----------------------------------------------------------------------------
#
# What was not chosen (the other branch of a `where`) gets the cotangent 0, and contributes 0 even
# where its local derivative is infinite or NaN. Every derivative rule multiplies by `scaled` and
# divides by `divided`, which see to that.


def scaled(o: Ops[Any], ct: Any, factor: Any) -> Any:
    """ct * factor, without the NaN of 0 * inf, and of 0 * NaN where ct is the 0."""
    t = o.type_of(ct)
    if isinstance(factor, (int, float)):
        return o.mul(ct, factor)
    return o.call("chain", ct, factor) if t.dtype.is_float else o.mul(ct, factor)


def divided(o: Ops[Any], ct: Any, divisor: Any) -> Any:
    """ct / divisor, and 0 where ct is 0 and the divisor is 0 or NaN."""
    return o.div(ct, safe_divisor(o, ct, divisor))


def safe_divisor(o: Ops[Any], ct: Any, divisor: Any) -> Any:
    """The divisor, but 1 where ct is 0 and the divisor is 0 or NaN."""
    singular = o.logical_not(o.gt(o.call("abs", divisor), 0))
    return o.where(o.logical_and(o.eq(ct, 0), singular), 1, divisor)


def kept_shape(shape: Sequence[Size], axes: Sequence[int]) -> Shape:
    """The shape with size 1 along the axes."""
    return reduced_shape(shape, axes, keepdims=True)


def with_kept_axes(o: Ops[Any], reduced: Any, shape: Sequence[Size], axes: Sequence[int]) -> Any:
    """A reduction's result (or its cotangent) reshaped as if keepdims had been asked for."""
    return o.reshape(reduced, kept_shape(shape, axes))


def count_along(o: Ops[Any], x: Any, axes: Sequence[int]) -> Any:
    """How many elements of `x` each result of a reduction over `axes` combines: a float where
    the sizes are known, else a value of kept shape, counted when the program runs."""
    t = o.type_of(x)
    count = size_product(t.shape[i] for i in axes)
    if isinstance(count, int):
        return float(count)
    return o.sum(o.ones_like(x), axes, keepdims=True)
