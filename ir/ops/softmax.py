"""softmax, log_softmax, logsumexp: composites that subtract the maximum, with fixed conventions.

With m = max(x) along the axis:

    z = 0 where x == m, else x - m             every exponent is at most 0, and 0 at the maximum
    e = 0 where m == -inf, else exp(z)
    s = 1 where m == -inf, else sum(e)
    softmax = e / s,   logsumexp = m + log(s),   log_softmax = z - log(s), or -inf where m == -inf

So a row of -inf only gives softmax 0, logsumexp -inf, log_softmax -inf and gradient 0; k entries of
+inf share 1/k each; a NaN makes its row NaN. References follow the same lines in float64.
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
    Infer,
    Values,
    check_axis,
    check_count,
    check_dtype,
    scaled,
    with_kept_axes,
)
from treadle.ir.ops.sampling import uniform
from treadle.ir.types import FLOATS, TensorType, float32, float64, reduced_shape

NEG_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class AxisAttrs(Attrs):
    """The axis, counted from the front."""

    axis: int


@dataclass(frozen=True, slots=True)
class AxisReduceAttrs(Attrs):
    """The axis, counted from the front; `keepdims` leaves it with size 1."""

    axis: int
    keepdims: bool = False


# --- parts that the references share ----------------------------------------------------------


def shifted_exponentials(x: Array, axis: int) -> tuple[Array, Array, Array, Array]:
    """m, z, e, s of the head of this file, in float64, with the axis kept."""
    wide = x.astype(np.float64)
    m = np.max(wide, axis=axis, keepdims=True)
    z = np.where(wide == m, 0, wide - m)
    dead = m == NEG_INF
    e = np.where(dead, 0, np.exp(z))
    s = np.where(dead, 1, np.sum(e, axis=axis, keepdims=True))
    return m, z, e, s


def log_softmax64(x: Array, axis: int) -> Array:
    """log_softmax in float64."""
    m, z, _, s = shifted_exponentials(x, axis)
    return np.where(m == NEG_INF, NEG_INF, z - np.log(s))


def _ref_softmax(a: AxisAttrs, x: Array) -> Array:
    _, _, e, s = shifted_exponentials(x, a.axis)
    return (e / s).astype(x.dtype)


def _ref_logsumexp(a: AxisReduceAttrs, x: Array) -> Array:
    m, _, _, s = shifted_exponentials(x, a.axis)
    found = (m + np.log(s)).astype(x.dtype)
    return found if a.keepdims else np.squeeze(found, a.axis)


# --- parts that the expansions share -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """m, dead (m == -inf), z, e, s of the head of this file, as values with the axis kept."""

    m: Any
    dead: Any
    z: Any
    e: Any
    s: Any


def row_pass(o: Ops[Any], x: Any, axis: int) -> Row:
    """The maximum, the shifted exponentials and their sum: one pass over a row in cache."""
    m = o.max(x, axis, keepdims=True)
    z = below_maximum(o, x, m)
    dead = o.eq(m, NEG_INF)
    e = o.where(dead, 0, o.exp(z))
    s = o.where(dead, 1, o.sum(e, axis, keepdims=True))
    return Row(m, dead, z, e, s)


def below_maximum(o: Ops[Any], x: Any, m: Any) -> Any:
    """x - m, and 0 where x is m (infinite, perhaps)."""
    return o.where(o.eq(x, m), 0, o.sub(x, m))


def _expand_softmax(o: Ops[Any], a: AxisAttrs, x: Any) -> Any:
    row = row_pass(o, x, a.axis)
    return o.div(row.e, row.s)


def _expand_log_softmax(o: Ops[Any], a: AxisAttrs, x: Any) -> Any:
    row = row_pass(o, x, a.axis)
    return o.where(row.dead, NEG_INF, o.sub(row.z, o.log(row.s)))


def _expand_logsumexp(o: Ops[Any], a: AxisReduceAttrs, x: Any) -> Any:
    row = row_pass(o, x, a.axis)
    found = o.add(row.m, o.log(row.s))
    t = o.type_of(x)
    return o.reshape(found, reduced_shape(t.shape, (a.axis,), a.keepdims))


# --- derivatives -------------------------------------------------------------------------------


def _vjp_softmax(o: Ops[Any], a: AxisAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """y (ct - sum(ct y)); 0 for a row of zeros."""
    (y,), (ct,) = outs, cts
    mean = o.sum(scaled(o, ct, y), a.axis, keepdims=True)
    return (scaled(o, o.sub(ct, mean), y),)


def _vjp_log_softmax(o: Ops[Any], a: AxisAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """ct - exp(y) sum(ct); 0 for a row of -inf."""
    (y,), (ct,) = outs, cts
    total = o.sum(ct, a.axis, keepdims=True)
    dead = o.eq(o.max(y, a.axis, keepdims=True), NEG_INF)
    return (o.where(dead, 0, o.sub(ct, scaled(o, total, o.exp(y)))),)


def _vjp_logsumexp(o: Ops[Any], a: AxisReduceAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """softmax(x) ct."""
    (x,) = args
    ct = with_kept_axes(o, cts[0], o.type_of(x).shape, (a.axis,))
    return (scaled(o, ct, o.call("softmax", x, axis=a.axis)),)


# --- type rules and samples --------------------------------------------------------------------


def _checked(name: str, axis: int, types: tuple[TensorType, ...]) -> TensorType:
    check_count(name, types, 1)
    (t,) = types
    check_dtype(name, t, FLOATS)
    check_axis(name, axis, t.rank)
    if t.shape[axis] == 0:
        raise ShapeError(f"{name} along an axis of size 0: {t}, axis {axis}")
    return t


def _axis_rule(name: str) -> Infer:
    return lambda a, *types: _checked(name, a.axis, types)


def _infer_logsumexp(a: AxisReduceAttrs, *types: TensorType) -> TensorType:
    t = _checked("logsumexp", a.axis, types)
    return t.with_shape(reduced_shape(t.shape, (a.axis,), a.keepdims))


def hard_rows(dtype: Any = np.float32) -> Array:
    """Rows that overflow, underflow, hold infinities or NaN, or nothing but -inf."""
    inf, nan = np.inf, np.nan
    rows = [
        [1e38, -1e38, 3e38, 0], [-inf, -inf, -inf, -inf], [inf, 0, inf, -inf],
        [nan, 0, 1, 2], [-inf, 2.5, -inf, 2.5], [-1e4, -1e4, -1e4, -1e4], [0, -100, 90, 89.5],
    ]  # fmt: skip
    return np.array(rows, dtype)


def _samples(make: Any, ulps: float, scale: float) -> Any:
    """exp(x - m) is as exact as x - m is: |x - m| / 2 ULP, besides what the functions lose.

    `scale` allows a rounding of the largest logit to what cancels against it.
    """

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        cube = uniform(rng, (3, 4, 5), float64, -2, 2)
        yield Sample((cube,), make(1), True, ulps, scale)
        yield Sample((cube,), make(2), True, ulps, scale)
        yield Sample((uniform(rng, (7, 33), float32, -8, 8),), make(1), False, ulps, scale)
        yield Sample((hard_rows(),), make(1), False, ulps, scale)
        yield Sample((uniform(rng, (1,), float32, -8, 8),), make(0), False, ulps, scale)
        yield Sample((np.zeros((0, 3), np.float32),), make(1), False, ulps, scale)

    return samples


COMPOSITE = frozenset({Trait.COMPOSITE, Trait.EXPENSIVE})

SOFTMAX = register(
    OpDef(
        name="softmax",
        maths="y = exp(x - max x) / sum exp(x - max x) along the axis; 0 for a row of -inf",
        attrs=AxisAttrs,
        infer=_axis_rule("softmax"),
        ref=_ref_softmax,
        vjp=_vjp_softmax,
        expand=_expand_softmax,
        traits=COMPOSITE,
        samples=_samples(AxisAttrs, 12, 0),
    )
)

LOG_SOFTMAX = register(
    OpDef(
        name="log_softmax",
        maths="y = x - logsumexp(x) along the axis; -inf for a row of -inf",
        attrs=AxisAttrs,
        infer=_axis_rule("log_softmax"),
        ref=lambda a, x: log_softmax64(x, a.axis).astype(x.dtype),
        vjp=_vjp_log_softmax,
        expand=_expand_log_softmax,
        traits=COMPOSITE,
        samples=_samples(AxisAttrs, 4, 1),
    )
)

LOGSUMEXP = register(
    OpDef(
        name="logsumexp",
        maths="y = ln sum exp(x) along the axis; -inf for a row of -inf",
        attrs=AxisReduceAttrs,
        infer=_infer_logsumexp,
        ref=_ref_logsumexp,
        vjp=_vjp_logsumexp,
        expand=_expand_logsumexp,
        traits=COMPOSITE,
        samples=_samples(AxisReduceAttrs, 4, 1),
    )
)
