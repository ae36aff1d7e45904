"""Sums, extremes and other functions along dimensions; orders and running values."""

from __future__ import annotations

import builtins
import math
from typing import Any, NamedTuple

import numpy as np

from treadle.ir.errors import ArgumentError
from treadle.torch.functions import facade
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand
from treadle.tracer.tensor import Tensor as _Tensor


class Extremes(NamedTuple):
    """What `max(dim)`, `sort` and their like return."""

    values: Any
    indices: Any


class Limits(NamedTuple):
    """What `aminmax` returns."""

    min: Any
    max: Any


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else api.astype(x, dtype)


def _all_for_none(dim: Any) -> Any:
    """PyTorch takes () for all dimensions."""
    return None if isinstance(dim, (tuple, list)) and not dim else dim


@facade
def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum over `dim`, one or several, or all."""
    return api.sum(_cast(input, dtype), axis=_all_for_none(dim), keepdims=keepdim)


@facade
def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum of what is no NaN."""
    x = as_operand(_cast(input, dtype))
    x = api.where(api.isnan(x), 0.0, x) if x.dtype.is_float else x
    return api.sum(x, axis=_all_for_none(dim), keepdims=keepdim)


@facade
def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean over `dim`, one or several, or all."""
    return api.mean(_cast(input, dtype), axis=_all_for_none(dim), keepdims=keepdim)


@facade
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean of what is no NaN."""
    x = as_operand(_cast(input, dtype))
    there = api.logical_not(api.isnan(x)).astype(x.dtype)
    axis = _all_for_none(dim)
    return nansum(x, dim, keepdim) / api.sum(there, axis=axis, keepdims=keepdim)


