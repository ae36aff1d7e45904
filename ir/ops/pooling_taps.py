"""Pools in plain ops: what they become where no kernel has claimed them.

Small kernels become elementwise programs over strided slices, one for each tap, which run in
registers. Larger ones work along one axis after the other, so that K x K taps cost 2 K; many taps
along one axis are a reduction over them. A derivative looks at the windows that hold an element: no
two threads or lanes add to one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.op import Array
from treadle.ir.ops.movement import int_sizes
from treadle.ir.ops.sliding import counts_of, meetings, windows_attrs, with_sizes
from treadle.ir.types import Shape, Size, int32

_UNROLLED = 32  # taps; beyond it a program with a few instructions a tap takes long to compile
_AT_ONCE = 16  # taps of a kernel of several axes; beyond it one axis after the other is faster


def first_taps(a: Any, sizes: Sequence[int], counts: Sequence[int]) -> Array:
    """For each window the number of the first tap inside of the tensor; 0 where there is none."""
    number = np.zeros((), np.int64)
    lists = zip(a.kernel, a.stride, a.padding, a.dilation, sizes, counts, strict=True)
    for kernel, stride, (low, _), dilation, size, count in lists:
        at = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - low
        first = np.argmax((at >= 0) & (at < size), axis=1)
        number = number[..., None] * kernel + first
    return number.astype(np.int32)


def along(a: Any, x: Array, rank: int) -> Array:
    """An array over the spatial axes alone, made to broadcast along the others."""
    shape: Any = with_sizes(a.axes, (1,) * rank, x.shape)
    return np.reshape(x, shape)


def _all_taps(a: Any) -> list[tuple[int, ...]]:
    return list(np.ndindex(*a.kernel))


def _unrolled(a: Any) -> bool:
    return bool(prod(a.kernel) <= _UNROLLED)


def _is_parted(a: Any) -> bool:
    """Whether the axes are worked on one after the other."""
    return len(a.axes) > 1 and bool(prod(a.kernel) > _AT_ONCE)


def _along_some(a: Any, axes: slice) -> dict[str, Any]:
    """The windows along some of the axes alone."""
    return {name: value[axes] for name, value in windows_attrs(a).items()}


_LAST, _OTHERS = slice(-1, None), slice(0, -1)


def _pad_around(o: Ops[Any], a: Any, x: Any, value: float) -> Any:
    if not any(map(any, a.padding)):
        return x
    zeros = (0,) * o.type_of(x).rank
    low = with_sizes(a.axes, zeros, [pads[0] for pads in a.padding])
    high = with_sizes(a.axes, zeros, [pads[1] for pads in a.padding])
    return o.call("pad", x, low=low, high=high, value=value)


def _slices(o: Ops[Any], a: Any, x: Any, value: float, shape: Shape) -> list[Any]:
    """For each tap what lies under it, `value` outside: tensors of the windows' `shape`."""
    wide = _pad_around(o, a, x, value)
    rank = len(shape)
    steps = with_sizes(a.axes, (1,) * rank, a.stride)
    found = []
    for tap in _all_taps(a):
        at = [k * d for k, d in zip(tap, a.dilation, strict=True)]
        starts = with_sizes(a.axes, (0,) * rank, at)
        found.append(o.call("slice", wide, starts=starts, steps=steps, shape=shape))
    return found


def _as_windows(o: Ops[Any], a: Any, x: Any, value: float) -> Any:
    """[*kernel, ..windows..]: all taps, first."""
    turns = meetings(a)
    wide = o.broadcast_to(x, (*turns, *o.type_of(x).shape))
    return o.call("to_windows", wide, **windows_attrs(a), value=value)


def _numbers(o: Ops[Any], a: Any, rank: int) -> Any:
    """The taps' numbers, [*kernel, 1, ..], computed from the place, so that nothing is loaded."""
    shape = (*a.kernel, *(1,) * rank)
    number = o.iota(shape, 0, int32)
    for axis, size in enumerate(a.kernel[1:], 1):
        number = o.add(o.mul(number, size), o.iota(shape, axis, int32))
    return number


def expand_max_pool(o: Ops[Any], a: Any, x: Any) -> tuple[Any, Any]:
    if _is_parted(a):
        return _parted_max_pool(o, a, x)
    t = o.type_of(x)
    shape = counts_of("max_pool", a, t.shape)
    first = _first(o, a, t.shape, shape)
    if not _unrolled(a):
        return _reduced_max_pool(o, a, x, first)
    best, *more = _slices(o, a, x, -np.inf, shape)
    taps = first  # which is 0 where the first tap lies inside
    for number, here in enumerate(more, 1):
        wins = o.logical_or(o.gt(here, best), o.call("isnan", here))
        best, taps = o.where(wins, here, best), o.where(wins, number, taps)
    return best, taps


