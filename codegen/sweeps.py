"""Sweeps: the vector loop is over a kept axis, partial results of many columns in scratch.

    for each block of columns, for each pass:
        partial[c] = nothing
        for each run of rows:
            for each group of rows in it:
                for each vector c of columns:  partial[c] += row 0, row 1, ..
            push partial into the cascade (where sums round), begin anew
        partial[c] = all of the cascade

The order of the additions is that of columns in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen import access
from treadle.codegen.llvm import I64, Val, memory_type
from treadle.codegen.loops import Number, Piece, clipped, pieces, run_piece
from treadle.codegen.nest import Nest
from treadle.codegen.plan_fused import RUN
from treadle.codegen.reduce import Reduction, State
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.scope import RegionCode, Scope
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Value
from treadle.ir.types import DType


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a reduction's partial results lie: `partial[k]` has component k of the State of column
    0, `levels` the cascade's lowest level; higher ones follow `width` columns apart."""

    reduction: Reduction
    dtypes: tuple[DType, ...]
    partial: tuple[Val, ...]
    levels: Val | None


class Sweeps(Nest):
    """Writes them."""

    def __init__(self, code: RegionCode) -> None:
        super().__init__(code)
        assert self.plan.sweep is not None
        self.sweep = self.plan.sweep
        self.over = [n for n, d in enumerate(self.plan.dims) if d.reduced]
        self.count = self.w.alloca(I64)  # runs so far
        self.block: list[Piece] = []
        self.places: dict[Value, _Places] = {}
        self.done: list[_Places] = []  # of the passes that are over

    def write(self, top: Scope) -> None:
        last = self.code.vector_dim
        outers = [n for n, d in enumerate(self.plan.dims) if not d.reduced and n != last]
        self.nest(outers, top, self._blocks, self.roots())

    def _blocks(self, outer: Scope) -> None:
        first, stop = self.span(self.code.vector_dim)
        width = self.sweep.width
        is_whole = self.code.vector_dim not in self.code.bounds
        if is_whole and isinstance(stop, int) and width >= stop:
            self._block(outer, 0, stop)
            return
        with self.w.loop(first, stop, width, "block") as start:
            end = self.w.binary("llvm.smin", self.w.add(start, width), stop)
            self._block(outer, start, end)

    def _block(self, outer: Scope, start: Number, stop: Number) -> None:
        dim, plan = self.code.vector_dim, self.plan
        found = pieces(self.w, self.code.sizes[dim], plan.lanes, self.sweep.vectors, plan.tail)
        self.block = [clipped(self.w, p, start, stop) for p in found] if start != 0 else list(found)
        self._take_room(start)
        self.done = []
        for _, reductions in self.passes:
            self._pass(outer, [self.places[r.instr.result] for r in reductions])
        if self.full:
            outer.prepare([v for _, v in self.full])
            self.nest(self.over[:-1], outer, self._store_rows, [v for _, v in self.full])
        if self.kept:
            self._columns(outer, [v for _, v in self.kept], lambda t: self.store(t, self.kept))

    def _take_room(self, start: Number) -> None:
        """Addresses of the partial results, as if column 0 of the array had its own."""
        w, at = self.w, 0
        width = self.sweep.width
        for _, reductions in self.passes:
            for r in reductions:
                dtypes = r.dtypes
                places = []
                levels = None
                for dtype in dtypes:
                    places.append(self._room(at, dtype, start))
                    at += width * dtype.itemsize
                if r.rounds and self.plan.levels:
                    levels = self._room(at, dtypes[0], start)
                    at += width * self.plan.levels * dtypes[0].itemsize
                self.places[r.instr.result] = _Places(r, dtypes, tuple(places), levels)
        assert at <= self.sweep.nbytes
        w.comment(f"partial results: {at} bytes")

    def _room(self, at: int, dtype: DType, start: Number) -> Val:
        here = self.w.gep(self.code.room, at)
        if start == 0:
            return here
        back = self.w.sub(self.w.int(0), start)
        return self.w.gep(here, back, memory_type(dtype))

    # --- one pass ----------------------------------------------------------------------------

    def _pass(self, outer: Scope, places: Sequence[_Places]) -> None:
        roots = [a for p in places for a in p.reduction.instr.args]
        outer.prepare(roots)
        self.w.store(self.w.int(0), self.count)
        self._begin(outer, places)

        def stretch(scope: Scope) -> None:
            self._runs(outer, scope, places, roots)

        self.nest(self.over[:-1], outer, stretch, roots)
        self._end(outer, places)
        self.done += places

    def _begin(self, outer: Scope, places: Sequence[_Places]) -> None:
        """Nothing in all partial results; argmax and argmin begin with the first row."""
        zero = {n: LlvmScalarOps(self.w, 1).index_const(0) for n in self.over}
        row = Scope(self.code, 1, zero, outer)

        def begin(tiles: Sequence[Scope]) -> None:
            for tile in tiles:
                leaf = Scope(self.code, tile.lanes, {}, row, tile.mask, tile)
                for p in places:
                    r = p.reduction
                    first = leaf.at(r.instr.args[0]) if r.is_arg else None
                    self._write(tile, p, r.start(tile.ops, first))

        self._columns(outer, [], begin)

    def _runs(
        self, outer: Scope, scope: Scope, places: Sequence[_Places], roots: Sequence[Value]
    ) -> None:
        """The innermost reduced loop, in runs where sums round."""
        w, group = self.w, self.sweep.group
        size = self.code.sizes[self.over[-1]]
        assert isinstance(size, int)
        whole = size // group * group
        cascaded = [p for p in places if p.levels is not None]
        if not cascaded:
            with w.loop(0, whole, group, "group") as at:
                self._rows(outer, scope, at, group, places, roots)
            if whole < size:
                self._rows(outer, scope, whole, size - whole, places, roots)
            return
        with w.loop(0, size, RUN, "run") as start:
            stop = w.binary("llvm.smin", w.add(start, RUN), whole)
            with w.loop(start, stop, group, "group") as at:
                self._rows(outer, scope, at, group, places, roots)
            if whole < size:
                is_last = w.icmp("sge", w.add(start, RUN), size)
                with w.if_(is_last, "rest"):
                    self._rows(outer, scope, whole, size - whole, places, roots)
            self._push(outer, cascaded)

    def _rows(
        self,
        outer: Scope,
        scope: Scope,
        first: Number,
        group: int,
        places: Sequence[_Places],
        roots: Sequence[Value],
    ) -> None:
        """A few rows into the partial results."""
        inner = self.over[-1]
        rows = self._row_scopes(scope, first, group, roots)

        def body(tiles: Sequence[Scope]) -> None:
            states = [[self._read(t, p) for p in places] for t in tiles]
            for row in rows:
                at = row.position(inner)
                assert at is not None
                for tile, mine in zip(tiles, states, strict=True):
                    leaf = Scope(self.code, tile.lanes, {}, row, tile.mask, tile)
                    for n, p in enumerate(places):
                        x = leaf.at(p.reduction.instr.args[0])
                        mine[n] = p.reduction.step(leaf.ops, mine[n], x, at, None)
            for tile, mine in zip(tiles, states, strict=True):
                for p, state in zip(places, mine, strict=True):
                    self._write(tile, p, state)

        self._columns(outer, roots, body)

    def _row_scopes(
        self, scope: Scope, first: Number, group: int, roots: Sequence[Value]
    ) -> list[Scope]:
        inner, ops = self.over[-1], LlvmScalarOps(self.w, 1)
        at = self.index(inner, first)
        rows = [Scope(self.code, 1, {inner: ops.index_add(at, k)}, scope) for k in range(group)]
        for row in rows:
            row.prepare(roots)
            for number, _ in self.full:
                row.pointer(number)
        return rows

    def _push(self, outer: Scope, places: Sequence[_Places]) -> None:
        """The run is over: its results go up the cascade."""
        w = self.w
        count = w.load(I64, self.count)

        def body(tiles: Sequence[Scope]) -> None:
            for tile in tiles:
                sums = [v for p in places for v in self._read(tile, p)]

                def is_held(values: Sequence[Val]) -> Val:
                    return w.icmp("ne", w.and_(w.lshr(count, values[0]), 1), 0)

                def carry(values: Sequence[Val], tile: Scope = tile) -> Sequence[Val]:
                    level, *totals = values
                    return [w.add(level, 1), *self._merged(tile, places, level, totals)]

                level, *sums = w.while_([w.int(0), *sums], is_held, carry, "carry")
                for p, total in zip(places, sums, strict=True):
                    self._write(tile, p, (total,), level)
                    self._write(tile, p, p.reduction.start(tile.ops, None))

        self._columns(outer, [], body)
        w.store(w.add(count, 1), self.count)

    def _end(self, outer: Scope, places: Sequence[_Places]) -> None:
        """All of the cascade as one, from its lowest level up."""
        cascaded = [p for p in places if p.levels is not None]
        if not cascaded:
            return
        w = self.w
        count = w.load(I64, self.count)

        def body(tiles: Sequence[Scope]) -> None:
            for tile in tiles:
                starts = [p.reduction.start(tile.ops, None)[0] for p in cascaded]
                with w.carry(0, self.plan.levels, 1, starts, "level") as loop:
                    is_held = w.icmp("ne", w.and_(w.lshr(count, loop.index), 1), 0)

                    def added(
                        tile: Scope = tile,
                        level: Val = loop.index,
                        now: Sequence[Val] = loop.carried,
                    ) -> Sequence[Val]:
                        return self._merged(tile, cascaded, level, now)

                    same = list(loop.carried)
                    loop.next = w.branch(is_held, added, lambda same=same: same, "held")  # type: ignore[misc]
                for p, total in zip(cascaded, loop.results, strict=True):
                    self._write(tile, p, (total,))

        self._columns(outer, [], body)

    def _merged(
        self, tile: Scope, places: Sequence[_Places], level: Val, totals: Sequence[Val]
    ) -> list[Val]:
        """What a level of the cascade holds, and then these."""
        found: list[Val] = []
        for p, total in zip(places, totals, strict=True):
            held = self._read(tile, p, level)
            found += p.reduction.merge(tile.ops, held, (total,))
        return found

    # --- results -----------------------------------------------------------------------------

    def _store_rows(self, scope: Scope) -> None:
        """Results of the space's shape, a few rows at a time."""
        size, group = self.code.sizes[self.over[-1]], self.sweep.group
        assert isinstance(size, int)
        whole = size // group * group
        values = [v for _, v in self.full]

        def store(first: Number, count: int) -> None:
            rows = self._row_scopes(scope, first, count, values)

            def body(tiles: Sequence[Scope]) -> None:
                for row in rows:
                    leaves = [Scope(self.code, t.lanes, {}, row, t.mask, t) for t in tiles]
                    self.store(leaves, self.full)

            self._columns(scope, values, body)

        with self.w.loop(0, whole, group, "group") as at:
            store(at, group)
        if whole < size:
            store(whole, size - whole)

    # --- columns -----------------------------------------------------------------------------

    def _columns(
        self, outer: Scope, roots: Sequence[Value], body: Callable[[Sequence[Scope]], None]
    ) -> None:
        """`body` for the scopes of each step along the block's columns. What `roots` need of the
        columns alone is computed there, once for all rows."""
        below = set(self.region.at_space(tuple(roots), frozenset()))
        had = [p for p in self.done if p.reduction.instr.result in below]
        for piece in self.block:

            def step(
                index: Number, mask: Val | None, _: Sequence[Val], piece: Piece = piece
            ) -> Sequence[Val]:
                tiles = self.steps(piece, index, outer, mask)
                for tile in tiles:
                    for p in had:
                        total = p.reduction.result(tile.ops, self._read(tile, p))
                        tile.known[p.reduction.instr.result] = total
                    tile.prepare(roots)
                body(tiles)
                return ()

            run_piece(self.w, piece, (), step, "column")

    def _level(self, place: Val, dtype: DType, level: Val | None) -> Val:
        if level is None:
            return place
        return self.w.gep(place, self.w.mul(level, self.sweep.width), memory_type(dtype))

    def _read(self, tile: Scope, p: _Places, level: Val | None = None) -> State:
        bases = p.partial if level is None else (p.levels,)
        at = tile.position(self.code.vector_dim)
        assert at is not None
        found = []
        for base, dtype in zip(bases, p.dtypes, strict=True):
            assert base is not None
            here = self._level(base, dtype, level)
            found.append(tile.ops.wide(access.load(tile.ops, here, at, dtype)))
        return tuple(found)

    def _write(self, tile: Scope, p: _Places, state: State, level: Val | None = None) -> None:
        bases = p.partial if level is None else (p.levels,)
        at = tile.position(self.code.vector_dim)
        assert at is not None
        for base, dtype, value in zip(bases, p.dtypes, state, strict=True):
            assert base is not None
            here = self._level(base, dtype, level)
            access.store(tile.ops, tile.ops.element(value, dtype), here, at)