@facade
def prod(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The product over `dim`, or all."""
    return api.prod(_cast(input, dtype), axis=dim, keepdims=keepdim)


@facade
def amax(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest over `dim`, one or several, or all; equal ones share the gradient."""
    return api.max(input, axis=_all_for_none(dim), keepdims=keepdim)


@facade
def amin(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest over `dim`, one or several, or all; equal ones share the gradient."""
    return api.min(input, axis=_all_for_none(dim), keepdims=keepdim)


@facade
def aminmax(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    """(min, max) over `dim`, or all."""
    return Limits(amin(input, dim, keepdim), amax(input, dim, keepdim))


def _extreme(name: str, input: Any, dim: Any, keepdim: bool) -> Any:
    """`max` and `min`: of all, of two tensors, or values and indices along `dim`. `axis` gives
    values alone, as everywhere in Treadle."""
    if dim is None:
        return getattr(api, name)(input, keepdims=keepdim)
    if isinstance(dim, _Tensor):
        return getattr(api, f"{name}imum")(input, dim)
    x = as_operand(input)
    places = getattr(api, f"arg{name}")(x, axis=dim, keepdims=True)
    if x.ndim == 0:
        return Extremes(x, places)
    values = api.take_along_axis(x, places, axis=dim)
    if keepdim:
        return Extremes(values, places)
    return Extremes(api.squeeze(values, axis=dim), api.squeeze(places, axis=dim))


@facade
def max(
    input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, axis: Any = None,
    keepdims: bool = False,
) -> Any:  # fmt: skip
    """The largest of all; `max(dim)`: (values, indices) along `dim`; `max(other)`: elementwise."""
    if axis is not None or keepdims:
        return api.max(input, axis=axis, keepdims=keepdims)
    return _extreme("max", input, dim if other is None else other, keepdim)


@facade
def min(
    input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None, axis: Any = None,
    keepdims: bool = False,
) -> Any:  # fmt: skip
    """The smallest of all; `min(dim)`: (values, indices) along `dim`; `min(other)`: elementwise."""
    if axis is not None or keepdims:
        return api.min(input, axis=axis, keepdims=keepdims)
    return _extreme("min", input, dim if other is None else other, keepdim)


@facade
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first largest along `dim`, or in the flat tensor."""
    return api.argmax(input, axis=dim, keepdims=keepdim)


@facade
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the first smallest along `dim`, or in the flat tensor."""
    return api.argmin(input, axis=dim, keepdims=keepdim)


@facade
def all(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether all elements over `dim` are true."""
    return api.all(input, axis=dim, keepdims=keepdim)


@facade
def any(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether any element over `dim` is true."""
    return api.any(input, axis=dim, keepdims=keepdim)


def _deviation(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, float]:
    """(dim, correction): `var(False)` says `unbiased`, as in PyTorch."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    return _all_for_none(dim), float(correction)


@facade
def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Any:  # fmt: skip
    """The variance over `dim`; divided by the count less `correction`, 1 unless it is said."""
    axis, less = _deviation(dim, unbiased, correction)
    return api.var(input, axis=axis, correction=less, keepdims=keepdim)


@facade
def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Any:  # fmt: skip
    """The square root of `var`."""
    axis, less = _deviation(dim, unbiased, correction)
    return api.std(input, axis=axis, correction=less, keepdims=keepdim)


@facade
def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Any:  # fmt: skip
    """(variance, mean) over `dim`."""
    axis, less = _deviation(dim, unbiased, correction)
    found = api.var(input, axis=axis, correction=less, keepdims=keepdim)
    return found, api.mean(input, axis=axis, keepdims=keepdim)


@facade
def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: Any = None,
) -> Any:  # fmt: skip
    """(deviation, mean) over `dim`."""
    axis, less = _deviation(dim, unbiased, correction)
    found = api.std(input, axis=axis, correction=less, keepdims=keepdim)
    return found, api.mean(input, axis=axis, keepdims=keepdim)


@facade
def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """log(sum(exp(x))) over `dim`"""
    return api.logsumexp(input, axis=dim, keepdims=keepdim)


@facade
def norm(
    input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """The p-norm over `dim`, or of all elements; "fro" is 2."""
    power = 2.0 if p in ("fro", None) else p
    return api.norm(_cast(input, dtype), power, axis=dim, keepdims=keepdim)


@facade
def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The p-norm of input - other."""
    return api.norm(api.subtract(input, other), p)


@facade
def count_nonzero(input: Any, dim: Any = None) -> Any:
    """How many elements over `dim` are not 0."""
    return api.count_nonzero(input, axis=dim)


# --- orders ----------------------------------------------------------------------------------


@facade
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """(values, indices) in order along `dim`; equal elements keep their order."""
    places = api.argsort(input, axis=dim, descending=descending)
    return Extremes(api.sort(input, axis=dim, descending=descending), places)


@facade
def msort(input: Any) -> Any:
    """The elements in order along the first dimension."""
    return api.sort(input, axis=0)


@facade
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices that sort `dim`; equal elements keep their order."""
    return api.argsort(input, axis=dim, descending=descending)


@facade
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices) of the `k` largest, or smallest, along `dim`."""
    return Extremes(*api.topk(input, k, dim, largest))


@facade
def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(value, index) of the k-th smallest along `dim`, counted from 1."""
    x = as_operand(input)
    axis = dim % builtins.max(x.ndim, 1)
    if not 1 <= k <= (x.shape[axis] if x.ndim else 1):
        raise located(ArgumentError(f"kthvalue's k is from 1 to the size of dim, found {k}"))
    place = api.take(api.argsort(x, axis=axis), np.array([k - 1]), axis=axis)
    value = api.take_along_axis(x, place, axis=axis)
    if keepdim:
        return Extremes(value, place)
    return Extremes(api.squeeze(value, axis=axis), api.squeeze(place, axis=axis))


@facade
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of the two in the middle: of all, or (value, index) along `dim`."""
    x = as_operand(input)
    if dim is None:
        flat = api.reshape(x, (-1,))
        return kthvalue(flat, (flat.shape[0] + 1) // 2)[0]
    return kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


@facade
def quantile(input: Any, q: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The quantile `q`, a number from 0 to 1, along `dim` or of all; linear between neighbours."""
    x = as_operand(input)
    flat, axis = (api.reshape(x, (-1,)), 0) if dim is None else (x, dim)
    place = float(q) * (flat.shape[axis] - 1)
    low = math.floor(place)
    rows = np.array([low, builtins.min(low + 1, flat.shape[axis] - 1)])
    lower, upper = api.split(api.take(api.sort(flat, axis=axis), rows, axis=axis), 2, axis=axis)
    found = lower + (upper - lower) * (place - low)
    if dim is None:
        return api.reshape(found, (1,) * x.ndim if keepdim else ())
    return found if keepdim else api.squeeze(found, axis=axis)


# --- running values --------------------------------------------------------------------------


@facade
def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running sums along `dim`."""
    return api.cumulative_sum(_cast(input, dtype), axis=dim)


@facade
def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running products along `dim`."""
    return api.cumulative_prod(_cast(input, dtype), axis=dim)


@facade
def cummax(input: Any, dim: int) -> Any:
    """(values, indices) of the largest so far along `dim`."""
    return Extremes(*api.cummax(input, dim))


@facade
def cummin(input: Any, dim: int) -> Any:
    """(values, indices) of the smallest so far along `dim`."""
    return Extremes(*api.cummin(input, dim))


@facade
def diff(input: Any, n: int = 1, dim: int = -1) -> Any:
    """Differences of neighbours along `dim`, `n` times."""
    x = as_operand(input)
    axis = dim % builtins.max(x.ndim, 1)
    front = (slice(None),) * axis
    for _ in range(n):
        x = x[(*front, slice(1, None))] - x[(*front, slice(None, -1))]
    return x


# --- counts, known only when they are computed -----------------------------------------------


@facade
def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """The distinct elements, ascending; their number is known only now, so not in a compiled
    function."""
    from treadle.tracer.create import tensor

    distinct: Any = np.unique
    found = distinct(
        np.asarray(as_operand(input)), return_inverse=return_inverse, return_counts=return_counts
    )
    if not isinstance(found, tuple):
        return tensor(found)
    return tuple(tensor(np.ascontiguousarray(part)) for part in found)


@facade
def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each integer from 0 comes; the largest is known only now, so not in a compiled
    function."""
    x = as_operand(input)
    length = builtins.max(int(api.max(x)) + 1 if x.size else 0, minlength)
    added = api.ones_like(x) if weights is None else as_operand(weights)
    return api.scatter_add(api.zeros((length,), dtype=added.dtype), x, added)


__all__ = [
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "argsort", "bincount",
    "count_nonzero", "cummax", "cummin", "cumprod", "cumsum", "diff", "dist", "kthvalue",
    "logsumexp", "max", "mean", "median", "min", "msort", "nanmean", "nansum", "norm", "prod",
    "quantile", "sort", "std", "std_mean", "sum", "topk", "unique", "var", "var_mean",
]  # fmt: skip
