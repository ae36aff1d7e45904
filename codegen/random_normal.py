"""Normal numbers from pairs of words: the method of Box and Muller (1958).

    r = sqrt(-2 log u),  t = pi/4 f,  (z, z') = r (cos t, sin t)

`treadle.ir.ops.random.normal_parts` says how u and f come from the words. The angle needs no
reduction: f stays within an eighth of the circle on either side, and two further bits turn it to
one of the four axes by an exchange and a sign.
"""

from __future__ import annotations

from math import pi
from typing import Final

from treadle.codegen.llvm import F32, F64, FunctionWriter, Val
from treadle.codegen.vecmath_core import Maths
from treadle.codegen.vecmath_log import log_positive
from treadle.ir.philox import MASK

# (sin(sqrt z) / sqrt z - 1) / z on [0, (pi/4)^2]: 1.2e-8, and 1.3e-17.
_SIN32: Final = (-0.16666664662314379, 0.0083327482706297495, -0.00019587890880412386)
_SIN64: Final = (
    -0.16666666666666665, 0.0083333333333309485, -0.00019841269836758574,
    2.755731610255244e-06, -2.5051131845003624e-08, 1.5918129294866609e-10,
)  # fmt: skip
# (cos(sqrt z) - 1 + z / 2) / z^2 there: 7.6e-10 of 1, and 4.9e-19.
_COS32: Final = (0.041666664659502207, -0.0013888303035894866, 2.4547942085071573e-05)
_COS64: Final = (
    0.041666666666666664, -0.0013888888888887397, 2.4801587298755688e-05,
    -2.7557317271729793e-07, 2.0876146268403198e-09, -1.1382632425521718e-11,
)  # fmt: skip

_TWO_52_BITS: Final = 0x433 << 52


def box_muller(w: FunctionWriter, x: Val, y: Val) -> tuple[Val, Val]:
    """Two normal numbers a lane from two words a lane, i32 or i64."""
    double = x.type.bits == 64
    m = Maths(w, x.type.of(F64 if double else F32))
    u, angle = _parts64(m, x, y) if double else _parts32(m, x, y)
    r = w.unary("llvm.sqrt", m.mul(log_positive(m, u), -2.0))
    s, c = _sine_and_cosine(m, angle)
    sign = -1 << (x.type.bits - 1)
    c = m.from_bits(w.xor(m.bits_of(c), w.and_(y, sign)))
    swapped = w.icmp("ne", w.and_(y, 1 << (x.type.bits - 2)), 0)
    first, second = w.select(swapped, s, c), w.select(swapped, c, s)
    return m.mul(r, first), m.mul(r, second)


def _parts32(m: Maths, x: Val, y: Val) -> tuple[Val, Val]:
    """u, and the angle pi/4 f."""
    w = m.w
    k = w.cast("sitofp", w.lshr(x, 1), F32)
    u = m.muladd(k, 2.0**-31, 2.0**-32)
    return u, m.mul(w.cast("sitofp", w.shl(y, 2), F32), pi / 4 * 2.0**-31)


def _parts64(m: Maths, x: Val, y: Val) -> tuple[Val, Val]:
    """Integers below 2^52 become floats as the mantissa of 2^52 + them: neither AVX2 nor SSE2
    converts 64-bit integers."""
    w = m.w

    def counted(bits: Val, offset: float) -> Val:
        return m.sub(m.from_bits(w.or_(bits, _TWO_52_BITS)), 2.0**52 + offset)

    high, low = counted(w.lshr(x, 37), 0.0), counted(w.and_(w.lshr(x, 11), (1 << 26) - 1), -0.5)
    u = m.add(m.mul(high, 2.0**-27), m.mul(low, 2.0**-53))
    upper = w.xor(w.and_(w.lshr(y, 30), MASK & -4), 1 << 31)  # as an int32, 2^31 added
    coarse, fine = counted(upper, 2.0**31), counted(w.lshr(w.and_(y, MASK), 1), 0.0)
    f = m.add(coarse, m.mul(fine, 2.0**-29))
    return u, m.mul(f, pi / 4 * 2.0**-31)


def _sine_and_cosine(m: Maths, x: Val) -> tuple[Val, Val]:
    """For |x| <= pi/4."""
    z = m.mul(x, x)
    series = m.poly(z, _SIN64 if m.double else _SIN32)
    s = m.muladd(m.mul(x, z), series, x)
    series = m.poly(z, _COS64 if m.double else _COS32)
    c = m.add(m.muladd(z, -0.5, m.const(1.0)), m.mul(m.mul(z, z), series))
    return s, c
