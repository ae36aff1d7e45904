"""The first k of each row in order, for k of some dozens.

The best k so far stay in order in scratch memory. Of the rest of a row a vector at a time is
compared with the last of these; in next to none of them a lane is better, which is then put in
its place. Random rows of n elements need some k ln(n / k) of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from treadle.codegen.llvm import FunctionWriter, Val, memory_type
from treadle.codegen.plan_lines import LinesPlan
from treadle.codegen.sort_keys import Entries, is_wide, key_type, load_key
from treadle.codegen.sorting import give, put
from treadle.ir.graph import Instr


def emit_topk(
    w: FunctionWriter,
    instr: Instr,
    plan: LinesPlan,
    operands: Sequence[Val],
    results: Sequence[Val],
    scratch: Val,
    tile: Val,
) -> None:
    """All rows of one tile."""
    k = cast(Any, instr.attrs).k
    if plan.units == 0 or k == 0:
        return
    code = _Topk(w, instr, plan, operands[0], results, scratch)
    first = w.mul(tile, plan.chunk)
    last = w.binary("llvm.smin", w.add(first, plan.chunk), plan.units)
    with w.loop(first, last, label="row") as row:
        code.row(row)


class _Topk:
    def __init__(
        self,
        w: FunctionWriter,
        instr: Instr,
        plan: LinesPlan,
        source: Val,
        results: Sequence[Val],
        best: Val,
    ) -> None:
        attrs = cast(Any, instr.attrs)
        self.w, self.source, self.best = w, source, best
        self.dtype = instr.args[0].type.dtype
        self.size: int = instr.args[0].type.static_shape[-1]
        self.k: int = attrs.k
        self.descending: bool = attrs.largest
        self.elem = memory_type(self.dtype)
        self.entries = Entries(w, is_wide(self.dtype))
        self.values = results[0] if plan.stored[0] else None
        self.places = results[1] if plan.stored[1] else None

    def row(self, row: Val) -> None:
        w = self.w
        source = w.gep(self.source, w.mul(row, self.size), self.elem)
        with w.loop(0, self.k, label="first") as at:
            put(w, self.entries, self._entry(source, at), self.best, at)
        bits = key_type(self.dtype).bits
        lanes = w.target.vector_bytes * 8 // bits
        whole = self.k + (self.size - self.k) // lanes * lanes
        if self.k < whole:
            with w.loop(self.k, whole, lanes, "vector") as start:
                self._vector(source, start, lanes)
        if whole < self.size:
            with w.loop(whole, self.size, label="rest") as at:
                self._one(source, at)
        start = w.mul(row, self.k)
        with w.loop(0, self.k, label="give") as at:
            place = self.entries.place(self.entries.load(self.best, at))
            give(w, self.elem, source, place, self.values, self.places, w.add(start, at))

    def _entry(self, source: Val, at: Val) -> tuple[Val, ...]:
        key = load_key(self.w, source, at, self.dtype, self.descending)
        return self.entries.made(key, at)

    def _vector(self, source: Val, start: Val, lanes: int) -> None:
        """Equal keys come later in the row, so that they are not better."""
        w = self.w
        last = self.entries.load(self.best, w.int(self.k - 1))[0]
        if not self.entries.wide:
            last = w.cast("trunc", w.lshr(last, 32), key_type(self.dtype))
        keys = load_key(w, source, start, self.dtype, self.descending, lanes)
        better = w.any(w.icmp("ult", keys, w.splat(last, lanes)))
        with w.if_(better, "better", unlikely=True), w.loop(0, lanes, label="lane") as lane:
            self._one(source, w.add(start, lane))

    def _one(self, source: Val, at: Val) -> None:
        w, entries = self.w, self.entries
        entry = self._entry(source, at)
        end = w.int(self.k - 1)
        with w.if_(entries.less(entry, entries.load(self.best, end)), "put"):
            put(w, entries, entry, self.best, end)
