"""Short rows in order: as many rows at a time as a vector has lanes, each in a lane of its own.

Batcher's odd-even merge sort (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M) says
which pairs of places to put in order, whatever the data; one comparison of two vectors does so for
all rows. Few places are held in registers, more in scratch memory.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import I32, I64, FunctionWriter, Type, Val, lane_const, memory_type, vec
from treadle.codegen.sort_keys import Entries, is_wide, key_of
from treadle.ir.types import DType

IN_REGISTERS: Final = 32  # elements of a row
LONGEST: Final = 128


def merge_pairs(size: int) -> list[tuple[int, int]]:
    """The pairs of places, in order, that sort any `size` elements."""
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < size:
        k = p
        while k:
            for j in range(k % p, size - k, 2 * k):
                inside = range(j, min(j + k, size - k))
                pairs += [(i, i + k) for i in inside if i // (2 * p) == (i + k) // (2 * p)]
            k //= 2
        p *= 2
    return pairs


class Network:
    """Rows of `size` elements of `dtype`; `scratch` holds a vector (wide: two) for each place."""

    def __init__(
        self, w: FunctionWriter, dtype: DType, size: int, descending: bool, scratch: Val
    ) -> None:
        self.w, self.dtype, self.size = w, dtype, size
        self.descending, self.scratch = descending, scratch
        self.entries = Entries(w, is_wide(dtype))
        self.lanes = network_lanes(w.target.vector_bytes)
        self.elem: Type = memory_type(dtype)
        self.type = vec(I64, self.lanes)

    def sort(self, source: Val, first: Val, last: Val) -> None:
        """Entries of rows `first`, `first` + 1, ... in order in scratch; beyond `last` the row
        before `last` stands in."""
        w = self.w
        rows = w.add(w.splat(first, self.lanes), lane_const(range(self.lanes), I64))
        rows = w.binary("llvm.smin", rows, w.splat(w.sub(last, 1), self.lanes))
        starts = w.gep(source, w.mul(rows, self.size), self.elem)
        if self.size <= IN_REGISTERS:
            held = [self._entry(starts, w.int(at)) for at in range(self.size)]
            for i, j in merge_pairs(self.size):
                held[i], held[j] = self._ordered(held[i], held[j])
            for place, entry in enumerate(held):
                self._store(entry, w.int(place))
            return
        with w.loop(0, self.size, label="at") as at:
            self._store(self._entry(starts, at), at)
        self._compare_in_memory()

    def _compare_in_memory(self) -> None:
        w, pairs = self.w, merge_pairs(self.size)
        numbers = [n for pair in pairs for n in pair]
        table = w.module.table(f"sort_pairs_{self.size}", I32, numbers)
        with w.loop(0, len(numbers), 2, "pair") as n:
            i, j = (
                w.cast("zext", w.load(I32, w.gep(table, at, I32)), I64) for at in (n, w.add(n, 1))
            )
            low, high = self._ordered(self._load(i), self._load(j))
            self._store(low, i)
            self._store(high, j)

    def place(self, lane: Val, at: Val) -> Val:
        """Where in its row the element lay that is number `at` of the row in `lane`."""
        w = self.w
        number = w.add(w.mul(at, self.lanes), lane)
        behind = self.size * self.lanes if self.entries.wide else 0
        found = w.load(I64, w.gep(self.scratch, w.add(number, behind), I64))
        return found if self.entries.wide else self.entries.place((found,))

    # --- entries, one for each lane ----------------------------------------------------------

    def _entry(self, starts: Val, at: Val) -> tuple[Val, ...]:
        w = self.w
        raw = w.gather(
            vec(self.elem, self.lanes), w.gep(starts, w.splat(at, self.lanes), self.elem)
        )
        return self.entries.made(
            key_of(w, raw, self.dtype, self.descending), w.splat(at, self.lanes)
        )

    def _ordered(self, x: tuple[Val, ...], y: tuple[Val, ...]) -> tuple[tuple[Val, ...], ...]:
        w = self.w
        if not self.entries.wide:
            return (w.binary("llvm.umin", x[0], y[0]),), (w.binary("llvm.umax", x[0], y[0]),)
        turned = self.entries.less(y, x)
        pairs = list(zip(x, y, strict=True))
        low = tuple(w.select(turned, b, a) for a, b in pairs)
        return low, tuple(w.select(turned, a, b) for a, b in pairs)

    def _address(self, part: int, at: Val) -> Val:
        number = self.w.add(at, part * self.size) if part else at
        return self.w.gep(self.scratch, number, self.type)

    def _load(self, at: Val) -> tuple[Val, ...]:
        parts = range(2 if self.entries.wide else 1)
        return tuple(self.w.load(self.type, self._address(part, at)) for part in parts)

    def _store(self, entry: tuple[Val, ...], at: Val) -> None:
        for part, value in enumerate(entry):
            self.w.store(value, self._address(part, at))


def network_lanes(vector_bytes: int) -> int:
    """How many rows are sorted at a time."""
    return vector_bytes // 8
