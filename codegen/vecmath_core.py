"""The arithmetic that vector maths is written in, for float32 and float64 alike.

`Maths` wraps a writer for one float type: polynomials, bit tricks, scaling by powers of two, error
free sums and products. Everything must be right with FMA and without it; no fast-math flag may
ever be set here, since sums such as `(x + magic) - magic` are the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.llvm import I8, I16, I32, I64, FunctionWriter, Operand, Type, Val, int_const
from treadle.ir.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """What differs between the float formats.

    `magic` is 1.5 * 2^mantissa: adding it rounds to an integer, which then stands in the low bits.
    ln 2 = `ln2_high` + `ln2_low`, where n * ln2_high is exact for any exponent n.
    """

    mantissa: int
    bias: int
    magic: float
    ln2_high: float
    ln2_low: float
    exp_low: float  # below, exp rounds to 0
    exp_high: float  # above, exp overflows
    smallest_normal: float

    @property
    def one_bits(self) -> int:
        return self.bias << self.mantissa


FLOAT32: Final = Format(
    mantissa=23,
    bias=127,
    magic=1.5 * 2**23,
    ln2_high=0.693359375,
    ln2_low=-0.00021219444170128554,
    exp_low=-104.0,
    exp_high=88.73,
    smallest_normal=2.0**-126,
)
FLOAT64: Final = Format(
    mantissa=52,
    bias=1023,
    magic=1.5 * 2**52,
    ln2_high=0.6931471803691238,
    ln2_low=1.9082149292705877e-10,
    exp_low=-746.0,
    exp_high=709.79,
    smallest_normal=2.0**-1022,
)

LOG2_E: Final = 1.4426950408889634
LN_2: Final = 0.6931471805599453


class Maths:
    """Vector maths in one float type, in a function that is being written."""

    def __init__(self, w: FunctionWriter, type: Type) -> None:
        self.w = w
        self.type = type
        self.double = type.bits == 64
        self.format = FLOAT64 if self.double else FLOAT32
        self.int_type = type.of(I64 if self.double else I32)
        self.add = w.fadd
        self.sub = w.fsub
        self.mul = w.fmul
        self.div = w.fdiv
        self.muladd = w.muladd
        self.select = w.select

    def const(self, value: float) -> Val:
        return self.w.const(value, self.type)

    # --- bits --------------------------------------------------------------------------------

    def bits_of(self, x: Val) -> Val:
        return self.w.bitcast(x, self.int_type)

    def from_bits(self, x: Val) -> Val:
        return self.w.bitcast(x, self.type)

    def abs(self, x: Val) -> Val:
        return self.w.unary("llvm.fabs", x)

    def copysign(self, x: Val, sign: Val) -> Val:
        return self.w.binary("llvm.copysign", x, sign)

    def flip_sign(self, x: Val, odd: Val) -> Val:
        """-x where the lowest bit of the integer `odd` is set."""
        sign = self.w.shl(odd, self.type.bits - 1)
        return self.from_bits(self.w.xor(self.bits_of(x), sign))

    # --- comparisons -------------------------------------------------------------------------

    def less(self, x: Val, y: Operand) -> Val:
        return self.w.fcmp("olt", x, y)

    def more(self, x: Val, y: Operand) -> Val:
        return self.w.fcmp("ogt", x, y)

    def equal(self, x: Val, y: Operand) -> Val:
        return self.w.fcmp("oeq", x, y)

    def at_most(self, x: Val, bound: float) -> Val:
        """min(x, bound); NaN stays. In this form it is one instruction on x86."""
        limit = self.const(bound)
        return self.w.select(self.w.fcmp("olt", limit, x), limit, x)

    def at_least(self, x: Val, bound: float) -> Val:
        """max(x, bound); NaN stays."""
        limit = self.const(bound)
        return self.w.select(self.w.fcmp("ogt", limit, x), limit, x)

    # --- arithmetic --------------------------------------------------------------------------

    def poly(self, x: Val, coefficients: Sequence[float]) -> Val:
        """c0 + c1 x + c2 x^2 ..., by Horner's rule: the fewest instructions."""
        total = self.const(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = self.muladd(total, x, c)
        return total

    def short_poly(self, x: Val, square: Val, coefficients: Sequence[float]) -> Val:
        """`poly` in pairs, (c0 + c1 x) + x^2 ((c2 + c3 x) + ..), `square` being x^2: as many
        multiplications and half the latency, which is what binds where a chain is all there is."""
        evens, odds = coefficients[::2], coefficients[1::2]
        pairs = [self.muladd(x, b, self.const(a)) for a, b in zip(evens, odds, strict=False)]
        if len(coefficients) % 2:
            pairs.append(self.const(coefficients[-1]))
        total = pairs.pop()
        while pairs:
            total = self.muladd(total, square, pairs.pop())
        return total

    def nearest(self, x: Val, factor: float) -> tuple[Val, Val]:
        """(t, n): n = rint(x * factor), below 2^21; the low bits of t hold it as an integer."""
        t = self.muladd(x, factor, self.format.magic)
        return t, self.sub(t, self.format.magic)

    def power_of_two(self, t: Val, plus: int = 0) -> Val:
        """2^(n + plus) of the n in the low bits of `t`; it must be normal."""
        f = self.format
        shifted = self.w.shl(self.bits_of(t), f.mantissa)
        return self.from_bits(self.w.add(shifted, (f.bias + plus) << f.mantissa))

    def scaled(self, p: Val, t: Val, n: Val) -> Val:
        """p * 2^n with overflow and gradual underflow, p near 1; `t` holds n in its low bits."""
        name = self._scale_instruction()
        if name:
            full = int_const(-1, I16 if self.type.lanes > 8 else I8)
            args = [p, n, p, full]
            if name.endswith("512"):
                args.append(int_const(4, I32))  # the current rounding mode
            return self.w.external(name, self.type, args)
        # In two factors 2^(n // 2) and 2^(n - n // 2), each of which is normal.
        f = self.format
        bits = self.bits_of(t)
        half = self.w.shl(self.w.lshr(bits, 1), f.mantissa)
        rest = self.w.sub(self.w.shl(bits, f.mantissa), half)
        for part in (half, rest):
            p = self.mul(p, self.from_bits(self.w.add(part, f.one_bits)))
        return p

    def scaled_down(self, p: Val, t: Val, n: Val) -> Val:
        """`scaled` for n <= 0: without AVX-512 in four instructions instead of eight."""
        if self._scale_instruction():
            return self.scaled(p, t, n)
        # 2^(n + lift) and 2^-lift are normal; only the second product can round.
        lift = 512 if self.double else 64
        return self.mul(self.mul(p, self.power_of_two(t, lift)), 2.0**-lift)

    def _scale_instruction(self) -> str:
        """AVX-512 multiplies by a power of two in one instruction, subnormal results included."""
        size = self.type.lanes * self.type.bits
        target = self.w.target
        fits = size == 512 or (size in (128, 256) and target.has("avx512vl"))
        if not (fits and target.has("avx512f")):
            return ""
        return f"llvm.x86.avx512.mask.scalef.{'pd' if self.double else 'ps'}.{size}"

    # --- twice the precision -----------------------------------------------------------------

    def two_sum(self, x: Val, y: Val) -> tuple[Val, Val]:
        """(s, e): s + e is x + y exactly."""
        s = self.add(x, y)
        y_part = self.sub(s, x)
        x_part = self.sub(s, y_part)
        return s, self.add(self.sub(x, x_part), self.sub(y, y_part))

    def fast_two_sum(self, x: Val, y: Val) -> tuple[Val, Val]:
        """`two_sum` for |x| >= |y| or x = 0."""
        s = self.add(x, y)
        return s, self.sub(y, self.sub(s, x))

    def two_product(self, x: Val, y: Val) -> tuple[Val, Val]:
        """(p, e): p + e is x * y exactly (no overflow, no underflow)."""
        p = self.mul(x, y)
        if self.w.target.has_fma:
            return p, self.w.fma(x, y, self.w.fneg(p))
        (xh, xl), (yh, yl) = self._split(x), self._split(y)
        e = self.sub(self.mul(xh, yh), p)
        e = self.add(e, self.mul(xh, yl))
        e = self.add(e, self.mul(xl, yh))
        return p, self.add(e, self.mul(xl, yl))

    def _split(self, x: Val) -> tuple[Val, Val]:
        """Upper and lower half of the significant bits. (Masked: no overflow as in Veltkamp's.)"""
        low_bits = (self.format.mantissa + 2) // 2
        high = self.from_bits(self.w.and_(self.bits_of(x), -(1 << low_bits)))
        return high, self.sub(x, high)
