"""Integer division that rounds to minus infinity, total: x // 0 is 0, MIN // -1 is MIN.

No CPU family here divides integer vectors. Integers of up to 32 bits are divided as float64, which
is exact after flooring: a quotient that is no integer is further from one than it is rounded by.
64-bit integers are divided lane by lane.
"""

from __future__ import annotations

from treadle.codegen.llvm import F32, F64, FunctionWriter, Val, int_const, register_type
from treadle.codegen.scalar_rounding import rounded
from treadle.ir.types import DType


def floor_divide(w: FunctionWriter, x: Val, y: Val, dtype: DType) -> Val:
    """x // y in each lane, for integers of one dtype."""
    zero = w.icmp("eq", y, 0)
    if dtype.kind != "i":
        quotient = _divide(w, x, w.select(zero, w.const(1, y.type), y), dtype)
        return w.select(zero, w.const(0, x.type), quotient)
    minus_one = w.icmp("eq", y, -1)
    special = w.or_(zero, minus_one)
    quotient = _divide(w, x, w.select(special, w.const(1, y.type), y), dtype)
    negated = w.sub(int_const(0, x.type), x)
    quotient = w.select(minus_one, negated, quotient)
    return w.select(zero, w.const(0, x.type), quotient)


def floor_remainder(w: FunctionWriter, x: Val, y: Val, dtype: DType) -> Val:
    """x - (x // y) * y, with the sign of y; 0 where y is 0."""
    quotient = floor_divide(w, x, y, dtype)
    rest = w.sub(x, w.mul(quotient, y))
    return w.select(w.icmp("eq", y, 0), w.const(0, x.type), rest)


def _divide(w: FunctionWriter, x: Val, y: Val, dtype: DType) -> Val:
    """Floor division by `y`, which is neither 0 nor (for signed dtypes) -1."""
    if dtype.bits <= 32 and x.type.lanes:
        return _divide_as_floats(w, x, y, dtype)
    if dtype.kind == "u":
        return w.udiv(x, y)
    quotient = w.sdiv(x, y)
    rest = w.sub(x, w.mul(quotient, y))
    below = w.and_(w.icmp("ne", rest, 0), w.icmp("slt", w.xor(rest, y), 0))
    return w.add(quotient, w.cast("sext", below, register_type(dtype)))


def _divide_as_floats(w: FunctionWriter, x: Val, y: Val, dtype: DType) -> Val:
    wide = F32 if dtype.bits == 8 else F64
    to, back = ("sitofp", "fptosi") if dtype.kind == "i" else ("uitofp", "fptoui")
    quotient = w.fdiv(w.cast(to, x, wide), w.cast(to, y, wide))
    return w.cast(back, rounded(w, quotient, "floor"), register_type(dtype))
