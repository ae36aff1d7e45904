"""Functions that move elements: shapes, dimensions, parts put together and taken apart."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Sequence
from typing import Any

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.torch.functions import facade
from treadle.torch.tensor import sizes
from treadle.tracer import api
from treadle.tracer.api.manipulation import flatten as _flatten
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand

# --- one shape as another --------------------------------------------------------------------


def _sizes(listed: tuple[Any, ...], named: Any) -> tuple[int, ...]:
    """Sizes as arguments, as one sequence, or by PyTorch's keyword."""
    return sizes(listed if named is None else (named,))


@facade
def reshape(input: Any, *sizes: Any, shape: Any = None) -> Any:
    """The elements under another shape; one size may be -1. A view where possible."""
    return api.reshape(input, _sizes(sizes, shape))


@facade
def view(input: Any, *shape: Any, dtype: Any = None) -> Any:
    """As `reshape`; a view wherever Treadle can give one, else a copy."""
    if dtype is not None or not all_sizes(shape):
        raise located(ArgumentError("view takes sizes; x.to(dtype) converts"))
    return api.reshape(input, sizes(shape))


def all_sizes(shape: Sequence[Any]) -> bool:
    """Whether these are sizes, or one sequence of them."""
    listed = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    return builtins.all(hasattr(s, "__index__") for s in listed)


@facade
def view_as(input: Any, other: Any) -> Any:
    """Under the shape of `other`."""
    return api.reshape(input, other.shape)


@facade
def reshape_as(input: Any, other: Any) -> Any:
    """Under the shape of `other`."""
    return api.reshape(input, other.shape)


