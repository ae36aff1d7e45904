"""erf, its complement and its inverse.

erf is an odd polynomial near 0 and 1 - erfc further out. There float32 takes erfc x = 1 / q(x)^8,
which needs no exponential, float64 erfc x = e^(-x^2) R(t), t = (x - 2) / (x + 2). The inverse is a
polynomial in w = -log(1 - x^2), or further out in sqrt w, times x (the variables are those of
M. Giles, "Approximating the erfinv function"; the coefficients are our own).
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import Val
from treadle.codegen.vecmath_core import Maths
from treadle.codegen.vecmath_exp import exp_of_negative
from treadle.codegen.vecmath_log import log_positive

# erf(sqrt z) / sqrt z - 1 on [0, 0.81]: 1.2e-8.
_ERF32: Final = (
    0.128379151, -0.376125276, 0.112821944, -0.0267807189, 0.00501448428, -0.000610268675,
)  # fmt: skip
# erfc(x)^(-1/8) on [0.9, 3.95], fitted so that erfc is off by 1.7e-8 (a weighted least-squares fit
# driven to equal ripples).
_ERFC32: Final = (
    0.997984694, 0.152198375, 0.0632355692, 0.058888987, -0.0236433861, 0.0142597677,
    -0.00329554417, 0.000483633399,
)  # fmt: skip
# erf(sqrt z) / sqrt z - 1 on [0, 1]: 1.3e-19.
_ERF64: Final = (
    0.12837916709551259, -0.37612638903183748, 0.11283791670954879, -0.026866170645076792,
    0.0052239776248180145, -0.000854832698083379, 0.0001205533111164271,
    -1.4925595266831182e-05, 1.6461000484121368e-06, -1.6350312701054695e-07,
    1.4659775274047436e-08, -1.1372848856791674e-09, 5.9571761477489113e-11,
)  # fmt: skip
# erfc(x) e^(x^2) in t = (x - 2) / (x + 2), x in [1, 6]: 3.2e-17.
_ERFC64: Final = (
    0.25539567631050569, -0.42718584741395849, 0.24165819424248763, -0.078978581015712687,
    0.0037328924016564484, 0.0069974617392005748, -0.00084714312294153333,
    -0.00098197711147407149, 4.3552653598178827e-05, 0.00017436477257256738,
    2.7560352756678313e-05, -2.7640727821912852e-05, -1.4166339069117108e-05,
    1.8594273874294019e-06, 4.1463021832684878e-06, -2.2281295763723501e-07,
)  # fmt: skip

# erfc(x) e^(x^2) (x + a) in t = (x - a) / (x + a): a = 2, x in [0, 10.1], 5.1e-9; a = _TAIL_CENTRE,
# x in [0.69, 27.41], 1.4e-18. Both errors are relative. The factor x + a leaves little slope far
# out, so that the rounding of t is not felt. In float64 that of the first coefficients would be:
# _TAIL_CENTRE is a number near 3 for which the first three are float64 numbers to within 2^-58, so
# that the error is 1.3e-17 with all coefficients rounded (with 3 it is 2.0e-16).
_TAIL_CENTRE: Final = 2.9771728515625
_TAIL_MASS32: Final = (
    1.02158272, -0.68716073, 0.279471785, -0.0364412516, -0.0215057153, 0.00647225184,
    0.00306168851, -0.000822651375, -0.000587997376, 3.8545204e-05, 6.3721789e-05,
)  # fmt: skip
_TAIL_MASS64: Final = (
    1.0732746562492843, -0.8804134969958081, 0.5847705642869041, -0.3043524188680833,
    0.11487362467148551, -0.02445596998715974, -0.001874561094651991, 0.0029963106914627853,
    -0.0004443739470734343, -0.00029660692693326147, 9.48306411362114e-05, 3.52868810016721e-05,
    -1.564017513397154e-05, -5.691696507118845e-06, 2.4144787345372417e-06, 1.1672015759740349e-06,
    -3.26577817674361e-07, -2.602222992273375e-07, 2.9259769900851427e-08, 5.286271921610655e-08,
    -2.4277329884222295e-10, -6.946045590017368e-09,
)  # fmt: skip

# erfinv(x) / x in w / 3.125 - 1, w in [0, 6.25]: 1.3e-8, and 3.5e-17.
_CENTRE32: Final = (
    1.65365458, 0.750494301, -0.0589226857, -0.0226043314, 0.0178107638, -0.00413865456,
    -0.00128520117, 0.0012388418, -0.000233311555, -0.000130957196, 6.20275459e-05,
)  # fmt: skip
_CENTRE64: Final = (
    1.6536545626831027, 0.75049432007996353, -0.058922567103787599, -0.022604447453444733,
    0.017808361818756901, -0.0041373143775478953, -0.0012716922769885114,
    0.0012324855702994214, -0.00026439358646646055, -0.0001168888508125076,
    9.3366927876240577e-05, -1.5027665773117194e-05, -1.1255653983969421e-05,
    7.12993974314695e-06, -6.8765518072549403e-07, -1.0591188098187532e-06,
    5.456420572209782e-07, -1.0412692841159635e-08, -1.0514990713371436e-07,
    3.9315111576465581e-08, 9.0720759478929099e-09, -8.6271910090143941e-09,
    -8.5779669396399409e-11, 7.8017121990362525e-10,
)  # fmt: skip
# the same in sqrt(w) - 3.25, sqrt w in [2.5, 4]: 8.0e-8 of 2.2 or more, and 5.1e-17.
_MIDDLE32: Final = (
    3.08388567, 1.00525892, 0.00536979642, -0.0037477056, 0.00249976898, -0.0017191089,
    0.000941320381, -0.00026965834,
)  # fmt: skip
_MIDDLE64: Final = (
    3.0838856104922208, 1.0052589676941652, 0.0053709145535716799, -0.003751208508215561,
    0.0024914420969817607, -0.0016882755357337071, 0.00095328936374356377,
    -0.00035503780975963814, 2.4031257015092525e-05, 6.8287086547533766e-05,
    -4.7318984120112452e-05, 1.2465167157087251e-05, 2.9257291901789823e-06,
    -3.986084395214756e-06, 1.4987130784186127e-06, -2.7004219280868947e-08,
    -2.7134511054394561e-07, 1.3104351499972014e-07, 6.9692419776296945e-10,
    -1.5102695423335065e-08,
)  # fmt: skip
# in sqrt(w) - 5.125, sqrt w in [4, 6.25]: 1.8e-17.
_TAIL64: Final = (
    4.9761913900163002, 1.0102562759886626, -0.00021259950370243848, -0.00017993907258273095,
    6.4690757849800051e-05, -1.6589895202454618e-05, 3.7475770105931528e-06,
    -7.9623920939917087e-07, 1.6935912259771184e-07, -4.1554642760821228e-08,
    1.4467439520957641e-08, -6.9754667683085827e-09, 3.6670700126525677e-09,
    -1.7660454170113896e-09, 7.1378600727049442e-10, -2.4899637870012457e-10,
    7.8109382611984944e-11, -7.711110707471003e-12, -1.017023886820903e-11,
    3.7200474843457825e-12,
)  # fmt: skip


def erf(m: Maths, x: Val) -> Val:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    size = m.abs(x)
    return m.copysign(_erf64(m, size) if m.double else _erf32(m, size), x)


def _erf32(m: Maths, x: Val) -> Val:
    z = m.mul(x, x)
    small = m.muladd(x, m.poly(z, _ERF32), x)
    q = m.poly(m.at_most(x, 4.2), _ERFC32)  # from 3.92 on the result rounds to 1
    for _ in range(3):
        q = m.mul(q, q)
    large = m.sub(m.const(1.0), m.div(m.const(1.0), q))
    return m.select(m.less(x, 0.9), small, large)


def _erf64(m: Maths, x: Val) -> Val:
    near = m.at_most(x, 1.0)
    z = m.mul(near, near)
    small = m.muladd(near, m.poly(z, _ERF64), near)
    far = m.at_most(x, 6.0)  # from 5.93 on it rounds to 1
    t = m.div(m.sub(far, 2.0), m.add(far, 2.0))
    bell = exp_of_negative(m, m.w.fneg(m.mul(far, far)))
    large = m.sub(m.const(1.0), m.mul(bell, m.poly(t, _ERFC64)))
    return m.select(m.less(x, 1.0), small, large)


def erfc(m: Maths, x: Val) -> Val:
    """1 - erf(x), as e^(-x^2) R(t) / (x + a) for x >= 0 and 2 minus that below.

    x^2 is taken exactly: far out, e^(-x^2) turns its rounding into hundreds of its own. Near 0 the
    rounding of t would be felt; there the subtraction costs less.
    """
    z = m.mul(x, x)
    near = m.sub(m.const(1.0), m.muladd(x, m.poly(z, _ERF64 if m.double else _ERF32), x))
    size = m.at_most(m.abs(x), 27.4 if m.double else 10.1)  # beyond it rounds to 0
    square, lost = m.two_product(size, size)
    factor = _tail64(m, size) if m.double else _tail32(m, size)
    mass = exp_of_negative(m, m.w.fneg(square), m.w.fneg(lost), factor)
    mass = m.select(m.less(x, 0.0), m.sub(m.const(2.0), mass), mass)
    return m.select(m.less(size, 0.7), near, mass)


def _tail32(m: Maths, x: Val) -> Val:
    """By the reciprocal, whose rounding the last quotient must not show: what is left of the
    division is put right, or without FMA it is a division."""
    d = m.add(x, 2.0)
    inverse = m.div(m.const(1.0), d)
    p = m.poly(m.mul(m.sub(x, 2.0), inverse), _TAIL_MASS32)
    if not m.w.target.has_fma:
        return m.div(p, d)
    q = m.mul(p, inverse)
    return m.muladd(m.muladd(q, m.w.fneg(d), p), inverse, q)


def _tail64(m: Maths, x: Val) -> Val:
    """With divisions instead of the reciprocal: a rounding less, which float64 needs."""
    d = m.add(x, _TAIL_CENTRE)
    return m.div(m.poly(m.div(m.sub(x, _TAIL_CENTRE), d), _TAIL_MASS64), d)


def erfinv(m: Maths, x: Val) -> Val:
    """The y with erf y = x; inf at 1, NaN beyond."""
    size = m.abs(x)
    tail_mass = m.mul(m.sub(m.const(1.0), size), m.add(size, 1.0))
    w = m.w.fneg(log_positive(m, tail_mass))
    root = m.w.unary("llvm.sqrt", w)
    central = m.poly(m.muladd(w, 0.32, -1.0), _CENTRE64 if m.double else _CENTRE32)
    outer = m.poly(m.sub(root, 3.25), _MIDDLE64 if m.double else _MIDDLE32)
    if m.double:
        tail = m.poly(m.sub(root, 5.125), _TAIL64)
        outer = m.select(m.less(root, 4.0), outer, tail)
    result = m.mul(x, m.select(m.less(w, 6.25), central, outer))
    infinite = m.copysign(m.const(float("inf")), x)
    result = m.select(m.equal(size, 1.0), infinite, result)
    return m.select(m.w.fcmp("ole", size, 1.0), result, float("nan"))
