"""exp and what is made of it: exp2, expm1, sigmoid, tanh, softplus.

    e^x = 2^n e^r,  n = rint(x / ln 2),  |r| <= ln(2) / 2

r by Cody and Waite (n * ln2_high is exact), e^r by a polynomial. The coefficients are Chebyshev
interpolants, made with 50 digits; beside each stands the interval and the error there.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import Val
from treadle.codegen.vecmath_core import LN_2, LOG2_E, Maths
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

# (e^2r - 1 - 2r) / r^2.
_EXPM1_OF_TWICE: Final = tuple(c * 2.0 ** (k + 2) for k, c in enumerate(_EXP32))


def _reduced(m: Maths, x: Val) -> tuple[Val, Val, Val]:
    """(t, n, r): x = n ln 2 + r; `t` holds n in its low bits."""
    t, n = m.nearest(x, LOG2_E)
    r = m.muladd(n, -m.format.ln2_high, x)
    return t, n, m.muladd(n, -m.format.ln2_low, r)


def _tail(m: Maths) -> tuple[float, ...]:
    return _EXP64 if m.double else _EXP32


def exp(m: Maths, x: Val) -> Val:
    """e^x; 13 instructions for float32 on AVX-512, 20 on AVX2."""
    t, n, r = _reduced(m, m.at_most(m.at_least(x, m.format.exp_low), m.format.exp_high))
    return m.scaled(m.add(_expm1_fraction(m, r, _tail(m)), 1.0), t, n)


def exp_of_negative(m: Maths, x: Val, rest: Val | None = None, factor: Val | None = None) -> Val:
    """e^(x + rest) times `factor` for x <= 0 (or NaN), `rest` being less than a place of x."""
    t, n, r = _reduced(m, m.at_least(x, m.format.exp_low))
    r = r if rest is None else m.add(r, rest)
    u = _expm1_fraction(m, r, _tail(m))
    return m.scaled_down(m.add(u, 1.0) if factor is None else m.muladd(u, factor, factor), t, n)


def _expm1_fraction(m: Maths, r: Val, tail: tuple[float, ...], slope: float = 1.0) -> Val:
    """slope r + r^2 tail(r), where slope is 1 or 2."""
    square = m.mul(r, r)
    linear = r if slope == 1 else m.add(r, r)
    return m.muladd(square, m.short_poly(r, square, tail), linear)


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
    p = _expm1_fraction(m, r, _tail(m))
    half = m.power_of_two(t, -1)
    result = m.muladd(half, p, m.sub(half, 0.5))
    tiny = m.less(m.abs(x), 2.0**-54 if m.double else 2.0**-25)  # keeps -0 and subnormals
    return m.select(tiny, x, m.add(result, result))


def sigmoid(m: Maths, x: Val) -> Val:
    """1 / (1 + e^-x): with e = e^-|x|, 1 / (1 + e) for x >= 0 and e / (1 + e) below."""
    e = exp_of_negative(m, m.w.fneg(m.abs(x)))
    return m.div(m.select(m.less(x, 0.0), e, 1.0), m.add(e, 1.0))


def tanh(m: Maths, x: Val) -> Val:
    """d / (d + 2) with d = e^2|x| - 1, and the sign of x."""
    size = m.abs(x)
    # From this bound on the result rounds to 1.
    y = m.at_most(size, 20.0 if m.double else 9.5)
    if m.double:
        t, _, r = _reduced(m, m.add(y, y))
        result = m.select(m.less(size, 2.0**-28), size, _tanh_by_expm1(m, t, r))
        return m.copysign(result, x)
    t, r = _half_reduced(m, y)
    p = _expm1_fraction(m, r, _EXPM1_OF_TWICE, 2.0)
    return m.copysign(_tanh_of(m, t, p), x)


def _half_reduced(m: Maths, y: Val) -> tuple[Val, Val]:
    """(t, r): y = n ln(2) / 2 + r for 0 <= y < 10; `t` holds n in its low bits.

    What is lost of n ln(2) / 2, some n * 1e-9, grows no faster than its weight in tanh falls.
    """
    t, n = m.nearest(y, 2 * LOG2_E)
    if m.w.target.has_fma:
        return t, m.muladd(n, -LN_2 / 2, y)
    r = m.muladd(n, -m.format.ln2_high / 2, y)
    return t, m.muladd(n, -m.format.ln2_low / 2, r)


def _tanh_by_expm1(m: Maths, t: Val, r: Val) -> Val:
    return _tanh_of(m, t, _expm1_fraction(m, r, _EXP64))


def _tanh_of(m: Maths, t: Val, p: Val) -> Val:
    """d / (d + 2) with d = 2^n (p + 1) - 1, where `t` holds n in its low bits."""
    scale = m.power_of_two(t)
    d = m.muladd(scale, p, m.sub(scale, 1.0))
    return m.div(d, m.add(d, 2.0))


def softplus(m: Maths, x: Val) -> Val:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    e = exp_of_negative(m, m.w.fneg(m.abs(x)))
    positive = m.select(m.more(x, 0.0), x, 0.0)
    return m.add(positive, log1p_of_exp(m, e))