@facade
def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions `start_dim` to `end_dim`, both included, as one."""
    x = as_operand(input)
    return _flatten(x, start_dim, end_dim) if x.ndim else api.reshape(x, (1,))


@facade
def ravel(input: Any) -> Any:
    """All elements as one dimension."""
    return api.reshape(input, (-1,))


@facade
def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Dimension `dim` as several; one size may be -1."""
    x = as_operand(input)
    axis = dim % x.ndim
    known = -math.prod(sizes) if -1 in sizes else math.prod(sizes)
    inner = [x.shape[axis] // builtins.max(known, 1) if s == -1 else s for s in sizes]
    if math.prod(inner) != x.shape[axis]:
        raise located(
            ShapeError(f"unflatten: {shape_text(tuple(sizes))} does not fit {x.shape[axis]}")
        )
    return api.reshape(x, (*x.shape[:axis], *inner, *x.shape[axis + 1 :]))


@facade
def squeeze(input: Any, dim: Any = None) -> Any:
    """Without dimensions of size 1: `dim`, one or several, where they have it, or all."""
    x = as_operand(input)
    chosen = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = tuple(d % x.ndim for d in chosen if x.ndim and x.shape[d] == 1)
    return api.squeeze(x, axis=axes) if axes else x


@facade
def unsqueeze(input: Any, dim: int) -> Any:
    """With a new dimension of size 1 at `dim`."""
    return api.expand_dims(input, axis=dim)


@facade
def atleast_1d(input: Any) -> Any:
    """With a dimension, if it has none."""
    x = as_operand(input)
    return x if x.ndim else api.reshape(x, (1,))


@facade
def atleast_2d(input: Any) -> Any:
    """With two dimensions at least, new ones in front."""
    x = as_operand(input)
    return x if x.ndim >= 2 else api.reshape(x, (1, -1))


# --- their order -----------------------------------------------------------------------------


@facade
def permute(input: Any, *order: Any, dims: Any = None) -> Any:
    """Dimension i of the result is dims[i]."""
    return api.permute_dims(input, _sizes(order, dims))


@facade
def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """Two dimensions exchanged."""
    x = as_operand(input)
    return api.swapaxes(x, dim0, dim1) if x.ndim else x


@facade
def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved, the others in their order."""
    return api.moveaxis(input, source, destination)


@facade
def t(input: Any) -> Any:
    """A matrix transposed; fewer dimensions as they are. Raises ShapeError for more."""
    x = as_operand(input)
    if x.ndim > 2:
        raise located(ShapeError(f"t() takes at most two dimensions, found {x.type}"))
    return api.swapaxes(x, 0, 1) if x.ndim == 2 else x


@facade
def flip(input: Any, *chosen: Any, dims: Any = None) -> Any:
    """Dimensions in reverse."""
    return api.flip(input, axis=_sizes(chosen, dims))


@facade
def fliplr(input: Any) -> Any:
    """The second dimension in reverse."""
    return api.flip(input, axis=1)


@facade
def flipud(input: Any) -> Any:
    """The first dimension in reverse."""
    return api.flip(input, axis=0)


@facade
def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """Turned `k` times by 90 degrees, from the first of `dims` to the second."""
    x = as_operand(input)
    if k % 4 == 0:
        return x
    if k % 4 == 2:
        return api.flip(x, axis=tuple(dims))
    if k % 4 == 1:
        return api.swapaxes(api.flip(x, axis=dims[1]), dims[0], dims[1])
    return api.flip(api.swapaxes(x, dims[0], dims[1]), axis=dims[1])


@facade
def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """Elements moved along `dims`, those beyond the end to the front."""
    if dims is None or dims == ():
        x = as_operand(input)
        return api.reshape(api.roll(api.reshape(x, (-1,)), shifts, axis=0), x.shape)
    listed = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    return api.roll(input, listed, axis=(dims,) if isinstance(dims, int) else tuple(dims))


# --- put together ----------------------------------------------------------------------------


@facade
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """One behind the other along `dim`."""
    return api.concat(tensors, axis=dim)


@facade
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """One behind the other along a new dimension."""
    return api.stack(tensors, axis=dim)


@facade
def hstack(tensors: Sequence[Any]) -> Any:
    """Side by side: along the second dimension, or the only one."""
    parts = [atleast_1d(x) for x in tensors]
    return api.concat(parts, axis=0 if parts[0].ndim == 1 else 1)


@facade
def vstack(tensors: Sequence[Any]) -> Any:
    """One below the other."""
    return api.concat([atleast_2d(x) for x in tensors], axis=0)


@facade
def column_stack(tensors: Sequence[Any]) -> Any:
    """Vectors as columns, matrices side by side."""
    parts = [as_operand(x) for x in tensors]
    return api.concat([api.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in parts], axis=1)


@facade
def meshgrid(*tensors: Any, indexing: str = "ij") -> Any:
    """Coordinates of a grid, from the coordinates along each dimension."""
    listed = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    return tuple(api.meshgrid(*listed, indexing=indexing))


# --- taken apart -----------------------------------------------------------------------------


def _parts(x: Any, lengths: Sequence[int], dim: int) -> tuple[Any, ...]:
    axis, front, found, at = dim % x.ndim, (), [], 0
    front = (slice(None),) * axis
    for length in lengths:
        found.append(x[(*front, slice(at, at + length))])
        at += length
    return tuple(found)


@facade
def split(
    tensor: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> Any:
    """Views of `split_size` along `dim`, the last may be smaller; or of these sizes."""
    x = as_operand(tensor)
    given = split_size_or_sections if split_size is None else split_size
    total = x.shape[dim]
    if isinstance(given, (list, tuple)):
        if builtins.sum(given) != total:
            raise located(ShapeError(f"split into {list(given)} of a dimension of size {total}"))
        return _parts(x, given, dim)
    if not isinstance(given, int) or given < 1:
        raise located(ArgumentError(f"split takes a size of at least 1, found {given!r}"))
    count = builtins.max(-(-total // given), 1)
    return _parts(x, [builtins.min(given, total - i * given) for i in range(count)], dim)


@facade
def chunk(input: Any, chunks: int, dim: int = 0) -> Any:
    """At most `chunks` views of equal size along `dim`, the last may be smaller."""
    x = as_operand(input)
    return split(x, builtins.max(-(-x.shape[dim] // chunks), 1), dim)


@facade
def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> Any:
    """That many views, the first ones larger by one; or views between these indices."""
    x = as_operand(input)
    total, given = x.shape[dim], indices_or_sections
    if isinstance(given, int):
        least, more = divmod(total, given)
        return _parts(x, [least + (i < more) for i in range(given)], dim)
    bounds = [0, *(builtins.min(i % (total + 1) if i < 0 else i, total) for i in given), total]
    lengths = [builtins.max(b - a, 0) for a, b in itertools.pairwise(bounds)]
    return _parts(x, lengths, dim)


@facade
def unbind(input: Any, dim: int = 0) -> Any:
    """The slices along `dim`, without it."""
    return api.unstack(input, axis=dim)


@facade
def select(input: Any, dim: int, index: int) -> Any:
    """The slice at `index` along `dim`, without it."""
    x = as_operand(input)
    return x[(*(slice(None),) * (dim % x.ndim), index)]


@facade
def narrow(input: Any, dim: int, start: int, length: int) -> Any:
    """`length` elements along `dim`, from `start`."""
    x = as_operand(input)
    first = start % x.shape[dim] if start < 0 else start
    if not 0 <= first <= first + length <= x.shape[dim]:
        raise located(
            ShapeError(f"narrow to {start}, {length} of a dimension of size {x.shape[dim]}")
        )
    return x[(*(slice(None),) * (dim % x.ndim), slice(first, first + length))]


@facade
def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """The windows of `size` elements along `dimension`, every `step`, as a new last dimension."""
    return api.unfold(input, dimension, size, step)


@facade
def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The elements [.., i, .., i + offset, ..] of two dimensions, as a last one."""
    return api.diagonal(input, offset, dim1, dim2)


@facade
def diag(input: Any, diagonal: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix of a diagonal."""
    return api.diag(input, diagonal)


@facade
def diag_embed(input: Any) -> Any:
    """The last dimension as the diagonal of matrices."""
    x = as_operand(input)
    return api.expand_dims(x, axis=-1) * api.eye(x.shape[-1], dtype=x.dtype)


@facade
def trace(input: Any) -> Any:
    """The sum of a matrix's diagonal."""
    return api.sum(api.diagonal(input), axis=-1)


@facade
def tril(input: Any, diagonal: int = 0) -> Any:
    """The lower triangle of matrices, zeros above `diagonal`."""
    return api.tril(input, k=diagonal)


@facade
def triu(input: Any, diagonal: int = 0) -> Any:
    """The upper triangle of matrices, zeros below `diagonal`."""
    return api.triu(input, k=diagonal)


# --- repeated --------------------------------------------------------------------------------


@facade
def expand(input: Any, *shape: Any, size: Any = None) -> Any:
    """Broadcast to these sizes, -1 where they stay. A view that cannot be written."""
    x, wanted = as_operand(input), _sizes(shape, size)
    new = len(wanted) - x.ndim
    kept = [x.shape[i - new] if s == -1 and i >= new else s for i, s in enumerate(wanted)]
    return api.broadcast_to(x, tuple(kept))


@facade
def expand_as(input: Any, other: Any) -> Any:
    """Broadcast to the shape of `other`."""
    return api.broadcast_to(input, other.shape)


@facade
def broadcast_to(input: Any, size: Sequence[int]) -> Any:
    """Broadcast to these sizes."""
    return expand(input, tuple(size))


@facade
def broadcast_tensors(*tensors: Any) -> Any:
    """All of the shape that they have together."""
    return tuple(api.broadcast_arrays(*tensors))


@facade
def repeat(input: Any, *counts: Any, repeats: Any = None) -> Any:
    """Copies side by side, so many along each dimension."""
    x, found = as_operand(input), _sizes(counts, repeats)
    if len(found) < x.ndim:
        raise located(
            ShapeError(f"repeat takes a count for each dimension of {x.type}, found {found}")
        )
    return api.tile(x, found)


@facade
def tile(input: Any, *counts: Any, dims: Any = None) -> Any:
    """Copies side by side, so many along each of the last dimensions."""
    return api.tile(input, _sizes(counts, dims))


@facade
def repeat_interleave(input: Any, repeats: int, dim: int | None = None) -> Any:
    """Each element `repeats` times, along `dim` or of the flat tensor."""
    if not isinstance(repeats, int):
        raise located(ArgumentError("repeat_interleave takes one int for all elements here"))
    return api.repeat(input, repeats, axis=dim)


@facade
def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """Views of these sizes along `dim`."""
    return split(input, list(split_sizes), dim)


concat = concatenate = cat
swapaxes = swapdims = transpose
moveaxis = movedim
row_stack = vstack

IN_PLACE = ("t", "transpose", "squeeze", "unsqueeze", "tril", "triu")

__all__ = [
    "atleast_1d", "atleast_2d", "broadcast_tensors", "broadcast_to", "cat", "chunk",
    "column_stack", "concat", "concatenate", "diag", "diag_embed", "diagonal", "expand",
    "expand_as", "flatten", "flip", "fliplr", "flipud", "hstack", "meshgrid", "moveaxis",
    "movedim", "narrow", "permute", "ravel", "repeat", "repeat_interleave", "reshape",
    "reshape_as", "roll", "rot90", "row_stack", "select", "split", "split_with_sizes",
    "squeeze", "stack",
    "swapaxes", "swapdims", "t", "tensor_split", "tile", "trace", "transpose", "tril", "triu",
    "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vstack",
]  # fmt: skip
# Of these PyTorch has methods only.
METHODS_ONLY = ("expand", "expand_as", "repeat", "reshape_as", "unfold", "view", "view_as")
