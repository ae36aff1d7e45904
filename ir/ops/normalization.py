"""mean, var and layer_norm: composites over sums.

Both var and layer_norm are two passes over the data, the second over x - mean: the one-pass
formula mean(x^2) - mean(x)^2 loses all digits where the mean is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import (
    ReduceAttrs,
    Values,
    check_axes,
    check_count,
    check_dtype,
    count_along,
    reduction_rule,
    scaled,
    widened,
    with_kept_axes,
)
from treadle.ir.ops.sampling import special_floats, uniform
from treadle.ir.types import FLOATS, TensorType, float32, float64, reduced_shape

COMPOSITE = frozenset({Trait.COMPOSITE})


# --- mean ------------------------------------------------------------------------------------


def _kept_mean(o: Ops[Any], x: Any, axes: Sequence[int]) -> Any:
    return o.div(o.sum(x, axes, keepdims=True), count_along(o, x, axes))


def _drop_axes(o: Ops[Any], kept: Any, x: Any, a: Any) -> Any:
    return o.reshape(kept, reduced_shape(o.type_of(x).shape, a.axes, a.keepdims))


def _vjp_mean(o: Ops[Any], a: ReduceAttrs, args: Values, outs: Values, cts: Values) -> Any:
    (x,) = args
    shape = o.type_of(x).shape
    ct = with_kept_axes(o, cts[0], shape, a.axes)
    return (o.broadcast_to(o.div(ct, count_along(o, x, a.axes)), shape),)


def _ref_mean(a: ReduceAttrs, x: Array) -> Array:
    return _wide_mean(widened(x), a.axes, a.keepdims).astype(x.dtype)


def _wide_mean(wide: Array, axes: Sequence[int], keepdims: bool = True) -> Array:
    """NumPy's own mean warns about no elements; this gives its NaN in silence."""
    count = math.prod(wide.shape[i] for i in axes)
    return np.asarray(np.sum(wide, axis=tuple(axes), keepdims=keepdims)) / np.float64(count)


def _mean_samples(rng: np.random.Generator) -> Iterable[Sample]:
    smooth = uniform(rng, (3, 4, 5), float64, -1, 1.5)
    yield Sample((smooth,), ReduceAttrs((1,)), True, 2, 2)
    yield Sample((smooth,), ReduceAttrs((0, 2), True), True, 2, 4)
    yield Sample((uniform(rng, (7, 33), float32, -1, 1),), ReduceAttrs((1,), True), False, 2, 8)
    yield Sample((np.resize(special_floats(float32)[:11], (3, 5)),), ReduceAttrs((1,)), False, 2, 2)
    yield Sample((np.zeros((3, 0), np.float32),), ReduceAttrs((1,)), False)


MEAN = register(
    OpDef(
        name="mean",
        maths="y = sum of x over axes / their size; NaN for no elements",
        attrs=ReduceAttrs,
        infer=reduction_rule("mean", FLOATS),
        ref=_ref_mean,
        vjp=_vjp_mean,
        expand=lambda o, a, x: _drop_axes(o, _kept_mean(o, x, a.axes), x, a),
        traits=COMPOSITE,
        samples=_mean_samples,
    )
)

# --- var -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VarAttrs(Attrs):
    """The sum of squares is divided by the number of elements minus `correction`, at least 0."""

    axes: tuple[int, ...]
    correction: float = 0.0
    keepdims: bool = False


def _infer_var(a: VarAttrs, *types: TensorType) -> TensorType:
    check_count("var", types, 1)
    (t,) = types
    check_dtype("var", t, FLOATS)
    check_axes("var", a.axes, t.rank)
    return t.with_shape(reduced_shape(t.shape, a.axes, a.keepdims))


def _freedom(o: Ops[Any], a: VarAttrs, x: Any) -> Any:
    """The divisor: a float, or a value where a size is symbolic."""
    count = count_along(o, x, a.axes)
    if isinstance(count, float):
        return max(count - a.correction, 0.0)
    return o.maximum(o.sub(count, a.correction), 0)


def _centered(o: Ops[Any], x: Any, axes: Sequence[int]) -> Any:
    return o.sub(x, o.call("mean", x, axes=tuple(axes), keepdims=True))


def _expand_var(o: Ops[Any], a: VarAttrs, x: Any) -> Any:
    off = _centered(o, x, a.axes)
    squares = o.sum(o.mul(off, off), a.axes, keepdims=True)
    return _drop_axes(o, o.div(squares, _freedom(o, a, x)), x, a)


