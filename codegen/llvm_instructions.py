"""LLVM's instructions, one method each: the straight-line half of the IR writer.

Each method appends one line and returns the typed value. A Python number as the second operand
takes the type of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.llvm_types import (
    I1,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    Type,
    Val,
    float_const,
    int_const,
    lane_const,
    vec,
)
from treadle.codegen.target import Target

Operand = Val | int | float

Declare = Callable[[str, Type, Sequence[Type]], None]


class _Constants:
    """A base of its own, since a method called `int` hides the type in its class's annotations."""

    def int(self, value: int) -> Val:
        """An i64 constant."""
        return int_const(value)


class Instructions(_Constants):
    """Appends instructions to a list of lines; `declare` is told what they call."""

    def __init__(self, target: Target, declare: Declare) -> None:
        self.target = target
        self._declare = declare
        self._allocas: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    # --- the ground: any instruction ---------------------------------------------------------

    def inst(self, type: Type, text: str, label: str = "v") -> Val:
        """An instruction of that result type, given without its `%x =`."""
        self._count += 1
        ref = f"%{label}{self._count}"
        self._lines.append(f"  {ref} = {text}")
        return Val(ref, type)

    def effect(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(f"  {text}")

    def comment(self, text: str) -> None:
        """A line for whoever reads the dump."""
        self._lines.append("  ; " + text.replace("\n", " "))

    def const(self, value: float, type: Type) -> Val:
        """A constant of `type`, the same in all lanes."""
        return float_const(value, type) if type.is_float else int_const(int(value), type)

    def _as(self, x: Operand, type: Type) -> Val:
        return x if isinstance(x, Val) else self.const(x, type)

    def _binary(self, op: str, x: Val, y: Operand) -> Val:
        y = self._as(y, x.type)
        return self.inst(x.type, f"{op} {x.type.text} {x.ref}, {y.ref}")

    # --- arithmetic --------------------------------------------------------------------------

    def add(self, x: Val, y: Operand) -> Val:
        return self._binary("add", x, y)

    def sub(self, x: Val, y: Operand) -> Val:
        return self._binary("sub", x, y)

    def mul(self, x: Val, y: Operand) -> Val:
        return self._binary("mul", x, y)

    def sdiv(self, x: Val, y: Operand) -> Val:
        """Undefined for y = 0 and MIN / -1."""
        return self._binary("sdiv", x, y)

    def udiv(self, x: Val, y: Operand) -> Val:
        return self._binary("udiv", x, y)

    def srem(self, x: Val, y: Operand) -> Val:
        return self._binary("srem", x, y)

    def urem(self, x: Val, y: Operand) -> Val:
        return self._binary("urem", x, y)

    def and_(self, x: Val, y: Operand) -> Val:
        return self._binary("and", x, y)

    def or_(self, x: Val, y: Operand) -> Val:
        return self._binary("or", x, y)

    def xor(self, x: Val, y: Operand) -> Val:
        return self._binary("xor", x, y)

    def not_(self, x: Val) -> Val:
        return self._binary("xor", x, -1)

    def shl(self, x: Val, y: Operand) -> Val:
        """Poison for a shift of at least the width."""
        return self._binary("shl", x, y)

    def lshr(self, x: Val, y: Operand) -> Val:
        return self._binary("lshr", x, y)

    def ashr(self, x: Val, y: Operand) -> Val:
        return self._binary("ashr", x, y)

    def fadd(self, x: Val, y: Operand, flags: str = "") -> Val:
        return self._binary(_flagged("fadd", flags), x, y)

    def fsub(self, x: Val, y: Operand, flags: str = "") -> Val:
        return self._binary(_flagged("fsub", flags), x, y)

    def fmul(self, x: Val, y: Operand, flags: str = "") -> Val:
        return self._binary(_flagged("fmul", flags), x, y)

    def fdiv(self, x: Val, y: Operand, flags: str = "") -> Val:
        return self._binary(_flagged("fdiv", flags), x, y)

    def fneg(self, x: Val) -> Val:
        return self.inst(x.type, f"fneg {x}")

    def fma(self, x: Val, y: Operand, z: Operand) -> Val:
        """x * y + z rounded once. Slow (a libm call a lane) where the target lacks it."""
        return self.intrinsic("llvm.fma", x.type, (x, self._as(y, x.type), self._as(z, x.type)))

    def muladd(self, x: Val, y: Operand, z: Operand) -> Val:
        """x * y + z: `fma` where the target has it, rounded twice elsewhere."""
        if self.target.has_fma:
            return self.fma(x, y, z)
        return self.fadd(self.fmul(x, y), z)

    def unary(self, base: str, x: Val) -> Val:
        """An intrinsic from a type to itself: `llvm.fabs`, `llvm.sqrt`, `llvm.floor` ..."""
        return self.intrinsic(base, x.type, (x,))

    def binary(self, base: str, x: Val, y: Operand) -> Val:
        """An intrinsic of two operands of one type: `llvm.copysign`, `llvm.smax` ..."""
        return self.intrinsic(base, x.type, (x, self._as(y, x.type)))

    # --- comparisons, selection, casts -------------------------------------------------------

    def icmp(self, how: str, x: Val, y: Operand) -> Val:
        """`eq ne slt sle sgt sge ult ule ugt uge`; i1 in each lane."""
        y = self._as(y, x.type)
        return self.inst(x.type.of(I1), f"icmp {how} {x}, {y.ref}")

    def fcmp(self, how: str, x: Val, y: Operand) -> Val:
        """`oeq olt .. une uno ord`; i1 in each lane."""
        y = self._as(y, x.type)
        return self.inst(x.type.of(I1), f"fcmp {how} {x}, {y.ref}")

    def select(self, cond: Val, x: Val, y: Operand) -> Val:
        y = self._as(y, x.type)
        return self.inst(x.type, f"select {cond}, {x}, {y}")

    def cast(self, op: str, x: Val, elem: Type) -> Val:
        """`trunc zext sext fptrunc fpext sitofp uitofp fptosi fptoui ptrtoint inttoptr`.

        `elem` is the type of one lane of the result.
        """
        type = x.type.of(elem)
        return self.inst(type, f"{op} {x} to {type.text}")

    def bitcast(self, x: Val, type: Type) -> Val:
        """The same bits as another type, all of which is given."""
        return self.inst(type, f"bitcast {x} to {type.text}")

    # --- vectors -----------------------------------------------------------------------------

    def splat(self, x: Val, lanes: int) -> Val:
        """A scalar in all of `lanes` lanes; itself for one lane or a vector."""
        if lanes == 1 or x.type.lanes:
            return x
        type = vec(x.type, lanes)
        if x.ref[0] not in "%@":
            return Val(f"splat ({x})", type)
        one = self.inst(type, f"insertelement {type.text} poison, {x}, i64 0")
        return self.inst(
            type,
            f"shufflevector {one}, {type.text} poison, <{lanes} x i32> zeroinitializer",
        )

    def extract(self, x: Val, lane: Operand) -> Val:
        index = self._as(lane, I64)
        return self.inst(x.type.scalar, f"extractelement {x}, {index}")

    def insert(self, x: Val, value: Val, lane: Operand) -> Val:
        index = self._as(lane, I64)
        return self.inst(x.type, f"insertelement {x}, {value}, {index}")

    def shuffle(self, x: Val, y: Val | None, lanes: Sequence[int]) -> Val:
        """The numbered lanes of `x` followed by `y` (None: no second one); -1 is any value."""
        type = vec(x.type.scalar, len(lanes))
        other = y.ref if y is not None else "poison"
        picks = ", ".join("i32 poison" if k < 0 else f"i32 {k}" for k in lanes)
        mask = f"<{len(lanes)} x i32> <{picks}>"
        return self.inst(type, f"shufflevector {x}, {x.type.text} {other}, {mask}")

    def halves(self, x: Val) -> tuple[Val, Val]:
        """The lower and the upper half of the lanes; scalars where two lanes are halved."""
        half = x.type.lanes // 2
        if half == 1:
            return self.extract(x, 0), self.extract(x, 1)
        lanes = range(x.type.lanes)
        return self.shuffle(x, None, lanes[:half]), self.shuffle(x, None, lanes[half:])

    def fold_lanes(self, x: Val, combine: Callable[[Val, Val], Val]) -> Val:
        """All lanes combined into a scalar: lane i with lane i + n/2, and so on by halves.

        The number of lanes must be a power of two.
        """
        while x.type.lanes:
            x = combine(*self.halves(x))
        return x

    def any(self, mask: Val) -> Val:
        """An i1: whether any lane of a mask is set."""
        if not mask.type.lanes:
            return mask
        return self.intrinsic("llvm.vector.reduce.or", I1, (mask,), (mask.type,))

    def lane_mask(self, count: Val, lanes: int) -> Val:
        """A mask of the first `count` (an i64 from 0 on) of `lanes` lanes."""
        if lanes == 1:
            return self.icmp("ugt", count, 0)
        few = self.cast("trunc", self.binary("llvm.umin", count, lanes), I32)
        return self.icmp("ult", lane_const(range(lanes), I32), self.splat(few, lanes))

    # --- memory ------------------------------------------------------------------------------

    def gep(self, base: Val, index: Operand, elem: Type = I8) -> Val:
        """The address of element `index`; a vector of addresses for a vector of indices."""
        index = self._as(index, I64)
        return self.inst(index.type.of(PTR), f"getelementptr {elem.text}, {base}, {index}", "p")

    def load(self, type: Type, address: Val, align: int = 0) -> Val:
        """`align` in bytes; 0 is one element's size."""
        align = align or _natural(type)
        return self.inst(type, f"load {type.text}, {address}, align {align}")

    def store(self, x: Val, address: Val, align: int = 0, nontemporal: bool = False) -> None:
        """`nontemporal` bypasses the caches; it needs an address aligned to the vector."""
        align = align or _natural(x.type)
        suffix = ", !nontemporal !0" if nontemporal else ""
        self.effect(f"store {x}, {address}, align {align}{suffix}")

    def masked_load(self, type: Type, address: Val, mask: Val, other: Operand = 0) -> Val:
        """Lanes whose mask bit is clear touch no memory and are `other`."""
        args = (Val(f"align {_natural(type)} {address.ref}", PTR), mask, self._as(other, type))
        return self.intrinsic("llvm.masked.load", type, args, (type, PTR))

    def masked_store(self, x: Val, address: Val, mask: Val) -> None:
        """Lanes whose mask bit is clear touch no memory."""
        args = (x, Val(f"align {_natural(x.type)} {address.ref}", PTR), mask)
        self.intrinsic("llvm.masked.store", VOID, args, (x.type, PTR))

    def gather(self, type: Type, addresses: Val, mask: Val | None = None) -> Val:
        """A load from each lane's own address; masked-off lanes are 0."""
        mask = mask or int_const(1, addresses.type.of(I1))
        align = f"align {_natural(type)} {addresses.ref}"
        args = (Val(align, addresses.type), mask, self.const(0, type))
        return self.intrinsic("llvm.masked.gather", type, args, (type, addresses.type))

    def alloca(self, type: Type, count: int = 1, align: int = 64) -> Val:
        """Memory on the stack, taken once at the function's entry."""
        self._count += 1
        ref = f"%stack{self._count}"
        self._allocas.append(f"  {ref} = alloca [{count} x {type.text}], align {align}")
        return Val(ref, PTR)

    # --- calls -------------------------------------------------------------------------------

    def call(self, name: str, result: Type, args: Sequence[Val]) -> Val:
        """A call of a function of this module or, if declared, of the process."""
        listed = ", ".join([str(a) for a in args])
        if result is VOID:
            self.effect(f"call void @{name}({listed})")
            return Val("void", VOID)
        return self.inst(result, f"call {result.text} @{name}({listed})")

    def external(self, name: str, result: Type, args: Sequence[Val]) -> Val:
        """A call of a function of the process, declared on the way."""
        self._declare(name, result, [a.type for a in args])
        return self.call(name, result, args)

    def intrinsic(
        self, base: str, result: Type, args: Sequence[Val], overloads: Sequence[Type] = ()
    ) -> Val:
        """A call of an LLVM intrinsic, overloaded on `overloads` (else on the result)."""
        name = base
        for type in overloads or (result,):
            name += "." + type.suffix
        return self.external(name, result, args)


def _natural(type: Type) -> int:
    return max(type.bits, 8) // 8


def _flagged(op: str, flags: str) -> str:
    return f"{op} {flags}" if flags else op
