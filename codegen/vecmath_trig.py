"""sin and cos over the whole range.

    sin x = (-1)^n sin r,  n = rint(x / pi),  r = x - n pi;  cos x is the same with n + 1/2

One polynomial on [-pi/2, pi/2] serves both. r comes from pi in parts (Cody and Waite) up to 1e5
(float32) or 1e6 (float64). Where any lane is beyond, a branch that is laid out of the way calls
`rem_pi` for each lane: integer arithmetic with as many bits of 2/pi as the exponent asks for
(Payne and Hanek), right for every finite number. float32 without FMA reduces in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from treadle.codegen.llvm import (
    F32,
    F64,
    I1,
    I64,
    I128,
    PTR,
    VOID,
    FunctionWriter,
    Module,
    Val,
    int_const,
)
from treadle.codegen.vecmath_core import Maths

# (sin(sqrt z) / sqrt z - 1) / z on [0, (pi/2)^2]: 2.8e-11, and 3.4e-19. The last of float32 is
# 0.6 % smaller than that fit's: so cos 0 comes out as 1, and errors elsewhere shrink as well.
_SIN32: Final = (-0.166666672, 0.00833333284, -0.000198410853, 2.753638e-06, -2.39338128e-08)
_SIN64: Final = (
    -0.16666666666666666, 0.0083333333333333159, -0.00019841269841254795,
    2.7557319219115013e-06, -2.5052107610861159e-08, 1.6058976915095007e-10,
    -7.6439576225606172e-13, 2.7312868913093307e-15,
)  # fmt: skip

_INV_PI: Final = 0.3183098861837907

# pi as a sum: three float32; 33 bits and the rest; three times 33 bits and the rest. A product of
# 33 bits and an n of 20 is exact in float64.
_PI32: Final = (3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15)
_PI_TWO: Final = (3.1415926534682512, 1.2154201013012384e-10)
_PI_FOUR: Final = (
    3.1415926534682512, 1.2154201012607932e-10, 4.044532497422333e-21, 1.69568553207378e-31,
)  # fmt: skip

_FAR32: Final = 1e5
_FAR64: Final = 1e6


def sin(m: Maths, x: Val) -> Val:
    return _sine(m, x, 0)


def cos(m: Maths, x: Val) -> Val:
    return _sine(m, x, 1)


def _sine(m: Maths, x: Val, quarter: int) -> Val:
    """sin(x + quarter * pi/2)."""
    fast = _near64(m, x, quarter) if m.double else [_near32(m, x, quarter)]
    far = m.more(m.abs(x), _FAR64 if m.double else _FAR32)
    reduced = m.w.branch(
        m.w.any(far),
        lambda: [m.select(far, s, f) for s, f in zip(_slow(m, x, quarter), fast, strict=True)],
        lambda: fast,
        "far",
        unlikely=True,
    )
    r = reduced[0]
    z = m.mul(r, r)
    cube, series = m.mul(r, z), m.poly(z, _SIN64 if m.double else _SIN32)
    if not m.double:
        result = m.muladd(cube, series, r)
    else:
        # sin(r + e) = sin r + e cos r, and of cos r few bits matter.
        slope = m.muladd(z, -0.5, 1.0)
        result = m.add(r, m.muladd(reduced[1], slope, m.mul(cube, series)))
    result = m.at_most(m.at_least(result, -1.0), 1.0)  # rounding may step over the peak
    return result if quarter else m.select(m.equal(x, 0.0), x, result)  # keeps -0


def _multiple(m: Maths, x: Val, quarter: int) -> tuple[Val, Val]:
    """(bits whose lowest says whether n is odd, the multiple of pi to subtract from x)."""
    t = m.muladd(x, _INV_PI, 0.5) if quarter else x
    t = m.add(t, m.format.magic) if quarter else m.muladd(x, _INV_PI, m.format.magic)
    n = m.sub(t, m.format.magic)
    return m.bits_of(t), m.sub(n, 0.5) if quarter else n


def _near32(m: Maths, x: Val, quarter: int) -> Val:
    if not m.w.target.has_fma:
        wide = Maths(m.w, m.type.of(F64))
        r = m.w.cast("fpext", x, F64)
        odd, n = _multiple(wide, r, quarter)
        for part in _PI_TWO:
            r = wide.muladd(n, -part, r)
        return m.w.cast("fptrunc", wide.flip_sign(r, odd), F32)
    odd, n = _multiple(m, x, quarter)
    r = x
    for part in _PI32:
        r = m.muladd(n, -part, r)
    return m.flip_sign(r, odd)


def _near64(m: Maths, x: Val, quarter: int) -> list[Val]:
    """r in two parts: near a multiple of pi nothing is left of the first digits."""
    odd, n = _multiple(m, x, quarter)
    high, e1 = m.two_sum(m.muladd(n, -_PI_FOUR[0], x), m.mul(n, -_PI_FOUR[1]))
    high, e2 = m.two_sum(high, m.mul(n, -_PI_FOUR[2]))
    low = m.muladd(n, -_PI_FOUR[3], m.add(e1, e2))
    high, low = m.fast_two_sum(high, low)
    return [m.flip_sign(high, odd), m.flip_sign(low, odd)]


def _slow(m: Maths, x: Val, quarter: int) -> Sequence[Val]:
    """r by a call for each lane; right for far lanes, anything for the others."""
    w = m.w
    lanes = max(m.type.lanes, 1)
    rem_pi(w.module)
    wide = x if m.double else w.cast("fpext", x, F64)
    source, target = w.alloca(F64, lanes), w.alloca(F64, 2 * lanes)
    w.store(wide, source)
    with w.loop(0, lanes) as lane:
        one = w.load(F64, w.gep(source, lane, F64))
        high, low = w.gep(target, lane, F64), w.gep(target, w.add(lane, lanes), F64)
        w.call(_REM_PI, VOID, (one, int_const(quarter), high, low))
    high_part = w.load(wide.type, target)
    if not m.double:
        return [w.cast("fptrunc", high_part, F32)]
    return [high_part, w.load(wide.type, w.gep(target, lanes, F64))]


_REM_PI: Final = "treadle.rem_pi"

# 2/pi, 64 bits a word, behind a word of zeros: enough for the largest float64.
_TWO_OVER_PI: Final = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041,
    0xFE5163ABDEBBC561, 0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484, 0xE99C7026B45F7E41, 0x3991D639835339F4, 0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)  # fmt: skip

_TWO_PI_BITS: Final = 0xC90FDAA22168C235  # 2 pi * 2^61


def rem_pi(module: Module) -> None:
    """Write `void rem_pi(double x, i64 quarter, ptr high, ptr low)` into the module, once.

    high + low = (-1)^n r with x + quarter * pi/2 = n pi + r, |r| <= pi/2, right for |x| >= 2^11;
    NaN for inf. With x = M 2^E (M of 53 bits), x / 2pi modulo 1 needs 192 bits of 2/pi from place
    E - 2 on: earlier ones contribute whole turns. The fraction keeps 128 bits, of which the
    nearest a float64 comes to a multiple of pi/2 costs some 62.
    """
    if module.has_function(_REM_PI):
        return
    w = module.function(
        _REM_PI, VOID, [(F64, "x"), (I64, "quarter"), (PTR, "high"), (PTR, "low")], internal=True
    )
    x, quarter, high, low = w.args
    bits = w.bitcast(x, I64)
    exponent = w.and_(w.lshr(bits, 52), 0x7FF)
    mantissa = w.or_(w.and_(bits, (1 << 52) - 1), 1 << 52)
    turns = _fraction_of_turn(w, exponent, mantissa)
    negative = w.icmp("slt", bits, 0)
    zero = int_const(0, I128)
    turns = w.select(negative, w.sub(zero, turns), turns)
    turns = w.add(turns, w.shl(w.cast("zext", quarter, I128), 126))
    half_turns = w.lshr(w.add(turns, 1 << 126), 127)
    rest = w.sub(turns, w.shl(half_turns, 127))
    minus = w.icmp("slt", rest, 0)
    flipped = w.xor(minus, w.cast("trunc", half_turns, I1))
    _store_angle(w, w.select(minus, w.sub(zero, rest), rest), flipped, high, low)
    with w.if_(w.icmp("eq", exponent, 0x7FF)):
        w.store(w.const(float("nan"), F64), high)
        w.store(w.const(float("nan"), F64), low)
    w.ret()


def _fraction_of_turn(w: FunctionWriter, exponent: Val, mantissa: Val) -> Val:
    """|x| / 2pi modulo 1, as a fraction of 2^128."""
    table = w.module.table("treadle.two_over_pi", I64, _TWO_OVER_PI)
    # Bits to skip: (exponent - 1075 - 2) + 64. Lanes that are not far must stay in the table.
    place = w.binary("llvm.smax", w.sub(exponent, 1013), 0)
    word, shift = w.lshr(place, 6), w.and_(place, 63)
    words = [w.load(I64, w.gep(table, w.add(word, k), I64)) for k in range(4)]
    window = [
        w.cast("zext", w.intrinsic("llvm.fshl", I64, (a, b, shift)), I128)
        for a, b in pairwise(words)
    ]
    m = w.cast("zext", mantissa, I128)
    top = w.shl(w.mul(m, window[0]), 64)
    return w.add(w.add(top, w.mul(m, window[1])), w.lshr(w.mul(m, window[2]), 64))


def _store_angle(w: FunctionWriter, size: Val, flipped: Val, high: Val, low: Val) -> None:
    """size / 2^128 * 2pi as the sum of two float64, negated where `flipped`."""
    zeros = w.intrinsic("llvm.ctlz", I128, (size, int_const(0, I1)))
    zeros = w.binary("llvm.umin", zeros, 127)
    leading = w.lshr(w.shl(size, zeros), 64)

    product = w.mul(leading, int_const(_TWO_PI_BITS, I128))
    places = w.cast("trunc", zeros, I64)
    parts = (
        (w.lshr(product, 75), 1023 + 75 - 125, high),
        (w.and_(w.lshr(product, 22), (1 << 53) - 1), 1023 + 22 - 125, low),
    )
    for part, exponent, address in parts:
        value = w.cast("sitofp", w.cast("trunc", part, I64), F64)
        scale = w.bitcast(w.shl(w.sub(int_const(exponent), places), 52), F64)
        value = w.fmul(value, scale)
        w.store(w.select(flipped, w.fneg(value), value), address)
