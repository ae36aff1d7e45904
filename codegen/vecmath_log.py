"""log, log1p, log2.

    log x = k ln 2 + log(1 + f),  x = 2^k (1 + f),  sqrt(1/2) <= 1 + f < sqrt 2

float32: a polynomial in f. float64: log(1 + f) = 2 atanh(s), s = f / (2 + f), an odd series in s
that is half as long. The coefficients are Chebyshev interpolants, made with 50 digits.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import Val
from treadle.codegen.vecmath_core import LOG2_E, Maths

# (log(1 + f) - f + f^2 / 2) / f^3 on [-0.2930, 0.4143]: 2.9e-8.
_LOG32: Final = (
    0.333333313, -0.24999997, 0.20000717, -0.166678071, 0.142490074, -0.124255233, 0.116857849,
    -0.114812121, 0.0697251856,
)  # fmt: skip
# log2(1 + f) / f on [-0.2930, 0.4143]: 7.8e-9.
_LOG2_32: Final = (
    1.44269502, -0.721347332, 0.480898529, -0.360696584, 0.288552672, -0.239606932, 0.204854488,
    -0.191395625, 0.184786305, -0.107513189,
)  # fmt: skip
# (2 atanh(sqrt z) / sqrt z - 2) / z on [0, 0.0295]: 3.2e-16.
_ATANH64: Final = (
    0.66666666666666696, 0.39999999999898189, 0.28571428626570206, 0.22222211037816589,
    0.18182896183483085, 0.15331487235865734, 0.14619343453512615,
)  # fmt: skip

_SQRT_HALF_BITS: Final = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}


def split_exponent(m: Maths, x: Val) -> tuple[Val, Val, Val]:
    """(mantissa, k, k << mantissa bits) of a normal x = mantissa 2^k > 0, k a float."""
    f, w = m.format, m.w
    bits = m.bits_of(x)
    above = w.sub(bits, _SQRT_HALF_BITS[m.type.bits])
    shifted = w.and_(above, -(1 << f.mantissa))
    mantissa = m.from_bits(w.sub(bits, shifted))
    if not m.double:
        return mantissa, w.cast("sitofp", w.ashr(above, f.mantissa), m.type.scalar), shifted
    # Neither AVX2 nor SSE2 converts 64-bit integers: a small one is the mantissa of 2^52 + it.
    biased = w.lshr(w.add(shifted, f.one_bits), f.mantissa)
    large = m.from_bits(w.or_(biased, 0x4330 << 48))
    return mantissa, m.sub(large, 2.0**52 + f.bias), shifted


def log1p_reduced(m: Maths, f: Val, k: Val | None) -> Val:
    """k ln 2 + log(1 + f); None: k is 0."""
    if not m.double:
        return _log32(m, f, k)
    s = m.div(f, m.add(f, 2.0))
    z = m.mul(s, s)
    series = m.mul(z, m.poly(z, _ATANH64))
    half = m.mul(m.mul(f, f), 0.5)
    correction = m.mul(s, m.add(half, series))
    if k is None:
        return m.sub(f, m.sub(half, correction))
    correction = m.muladd(k, m.format.ln2_low, correction)
    small = m.sub(m.sub(half, correction), f)
    return m.sub(m.mul(k, m.format.ln2_high), small)


def _log32(m: Maths, f: Val, k: Val | None) -> Val:
    square = m.mul(f, f)
    y = m.mul(m.mul(f, square), m.poly(f, _LOG32))
    if k is not None:
        y = m.muladd(k, m.format.ln2_low, y)
    y = m.muladd(square, -0.5, y)
    y = m.add(f, y)
    return y if k is None else m.muladd(k, m.format.ln2_high, y)


def log_positive(m: Maths, x: Val) -> Val:
    """log of a normal x > 0."""
    mantissa, k, _ = split_exponent(m, x)
    return log1p_reduced(m, m.sub(mantissa, 1.0), k)


def log(m: Maths, x: Val) -> Val:
    normal, shift = _normalised(m, x)
    mantissa, k, _ = split_exponent(m, normal)
    return _with_poles(m, x, log1p_reduced(m, m.sub(mantissa, 1.0), m.sub(k, shift)))


def log2(m: Maths, x: Val) -> Val:
    """k + log2(1 + f)."""
    normal, shift = _normalised(m, x)
    mantissa, k, _ = split_exponent(m, normal)
    f, k = m.sub(mantissa, 1.0), m.sub(k, shift)
    if m.double:
        result = m.muladd(log1p_reduced(m, f, None), LOG2_E, k)
    else:
        result = m.muladd(f, m.poly(f, _LOG2_32), k)
    return _with_poles(m, x, result)


def log1p(m: Maths, x: Val) -> Val:
    """log(1 + x), by the log of the rounded u = 1 + x and what the rounding lost."""
    result = _log1p(m, x)
    tiny = m.less(m.abs(x), 2.0**-54 if m.double else 2.0**-25)  # keeps -0 and subnormals
    result = m.select(tiny, x, result)
    at_pole = m.select(m.equal(x, -1.0), m.const(float("-inf")), float("nan"))
    result = m.select(m.more(x, -1.0), result, at_pole)
    return m.select(m.equal(x, float("inf")), x, result)


def log1p_of_exp(m: Maths, x: Val) -> Val:
    """log(1 + x) for 0 <= x <= 1 (or NaN)."""
    return _log1p(m, x)


def _log1p(m: Maths, x: Val) -> Val:
    u, lost = m.two_sum(m.const(1.0), x)
    mantissa, k, shifted = split_exponent(m, u)
    scale = m.from_bits(m.w.sub(m.w.const(m.format.one_bits, m.int_type), shifted))
    # Far out the lost part does not matter, and 2^-k has left the normal numbers.
    lost = m.select(m.more(x, 2.0**60), m.const(0.0), m.mul(lost, scale))
    f = m.add(m.sub(mantissa, 1.0), lost)
    return log1p_reduced(m, f, k)


def _normalised(m: Maths, x: Val) -> tuple[Val, Val]:
    """x scaled out of the subnormal numbers, and by how many binary places."""
    places = m.format.mantissa + 2
    subnormal = m.less(x, m.format.smallest_normal)
    normal = m.select(subnormal, m.mul(x, 2.0**places), x)
    return normal, m.select(subnormal, m.const(places), 0.0)


def _with_poles(m: Maths, x: Val, result: Val) -> Val:
    """-inf at 0, NaN for negative numbers and NaN, inf for inf."""
    at_pole = m.select(m.equal(x, 0.0), m.const(float("-inf")), float("nan"))
    result = m.select(m.more(x, 0.0), result, at_pole)
    return m.select(m.equal(x, float("inf")), x, result)
