"""Diagonals of matrices: diagonal, diag, trace."""

from __future__ import annotations

from treadle.ir.errors import ShapeError
from treadle.ir.types import int64, normalize_axis, shape_text
from treadle.tracer.api.arguments import accumulating, array_function
from treadle.tracer.api.creation import as_int, zeros
from treadle.tracer.api.elementwise import where
from treadle.tracer.api.manipulation import permute_dims, reshape
from treadle.tracer.execute import apply, view
from treadle.tracer.promote import Operand, as_tensor
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import SliceMap


@array_function
def diagonal(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements [.., i, .., i + offset, ..] of the axes `axis1` and `axis2`, as a last axis in
    place of the two. A view where the two axes are the last ones of contiguous data.

    Raises ShapeError for rank below 2, an axis out of range, or one axis given twice.
    """
    source, shift = as_tensor(x), as_int(offset, "the offset of diagonal")
    if source.ndim < 2:
        raise ShapeError(f"diagonal needs two axes or more, found {source.type}")
    first, second = (normalize_axis(a, source.ndim) for a in (axis1, axis2))
    if first == second:
        raise ShapeError(f"diagonal needs two different axes, found {axis1} and {axis2}")
    rest = [n for n in range(source.ndim) if n not in (first, second)]
    rows, columns = source.shape[first], source.shape[second]
    count = max(min(rows + min(shift, 0), columns - max(shift, 0)), 0)
    start = (shift if shift >= 0 else -shift * columns) if count else 0
    lead = tuple(source.shape[n] for n in rest)
    flat = reshape(permute_dims(source, (*rest, first, second)), (*lead, rows * columns))
    ones = (1,) * len(lead)
    return view(flat, SliceMap((*(0 for _ in lead), start), (*ones, columns + 1), (*lead, count)))


@array_function
def diag(x: Operand, k: int = 0) -> Tensor:
    """Of a matrix its `k`-th diagonal; of a vector the matrix that has it there and zeros.

    Raises ShapeError for other ranks.
    """
    source, shift = as_tensor(x), as_int(k, "the k of diag")
    if source.ndim == 2:
        return diagonal(source, shift)
    if source.ndim != 1:
        raise ShapeError(f"diag needs one axis or two, found shape {shape_text(source.shape)}")
    size = source.shape[0] + abs(shift)
    low, high = max(shift, 0), max(-shift, 0)  # each column's own element
    row = apply("pad", source, low=(low,), high=(high,), value=0)
    places = [apply("iota", shape=(size, size), axis=n, dtype=int64) for n in (0, 1)]
    return where(places[1] == places[0] + shift, row, zeros((), dtype=source.dtype))


@array_function
def trace(x: Operand, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal; of bools and integers in int64. Raises as `diagonal` does."""
    found = accumulating(diagonal(x, offset, axis1, axis2))
    return apply("sum", found, axes=(found.ndim - 1,), keepdims=False)
