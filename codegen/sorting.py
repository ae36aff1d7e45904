"""Rows in order.

A row's elements become entries (`sort_keys`), which are put in order in scratch memory: few of them
by insertion (many short rows side by side: `sort_network`), more byte by byte from the lowest on,
each byte by counting how often each of its 256 values occurs (radix sort, which is stable and takes
the same time for any data). A byte in which all keys agree is left out. Then each entry says where
its element is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from treadle.codegen.llvm import I64, PTR, FunctionWriter, Type, Val, memory_type, vec
from treadle.codegen.plan_lines import FEW, LinesPlan, digits
from treadle.codegen.sort_keys import Entries, is_wide, load_key
from treadle.codegen.sort_network import Network
from treadle.ir.graph import Instr

_BINS = 256


def emit_sort(
    w: FunctionWriter,
    instr: Instr,
    plan: LinesPlan,
    operands: Sequence[Val],
    results: Sequence[Val],
    scratch: Val,
    tile: Val,
) -> None:
    """All rows of one tile."""
    size = instr.args[0].type.static_shape[-1]
    if plan.units == 0 or size == 0:
        return
    code = _Sort(w, instr, plan, operands[0], results, scratch)
    first = w.mul(tile, plan.chunk)
    last = w.binary("llvm.smin", w.add(first, plan.chunk), plan.units)
    if plan.method == "network":
        code.rows(first, last)
        return
    with w.loop(first, last, label="row") as row:
        code.row(row)


class _Sort:
    def __init__(
        self,
        w: FunctionWriter,
        instr: Instr,
        plan: LinesPlan,
        source: Val,
        results: Sequence[Val],
        scratch: Val,
    ) -> None:
        type = instr.args[0].type
        self.w, self.source, self.type = w, source, type
        self.size = type.static_shape[-1]
        self.elem = memory_type(type.dtype)
        self.descending: bool = cast(Any, instr.attrs).descending
        self.entries = Entries(w, is_wide(type.dtype))
        self.values = results[0] if plan.stored[0] else None
        self.places = results[1] if plan.stored[1] else None
        nbytes = self.size * self.entries.nbytes
        self.front = scratch
        self.back = w.gep(scratch, nbytes)
        self.counts = w.gep(scratch, 2 * nbytes)
        self.digits = digits(type)
        # Where the entries are, and where they go next: which of the two a byte left out decides.
        self.here, self.there = w.alloca(PTR), w.alloca(PTR)

    def row(self, row: Val) -> None:
        w = self.w
        start = w.mul(row, self.size)
        source = w.gep(self.source, start, self.elem)
        if self.size <= FEW:
            self._insert(source)
            self._give(self.front, source, start)
            return
        self._read(source)
        w.store(self.front, self.here, align=8)
        w.store(self.back, self.there, align=8)
        for digit in range(self.digits):
            self._by_digit(digit)
        self._give(w.load(PTR, self.here, align=8), source, start)

    def rows(self, first: Val, last: Val) -> None:
        """Rows side by side, in the lanes of vectors."""
        w = self.w
        network = Network(w, self.type.dtype, self.size, self.descending, self.front)
        with w.loop(first, last, network.lanes, "rows") as row:
            network.sort(self.source, row, last)
            with w.loop(
                row, w.binary("llvm.smin", w.add(row, network.lanes), last), label="row"
            ) as r:
                start = w.mul(r, self.size)
                source = w.gep(self.source, start, self.elem)
                with w.loop(0, self.size, label="give") as at:
                    place = network.place(w.sub(r, row), at)
                    to = w.add(start, at)
                    give(w, self.elem, source, place, self.values, self.places, to)

    def _entry(self, source: Val, at: Val) -> tuple[Val, ...]:
        key = load_key(self.w, source, at, self.type.dtype, self.descending)
        return self.entries.made(key, at)

    # --- few elements ------------------------------------------------------------------------

    def _insert(self, source: Val) -> None:
        """Each entry moves those that come after it one place on."""
        w, entries = self.w, self.entries
        with w.loop(0, self.size, label="at") as at:
            entry = self._entry(source, at)
            put(w, entries, entry, self.front, at)

    # --- byte by byte ------------------------------------------------------------------------

    def _counter(self, digit: int, value: Val) -> Val:
        return self.w.gep(self.counts, self.w.add(value, digit * _BINS), I64)

    def _read(self, source: Val) -> None:
        """Entries in the order of the row, and how often each value of each byte occurs."""
        w, entries = self.w, self.entries
        total = self.digits * _BINS
        lanes = w.target.vector_bytes // 8
        with w.loop(0, total, lanes, "count") as n:
            w.store(w.const(0, vec(I64, lanes)), w.gep(self.counts, n, I64), align=8)
        with w.loop(0, self.size, label="at") as at:
            entry = self._entry(source, at)
            entries.store(entry, self.front, at)
            for digit in range(self.digits):
                counter = self._counter(digit, entries.digit(entry, digit))
                w.store(w.add(w.load(I64, counter), 1), counter)

    def _by_digit(self, digit: int) -> None:
        """Entries from `here` to `there` in the order of one byte, unless all agree in it."""
        w, entries = self.w, self.entries
        here = w.load(PTR, self.here, align=8)
        some = entries.digit(entries.load(here, w.int(0)), digit)
        agree = w.icmp("eq", w.load(I64, self._counter(digit, some)), self.size)
        with w.if_(w.not_(agree), "byte"):
            with w.carry(0, _BINS, 1, [w.int(0)], "bin") as loop:
                counter = self._counter(digit, loop.index)
                count = w.load(I64, counter)
                w.store(loop.carried[0], counter)
                loop.next = [w.add(loop.carried[0], count)]
            there = w.load(PTR, self.there, align=8)
            with w.loop(0, self.size, label="move") as at:
                entry = entries.load(here, at)
                counter = self._counter(digit, entries.digit(entry, digit))
                to = w.load(I64, counter)
                w.store(w.add(to, 1), counter)
                entries.store(entry, there, to)
            w.store(there, self.here, align=8)
            w.store(here, self.there, align=8)

    # --- results -----------------------------------------------------------------------------

    def _give(self, entries: Val, source: Val, start: Val) -> None:
        with self.w.loop(0, self.size, label="give") as at:
            place = self.entries.place(self.entries.load(entries, at))
            give(self.w, self.elem, source, place, self.values, self.places, self.w.add(start, at))


def put(w: FunctionWriter, entries: Entries, entry: tuple[Val, ...], base: Val, end: Val) -> None:
    """Put an entry into the ordered ones in front of `end`, moving later ones one place on."""

    def goes_on(found: Sequence[Val]) -> Val:
        before = w.binary("llvm.smax", w.sub(found[0], 1), 0)
        later = entries.less(entry, entries.load(base, before))
        return w.and_(w.icmp("sgt", found[0], 0), later)

    def move(found: Sequence[Val]) -> Sequence[Val]:
        before = w.sub(found[0], 1)
        entries.store(entries.load(base, before), base, found[0])
        return [before]

    (to,) = w.while_([end], goes_on, move, "shift")
    entries.store(entry, base, to)


def give(
    w: FunctionWriter,
    elem: Type,
    source: Val,
    place: Val,
    values: Val | None,
    places: Val | None,
    at: Val,
) -> None:
    """Write the element that lay at `place` of its row, and the place, where they are asked for."""
    if places is not None:
        w.store(place, w.gep(places, at, I64))
    if values is not None:
        w.store(w.load(elem, w.gep(source, place, elem)), w.gep(values, at, elem))
