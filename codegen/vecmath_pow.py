"""pow, with all special cases of C99.

    x^y = 2^(y log2 |x|),  the sign by whether y is an odd integer

The product's absolute error is the result's relative one, so log2 needs more digits than the
format has: float32 computes in float64, float64 with pairs of them.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import F32, F64, Val
from treadle.codegen.scalar_rounding import rounded
from treadle.codegen.vecmath_core import Maths
from treadle.codegen.vecmath_exp import exp2_fraction
from treadle.codegen.vecmath_log import split_exponent

# For float32. 2 atanh(sqrt z) / (sqrt z ln 2) on [0, 0.0295]: 1.3e-11; and
# (2^r - 1) / r on [-0.5005, 0.5005]: 1.7e-10.
_LOG2: Final = (
    2.8853900817901179, 0.96179667327363916, 0.57708360228932221, 0.41167146505900692,
    0.3407567042788236,
)  # fmt: skip
_EXP2: Final = (
    0.69314718055994529, 0.24022650923651495, 0.055504108840145117, 0.009618056388057775,
    0.001333350216258813, 0.00015461560778872135, 1.5297413107272951e-05,
)  # fmt: skip

# For float64: 2 atanh(s) / ln 2 = s (c0 + z (c1 + z tail(z))), z = s^2 in [0, 0.0295]. c0 and c1
# as pairs, the tail's error 2.8e-18.
_C0: Final = (2.8853900817779268, 4.0710547481862066e-17)
_C1: Final = (0.9617966939259756, 5.0577616648125907e-17)
_TAIL: Final = (
    0.57707801635558531, 0.41219858311114405, 0.32059889796705276, 0.26230819149123202,
    0.22195278612161717, 0.19238069987559839, 0.16888171062088797, 0.16916711992305461,
)  # fmt: skip


def pow_(m: Maths, x: Val, y: Val) -> Val:
    """x^y in each lane."""
    size = m.abs(x)
    result = _power64(m, size, y) if m.double else _power32(m, size, y)
    return _with_special_cases(m, x, y, size, result)


def _power32(m: Maths, x: Val, y: Val) -> Val:
    wide = Maths(m.w, m.type.of(F64))
    mantissa, k, _ = split_exponent(wide, m.w.cast("fpext", x, F64))
    s = wide.div(wide.sub(mantissa, 1.0), wide.add(mantissa, 1.0))
    log2 = wide.muladd(s, wide.poly(wide.mul(s, s), _LOG2), k)
    e = wide.mul(m.w.cast("fpext", y, F64), log2)
    # Wide of the limits of float32, well inside those of float64.
    e = wide.at_most(wide.at_least(e, -200.0), 200.0)
    t, n = wide.nearest(e, 1.0)
    fraction = wide.poly(wide.sub(e, n), (1.0, *_EXP2))
    return m.w.cast("fptrunc", wide.mul(fraction, wide.power_of_two(t)), F32)


def _power64(m: Maths, x: Val, y: Val) -> Val:
    high, low = _log2_pair(m, x)
    e, lost = m.two_product(y, high)
    lost = m.muladd(y, low, lost)
    # Where the product overflows or is out of range, what was lost is no number or no matter.
    inside = m.less(m.abs(e), 1100.0)
    lost = m.select(inside, lost, 0.0)
    e = m.at_most(m.at_least(e, -1100.0), 1100.0)
    t, n = m.nearest(e, 1.0)
    r = m.add(m.sub(e, n), lost)
    return m.scaled(exp2_fraction(m, r), t, n)


def _log2_pair(m: Maths, x: Val) -> tuple[Val, Val]:
    """log2 of x > 0 as a pair, with some 66 bits."""
    subnormal = m.less(x, m.format.smallest_normal)
    x = m.select(subnormal, m.mul(x, 2.0**54), x)
    mantissa, k, _ = split_exponent(m, x)
    k = m.sub(k, m.select(subnormal, m.const(54.0), 0.0))
    s, s_low = _ratio(m, mantissa)
    z, z_low = m.two_product(s, s)
    z_low = m.muladd(m.add(s, s), s_low, z_low)
    inner, inner_low = m.fast_two_sum(m.const(_C1[0]), m.mul(z, m.poly(z, _TAIL)))
    inner_low = m.add(inner_low, _C1[1])
    product, product_low = m.two_product(z, inner)
    product_low = m.add(product_low, m.muladd(z, inner_low, m.mul(z_low, inner)))
    factor, factor_low = m.fast_two_sum(m.const(_C0[0]), product)
    factor_low = m.add(m.add(factor_low, _C0[1]), product_low)
    fraction, fraction_low = m.two_product(s, factor)
    fraction_low = m.add(fraction_low, m.muladd(s, factor_low, m.mul(s_low, factor)))
    high, low = m.fast_two_sum(k, fraction)
    return m.fast_two_sum(high, m.add(low, fraction_low))


def _ratio(m: Maths, mantissa: Val) -> tuple[Val, Val]:
    """(m - 1) / (m + 1) as a pair."""
    f = m.sub(mantissa, 1.0)
    d, d_low = m.two_sum(mantissa, m.const(1.0))
    s = m.div(f, d)
    product, product_low = m.two_product(s, d)
    rest = m.sub(m.sub(m.sub(f, product), product_low), m.mul(s, d_low))
    return s, m.div(rest, d)


def _with_special_cases(m: Maths, x: Val, y: Val, size: Val, result: Val) -> Val:
    w, inf = m.w, float("inf")
    whole = m.equal(rounded(w, y, "trunc"), y)
    half = m.mul(y, 0.5)
    odd = w.and_(whole, w.fcmp("une", rounded(w, half, "trunc"), half))
    # 0^y and inf^y, by the sign of y
    falls = m.less(y, 0.0)
    result = m.select(m.equal(size, 0.0), m.select(falls, m.const(inf), 0.0), result)
    result = m.select(m.equal(size, inf), m.select(falls, m.const(0.0), inf), result)
    # a negative base needs an integer exponent, unless it is -inf
    negative = w.and_(m.less(x, 0.0), m.more(x, -inf))
    result = m.select(w.and_(negative, w.not_(whole)), m.const(float("nan")), result)
    result = m.select(odd, m.copysign(result, x), result)
    result = m.select(w.fcmp("uno", x, y), m.const(float("nan")), result)
    # 1^y and x^0 are 1 for anything, and (-1)^inf is
    one = w.or_(m.equal(x, 1.0), m.equal(y, 0.0))
    one = w.or_(one, w.and_(m.equal(x, -1.0), m.equal(m.abs(y), inf)))
    return m.select(one, m.const(1.0), result)
