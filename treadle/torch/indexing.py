"""Functions that pick elements, and write them, at places that indices or masks say."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.torch.functions import facade
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand


def _at(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    """The key of x[.., index, ..] with `index` at `dim`."""
    return (*(slice(None),) * (dim % max(x.ndim, 1)), index)


def _places(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    """The key of the elements that `gather` reads: x[i][index[i][j]] for dim 1."""
    axis, shape = dim % x.ndim, index.shape
    key = []
    for d in range(x.ndim):
        row = np.arange(shape[d]).reshape([-1 if i == d else 1 for i in range(x.ndim)])
        key.append(index if d == axis else np.ascontiguousarray(np.broadcast_to(row, shape)))
    return tuple(key)


def _fits(what: str, x: Any, index: Any) -> None:
    if x.ndim != index.ndim:
        raise located(
            ShapeError(
                f"{what} takes an index of as many dimensions as the tensor, found "
                f"{shape_text(index.shape)} for {shape_text(x.shape)}"
            )
        )


@facade
def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """input[i][index[i][j]][k] for dim 1, in the shape of `index`."""
    x, places = as_operand(input), as_operand(index)
    _fits("gather", x, places)
    axis = dim % max(x.ndim, 1)
    cut = tuple(slice(0, n) if d != axis else slice(None) for d, n in enumerate(places.shape))
    return api.take_along_axis(x[cut], places, axis=axis)


@facade
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """As `gather`, broadcast; of the flat tensor without `dim`."""
    if dim is None:
        return api.take(api.reshape(input, (-1,)), api.reshape(indices, (-1,)))
    return api.take_along_axis(input, indices, axis=dim)


@facade
def take(input: Any, index: Any) -> Any:
    """Elements of the flat tensor, in the shape of `index`."""
    flat = api.reshape(input, (-1,))
    return flat[as_operand(index)]


@facade
def index_select(input: Any, dim: int, index: Any) -> Any:
    """The slices at these indices along `dim`."""
    return api.take(input, index, axis=dim)


@facade
def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """`value` where the mask holds."""
    x = as_operand(input)
    number = as_operand(value)
    if number.ndim:
        raise located(ArgumentError(f"masked_fill takes one value, found {number.type}"))
    return api.where(mask, number.astype(x.dtype), x)


@facade
def masked_select(input: Any, mask: Any) -> Any:
    """The elements where the mask holds; how many is known only now, so not in a compiled
    function."""
    x, chosen = api.broadcast_arrays(input, mask)
    return x[chosen]


@facade
def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices of elements that are not 0; how many is known only now, so not in a compiled
    function."""
    from treadle.tracer.create import tensor

    found = np.nonzero(np.asarray(as_operand(input)))
    if as_tuple:
        return tuple(tensor(rows) for rows in found)
    return tensor(np.stack(found, axis=1) if found else np.zeros((0, 0), np.int64))


@facade
def argwhere(input: Any) -> Any:
    """As `nonzero`."""
    return nonzero(input)


def _source(src: Any, index: Any, x: Any) -> Any:
    found = as_operand(src)
    if found.ndim == 0:
        return found.astype(x.dtype)
    return found[tuple(slice(0, n) for n in index.shape)].astype(x.dtype)


@facade
def scatter(
    input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: Any = None
) -> Any:
    """A copy with src[i][j] at [i][index[i][j]] for dim 1; `reduce` "add" adds."""
    if reduce == "add":
        return scatter_add(input, dim, index, src if value is None else value)
    if reduce is not None:
        raise located(ArgumentError(f'scatter reduces by "add" here, found {reduce!r}'))
    x, places = as_operand(input), as_operand(index)
    _fits("scatter", x, places)
    copy = x.clone()
    copy[_places(x, dim, places)] = _source(src if value is None else value, places, x)
    return copy


@facade
def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy to which src[i][j] is added at [i][index[i][j]] for dim 1, in that order."""
    x, places = as_operand(input), as_operand(index)
    _fits("scatter_add", x, places)
    strides = [int(np.prod(x.shape[d + 1 :])) for d in range(x.ndim)]
    key = _places(x, dim, places)
    rows = [as_operand(k).astype("int64") * s for k, s in zip(key, strides, strict=True)]
    flat = sum(rows[1:], rows[0])
    values = api.broadcast_to(_source(src, places, x), places.shape)
    added = api.scatter_add(
        api.reshape(x, (-1,)), api.reshape(flat, (-1,)), api.reshape(values, (-1,))
    )
    return api.reshape(added, x.shape)


@facade
def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """A copy to which the slices of `source` are added at these indices along `dim`."""
    x = as_operand(input)
    scaled = source if alpha == 1 else api.multiply(source, alpha)
    moved = api.scatter_add(
        api.moveaxis(x, dim, 0), index, api.moveaxis(as_operand(scaled).astype(x.dtype), dim, 0)
    )
    return api.moveaxis(moved, 0, dim)


@facade
def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy with the slices of `source` at these indices along `dim`."""
    copy = as_operand(input).clone()
    copy[_at(copy, dim, as_operand(index))] = source
    return copy


@facade
def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy with `value` at these indices along `dim`."""
    copy = as_operand(input).clone()
    copy[_at(copy, dim, as_operand(index))] = value
    return copy


@facade
def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """A copy with `values` at the places of these index tensors."""
    if accumulate:
        raise located(ArgumentError("index_put(accumulate=True): index_add or scatter_add add"))
    copy = as_operand(input).clone()
    copy[tuple(indices)] = values
    return copy


@facade
def searchsorted(sorted_sequence: Any, input: Any, *, right: bool = False) -> Any:
    """Where each element goes in a sorted sequence of one dimension: before equal ones, or with
    `right` behind."""
    rows, x = as_operand(sorted_sequence), as_operand(input)
    if rows.ndim != 1:
        raise located(ShapeError(f"searchsorted takes one sequence here, found {rows.type}"))
    wide = api.expand_dims(x, axis=-1)
    before = rows <= wide if right else rows < wide
    return api.sum(before.astype("int64"), axis=-1)


@facade
def bucketize(input: Any, boundaries: Any, *, right: bool = False) -> Any:
    """As `searchsorted(boundaries, input)`."""
    return searchsorted(boundaries, input, right=right)


IN_PLACE = (
    "index_add", "index_copy", "index_fill", "index_put", "masked_fill", "scatter", "scatter_add",
)  # fmt: skip

__all__ = [
    "argwhere", "bucketize", "gather", "index_add", "index_copy", "index_fill", "index_put",
    "index_select", "masked_fill", "masked_select", "nonzero", "scatter", "scatter_add",
    "searchsorted", "take", "take_along_dim",
]  # fmt: skip
FUNCTIONS_ONLY = ("bucketize", "searchsorted")
