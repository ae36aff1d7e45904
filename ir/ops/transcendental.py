"""Roots, exponentials, logarithms, powers, sine and cosine, erf, erfc, the inverse of erf.

References compute in float64 and round once. Compiled code is held to 2 ULP of them for exp, log
and sqrt and their nearest relatives, to 4 for the rest. At the edge of a function's domain, where
the derivative is infinite or NaN, a cotangent of exactly 0 gives 0 (see `rules.scaled`); any other
gives what IEEE arithmetic gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.op import NO_ATTRS, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops import special
from treadle.ir.ops.rules import (
    NUMBERS,
    Values,
    divided,
    elementwise_rule,
    in_float64,
    numpy_ref,
    scaled,
)
from treadle.ir.ops.sampling import (
    INTEGER_SAMPLES,
    Sampler,
    crossed,
    float_binary,
    float_unary,
    joined,
    special_integers,
)
from treadle.ir.scalar import MathName, Scalar
from treadle.ir.types import FLOATS, DType, float32, float64

ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
EXPENSIVE = ELEMENTWISE | {Trait.EXPENSIVE}
EXPENSIVE_MONOTONE = EXPENSIVE | {Trait.MONOTONE}


def math_function(
    name: MathName,
    maths: str,
    fn: Callable[..., Any],
    derivative: Callable[..., Any],
    samples: Sampler,
    monotone: bool = True,
) -> OpDef:
    """A float function of one element, lowered to the vector maths of its name.

    `derivative(o, ct, x, y)` is the cotangent of x.
    """
    return OpDef(
        name=name,
        maths=maths,
        infer=elementwise_rule(name, 1, FLOATS),
        ref=in_float64(fn),
        vjp=lambda o, a, args, outs, cts: (derivative(o, cts[0], args[0], outs[0]),),
        lower=Scalar(lambda s, a, x: s.math(name, x)),
        traits=EXPENSIVE_MONOTONE if monotone else EXPENSIVE,
        samples=samples,
    )


# --- roots -----------------------------------------------------------------------------------

SQRT = register(
    OpDef(
        name="sqrt",
        maths="y = sqrt(x), IEEE; NaN for x < 0; the derivative at 0 is inf",
        infer=elementwise_rule("sqrt", 1, FLOATS),
        ref=numpy_ref(np.sqrt),
        vjp=lambda o, a, args, outs, cts: (divided(o, o.mul(cts[0], 0.5), outs[0]),),
        lower=Scalar(lambda s, a, x: s.sqrt(x)),
        traits=ELEMENTWISE | {Trait.MONOTONE},
        samples=float_unary(0.2, 4, ulps=0),
    )
)


def _vjp_rsqrt(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    (y,) = outs
    return (scaled(o, cts[0], o.mul(o.mul(y, -0.5), o.mul(y, y))),)


RSQRT = register(
    OpDef(
        name="rsqrt",
        maths="y = 1 / sqrt(x)",
        infer=elementwise_rule("rsqrt", 1, FLOATS),
        ref=in_float64(lambda x: 1 / np.sqrt(x)),
        vjp=_vjp_rsqrt,
        lower=Scalar(lambda s, a, x: s.div(s.const(1.0, s.dtype_of(x)), s.sqrt(x))),
        traits=ELEMENTWISE,
        samples=float_unary(0.2, 4, ulps=2),
    )
)

# --- exponentials ----------------------------------------------------------------------------

EXP = register(
    math_function(
        "exp",
        "y = e^x",
        np.exp,
        lambda o, ct, x, y: scaled(o, ct, y),
        float_unary(-3, 3, ulps=3),
    )
)
EXPM1 = register(
    math_function(
        "expm1",
        "y = e^x - 1, accurate near 0",
        np.expm1,
        lambda o, ct, x, y: scaled(o, ct, o.add(y, 1)),
        float_unary(-3, 3, ulps=4),
    )
)
EXP2 = register(
    math_function(
        "exp2",
        "y = 2^x",
        np.exp2,
        lambda o, ct, x, y: scaled(o, ct, o.mul(y, math.log(2))),
        float_unary(-3, 3, ulps=4),
    )
)

# --- logarithms ------------------------------------------------------------------------------

LOG = register(
    math_function(
        "log",
        "y = ln x; -inf at 0, NaN for x < 0",
        np.log,
        lambda o, ct, x, y: divided(o, ct, x),
        float_unary(0.2, 4, ulps=2),
    )
)
LOG1P = register(
    math_function(
        "log1p",
        "y = ln(1 + x), accurate near 0",
        np.log1p,
        lambda o, ct, x, y: divided(o, ct, o.add(x, 1)),
        float_unary(-0.7, 4, ulps=4),
    )
)
LOG2 = register(
    math_function(
        "log2",
        "y = log2 x; -inf at 0, NaN for x < 0",
        np.log2,
        lambda o, ct, x, y: divided(o, o.mul(ct, 1 / math.log(2)), x),
        float_unary(0.2, 4, ulps=4),
    )
)

# --- circular and hyperbolic -----------------------------------------------------------------

SIN = register(
    math_function(
        "sin",
        "y = sin x, x in radians",
        np.sin,
        lambda o, ct, x, y: scaled(o, ct, o.call("cos", x)),
        float_unary(-3, 3, ulps=4),
        monotone=False,
    )
)
COS = register(
    math_function(
        "cos",
        "y = cos x, x in radians",
        np.cos,
        lambda o, ct, x, y: o.neg(scaled(o, ct, o.call("sin", x))),
        float_unary(-3, 3, ulps=4),
        monotone=False,
    )
)
TANH = register(
    math_function(
        "tanh",
        "y = tanh x",
        np.tanh,
        lambda o, ct, x, y: scaled(o, ct, o.mul(o.sub(1, y), o.add(1, y))),
        float_unary(-3, 3, ulps=2),
    )
)

# --- error function --------------------------------------------------------------------------


def _erf_derivative(o: Ops[Any], ct: Any, x: Any, y: Any) -> Any:
    bell = o.exp(o.neg(o.mul(x, x)))
    return scaled(o, ct, o.mul(bell, 2 / math.sqrt(math.pi)))


def _erfinv_derivative(o: Ops[Any], ct: Any, x: Any, y: Any) -> Any:
    return scaled(o, ct, o.mul(o.exp(o.mul(y, y)), math.sqrt(math.pi) / 2))


ERF = register(
    math_function(
        "erf",
        "y = 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x",
        special.erf,
        _erf_derivative,
        float_unary(-2, 2, ulps=4),
    )
)
ERFC = register(
    math_function(
        "erfc",
        "y = 1 - erf(x), without the cancellation for large x",
        special.erfc,
        lambda o, ct, x, y: o.neg(_erf_derivative(o, ct, x, y)),
        float_unary(-2, 4, ulps=4),
        monotone=False,
    )
)
ERFINV = register(
    math_function(
        "erfinv",
        "the y with erf(y) = x; inf at 1, -inf at -1, NaN outside",
        special.erfinv,
        _erfinv_derivative,
        float_unary(-0.9, 0.9, ulps=4),
    )
)

# --- powers ----------------------------------------------------------------------------------


def _ref_pow(a: Attrs, x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        # not np.power: one exponent of 0.5 for all takes a square root there, so (-inf)^0.5 is NaN
        return in_float64(np.float_power)(a, x, y)
    base, power = np.broadcast_arrays(x, y)
    negative = power < 0
    result = np.power(base, np.where(negative, power & 1, power))
    return np.where(negative & (np.abs(base) != 1), 0, result).astype(x.dtype)


def _lower_pow(s: Any, a: Attrs, x: Any, y: Any) -> Any:
    """Floats: the vector maths. Integers: by squaring, one step a bit of the exponent."""
    dtype: DType = s.dtype_of(x)
    if dtype.is_float:
        return s.math("pow", x, y)
    zero, one = s.const(0, dtype), s.const(1, dtype)
    signed = dtype.kind == "i"
    result, square, rest = one, x, y
    for _ in range(dtype.bits - signed):
        odd = s.compare("ne", s.and_(rest, one), zero)
        result = s.select(odd, s.mul(result, square), result)
        square = s.mul(square, square)
        rest = s.shift_right(rest, one)
    if not signed:
        return result
    # A negative power of 1 or -1 depends on its lowest bit only; of others it truncates to 0.
    unit = s.compare("eq", s.abs(x), one)
    return s.select(s.compare("lt", y, zero), s.select(unit, result, zero), result)


def _vjp_pow(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    """y x^(y-1) and x^y ln x.

    d/dx at y = 0 is 0, at x = 0 too; elsewhere at x = 0 it is what the formula gives (inf for
    y < 1). d/dy is 0 for x <= 0: at 0 by continuity (y > 0), below as only whole y exist.
    """
    (x, y), (z,), (ct,) = args, outs, cts
    slope = scaled(o, y, o.pow(x, o.sub(y, 1)))
    positive = o.where(o.le(x, 0), 0, z)
    return scaled(o, ct, slope), scaled(o, ct, scaled(o, positive, o.log(x)))


def _samples_pow(rng: np.random.Generator) -> Any:
    yield from float_binary(0.3, 2.5, ulps=4)(rng)
    for dtype in INTEGER_SAMPLES:
        yield Sample(crossed(*(special_integers(dtype),) * 2), NO_ATTRS, False)
    for kind in (float32, float64):
        base = np.array([-3.0, -0.5, -0.0, 0.0, 0.7, 2.0], kind.dtype)
        power = np.array([-3, -2, -0.5, 0, 0.5, 1, 2, 3, 25], kind.dtype)
        yield Sample(crossed(base, power), NO_ATTRS, False, 4)


POW = register(
    OpDef(
        name="pow",
        maths="z = x^y; x^0 = 1; integers wrap, x^-n = 1/x^n without its fraction, 0^-n = 0",
        infer=elementwise_rule("pow", 2, NUMBERS),
        ref=_ref_pow,
        vjp=_vjp_pow,
        lower=Scalar(_lower_pow),
        traits=EXPENSIVE,
        samples=joined(_samples_pow),
    )
)
