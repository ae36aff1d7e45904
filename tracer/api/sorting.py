"""Sorting, and running products and extremes.

One order for all: NaN counts as greater than every number (last ascending, first descending, as in
NumPy and PyTorch), -0.0 equals 0.0, and equal elements keep their order, descending as well.
Gradients go to the elements that were picked.
"""

from __future__ import annotations

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.ops.sorting import TOPK_LIMIT
from treadle.ir.types import dtype_of
from treadle.tracer.api.arguments import accumulating, array_function, axis_of, flag
from treadle.tracer.api.creation import as_int
from treadle.tracer.api.manipulation import moveaxis
from treadle.tracer.execute import apply, apply_multi
from treadle.tracer.promote import Operand, as_tensor
from treadle.tracer.tensor import Tensor


def _in_order(x: Operand, axis: int, descending: bool, stable: bool) -> tuple[Tensor, Tensor]:
    """Sorted values and where they were, along `axis`. Sorts are stable, asked to or not."""
    flag("stable", stable)
    source = as_tensor(x)
    where = axis_of(source, axis)
    rows = moveaxis(source, where, -1)
    found = apply_multi("sort", rows, descending=flag("descending", descending))
    values, places = (moveaxis(part, -1, where) for part in found)
    return values, places


@array_function
def sort(x: Operand, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along `axis`.

    Raises ShapeError for rank 0 or an axis out of range.
    """
    return _in_order(x, axis, descending, stable)[0]


@array_function
def argsort(
    x: Operand, /, *, axis: int = -1, descending: bool = False, stable: bool = True
) -> Tensor:
    """The indices, int64, that sort `axis`. With `sort` of the same operand it is one sort in a
    jitted function. Raises ShapeError for rank 0 or an axis out of range."""
    return _in_order(x, axis, descending, stable)[1]


@array_function
def topk(
    x: Operand, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """The `k` largest (else smallest) elements along `axis`, best first, and their indices, int64;
    of equal ones those that come first. `sorted` is as in PyTorch; the order is the same anyway.

    Raises ArgumentError for a k that is negative or more than the axis holds, ShapeError for rank
    0 or an axis out of range.
    """
    flag("sorted", sorted)
    source = as_tensor(x)
    where, count = axis_of(source, axis), as_int(k, "topk's k")
    if not 0 <= count <= source.shape[where]:
        raise ArgumentError(
            f"k must be from 0 to the size {source.shape[where]} of axis {where}, found {count}"
        )
    rows = moveaxis(source, where, -1)
    best = flag("largest", largest)
    if count <= TOPK_LIMIT:
        found = apply_multi("topk", rows, k=count, largest=best)
    else:
        found = tuple(v[..., :count] for v in apply_multi("sort", rows, descending=best))
    values, places = (moveaxis(part, -1, where) for part in found)
    return values, places


# --- running products and extremes -----------------------------------------------------------


@array_function
def cumulative_prod(
    x: Operand, axis: int | None = None, dtype: object = None, include_initial: bool = False
) -> Tensor:
    """Running products along an axis, which may be left out for rank 1. Bools and integers are
    multiplied in int64, unless `dtype` says otherwise. `include_initial` puts a 1 in front. The
    gradient is exact where factors are 0.

    Raises ShapeError for rank 0, and without an axis for higher ranks.
    """
    given = as_tensor(x)
    found = accumulating(given) if dtype is None else given.astype(dtype_of(dtype), copy=False)
    if axis is None and found.ndim != 1:
        raise ShapeError(f"cumulative_prod of a tensor of rank {found.ndim} needs an axis")
    along = axis_of(found, 0 if axis is None else axis)
    if flag("include_initial", include_initial):
        low = tuple(int(i == along) for i in range(found.ndim))
        found = apply("pad", found, low=low, high=(0,) * found.ndim, value=1)
    return apply("cumprod", found, axis=along)


@array_function
def cumprod(x: Operand, axis: int | None = None, dtype: object = None) -> Tensor:
    """`cumulative_prod` under NumPy's and PyTorch's name."""
    return cumulative_prod(x, axis, dtype)


@array_function
def cummax(x: Operand, axis: int) -> tuple[Tensor, Tensor]:
    """The largest of the elements so far along `axis`, and its index, int64; the last of equals.
    From the first NaN on it is NaN. Raises ShapeError for an axis out of range."""
    return _extreme("cummax", x, axis)


@array_function
def cummin(x: Operand, axis: int) -> tuple[Tensor, Tensor]:
    """The smallest of the elements so far along `axis`, and its index, int64; the last of equals.
    From the first NaN on it is NaN. Raises ShapeError for an axis out of range."""
    return _extreme("cummin", x, axis)


def _extreme(name: str, x: Operand, axis: int) -> tuple[Tensor, Tensor]:
    source = as_tensor(x)
    values, places = apply_multi(name, source, axis=axis_of(source, axis))
    return values, places
