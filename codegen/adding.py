"""Sums at addressed places: scatter_add and add_along, in the order of the writes.

A tile owns columns (or rows) of the result: it goes through all indices and adds its own part of
each write, so that every element of the result is summed by one thread in one order. What the sums
start from is copied by the tile that owns it, where the result does not lie in its place already.
"""

from __future__ import annotations

from math import prod
from typing import Any, cast

from treadle.codegen.addressed import Addresses, added, checked_index
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    VOID,
    FunctionWriter,
    Val,
    int_const,
    memory_type,
    vec,
)
from treadle.codegen.plan_lines import LinesPlan, blocks_of, lines_of
from treadle.codegen.regions import row_major
from treadle.ir.graph import Instr


def emit_adding(
    state: Emission, w: FunctionWriter, instr: Instr, plan: LinesPlan, at: Addresses, tile: Val
) -> None:
    """One tile of a scatter_add into neighbouring axes, or of an add_along."""
    if instr.result.type.size == 0:
        return
    code = _Adding(state, w, instr, at)
    first = w.mul(tile, plan.chunk)
    last = w.binary("llvm.smin", w.add(first, plan.chunk), plan.units)
    if instr.op.name == "scatter_add":
        code.scatter(first, last, plan.by == "rows")
    else:
        code.along(first, last, plan.by == "rows")


class _Adding:
    def __init__(self, state: Emission, w: FunctionWriter, instr: Instr, at: Addresses) -> None:
        self.state, self.w, self.instr, self.at = state, w, instr, at
        self.attrs = cast(Any, instr.attrs)
        self.shape = instr.result.type.static_shape
        self.elem = memory_type(instr.result.type.dtype)
        self.itemsize = instr.result.type.dtype.itemsize

    def _index(self, number: int, place: Val, axis: int) -> Val:
        """What index operand `number` says at `place`."""
        w, dtype = self.w, self.instr.args[2 + number].type.dtype
        type = memory_type(dtype)
        raw = w.load(type, w.gep(self.at.operands[2 + number], place, type))
        return checked_index(self.state, w, self.instr, raw, dtype, axis, self.at.fault)

    # --- scatter_add -------------------------------------------------------------------------

    def scatter(self, first: Val, last: Val, by_rows: bool) -> None:
        """The result as (outer, places, inner), the values as (writes, outer, inner): rows `first`
        to `last` of the outer ones, or these columns of the inner ones."""
        w, axes = self.w, self.attrs.axes
        outer, places, inner = blocks_of(self.shape, axes)
        rows = (first, last) if by_rows else (w.int(0), w.int(outer))
        columns = (w.int(0), w.int(inner)) if by_rows else (first, last)
        if by_rows:
            self._copy_rows(first, last, places * inner)
        else:
            self._copy(outer * places, inner, first, last)
        strides = cast("tuple[int, ...]", row_major(self.shape))
        with w.loop(0, prod(self.instr.args[2].type.static_shape), label="write") as i:
            place = w.int(0)
            for k, axis in enumerate(axes):
                place = w.add(place, w.mul(self._index(k, i, axis), strides[axis]))
            with w.loop(*rows, label="outer") as row:
                source = w.mul(w.add(w.mul(i, outer), row), inner)
                to = w.add(w.mul(row, places * inner), place)
                self._add_columns(source, to, *columns)

    def _copy_rows(self, first: Val, last: Val, row: int) -> None:
        """The rows `first` to `last`, as they are before."""
        if not self.at.in_place:
            self._copy_run(self.w.mul(first, row), self.w.mul(self.w.sub(last, first), row))

    def _copy(self, rows: int, row: int, first: Val, last: Val) -> None:
        """The columns `first` to `last` of all rows, as they are before."""
        if self.at.in_place:
            return
        w = self.w
        with w.loop(0, rows, label="copied") as r:
            place = w.add(w.mul(r, row), first)
            self._copy_run(place, w.sub(last, first))

    def _copy_run(self, place: Val, count: Val) -> None:
        w = self.w
        to = w.gep(self.at.result, place, self.elem)
        source = w.gep(self.at.operands[0], place, self.elem)
        nbytes = w.mul(count, self.itemsize)
        w.external("llvm.memcpy.p0.p0.i64", VOID, (to, source, nbytes, int_const(0, I1)))

    def _add_columns(self, source: Val, to: Val, first: Val, last: Val) -> None:
        """Elements `first` to `last` of the values from `source` on, to the result from `to` on."""
        w = self.w
        lanes = self.state.target.vector_bytes // self.itemsize
        whole = w.add(first, w.and_(w.sub(last, first), -lanes))
        for low, high, step in ((first, whole, lanes), (whole, last, 1)):
            with w.loop(low, high, step, "column") as column:
                type = vec(self.elem, step)
                there = w.gep(self.at.result, w.add(to, column), self.elem)
                more = w.load(type, w.gep(self.at.operands[1], w.add(source, column), self.elem))
                w.store(added(w, w.load(type, there), more), there)

    # --- add_along ---------------------------------------------------------------------------

    def along(self, first: Val, last: Val, by_rows: bool) -> None:
        """Rows `first` to `last` of (outer, length, inner), or these columns of all rows."""
        w, axis = self.w, self.attrs.axis
        outer, length, inner = lines_of(self.shape, axis)
        count = self.instr.args[1].type.static_shape[axis]
        if by_rows:
            self._copy_rows(first, last, length * inner)
            self._rows(first, last, count, length, inner, (w.int(0), w.int(inner)))
            return
        self._copy(outer * length, inner, first, last)
        self._rows(w.int(0), w.int(outer), count, length, inner, (first, last))

    def _rows(
        self, low: Val, high: Val, count: int, length: int, inner: int, columns: tuple[Val, Val]
    ) -> None:
        w = self.w
        with w.loop(low, high, label="row") as row, w.loop(0, count, label="write") as i:
            source = w.mul(w.add(w.mul(row, count), i), inner)
            with w.loop(*columns, label="column") as column:
                self._add_one(w.add(source, column), w.mul(row, length), inner, column)

    def _add_one(self, source: Val, row: Val, inner: int, column: Val) -> None:
        w = self.w
        index = self._index(0, source, self.attrs.axis)
        place = w.add(w.mul(w.add(row, index), inner), column)
        there = w.gep(self.at.result, place, self.elem)
        more = w.load(self.elem, w.gep(self.at.operands[1], source, self.elem))
        w.store(added(w, w.load(self.elem, there), more), there)