def _vjp_var(o: Ops[Any], a: VarAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """2 (x - mean) / (n - correction) ct. The mean's own share is 0: sum(x - mean) is 0."""
    (x,) = args
    ct = with_kept_axes(o, cts[0], o.type_of(x).shape, a.axes)
    return (scaled(o, o.div(o.mul(ct, 2), _freedom(o, a, x)), _centered(o, x, a.axes)),)


def _ref_var(a: VarAttrs, x: Array) -> Array:
    wide = widened(x)
    off = wide - _wide_mean(wide, a.axes)
    squares = np.asarray(np.sum(off * off, axis=a.axes, keepdims=a.keepdims))
    freedom = max(math.prod(x.shape[i] for i in a.axes) - a.correction, 0)
    return (squares / np.float64(freedom)).astype(x.dtype)


def _var_samples(rng: np.random.Generator) -> Iterable[Sample]:
    smooth = uniform(rng, (3, 4, 5), float64, -1, 1.5)
    yield Sample((smooth,), VarAttrs((1,)), True, 4, 4)
    yield Sample((smooth,), VarAttrs((0, 2), 1.0, True), True, 4, 8)
    yield Sample((uniform(rng, (7, 33), float32, 99, 101),), VarAttrs((1,), 1.0), False, 4, 0.5)
    yield Sample((uniform(rng, (4, 1), float32, -1, 1),), VarAttrs((1,), 1.0), False, 4)
    yield Sample((np.zeros((0, 3), np.float32),), VarAttrs((1,)), False)


VAR = register(
    OpDef(
        name="var",
        maths="y = sum (x - mean x)^2 over axes / max(size - correction, 0)",
        attrs=VarAttrs,
        infer=_infer_var,
        ref=_ref_var,
        vjp=_vjp_var,
        expand=_expand_var,
        traits=COMPOSITE,
        samples=_var_samples,
    )
)

# --- layer_norm ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerNormAttrs(Attrs):
    """The axes that are normalised together, ascending, and what is added to the variance."""

    axes: tuple[int, ...]
    eps: float = 1e-5


def _infer_layer_norm(a: LayerNormAttrs, *types: TensorType) -> TensorType:
    check_count("layer_norm", types, 1)
    check_dtype("layer_norm", types[0], FLOATS)
    check_axes("layer_norm", a.axes, types[0].rank)
    return types[0]


def _scale(o: Ops[Any], a: LayerNormAttrs, x: Any) -> tuple[Any, Any]:
    """x - mean, and 1 / sqrt(var + eps). Forward and backward write the same instructions, so
    that value numbering leaves one of each."""
    off = _centered(o, x, a.axes)
    var = o.call("mean", o.mul(off, off), axes=a.axes, keepdims=True)
    return off, o.call("rsqrt", o.add(var, a.eps))


def _expand_layer_norm(o: Ops[Any], a: LayerNormAttrs, x: Any) -> Any:
    off, scale = _scale(o, a, x)
    return o.mul(off, scale)


def _vjp_layer_norm(o: Ops[Any], a: LayerNormAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """(ct - mean(ct) - y mean(ct y)) / sqrt(var + eps)."""
    (x,), (y,), (ct,) = args, outs, cts
    _, scale = _scale(o, a, x)
    flat = o.call("mean", ct, axes=a.axes, keepdims=True)
    along = o.call("mean", scaled(o, ct, y), axes=a.axes, keepdims=True)
    return (scaled(o, o.sub(o.sub(ct, flat), scaled(o, along, y)), scale),)


def _ref_layer_norm(a: LayerNormAttrs, x: Array) -> Array:
    wide = widened(x)
    off = wide - _wide_mean(wide, a.axes)
    var = _wide_mean(off * off, a.axes)
    return np.asarray(off / np.sqrt(var + a.eps)).astype(x.dtype)


def _layer_norm_samples(rng: np.random.Generator) -> Iterable[Sample]:
    smooth = uniform(rng, (3, 4, 5), float64, -1, 1.5)
    yield Sample((smooth,), LayerNormAttrs((2,)), True, 4, 8)
    yield Sample((smooth,), LayerNormAttrs((1, 2), 1e-3), True, 4, 8)
    yield Sample((uniform(rng, (7, 33), float32, -3, 3),), LayerNormAttrs((1,)), False, 4, 8)
    yield Sample((np.full((2, 5), 3, np.float32),), LayerNormAttrs((1,)), False, 4)
    rows = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [0.0, -0.0, 0]], np.float32)
    yield Sample((rows,), LayerNormAttrs((1,)), False, 4)
    yield Sample((np.zeros((0, 3), np.float32),), LayerNormAttrs((1,)), False)


LAYER_NORM = register(
    OpDef(
        name="layer_norm",
        maths="y = (x - mean x) / sqrt(var x + eps) over axes; var is not corrected",
        attrs=LayerNormAttrs,
        infer=_infer_layer_norm,
        ref=_ref_layer_norm,
        vjp=_vjp_layer_norm,
        expand=_expand_layer_norm,
        traits=COMPOSITE | {Trait.EXPENSIVE},
        samples=_layer_norm_samples,
    )
)
