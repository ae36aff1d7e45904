"""Linear algebra, by the Array API standard: matmul of any rank, vecdot, tensordot, outer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import normalize_axis, shape_text
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.creation import as_int
from treadle.tracer.api.manipulation import moveaxis, permute_dims, reshape, swapaxes
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.tensor import Tensor


@array_function
def matmul(x1: Operand, x2: Operand, /) -> Tensor:
    """The matrix product of the last two axes; the others are batch axes and broadcast.

    A 1-D operand is a row on the left, a column on the right, and that axis is dropped from the
    result. Raises ShapeError for rank 0 and for inner sizes that differ, DTypeError for bools.
    """
    x, y = promote(x1, x2)
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError(
            "matmul needs operands of rank 1 or more, found shapes "
            f"{shape_text(x.shape)} and {shape_text(y.shape)}; multiply scalars with *"
        )
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError(
            f"matmul of {shape_text(x.shape)} and {shape_text(y.shape)}: the inner sizes "
            f"{x.shape[-1]} and {y.shape[-2 if y.ndim > 1 else 0]} must be equal"
        )
    row, column = x.ndim == 1, y.ndim == 1
    product = apply(
        "matmul",
        reshape(x, (1, x.shape[0])) if row else x,
        reshape(y, (y.shape[0], 1)) if column else y,
    )
    shape = product.shape
    if row and column:
        return reshape(product, ())
    if row:
        return reshape(product, (*shape[:-2], shape[-1]))
    return reshape(product, shape[:-1]) if column else product


@array_function
def vecdot(x1: Operand, x2: Operand, /, axis: int = -1) -> Tensor:
    """The sum of products along `axis` (negative), which both operands have; the rest broadcasts.

    Raises ShapeError where the sizes of the axis differ.
    """
    x, y = promote(x1, x2)
    x, y = moveaxis(x, axis, -1), moveaxis(y, axis, -1)
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(
            f"vecdot needs equal sizes along axis {axis}, found {x.shape[-1]} and {y.shape[-1]}"
        )
    product = apply("mul", x, y)
    return apply("sum", product, axes=(product.ndim - 1,), keepdims=False)


@array_function
def outer(x1: Operand, x2: Operand, /) -> Tensor:
    """All products x1[i] * x2[j] of two 1-D operands."""
    x, y = promote(x1, x2)
    if x.ndim != 1 or y.ndim != 1:
        raise ShapeError(
            f"outer needs 1-D operands, found shapes {shape_text(x.shape)} and "
            f"{shape_text(y.shape)}"
        )
    return apply("mul", reshape(x, (x.shape[0], 1)), y)


def _contracted(
    axes: int | tuple[Sequence[int], Sequence[int]], x: Tensor, y: Tensor
) -> tuple[list[int], list[int]]:
    """The axes of x and y that `tensordot` sums over, in pairs."""
    if not isinstance(axes, Sequence):
        count = as_int(axes, "tensordot's axes")
        if not 0 <= count <= min(x.ndim, y.ndim):
            raise ShapeError(
                f"tensordot over {count} axes of shapes {shape_text(x.shape)} and "
                f"{shape_text(y.shape)}"
            )
        return list(range(x.ndim - count, x.ndim)), list(range(count))
    if len(axes) != 2 or isinstance(axes, (str, bytes)):
        raise ArgumentError(f"tensordot's axes must be a count or two lists, found {axes!r:.60}")
    pair: list[list[Any]] = [list(a) if isinstance(a, (list, tuple)) else [a] for a in axes]
    left, right = pair
    if len(left) != len(right):
        raise ShapeError(f"tensordot needs as many axes of the left as of the right, found {axes}")
    return (
        [normalize_axis(a, x.ndim, "tensordot's axis") for a in left],
        [normalize_axis(a, y.ndim, "tensordot's axis") for a in right],
    )


@array_function
def tensordot(
    x1: Operand, x2: Operand, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2
) -> Tensor:
    """The sum of products over pairs of axes: the last `axes` of x1 with the first of x2, or the
    axes that two sequences name. The result has x1's other axes, then x2's.

    Raises ShapeError where the sizes of a pair differ.
    """
    x, y = promote(x1, x2)
    left, right = _contracted(axes, x, y)
    for i, j in zip(left, right, strict=True):
        if x.shape[i] != y.shape[j]:
            raise ShapeError(
                f"tensordot: axis {i} of {shape_text(x.shape)} and axis {j} of "
                f"{shape_text(y.shape)} must be of one size"
            )
    rows = [i for i in range(x.ndim) if i not in left]
    columns = [j for j in range(y.ndim) if j not in right]
    inner = 1
    for i in left:
        inner *= x.shape[i]
    row_sizes, column_sizes = [x.shape[i] for i in rows], [y.shape[j] for j in columns]
    x_matrix = reshape(permute_dims(x, (*rows, *left)), (_product(row_sizes), inner))
    y_matrix = reshape(permute_dims(y, (*right, *columns)), (inner, _product(column_sizes)))
    return reshape(apply("matmul", x_matrix, y_matrix), (*row_sizes, *column_sizes))


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


@array_function
def dot(x1: Operand, x2: Operand, /) -> Tensor:
    """NumPy's dot: products with a scalar, else the sum of products over the last axis of x1 and
    the last but one of x2 (its only one where x2 is 1-D). Raises ShapeError where they differ."""
    x, y = promote(x1, x2)
    if x.ndim == 0 or y.ndim == 0:
        return apply("mul", x, y)
    pair = -1, -1 if y.ndim == 1 else -2
    if x.shape[pair[0]] != y.shape[pair[1]]:
        raise ShapeError(
            f"dot: the last axis of {shape_text(x.shape)} and axis {pair[1]} of "
            f"{shape_text(y.shape)} must be of one size"
        )
    return tensordot(x, y, axes=([pair[0]], [pair[1]]))


@array_function
def matrix_transpose(x: Operand, /) -> Tensor:
    """The last two axes exchanged. A view. Raises ShapeError below rank 2."""
    rank = as_operand(x).ndim
    if rank < 2:
        raise ShapeError(f"matrix_transpose needs rank 2 or more, found rank {rank}")
    return swapaxes(x, -1, -2)
