"""Functions of several tensors or of all pairs: distances, grids, blocks, moments."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from treadle.ir.errors import ShapeError
from treadle.torch.functions import facade
from treadle.torch.shaping import tensor_split
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand


@facade
def cdist(x1: Any, x2: Any, p: float = 2.0) -> Any:
    """The p-norms of all differences between rows of x1 [.., n, k] and of x2 [.., m, k]."""
    x, y = as_operand(x1), as_operand(x2)
    return api.norm(api.expand_dims(x, axis=-2) - api.expand_dims(y, axis=-3), p, axis=-1)


@facade
def isin(elements: Any, test_elements: Any, *, invert: bool = False) -> Any:
    """Whether each element is one of the others."""
    x, tests = as_operand(elements), api.reshape(as_operand(test_elements), (-1,))
    found = api.any(api.equal(api.expand_dims(x, axis=-1), tests), axis=-1)
    return api.logical_not(found) if invert else found


@facade
def cartesian_prod(*tensors: Any) -> Any:
    """All combinations of elements of vectors, as rows."""
    grids = api.meshgrid(*tensors, indexing="ij")
    if len(grids) == 1:
        return grids[0]
    return api.stack([api.reshape(g, (-1,)) for g in grids], axis=1)


@facade
def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All combinations of `r` elements of a vector, as rows."""
    x = as_operand(input)
    draw: Any = itertools.combinations_with_replacement if with_replacement else None
    rows = list((draw or itertools.combinations)(range(x.shape[0]), r))
    return x[api.reshape(api.asarray(rows, dtype="int64"), (len(rows), r))]


@facade
def block_diag(*tensors: Any) -> Any:
    """Matrices along the diagonal of one, zeros elsewhere."""
    parts = [api.reshape(x, (1,) * (2 - as_operand(x).ndim) + as_operand(x).shape) for x in tensors]
    width, at, rows = sum(p.shape[1] for p in parts), 0, []
    for part in parts:
        rows.append(api.pad(part, ((0, 0), (at, width - at - part.shape[1]))))
        at += part.shape[1]
    return api.concat(rows, axis=0)


@facade
def dstack(tensors: Sequence[Any]) -> Any:
    """Side by side along the third dimension."""
    return api.concat([atleast_3d(x) for x in tensors], axis=2)


@facade
def atleast_3d(input: Any) -> Any:
    """With three dimensions at least."""
    x = as_operand(input)
    if x.ndim >= 3:
        return x
    return api.reshape(x, (*x.shape, 1) if x.ndim == 2 else (1, -1, 1))


@facade
def hsplit(input: Any, indices_or_sections: Any) -> Any:
    """Parts along the second dimension, or the only one."""
    return tensor_split(input, indices_or_sections, 0 if as_operand(input).ndim == 1 else 1)


@facade
def vsplit(input: Any, indices_or_sections: Any) -> Any:
    """Parts along the first dimension."""
    return tensor_split(input, indices_or_sections, 0)


@facade
def diagflat(input: Any, offset: int = 0) -> Any:
    """The matrix with all elements on a diagonal."""
    return api.diag(api.reshape(input, (-1,)), offset)


@facade
def cov(input: Any, *, correction: int = 1) -> Any:
    """The covariances of the rows of a matrix, each row a variable."""
    x = as_operand(input)
    rows = api.reshape(x, (1, -1)) if x.ndim < 2 else x
    off = rows - api.mean(rows, axis=1, keepdims=True)
    found = (off @ api.matrix_transpose(off)) / max(rows.shape[1] - correction, 0)
    return api.reshape(found, ()) if x.ndim < 2 else found


@facade
def corrcoef(input: Any) -> Any:
    """The correlations of the rows of a matrix."""
    found = cov(input)
    if found.ndim == 0:
        return found / found
    spread = api.sqrt(api.diagonal(found))
    return found / api.expand_dims(spread, axis=1) / spread


@facade
def matrix_power(input: Any, n: int) -> Any:
    """A square matrix times itself, `n` times in all. Raises ShapeError for a negative `n`."""
    x = as_operand(input)
    if n < 0 or x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise located(ShapeError(f"matrix_power takes square matrices and n >= 0, found {x.type}"))
    eye = api.broadcast_to(api.eye(x.shape[-1], dtype=x.dtype), x.shape)
    return functools.reduce(api.matmul, [x] * n) if n else eye


@facade
def trapezoid(y: Any, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Any:
    """The integral along `dim` by trapezoids."""
    values = api.moveaxis(y, dim, -1)
    middle = (values[..., 1:] + values[..., :-1]) / 2
    if x is None:
        return api.sum(middle * dx, axis=-1)
    places = as_operand(x)
    places = places if places.ndim == 1 else api.moveaxis(places, dim, -1)
    return api.sum(middle * (places[..., 1:] - places[..., :-1]), axis=-1)


@facade
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Powers of a vector's elements as columns, the highest first unless `increasing`."""
    given = as_operand(x)
    count = given.shape[0] if N is None else N
    powers = range(count) if increasing else range(count - 1, -1, -1)
    return api.stack([given**n for n in powers], axis=-1)


@facade
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy with `src` as the slice at `index` along `dim`."""
    copy = as_operand(input).clone()
    copy[(*(slice(None),) * (dim % copy.ndim), index)] = src
    return copy


@facade
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """A copy with `src` in a slice along `dim`."""
    copy = as_operand(input).clone()
    copy[(*(slice(None),) * (dim % copy.ndim), slice(start, end, step))] = src
    return copy


@facade
def ldexp(input: Any, other: Any) -> Any:
    """input * 2^other"""
    return api.multiply(input, api.exp2(as_operand(other)))


@facade
def logcumsumexp(input: Any, dim: int) -> Any:
    """The logarithms of running sums of exponentials along `dim`: each sum by its own maximum."""
    x = api.moveaxis(input, dim, -1)
    size = x.shape[-1]
    past = api.tril(api.ones((size, size))) > 0
    wide = api.where(past, api.expand_dims(x, axis=-2), -float("inf"))
    return api.moveaxis(api.logsumexp(wide, axis=-1), -1, dim)


trapz = trapezoid

METHODS = (
    "corrcoef", "cov", "diagflat", "hsplit", "ldexp", "logcumsumexp", "matrix_power",
    "select_scatter", "slice_scatter", "vsplit",
)  # fmt: skip

__all__ = [
    "atleast_3d", "block_diag", "cartesian_prod", "cdist", "combinations", "corrcoef", "cov",
    "diagflat", "dstack", "hsplit", "isin", "ldexp", "logcumsumexp", "matrix_power",
    "select_scatter", "slice_scatter", "trapezoid", "trapz", "vander", "vsplit",
]  # fmt: skip
