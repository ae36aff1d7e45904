"""`ScalarOps` on LLVM vectors: how one element is computed becomes code for W of them.

An `Element` is a vector of W lanes or a scalar; a scalar stands for the same value in all lanes and
is computed once, until it meets a vector. Bools are `i1` in registers. All operations are total,
as the protocol in `treadle.ir.scalar` documents them: LLVM's own division traps, its shifts and
casts are poison out of range.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, isnan

from treadle.codegen import vecmath
from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import (
    I1,
    I8,
    I16,
    I32,
    I64,
    FunctionWriter,
    Val,
    int_const,
    register_type,
    vec,
)
from treadle.codegen.random import Draw, RandomOps
from treadle.codegen.scalar_integer import floor_divide, floor_remainder
from treadle.codegen.scalar_rounding import float_remainder, rounded
from treadle.ir.dataclass import dataclass
from treadle.ir.scalar import Comparison, MathName
from treadle.ir.types import DType, bool_, int32, int64

FaultHook = Callable[[str, Val, Val], None]


@dataclass(frozen=True, slots=True)
class Element:
    """A value of each lane, or one for all lanes; `literal` where it is a constant."""

    val: Val
    dtype: DType
    literal: float | None = None

    @property
    def is_uniform(self) -> bool:
        """A scalar that stands for all lanes."""
        return not self.val.type.lanes


class LlvmScalarOps(RandomOps):
    """Writes element operations for vectors of `lanes` lanes into `w`.

    `on_fault(text, bad, value)` is told of each index that a run must check: `bad` is an i1 and
    `value` an i64 of each lane (or scalars). It writes what records the fault, and is the one that
    knows which lanes are used. `reassociate` and `contract` put these flags on float arithmetic.
    """

    def __init__(
        self,
        w: FunctionWriter,
        lanes: int,
        on_fault: FaultHook | None = None,
        *,
        reassociate: bool = False,
        contract: bool = False,
    ) -> None:
        self.w = w
        self.lanes = lanes
        self.on_fault = on_fault
        flags = (("reassoc", reassociate), ("contract", contract))
        self.flags = " ".join(name for name, on in flags if on)

    # --- in and out --------------------------------------------------------------------------

    def element(self, val: Val, dtype: DType) -> Element:
        """A register value as an element of `dtype`."""
        return Element(val, dtype)

    def wide(self, x: Element) -> Val:
        """The element as a vector of all lanes."""
        return self.w.splat(x.val, self.lanes)

    def load_bool(self, byte: Val) -> Val:
        """Bytes of memory as i1."""
        return self.w.icmp("ne", byte, 0)

    def store_bool(self, flag: Val) -> Val:
        """i1 as the bytes 0 and 1 of memory."""
        return self.w.cast("zext", flag, I8)

    def const(self, value: float, dtype: DType) -> Element:
        return Element(self.w.const(value, register_type(dtype)), dtype, value)

    def dtype_of(self, x: Element) -> DType:
        return x.dtype

    def _pair(self, x: Element, y: Element) -> tuple[Val, Val]:
        if x.is_uniform == y.is_uniform:
            return x.val, y.val
        return self.wide(x), self.wide(y)

    def _float_op(self, op: str, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        flags = f" {self.flags}" if self.flags else ""
        return Element(self.w.inst(a.type, f"{op}{flags} {a}, {b.ref}"), x.dtype)

    def _int_op(self, op: str, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        return Element(self.w.inst(a.type, f"{op} {a}, {b.ref}"), x.dtype)

    # --- arithmetic --------------------------------------------------------------------------

    def add(self, x: Element, y: Element) -> Element:
        if x.dtype.is_float:
            return self._float_op("fadd", x, y)
        return self._int_op("or" if x.dtype is bool_ else "add", x, y)

    def sub(self, x: Element, y: Element) -> Element:
        if x.dtype.is_float:
            return self._float_op("fsub", x, y)
        return self._int_op("xor" if x.dtype is bool_ else "sub", x, y)

    def mul(self, x: Element, y: Element) -> Element:
        if x.dtype.is_float:
            return self._float_op("fmul", x, y)
        return self._int_op("and" if x.dtype is bool_ else "mul", x, y)

    def div(self, x: Element, y: Element) -> Element:
        return self._float_op("fdiv", x, y)

    def int_div(self, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        return Element(floor_divide(self.w, a, b, x.dtype), x.dtype)

    def int_rem(self, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        return Element(floor_remainder(self.w, a, b, x.dtype), x.dtype)

    def fmod(self, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        return Element(float_remainder(self.w, a, b), x.dtype)

    def neg(self, x: Element) -> Element:
        if x.dtype.is_float:
            return Element(self.w.fneg(x.val), x.dtype)
        return Element(self.w.sub(int_const(0, x.val.type), x.val), x.dtype)

    def abs(self, x: Element) -> Element:
        if x.dtype.is_float:
            return Element(self.w.unary("llvm.fabs", x.val), x.dtype)
        if x.dtype.kind != "i":
            return x
        wraps = (x.val, int_const(0, I1))
        return Element(self.w.intrinsic("llvm.abs", x.val.type, wraps), x.dtype)

    def sqrt(self, x: Element) -> Element:
        return Element(self.w.unary("llvm.sqrt", x.val), x.dtype)

    def floor(self, x: Element) -> Element:
        return Element(rounded(self.w, x.val, "floor"), x.dtype)

    def ceil(self, x: Element) -> Element:
        return Element(rounded(self.w, x.val, "ceil"), x.dtype)

    def trunc(self, x: Element) -> Element:
        return Element(rounded(self.w, x.val, "trunc"), x.dtype)

    def rint(self, x: Element) -> Element:
        return Element(rounded(self.w, x.val, "roundeven"), x.dtype)

    def copysign(self, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        return Element(self.w.binary("llvm.copysign", a, b), x.dtype)

    def maximum(self, x: Element, y: Element) -> Element:
        return self._extreme(x, y, "max")

    def minimum(self, x: Element, y: Element) -> Element:
        return self._extreme(x, y, "min")

    def _extreme(self, x: Element, y: Element, which: str) -> Element:
        dtype = x.dtype
        if dtype is bool_:
            return self._int_op("or" if which == "max" else "and", x, y)
        if not dtype.is_float:
            a, b = self._pair(x, y)
            sign = "s" if dtype.kind == "i" else "u"
            return Element(self.w.binary(f"llvm.{sign}{which}", a, b), dtype)
        if x.literal is not None and y.literal is None:
            x, y = y, x
        a, b = self._pair(x, y)
        if y.literal is not None and not isnan(y.literal):
            return Element(self._extreme_literal(a, b, which, y.literal), dtype)
        return Element(float_extreme(self.w, a, b, which), dtype)

    def _extreme_literal(self, x: Val, bound: Val, which: str, literal: float) -> Val:
        """A compare and a select, on x86 together one instruction; NaN and ties keep `x`.

        Only between zeros of opposite sign does a tie matter: then it must take the bound.
        """
        compare = {"max": "ogt", "min": "olt"}[which]
        if literal == 0 and (copysign(1.0, literal) > 0) == (which == "max"):
            compare = {"max": "oge", "min": "ole"}[which]
        return self.w.select(self.w.fcmp(compare, bound, x), bound, x)

    # --- comparison, selection, bits ---------------------------------------------------------

    def compare(self, how: Comparison, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        if x.dtype.is_float:
            prefix = "u" if how == "ne" else "o"
            return Element(self.w.fcmp(prefix + how, a, b), bool_)
        if how in ("eq", "ne"):
            return Element(self.w.icmp(how, a, b), bool_)
        sign = "s" if x.dtype.kind == "i" else "u"
        return Element(self.w.icmp(sign + how, a, b), bool_)

    def select(self, cond: Element, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        if not cond.is_uniform and not a.type.lanes:
            a, b = self.w.splat(a, self.lanes), self.w.splat(b, self.lanes)
        return Element(self.w.select(cond.val, a, b), x.dtype)

    def seldom(self, cond: Element, then: Callable[[], Element], y: Element) -> Element:
        if not cond.val.type.lanes:
            return self.select(cond, then(), y)
        usual = self.wide(y)

        def chosen() -> list[Val]:
            return [self.w.select(cond.val, self.wide(then()), usual)]

        any_lane = self.w.any(cond.val)
        (found,) = self.w.branch(any_lane, chosen, lambda: [usual], "seldom", unlikely=True)
        return Element(found, y.dtype)

    def and_(self, x: Element, y: Element) -> Element:
        return self._int_op("and", x, y)

    def or_(self, x: Element, y: Element) -> Element:
        return self._int_op("or", x, y)

    def xor(self, x: Element, y: Element) -> Element:
        return self._int_op("xor", x, y)

    def not_(self, x: Element) -> Element:
        return Element(self.w.not_(x.val), x.dtype)

    def shift_left(self, x: Element, y: Element) -> Element:
        return self._shift("shl", x, y)

    def shift_right(self, x: Element, y: Element) -> Element:
        if x.dtype.kind != "i":
            return self._shift("lshr", x, y)
        a, b = self._pair(x, y)
        amount = self.w.binary("llvm.umin", b, x.dtype.bits - 1)
        return Element(self.w.ashr(a, amount), x.dtype)

    def _shift(self, op: str, x: Element, y: Element) -> Element:
        a, b = self._pair(x, y)
        in_range = self.w.icmp("ult", b, x.dtype.bits)
        amount = self.w.select(in_range, b, 0)
        shifted = self.w.inst(a.type, f"{op} {a}, {amount.ref}")
        return Element(self.w.select(in_range, shifted, 0), x.dtype)

    # --- casts and maths ---------------------------------------------------------------------

    def cast(self, x: Element, dtype: DType) -> Element:
        if dtype is x.dtype:
            return x
        return Element(self._cast(x.val, x.dtype, dtype), dtype)

    def _cast(self, x: Val, old: DType, new: DType) -> Val:
        w, elem = self.w, register_type(new)
        if new is bool_:
            return w.fcmp("une", x, 0.0) if old.is_float else w.icmp("ne", x, 0)
        if old is bool_:
            type = x.type.of(elem)
            return w.select(x, w.const(1, type), w.const(0, type))
        if old.is_float and new.is_float:
            return w.cast("fpext" if new.bits > old.bits else "fptrunc", x, elem)
        if old.is_float:
            name = "llvm.fptosi.sat" if new.kind == "i" else "llvm.fptoui.sat"
            type = x.type.of(elem)
            return w.intrinsic(name, type, (x,), (type, x.type))
        if new.is_float:
            return w.cast("sitofp" if old.kind == "i" else "uitofp", x, elem)
        if new.bits == old.bits:
            return x
        if new.bits < old.bits:
            return w.cast("trunc", x, elem)
        return w.cast("sext" if old.kind == "i" else "zext", x, elem)

    def math(self, name: MathName, *xs: Element) -> Element:
        values = self._pair(*xs) if len(xs) == 2 else (xs[0].val,)
        return Element(vecmath.emit(self.w, name, *values), xs[0].dtype)

    # --- random numbers ----------------------------------------------------------------------

    def random_draw(self, seed: Element, draw: Element, domain: int) -> Draw:
        return self.draw_of(seed.val, draw.val, domain)

    def random_word(self, draw: Draw, e: LaneIndex, dtype: DType) -> Element:
        return Element(self.words(draw, e, dtype), dtype)

    def random_normal(self, draw: Draw, e: LaneIndex, dtype: DType) -> Element:
        return Element(self.normals(draw, e, dtype), dtype)

    # --- indices that meet elements ----------------------------------------------------------

    def index_in(self, i: LaneIndex, low: int, high: int) -> Element:
        if i.within(low, high) or i.outside(low, high) or high <= low:
            return self.const(high > low and i.within(low, high), bool_)
        i = self.index_settled(i)
        v = self.scalar_of(i) if i.is_uniform else self.vector_of(i)
        shifted = self.w.sub(v, low) if low else v
        return Element(self.w.icmp("ult", shifted, high - low), bool_)

    def index_of(self, x: Element, size: int, wrap: bool, fault: str) -> LaneIndex:
        w, dtype = self.w, x.dtype
        narrow = dtype.bits <= 32 and dtype.name != "uint32" and size < 2**31
        v = self._widened(x.val, dtype, narrow)
        if wrap:
            v = w.select(w.icmp("slt", v, 0), w.add(v, size), v)
        if fault and self.on_fault is not None:
            value = self._widened(x.val, dtype, False)
            self.on_fault(fault, w.icmp("uge", v, size), value)
        v = w.binary("llvm.smax", v, 0)
        v = w.binary("llvm.smin", v, max(size - 1, 0))
        if size < 2**31 and v.type.lanes and not narrow:
            v = w.cast("trunc", v, I32)
        if narrow and not v.type.lanes:
            v = w.cast("sext", v, I64)
        return LaneIndex(v, 0, 0, 0, max(size - 1, 0))

    def _widened(self, x: Val, dtype: DType, narrow: bool) -> Val:
        elem = I32 if narrow else I64
        if dtype.bits == elem.bits:
            return x
        return self.w.cast("sext" if dtype.kind == "i" else "zext", x, elem)

    def from_index(self, i: LaneIndex, dtype: DType) -> Element:
        if i.is_constant:
            return self.const(i.offset, dtype)
        v = self.scalar_of(i) if i.is_uniform else self.vector_of(i)
        if dtype is bool_ or dtype.is_float:
            from_type = int32 if v.type.bits == 32 else int64
            return Element(self._cast(v, from_type, dtype), dtype)
        return Element(self._resized(v, register_type(dtype)), dtype)


def float_extreme(w: FunctionWriter, x: Val, y: Val, which: str) -> Val:
    """IEEE 754-2019 maximum or minimum: NaN if either is NaN, and -0 below +0.

    AVX-512 has an instruction that orders zeros; NaN is mended after it. Elsewhere LLVM's own
    sequence (two blends, a max, a compare, a blend) is as short as any.
    """
    size = x.type.lanes * x.type.bits
    if not w.target.has("avx512dq"):
        return w.binary(f"llvm.{which}imum", x, y)
    if not x.type.lanes or size < 128:
        return _low_extreme(w, x, y, which)
    if size > 512:
        return w.binary(f"llvm.{which}imum", x, y)
    element = "ps" if x.type.bits == 32 else "pd"
    mask = int_const(-1, I16 if x.type.lanes > 8 else I8)
    # Bits 0-1 choose min or max, bits 2-3 = 1 keep the sign of what was chosen.
    control = int_const(5 if which == "max" else 4, I32)
    args = [x, y, control, x, mask]
    if size == 512:
        args.append(int_const(4, I32))  # the current rounding mode
    name = f"llvm.x86.avx512.mask.range.{element}.{size}"
    larger = w.external(name, x.type, args)
    return w.select(w.fcmp("uno", x, y), w.fadd(x, y), larger)


def _low_extreme(w: FunctionWriter, x: Val, y: Val, which: str) -> Val:
    """`float_extreme` of scalars or of a few lanes, in the low lanes of 128 bits: the last steps
    of a row's maximum."""
    few = x.type.lanes
    lanes = 128 // x.type.bits
    if few:
        picks = [k % few for k in range(lanes)]
        a, b = w.shuffle(x, None, picks), w.shuffle(y, None, picks)
        return w.shuffle(float_extreme(w, a, b, which), None, range(few))
    nothing = Val("poison", vec(x.type, lanes))
    a, b = w.insert(nothing, x, 0), w.insert(nothing, y, 0)
    return w.extract(float_extreme(w, a, b, which), 0)
