"""batch_norm: normalisation over all axes but one, with a scale and a shift for each channel.

One op, and not a layer_norm with a product and a sum behind it, for the sake of the backward pass:
the two sums that the gradients by scale and shift are, are the two that the gradient by x needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import (
    Values,
    check_axis,
    check_dtype,
    check_same_dtype,
    count_along,
    scaled,
    widened,
)
from treadle.ir.types import FLOATS, TensorType, shape_text


@dataclass(frozen=True, slots=True)
class BatchNormAttrs(Attrs):
    """The `axis` of the channels, and what is added to the variance."""

    axis: int = 1
    eps: float = 1e-5


def _infer(a: BatchNormAttrs, x: TensorType, weight: TensorType, bias: TensorType) -> TensorType:
    check_dtype("batch_norm", x, FLOATS)
    check_same_dtype("batch_norm", (x, weight, bias))
    check_axis("batch_norm", a.axis, x.rank)
    channels = (x.shape[a.axis],)
    if weight.shape != channels or bias.shape != channels:
        raise ShapeError(
            f"batch_norm of {shape_text(x.shape)} along axis {a.axis} needs a scale and a shift of "
            f"shape {shape_text(channels)}, found {shape_text(weight.shape)} and "
            f"{shape_text(bias.shape)}"
        )
    return x


def _others(a: BatchNormAttrs, rank: int) -> tuple[int, ...]:
    """The axes that are normalised over."""
    return tuple(i for i in range(rank) if i != a.axis)


def _wide(o: Ops[Any], a: BatchNormAttrs, x: Any, per_channel: Any) -> Any:
    """One number a channel, in a shape that broadcasts to x."""
    t = o.type_of(x)
    return o.reshape(per_channel, [s if i == a.axis else 1 for i, s in enumerate(t.shape)])


def _statistics(o: Ops[Any], a: BatchNormAttrs, x: Any) -> tuple[Any, Any]:
    """x - mean, and 1 / sqrt(var + eps). Forward, backward and running statistics write the same
    instructions, so that value numbering leaves one of each."""
    axes = _others(a, o.type_of(x).rank)
    off = o.sub(x, o.call("mean", x, axes=axes, keepdims=True))
    var = o.call("mean", o.mul(off, off), axes=axes, keepdims=True)
    return off, o.call("rsqrt", o.add(var, a.eps))


def _expand(o: Ops[Any], a: BatchNormAttrs, x: Any, weight: Any, bias: Any) -> Any:
    off, scale = _statistics(o, a, x)
    scale = o.mul(scale, _wide(o, a, x, weight))
    return o.add(o.mul(off, scale), _wide(o, a, x, bias))


def _vjp(o: Ops[Any], a: BatchNormAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """With y = (x - mean) / sqrt(var + eps): the shift's is sum(ct), the scale's sum(ct y), and
    x's weight / sqrt(var + eps) (ct - (sum(ct) + y sum(ct y)) / n)."""
    (x, weight, _), (ct,) = args, cts
    off, scale = _statistics(o, a, x)
    axes = _others(a, o.type_of(x).rank)
    of_shift = o.sum(ct, axes, keepdims=True)
    of_scale = o.mul(o.sum(scaled(o, ct, off), axes, keepdims=True), scale)
    count = count_along(o, x, axes)
    each = o.mul(o.div(of_scale, count), scale)
    share = o.add(o.div(of_shift, count), scaled(o, each, off))
    back = scaled(o, o.sub(ct, share), o.mul(scale, _wide(o, a, x, weight)))
    channels = o.type_of(weight).shape
    return back, o.reshape(of_scale, channels), o.reshape(of_shift, channels)


def _ref(a: BatchNormAttrs, x: Array, weight: Array, bias: Array) -> Array:
    axes = _others(a, x.ndim)
    shape = [-1 if i == a.axis else 1 for i in range(x.ndim)]
    count = np.float64(x.size // max(x.shape[a.axis], 1))
    wide, scale, shift = widened(x), widened(weight).reshape(shape), widened(bias).reshape(shape)
    off = wide - np.sum(wide, axis=axes, keepdims=True) / count
    var = np.sum(off * off, axis=axes, keepdims=True) / count
    return np.asarray(off / np.sqrt(var + a.eps) * scale + shift).astype(x.dtype)


def _samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(shape: tuple[int, ...], axis: int, dtype: Any, eps: float = 1e-3) -> Sample:
        x = rng.uniform(-2, 3, shape).astype(dtype)
        weight, bias = rng.uniform(-1, 1, (2, shape[axis])).astype(dtype)
        attrs = BatchNormAttrs(axis, eps)
        return Sample((x, weight, bias), attrs, dtype is np.float64, ulps=4, scale=16)

    for shape, axis in (((5, 3), 1), ((4, 2, 3), 1), ((2, 3, 2, 2), 1), ((3, 4), 0)):
        yield sample(shape, axis, np.float64)
    for size in (1, 3, 8, 15, 16, 17, 33):
        yield sample((4, size), 1, np.float32)
        yield sample((3, 2, size), 1, np.float32)
    yield sample((0, 3), 1, np.float32)
    yield sample((4, 0), 1, np.float32)
    ones = np.ones(2, np.float32)
    odd = np.array([[np.nan, 1], [np.inf, 2], [0, 4]], np.float32)
    yield Sample((odd, ones, ones), BatchNormAttrs(1), False, 4, 8)


BATCH_NORM = register(
    OpDef(
        name="batch_norm",
        maths="y = (x - mean x) / sqrt(var x + eps) * weight + bias, over all axes but axis",
        attrs=BatchNormAttrs,
        infer=_infer,
        ref=_ref,
        vjp=_vjp,
        expand=_expand,
        traits=frozenset({Trait.COMPOSITE, Trait.EXPENSIVE}),
        samples=_samples,
    )
)
