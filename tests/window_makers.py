"""Makers of random programs (see `programs`) for convolutions, pools and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from programs import Draft, maker, numbers

from treadle.ir.graph import Value
from treadle.ir.op import ArrayData, get_op
from treadle.ir.ops.sliding import meetings
from treadle.ir.types import int64


def _windows(d: Draft, rank: int) -> dict[str, Any]:
    """A stride, pads and a dilation for each of `rank` spatial axes."""
    return {
        "stride": tuple(d.one_of((1, 1, 2, 3)) for _ in range(rank)),
        "padding": tuple((d.choose(3), d.choose(3)) for _ in range(rank)),
        "dilation": tuple(d.one_of((1, 1, 2)) for _ in range(rank)),
    }


def _weight(d: Draft, x: Value, groups: int) -> Value:
    """A weight for the channels of `x`: of its own elements, or a constant."""
    channels, *size = x.type.static_shape[1:]
    taps = [1 + d.choose(min(n, 3)) if n else 1 for n in size]
    if groups == 1 and d.flag():
        shape = (x.type.static_shape[0], channels, *taps)
        zeros, ones = (0,) * len(shape), (1,) * len(shape)
        return d.b.call("slice", x, starts=zeros, steps=ones, shape=shape)
    shape = (groups * (1 + d.choose(2)), channels // groups, *taps)
    rng = np.random.default_rng(d.choose(99))
    return d.b.const(numbers(rng, shape, x.type.dtype, d.menu), x.type.dtype)


@maker("conv", "conv_input_grad", "conv_weight_grad")
def _conv(d: Draft, name: str) -> Value:
    """A convolution, or that and a derivative of it."""
    x = d.value(floats=True, rank=3)
    shape = x.type.static_shape
    groups = shape[1] if shape[1] and d.choose(3) == 0 else 1
    w = _weight(d, x, groups)
    windows = {**_windows(d, len(shape) - 2), "groups": groups}
    g = d.b.call("conv", x, w, **windows)
    if name == "conv_input_grad":
        return d.b.call(name, g, w, size=shape[2:], **windows)
    if name == "conv_weight_grad":
        return d.b.call(name, x, g, size=w.type.shape[2:], **windows)
    return g


def _pool(d: Draft, x: Value) -> dict[str, Any]:
    """Windows along one axis of `x` or two."""
    first = d.choose(x.type.rank)
    axes = tuple(range(first, min(first + 1 + d.choose(2), x.type.rank)))
    sizes = [x.type.static_shape[axis] for axis in axes]
    kernel = tuple(1 + d.choose(min(n, 3)) if n else 1 for n in sizes)
    return {"axes": axes, "kernel": kernel, **_windows(d, len(axes))}


@maker("max_pool", "max_pool_at", "max_pool_grad")
def _max_pool(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    windows = _pool(d, x)
    y, tap = d.b.call_multi("max_pool", x, **windows)
    if name == "max_pool_at":
        return d.b.call(name, d.b.neg(x), tap, **windows)
    if name == "max_pool_grad":
        size = tuple(x.type.shape[axis] for axis in windows["axes"])
        return d.b.call(name, y, tap, size=size, **windows)
    return y if d.choose(3) else tap


@maker("window_sum", "window_spread")
def _window_sum(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    windows = _pool(d, x)
    y = d.b.call("window_sum", x, **windows)
    if name == "window_sum":
        return y
    return d.b.call(name, y, size=tuple(x.type.shape[i] for i in windows["axes"]), **windows)


@maker("to_windows", "from_windows")
def _to_windows(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    windows = _pool(d, x)
    turns = meetings(get_op("to_windows").attrs(**windows))
    wide = d.b.broadcast_to(x, (*turns, *x.type.shape))
    y = d.b.call("to_windows", wide, **windows, value=d.one_of((0.0, 1.0)))
    if name == "to_windows":
        return y
    return d.b.call(name, y, size=tuple(x.type.shape[i] for i in windows["axes"]), **windows)


@maker("resample")
def _resample(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    axis = d.choose(x.type.rank)
    rng = np.random.default_rng(d.choose(99))
    shape = (1 + d.choose(4), 1 + d.choose(3))
    index = rng.integers(0, x.type.static_shape[axis], shape)
    weights = rng.uniform(0, 1, shape) * rng.integers(0, 2, shape)
    tables = {"index": ArrayData.of(index), "weights": ArrayData.of(weights)}
    return d.b.call(name, x, axis=axis, **tables)


@maker("pick")
def _pick(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    axis = d.choose(x.type.rank)
    size = x.type.static_shape[axis]
    index = np.random.default_rng(d.choose(99)).integers(-1, size + 1, 1 + d.choose(4))
    return d.b.call(name, x, d.b.const(index, int64), axis=axis)