def _parted_max_pool(o: Ops[Any], a: Any, x: Any) -> tuple[Any, Any]:
    """Along the last axis, then of these along the others: the first of equals in row-major order
    is the first of the first row that has one, and the last NaN that of the last row."""
    best, inner = o.call_multi("max_pool", x, **_along_some(a, _LAST))
    others = _along_some(a, _OTHERS)
    best, outer = o.call_multi("max_pool", best, **others)
    tap = o.call("max_pool_at", inner, outer, **others)
    return best, o.add(o.mul(outer, a.kernel[-1]), tap)


def _first(o: Ops[Any], a: Any, shape: Shape, windows: Shape) -> Any:
    """The first tap of each window, an int32 of the shape of the windows."""
    if not any(low for low, _ in a.padding):
        return o.full(windows, 0, int32)
    sizes, counts = (
        int_sizes([s[axis] for axis in a.axes], "max_pool's sizes") for s in (shape, windows)
    )
    first = along(a, first_taps(a, sizes, counts), len(shape))
    return o.broadcast_to(o.const(first, int32), windows)


def _reduced_max_pool(o: Ops[Any], a: Any, x: Any, first: Any) -> tuple[Any, Any]:
    """By reductions over the taps: the smallest number of those that hold the maximum, but none
    before the first tap inside; of NaNs the largest."""
    shape, rank = o.type_of(first).shape, len(a.kernel)
    taps, ones = tuple(range(rank)), (1,) * rank
    here = _as_windows(o, a, x, -np.inf)
    numbers = _numbers(o, a, len(shape))
    best = o.max(here, taps, keepdims=True)
    holds = o.where(o.eq(here, best), numbers, prod(a.kernel))
    tap = o.call("min", holds, axes=taps, keepdims=True)
    last_nan = o.max(o.where(o.call("isnan", here), numbers, -1), taps, keepdims=True)
    tap = o.maximum(tap, o.reshape(first, (*ones, *shape)))
    tap = o.where(o.ge(last_nan, 0), last_nan, tap)
    return o.reshape(best, shape), o.reshape(tap, shape)


def expand_max_pool_at(o: Ops[Any], a: Any, x: Any, taps: Any) -> Any:
    shape = o.type_of(taps).shape
    if _unrolled(a):
        found = o.full(shape, 0, o.type_of(x).dtype)
        for number, here in enumerate(_slices(o, a, x, 0, shape)):
            found = o.where(o.eq(taps, number), here, found)
        return found
    chosen = o.eq(taps, _numbers(o, a, len(shape)))
    return o.sum(o.where(chosen, _as_windows(o, a, x, 0), 0), tuple(range(len(a.kernel))))


def expand_window_sum(o: Ops[Any], a: Any, x: Any) -> Any:
    if _is_parted(a):
        inner = o.call("window_sum", x, **_along_some(a, _LAST))
        return o.call("window_sum", inner, **_along_some(a, _OTHERS))
    if not _unrolled(a):
        return o.sum(_as_windows(o, a, x, 0), tuple(range(len(a.kernel))))
    total, *more = _slices(o, a, x, 0, counts_of("window_sum", a, o.type_of(x).shape))
    for here in more:
        total = o.add(total, here)
    return total


def expand_max_pool_grad(o: Ops[Any], a: Any, g: Any, taps: Any) -> Any:
    chosen = o.eq(taps, _numbers(o, a, o.type_of(g).rank))
    return _summed_back(o, a, o.where(chosen, g, 0))


def expand_window_spread(o: Ops[Any], a: Any, g: Any) -> Any:
    if _is_parted(a):
        size = a.size
        outer = o.call("window_spread", g, size=size[:-1], **_along_some(a, _OTHERS))
        return o.call("window_spread", outer, size=size[-1:], **_along_some(a, _LAST))
    return _summed_back(o, a, o.broadcast_to(g, (*a.kernel, *o.type_of(g).shape)))


def _summed_back(o: Ops[Any], a: Any, y: Any) -> Any:
    """For each element the sum of y[tap, window] over all that lie on it."""
    back = o.call("from_windows", y, size=a.size, **windows_attrs(a))
    turns = meetings(a)
    shape = o.type_of(back).shape[len(turns) :]
    if prod(turns) > _UNROLLED:
        return o.sum(back, tuple(range(len(turns))))
    total = None
    for turn in np.ndindex(*turns):
        part = _at(o, back, turn, shape)
        total = part if total is None else o.add(total, part)
    return total


def _at(o: Ops[Any], x: Any, lead: Sequence[int], shape: Sequence[Size]) -> Any:
    """x[lead], of `shape`."""
    starts, steps = (*lead, *(0,) * len(shape)), (1,) * (len(lead) + len(shape))
    one = (*(1,) * len(lead), *shape)
    if o.type_of(x).shape == one:
        return o.reshape(x, shape)
    return o.reshape(o.call("slice", x, starts=starts, steps=steps, shape=one), shape)
