"""Array functions that combine the elements along axes, by the names of the Array API standard.

`axis` is an int, a tuple of ints, or None for all axes; negative ones count from the end.
`keepdims` leaves the reduced axes with size 1. All raise ShapeError for an axis out of range or
named twice, DTypeError for an axis that is not an int.
"""

from __future__ import annotations

from treadle.ir.errors import ShapeError
from treadle.ir.types import dtype_of
from treadle.tracer.api.arguments import (
    Axis,
    accumulating,
    array_function,
    as_bool,
    as_float_tensor,
    axes_of,
    axis_of,
    flag,
    real,
)
from treadle.tracer.api.elementwise import where
from treadle.tracer.execute import apply, reshape_view
from treadle.tracer.promote import Operand, as_tensor
from treadle.tracer.tensor import Tensor


def _accumulator(x: Operand, dtype: object) -> Tensor:
    found = as_tensor(x)
    return accumulating(found) if dtype is None else found.astype(dtype_of(dtype), copy=False)


@array_function
def sum(x: Operand, axis: Axis = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """The sum over axes; 0 for no elements. Bools and integers are summed in int64, unless
    `dtype` says otherwise."""
    found = _accumulator(x, dtype)
    return apply("sum", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def prod(x: Operand, axis: Axis = None, dtype: object = None, keepdims: bool = False) -> Tensor:
    """The product over axes; 1 for no elements. Bools and integers are multiplied in int64,
    unless `dtype` says otherwise."""
    found = _accumulator(x, dtype)
    return apply("prod", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over axes; NaN for no elements. Integers become float32."""
    found = as_float_tensor(x)
    return apply("mean", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def var(x: Operand, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared deviation from the mean over axes, divided by the number of elements less
    `correction` (1: the unbiased estimate). Integers become float32."""
    found = as_float_tensor(x)
    axes = axes_of(found, axis)
    return apply(
        "var",
        found,
        axes=axes,
        correction=real("correction", correction),
        keepdims=flag("keepdims", keepdims),
    )


@array_function
def std(x: Operand, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of `var`. The derivative where all elements are equal is 0."""
    return root_or_zero(var(x, axis, correction, keepdims))


def root_or_zero(total: Tensor) -> Tensor:
    """The square root, with derivatives of 0 where it is 0 (and not inf)."""
    none = total == 0
    return where(none, 0.0, apply("sqrt", where(none, 1.0, total)))


@array_function
def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over axes; NaN if there is one. Equal ones share the gradient.

    Raises ShapeError where there are no elements.
    """
    found = as_tensor(x)
    return apply("max", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over axes; NaN if there is one. Equal ones share the gradient.

    Raises ShapeError where there are no elements.
    """
    found = as_tensor(x)
    return apply("min", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def any(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some element over axes is true (a number: not 0); false for no elements."""
    found = as_bool(x)
    return apply("any", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


@array_function
def all(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element over axes is true (a number: not 0); true for no elements."""
    found = as_bool(x)
    return apply("all", found, axes=axes_of(found, axis), keepdims=flag("keepdims", keepdims))


def _arg(op: str, x: Operand, axis: int | None, keepdims: bool) -> Tensor:
    found = as_tensor(x)
    if axis is not None:
        return apply(op, found, axes=(axis_of(found, axis),), keepdims=flag("keepdims", keepdims))
    flat = apply(op, reshape_view(found, (found.size,)), axes=(0,), keepdims=False)
    return reshape_view(flat, (1,) * found.ndim) if flag("keepdims", keepdims) else flat


@array_function
def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index, int64, of the first largest element along an axis, or in the flat tensor; of
    the first NaN if there is one. Raises ShapeError where there are no elements."""
    return _arg("argmax", x, axis, keepdims)


@array_function
def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index, int64, of the first smallest element along an axis, or in the flat tensor; of
    the first NaN if there is one. Raises ShapeError where there are no elements."""
    return _arg("argmin", x, axis, keepdims)


@array_function
def count_nonzero(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over axes are not 0, as int64."""
    return sum(as_bool(x), axis, keepdims=keepdims)


@array_function
def cumulative_sum(
    x: Operand, axis: int | None = None, dtype: object = None, include_initial: bool = False
) -> Tensor:
    """Running sums along an axis, which may be left out for rank 1. Bools and integers are summed
    in int64, unless `dtype` says otherwise. `include_initial` puts a 0 in front.

    Raises ShapeError for rank 0, and without an axis for higher ranks.
    """
    found = _accumulator(x, dtype)
    if axis is None and found.ndim != 1:
        raise ShapeError(f"cumulative_sum of a tensor of rank {found.ndim} needs an axis")
    along = axis_of(found, 0 if axis is None else axis)
    if flag("include_initial", include_initial):
        low = tuple(int(i == along) for i in range(found.ndim))
        found = apply("pad", found, low=low, high=(0,) * found.ndim, value=0)
    return apply("cumsum", found, axis=along)


@array_function
def cumsum(x: Operand, axis: int | None = None, dtype: object = None) -> Tensor:
    """`cumulative_sum` under NumPy's and PyTorch's name."""
    return cumulative_sum(x, axis, dtype)
