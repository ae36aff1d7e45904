"""exp and what is made of it: exp2, expm1, sigmoid, tanh, softplus.

    e^x = 2^n e^r,  n = rint(x / ln 2),  |r| <= ln(2) / 2

r by Cody and Waite (n * ln2_high is exact), e^r by a polynomial. The coefficients are Chebyshev
interpolants, made with 50 digits; beside each stands the interval and the error there.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import Val
from treadle.codegen.vecmath_core import LOG2_E, Maths
from treadle.codegen.vecmath_log import log1p_of_exp

# (e^r - 1 - r) / r^2 on [-0.3469, 0.3469]: 6.5e-8, and 1.1e-16.
_EXP32: Final = (0.5, 0.166665763, 0.0416665524, 0.00836323295, 0.00139262504)
_EXP64: Final = (
    0.50000000000000011, 0.16666666666666669, 0.041666666666623824, 0.008333333333330039,
    0.0013888888917367081, 0.00019841269863171557, 2.4801521057868204e-05,
    2.7557268276905696e-06, 2.7620201591031547e-07, 2.5100472505694996e-08,
)  # fmt: skip

# (2^r - 1) / r on [-0.5005, 0.5005]: 7.9e-9, and 1.3e-17.
_EXP2_32: Final = (
    0.693147182, 0.240226507, 0.0555035695, 0.00961808208, 0.00133909786, 0.000154532623,
)  # fmt: skip
_EXP2_64: Final = (
    0.69314718055994529, 0.24022650695910097, 0.055504108664821597, 0.0096181291076067148,
    0.0013333558146416842, 0.00015403530442027069, 1.525273382999124e-05,
    1.3215442410711872e-06, 1.0178062351388103e-07, 7.0726213565393491e-09,
    4.4549794711760611e-10,
)  # fmt: skip

# (tanh(sqrt z) / sqrt z - 1) / z on [0, 0.3025]: 1.3e-8.
_TANH32: Final = (-0.333333313, 0.133331135, -0.0539094284, 0.0213093888, -0.00661022775)


def _reduced(m: Maths, x: Val) -> tuple[Val, Val, Val]:
    """(t, n, r): x = n ln 2 + r; `t` holds n in its low bits."""
    t, n = m.nearest(x, LOG2_E)
    r = m.muladd(n, -m.format.ln2_high, x)
    return t, n, m.muladd(n, -m.format.ln2_low, r)


def _tail(m: Maths) -> tuple[float, ...]:
    return _EXP64 if m.double else _EXP32


def exp(m: Maths, x: Val) -> Val:
    """e^x; 13 instructions for float32 on AVX-512, 20 on AVX2."""
    return _exp_clamped(m, m.at_most(m.at_least(x, m.format.exp_low), m.format.exp_high))


def exp_of_negative(m: Maths, x: Val) -> Val:
    """e^x for x <= 0 (or NaN)."""
    return _exp_clamped(m, m.at_least(x, m.format.exp_low))


def _exp_clamped(m: Maths, x: Val) -> Val:
    t, n, r = _reduced(m, x)
    return m.scaled(m.poly(r, (1.0, 1.0, *_tail(m))), t, n)


def exp2(m: Maths, x: Val) -> Val:
    """2^x, with the reduction exact."""
    low, high = (-1076.0, 1025.0) if m.double else (-151.0, 129.0)
    x = m.at_most(m.at_least(x, low), high)
    t, n = m.nearest(x, 1.0)
    return m.scaled(exp2_fraction(m, m.sub(x, n)), t, n)


def exp2_fraction(m: Maths, r: Val) -> Val:
    """2^r for |r| <= 1/2."""
    return m.poly(r, (1.0, *(_EXP2_64 if m.double else _EXP2_32)))


def expm1(m: Maths, x: Val) -> Val:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n cannot overflow early."""
    # Below the lower clamp the result rounds to -1.
    clamped = m.at_most(m.at_least(x, -40.0 if m.double else -18.0), m.format.exp_high)
    t, _, r = _reduced(m, clamped)
    p = m.muladd(m.mul(r, r), m.poly(r, _tail(m)), r)
    half = m.power_of_two(t, -1)
    result = m.muladd(half, p, m.sub(half, 0.5))
    tiny = m.less(m.abs(x), 2.0**-54 if m.double else 2.0**-25)  # keeps -0 and subnormals
    return m.select(tiny, x, m.add(result, result))


def sigmoid(m: Maths, x: Val) -> Val:
    """1 / (1 + e^-x): with e = e^-|x| and s = e / (1 + e), 1 - s for x >= 0 and e - e s below.

    Below 0 that is s again, but without the rounding of 1 + e where s is small.
    """
    e = exp_of_negative(m, m.w.fneg(m.abs(x)))
    s = m.div(e, m.add(e, 1.0))
    whole = m.select(m.less(x, 0.0), e, 1.0)
    return m.muladd(m.w.fneg(whole), s, whole)


def tanh(m: Maths, x: Val) -> Val:
    """1 - 2 / (e^2|x| + 1) with the sign of x; near 0 a form without the cancellation."""
    size = m.abs(x)
    # From this bound on the result rounds to 1.
    y = m.at_most(size, 20.0 if m.double else 9.5)
    t, _, r = _reduced(m, m.add(y, y))
    if m.double:
        small = _tanh_by_expm1(m, t, r)
        result = m.select(m.less(size, 2.0**-28), size, small)
        return m.copysign(result, x)
    e = m.mul(m.poly(r, (1.0, 1.0, *_EXP32)), m.power_of_two(t))
    large = m.sub(m.const(1.0), m.div(m.const(2.0), m.add(e, 1.0)))
    z = m.mul(size, size)
    small = m.muladd(m.mul(size, z), m.poly(z, _TANH32), size)
    return m.copysign(m.select(m.less(size, 0.55), small, large), x)


def _tanh_by_expm1(m: Maths, t: Val, r: Val) -> Val:
    """(e - 1) / (e + 1) from d = e - 1 = e^2x - 1: d / (d + 2)."""
    p = m.muladd(m.mul(r, r), m.poly(r, _EXP64), r)
    scale = m.power_of_two(t)
    d = m.muladd(scale, p, m.sub(scale, 1.0))
    return m.div(d, m.add(d, 2.0))


def softplus(m: Maths, x: Val) -> Val:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    e = exp_of_negative(m, m.w.fneg(m.abs(x)))
    positive = m.select(m.more(x, 0.0), x, 0.0)
    return m.add(positive, log1p_of_exp(m, e))
