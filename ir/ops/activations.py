"""Activation functions: relu, sigmoid, softplus (one element each), and gelu, silu (composites).

An infinite operand of gelu and silu gives the limit (-inf gives -0), not the NaN of -inf * 0:
their formulas use the operand moved into the finite range, which changes no other value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.op import NO_ATTRS, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops import special
from treadle.ir.ops.rules import NUMBERS, Values, elementwise_rule, in_float64, scaled
from treadle.ir.ops.sampling import (
    INTEGER_SAMPLES,
    any_unary,
    float_unary,
    joined,
    special_floats,
    uniform,
)
from treadle.ir.ops.transcendental import math_function
from treadle.ir.scalar import Scalar
from treadle.ir.types import FLOATS, float32, float64

# --- primitive -------------------------------------------------------------------------------


def _lower_relu(s: Any, a: Attrs, x: Any) -> Any:
    zero = s.const(0, s.dtype_of(x))
    return s.select(s.compare("le", x, zero), zero, x)  # false for NaN, which stays


RELU = register(
    OpDef(
        name="relu",
        maths="y = x for x > 0, else 0; NaN stays; the derivative at 0 is 0",
        infer=elementwise_rule("relu", 1, NUMBERS),
        ref=lambda a, x: np.where(x <= 0, np.zeros((), x.dtype), x),
        vjp=lambda o, a, args, outs, cts: (o.where(o.gt(outs[0], 0), cts[0], 0),),
        lower=Scalar(_lower_relu),
        traits=frozenset({Trait.ELEMENTWISE, Trait.MONOTONE}),
        samples=joined(float_unary(0.1, 3, ulps=0), any_unary(INTEGER_SAMPLES)),
    )
)


def _sigmoid64(x: Array) -> Array:
    """By the exponential that cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus64(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


SIGMOID = register(
    math_function(
        "sigmoid",
        "y = 1 / (1 + e^-x)",
        _sigmoid64,
        lambda o, ct, x, y: scaled(o, ct, o.mul(y, o.sub(1, y))),
        float_unary(-3, 3, ulps=3),
    )
)

SOFTPLUS = register(
    math_function(
        "softplus",
        "y = ln(1 + e^x)",
        _softplus64,
        lambda o, ct, x, y: scaled(o, ct, o.sigmoid(x)),
        float_unary(-3, 3, ulps=4),
    )
)

# --- composites ------------------------------------------------------------------------------

_COMPOSITE = frozenset({Trait.ELEMENTWISE, Trait.COMPOSITE, Trait.EXPENSIVE})


@dataclass(frozen=True, slots=True)
class GeluAttrs(Attrs):
    """`approximate`: the tanh form instead of the exact one."""

    approximate: bool = False


def _above_minus_inf(o: Ops[Any], x: Any) -> Any:
    """x, with -inf raised to the lowest finite number."""
    return o.maximum(x, float(np.finfo(o.type_of(x).dtype.dtype).min))


def _within_finite(o: Ops[Any], x: Any) -> Any:
    """x, with infinities moved to the nearest finite number."""
    return o.minimum(_above_minus_inf(o, x), float(np.finfo(o.type_of(x).dtype.dtype).max))


_TANH_SCALE = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715  # Hendrycks and Gimpel, "Gaussian Error Linear Units"


def _gelu64(x: Array, approximate: bool) -> Array:
    finite = np.clip(x, np.finfo(x.dtype).min, None)
    wide = finite.astype(np.float64)
    if approximate:
        inner = _TANH_SCALE * (wide + _TANH_CUBIC * wide * wide * wide)
        return wide * _sigmoid64(2 * inner)
    return wide * special.normal_cdf(wide)


def _gate(o: Ops[Any], x: Any, approximate: bool) -> Any:
    """The factor between 0 and 1 that gelu multiplies its operand with: erfc(-x / sqrt 2) / 2, or
    (1 + tanh u) / 2 = sigmoid(2u). Neither cancels in the negative tail."""
    if not approximate:
        return o.mul(o.call("erfc", o.mul(x, -math.sqrt(0.5))), 0.5)
    cubic = o.add(o.mul(o.mul(x, x), 2 * _TANH_SCALE * _TANH_CUBIC), 2 * _TANH_SCALE)
    return o.sigmoid(o.mul(x, cubic))


def _expand_gelu(o: Ops[Any], a: GeluAttrs, x: Any) -> Any:
    finite = _above_minus_inf(o, x)
    return o.mul(finite, _gate(o, finite, a.approximate))


def _vjp_gelu(o: Ops[Any], a: GeluAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """gate(x) + x gate'(x). The exact gate is the normal distribution function, its derivative
    the bell; the other's is (1 - tanh^2) / 2 times the derivative of the cubic inside.

    The gate is written as in the function itself, so that one of them serves both."""
    gate = _gate(o, _above_minus_inf(o, args[0]), a.approximate)
    x = _within_finite(o, args[0])
    if a.approximate:
        # 4 gate (1 - gate) is 1 - tanh^2
        inner = o.add(o.mul(o.mul(x, x), 3 * _TANH_CUBIC * _TANH_SCALE), _TANH_SCALE)
        slope = o.mul(o.mul(gate, o.sub(1, gate)), 2)
        bent = o.where(o.eq(slope, 0), 0, o.mul(o.mul(slope, x), inner))  # 0 times overflow
    else:
        bell = o.mul(o.exp(o.mul(o.mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
        bent = o.mul(x, bell)
    return (scaled(o, cts[0], o.add(gate, bent)),)


def _composite_samples(*attrs: Attrs) -> Callable[..., Any]:
    """One rounding of the operand's size is allowed besides `ulps`: in the negative tail, where
    the result is far smaller than the operand, primitive ops keep no more."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for a in attrs:
            yield Sample((uniform(rng, (3, 5), float64, -3, 3),), a, True, 4, 1)
            yield Sample((uniform(rng, (33,), float32, -6, 6),), a, False, 4, 1)
            finite = special_floats(float32)
            yield Sample((finite[np.abs(finite) < 1e30],), a, False, 4, 1)
            edge = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
            yield Sample((edge,), a, False, 4, 0)
        yield Sample((np.zeros((0, 3), np.float32),), attrs[0], False)

    return samples


GELU = register(
    OpDef(
        name="gelu",
        maths="y = x (1 + erf(x / sqrt 2)) / 2, or by the tanh that approximates it",
        attrs=GeluAttrs,
        infer=elementwise_rule("gelu", 1, FLOATS),
        ref=lambda a, x: _gelu64(x, a.approximate).astype(x.dtype),
        vjp=_vjp_gelu,
        expand=_expand_gelu,
        traits=_COMPOSITE,
        samples=_composite_samples(GeluAttrs(), GeluAttrs(approximate=True)),
    )
)


def _ref_silu(a: Attrs, x: Array) -> Array:
    finite = np.clip(x, np.finfo(x.dtype).min, None)
    return in_float64(lambda wide: wide * _sigmoid64(wide))(a, finite)


def _expand_silu(o: Ops[Any], a: Attrs, x: Any) -> Any:
    finite = _above_minus_inf(o, x)
    return o.mul(finite, o.sigmoid(finite))


def _vjp_silu(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> Any:
    """sigmoid(x) (1 + x (1 - sigmoid(x)))."""
    gate = o.sigmoid(_above_minus_inf(o, args[0]))  # as in the function itself
    x = _within_finite(o, args[0])
    return (scaled(o, cts[0], o.mul(gate, o.add(o.mul(x, o.sub(1, gate)), 1))),)


SILU = register(
    OpDef(
        name="silu",
        maths="y = x sigmoid(x)",
        infer=elementwise_rule("silu", 1, FLOATS),
        ref=_ref_silu,
        vjp=_vjp_silu,
        expand=_expand_silu,
        traits=_COMPOSITE,
        samples=_composite_samples(NO_ATTRS),
    )
)
