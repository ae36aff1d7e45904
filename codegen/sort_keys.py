"""Elements as unsigned integers whose order is that of the elements, with the element's place.

NaN is the greatest, -0.0 is 0.0; descending turns all bits round. An entry is a key with the place
of its element in the row: a key of 32 bits and the place are one i64, which no two elements share,
so that whatever sorts entries is stable; a key of 64 bits is followed by its place.
"""

from __future__ import annotations

from treadle.codegen.llvm import I32, I64, FunctionWriter, Type, Val, memory_type, vec
from treadle.ir.types import DType

_SIGN = {32: -(1 << 31), 64: -(1 << 63)}


def is_wide(dtype: DType) -> bool:
    """Whether keys have 64 bits."""
    return dtype.itemsize == 8


def key_type(dtype: DType) -> Type:
    return I64 if is_wide(dtype) else I32


def load_key(
    w: FunctionWriter, row: Val, at: Val, dtype: DType, descending: bool, lanes: int = 1
) -> Val:
    """The keys of `lanes` elements of a row from `at` on."""
    elem = memory_type(dtype)
    raw = w.load(vec(elem, lanes), w.gep(row, at, elem))
    return key_of(w, raw, dtype, descending)


def key_of(w: FunctionWriter, raw: Val, dtype: DType, descending: bool) -> Val:
    """The key of an element as it lies in memory, or of each lane of a vector of them."""
    type = vec(key_type(dtype), raw.type.lanes or 1)
    if dtype.is_float:
        key = _float_key(w, raw, type)
    else:
        key = raw if raw.type.bits == type.bits else w.cast("zext", raw, type.scalar)
        if dtype.kind == "i":
            key = w.xor(key, _SIGN[type.bits])
    return w.not_(key) if descending else key


def _float_key(w: FunctionWriter, raw: Val, type: Type) -> Val:
    """Of negative numbers all bits are turned round, of others the sign."""
    bits = w.bitcast(w.fadd(raw, 0.0), type)  # -0.0 + 0.0 is 0.0
    turned = w.or_(w.ashr(bits, type.bits - 1), _SIGN[type.bits])
    return w.select(w.fcmp("uno", raw, raw), w.const(-1, type), w.xor(bits, turned))


class Entries:
    """An array of entries in scratch memory. `wide`: of 64 bit keys with their places behind."""

    def __init__(self, w: FunctionWriter, wide: bool) -> None:
        self.w, self.wide = w, wide
        self.nbytes = 16 if wide else 8

    def made(self, key: Val, place: Val) -> tuple[Val, ...]:
        """An entry in registers."""
        if self.wide:
            return key, place
        w = self.w
        return (w.or_(w.shl(w.cast("zext", key, I64), 32), place),)

    def load(self, base: Val, at: Val) -> tuple[Val, ...]:
        first = self._address(base, at)
        found = self.w.load(I64, first)
        return (found, self.w.load(I64, self.w.gep(first, 8))) if self.wide else (found,)

    def store(self, entry: tuple[Val, ...], base: Val, at: Val) -> None:
        first = self._address(base, at)
        self.w.store(entry[0], first)
        if self.wide:
            self.w.store(entry[1], self.w.gep(first, 8))

    def _address(self, base: Val, at: Val) -> Val:
        return self.w.gep(base, self.w.mul(at, self.nbytes // 8), I64)

    def digit(self, entry: tuple[Val, ...], number: int) -> Val:
        """Byte `number` of the key, from the lowest."""
        shift = 8 * number + (0 if self.wide else 32)
        return self.w.and_(self.w.lshr(entry[0], shift), 255)

    def less(self, x: tuple[Val, ...], y: tuple[Val, ...]) -> Val:
        """Strictly before, equal keys by their places."""
        w = self.w
        if not self.wide:
            return w.icmp("ult", x[0], y[0])
        earlier = w.and_(w.icmp("eq", x[0], y[0]), w.icmp("ult", x[1], y[1]))
        return w.or_(w.icmp("ult", x[0], y[0]), earlier)

    def place(self, entry: tuple[Val, ...]) -> Val:
        return entry[1] if self.wide else self.w.and_(entry[0], 0xFFFFFFFF)
