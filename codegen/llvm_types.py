"""LLVM types, typed operands and constants, as IR text has them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType


@dataclass(frozen=True, slots=True)
class Type:
    """A first-class LLVM type: `elem` (`i1`..`i64`, `float`, `double`, `ptr`), `lanes` (0: scalar).

    `suffix` is the type's name in an overloaded intrinsic (`v16f32`).
    """

    text: str
    elem: str
    lanes: int
    suffix: str

    @property
    def is_vector(self) -> bool:
        return self.lanes > 0

    @property
    def bits(self) -> int:
        """Width of one lane."""
        return _BITS[self.elem]

    @property
    def is_float(self) -> bool:
        return self.elem in ("float", "double")

    @property
    def scalar(self) -> Type:
        return _SCALARS[self.elem]

    def of(self, elem: Type) -> Type:
        """`elem` with this type's number of lanes."""
        return vec(elem, self.lanes) if self.lanes else elem

    def __str__(self) -> str:
        return self.text


_BITS: Final = {
    "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128, "float": 32, "double": 64,
    "ptr": 64,
}  # fmt: skip

I1: Final = Type("i1", "i1", 0, "i1")
I8: Final = Type("i8", "i8", 0, "i8")
I16: Final = Type("i16", "i16", 0, "i16")
I32: Final = Type("i32", "i32", 0, "i32")
I64: Final = Type("i64", "i64", 0, "i64")
I128: Final = Type("i128", "i128", 0, "i128")
F32: Final = Type("float", "float", 0, "f32")
F64: Final = Type("double", "double", 0, "f64")
PTR: Final = Type("ptr", "ptr", 0, "p0")
VOID: Final = Type("void", "void", 0, "isVoid")

_SCALARS: Final = {t.elem: t for t in (I1, I8, I16, I32, I64, I128, F32, F64, PTR)}


@lru_cache(None)
def vec(elem: Type, lanes: int) -> Type:
    """`<lanes x elem>`; the scalar type itself for one lane."""
    if lanes == 1:
        return elem
    return Type(f"<{lanes} x {elem.text}>", elem.elem, lanes, f"v{lanes}{elem.suffix}")


def register_type(dtype: DType) -> Type:
    """One element of `dtype` in a register: a bool is `i1`."""
    return _REGISTER[dtype.name]


def memory_type(dtype: DType) -> Type:
    """One element of `dtype` in memory: a bool is a byte."""
    return I8 if dtype.kind == "b" else _REGISTER[dtype.name]


_REGISTER: Final = {
    "bool": I1, "uint8": I8, "uint32": I32, "int32": I32, "int64": I64, "float32": F32,
    "float64": F64,
}  # fmt: skip


class Val:
    """An SSA value or a constant: `ref` as an operand is written, and its type."""

    __slots__ = ("ref", "type")

    def __init__(self, ref: str, type: Type) -> None:
        self.ref = ref
        self.type = type

    def __str__(self) -> str:
        return f"{self.type.text} {self.ref}"

    __repr__ = __str__


# --- constants -------------------------------------------------------------------------------


def int_const(value: int, type: Type = I64) -> Val:
    """An integer constant, the same in all lanes, reduced to the type's width."""
    text = ("false", "true")[value & 1] if type.elem == "i1" else str(wrapped(value, type.bits))
    if not type.lanes:
        return Val(text, type)
    return Val(f"splat ({type.elem} {text})", type)


def float_const(value: float, type: Type) -> Val:
    """A float constant, the same in all lanes; rounded to float32 where the type is."""
    text = float_text(value, type.elem)
    if not type.lanes:
        return Val(text, type)
    return Val(f"splat ({type.elem} {text})", type)


def lane_const(values: Sequence[int], elem: Type) -> Val:
    """An integer vector constant with a value for each lane."""
    if len(values) == 1:
        return int_const(values[0], elem)
    inside = ", ".join(f"{elem.text} {wrapped(v, elem.bits)}" for v in values)
    return Val(f"<{inside}>", vec(elem, len(values)))


def wrapped(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def float_text(value: float, elem: str) -> str:
    """LLVM writes a float constant as the bits of a double that the type holds exactly."""
    if elem == "float":
        try:
            value = struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('Q', struct.pack('d', value))[0]:016X}"


NULL: Final = Val("null", PTR)
