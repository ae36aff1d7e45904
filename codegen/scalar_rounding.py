"""Rounding to integers, and the float remainder that needs it, on every CPU family.

SSE2 has no rounding instruction, and LLVM would call libm for each lane: there, adding and
subtracting 2^23 (2^52) rounds to even, and one compare corrects the direction.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.llvm import F32, F64, I64, FunctionWriter, Val, int_const


def rounded(w: FunctionWriter, x: Val, how: str) -> Val:
    """`floor`, `ceil`, `trunc` or `roundeven` of a float in each lane; keeps -0, NaN and inf."""
    if w.target.has_rounding:
        return w.unary(f"llvm.{how}", x)
    magic = 2.0**23 if x.type.bits == 32 else 2.0**52
    size = w.unary("llvm.fabs", x)
    # `if` it is this large it is an integer, or NaN, already.
    small = w.fcmp("olt", size, magic)
    even = w.fsub(w.fadd(size, magic), magic)
    zero, one = w.const(0, x.type), w.const(1, x.type)
    if how == "trunc":
        even = w.fsub(even, w.select(w.fcmp("ogt", even, size), one, zero))
    even = w.binary("llvm.copysign", even, x)
    if how == "floor":
        even = w.fsub(even, w.select(w.fcmp("ogt", even, x), one, zero))
    if how == "ceil":
        even = w.fadd(even, w.select(w.fcmp("olt", even, x), one, zero))
        even = w.binary("llvm.copysign", even, x)
    return w.select(small, even, x)


def float_remainder(w: FunctionWriter, x: Val, y: Val) -> Val:
    """C's fmod in each lane, exact: x - trunc(x / y) * y, with the sign of x.

    float32 by long division in float64; float64 by a call of libm for each lane.
    """
    if x.type.bits == 64:
        return _by_libm(w, x, y)
    wide = _long_division(w, w.cast("fpext", x, F64), w.cast("fpext", y, F64))
    return w.cast("fptrunc", wide, F32)


def _by_libm(w: FunctionWriter, x: Val, y: Val) -> Val:
    if not x.type.lanes:
        return w.external("fmod", F64, (x, y))
    result = w.const(0, x.type)
    for lane in range(x.type.lanes):
        one = w.external("fmod", F64, (w.extract(x, lane), w.extract(y, lane)))
        result = w.insert(result, one, lane)
    return result


def _long_division(w: FunctionWriter, x: Val, y: Val) -> Val:
    """The remainder of float64 values that hold 24 significant bits.

    Each turn subtracts q * (y * 2^k), q < 2^26: product and difference fit 53 bits, so they are
    exact, and at least 24 bits of the quotient are done. Only wildly different operands need a
    second turn.
    """
    inf = w.const(float("inf"), x.type)
    size_x, size_y = w.unary("llvm.fabs", x), w.unary("llvm.fabs", y)
    defined = w.and_(w.fcmp("ogt", size_y, 0.0), w.fcmp("olt", size_x, inf))
    left = w.select(defined, size_x, 0.0)
    # An infinite divisor leaves x as it is, as any divisor beyond float32's range does.
    far = w.fcmp("ogt", size_y, 2.0**200)
    divisor = w.select(far, w.const(2.0**200, x.type), size_y)
    divisor = w.select(defined, divisor, 1.0)

    def subtract(carried: Sequence[Val]) -> list[Val]:
        rest = carried[0]
        scaled = _times_power(w, divisor, _excess(w, rest, divisor))
        quotient = rounded(w, w.fdiv(rest, scaled), "trunc")
        rest = w.fsub(rest, w.fmul(quotient, scaled))
        # The division may have rounded up to the next integer: one too many.
        return [w.select(w.fcmp("olt", rest, 0.0), w.fadd(rest, scaled), rest)]

    (left,) = w.while_(
        [left],
        lambda carried: w.any(w.fcmp("oge", carried[0], divisor)),
        subtract,
        "fmod",
    )
    left = w.binary("llvm.copysign", left, x)
    return w.select(defined, left, float("nan"))


def _excess(w: FunctionWriter, x: Val, y: Val) -> Val:
    """By how many binary places the quotient of two positive numbers exceeds 24, at least 0."""
    bits = x.type.of(I64)
    places = [w.lshr(w.bitcast(v, bits), 52) for v in (x, y)]
    over = w.sub(w.sub(places[0], places[1]), 24)
    return w.select(w.icmp("sgt", over, 0), over, int_const(0, bits))


def _times_power(w: FunctionWriter, x: Val, k: Val) -> Val:
    """x * 2^k by the exponent's bits; the result must be normal."""
    bits = w.add(w.bitcast(x, k.type), w.shl(k, 52))
    return w.bitcast(bits, x.type)
