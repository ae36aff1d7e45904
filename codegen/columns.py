"""Columns: the vector loop is over a kept axis, partial results in registers."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import Val
from treadle.codegen.loops import Number, Piece, run_piece
from treadle.codegen.nest import Nest
from treadle.codegen.plan_fused import RUN
from treadle.codegen.reduce import Reduction, Runs, State, flat, unflat
from treadle.codegen.scope import Scope
from treadle.ir.graph import Value


class Columns(Nest):
    """The vector loop is over a kept axis: tiles of columns, the reduced loops inside."""

    def write(self, top: Scope) -> None:
        last = self.code.vector_dim
        outers = [n for n, d in enumerate(self.plan.dims) if not d.reduced and n != last]
        self.nest(outers, top, self._tiles, self.roots())

    def _tiles(self, outer: Scope) -> None:
        for piece in self.pieces(self.plan.tile):

            def body(
                index: Number, mask: Val | None, _: Sequence[Val], piece: Piece = piece
            ) -> Sequence[Val]:
                self._tile(outer, self.steps(piece, index, outer, mask))
                return ()

            run_piece(self.w, piece, (), body, "tile")

    def _tile(self, outer: Scope, tiles: list[Scope]) -> None:
        self.code.ready.clear()
        over = [n for n, d in enumerate(self.plan.dims) if d.reduced]
        for _, reductions in self.passes:
            roots = [a for r in reductions for a in r.instr.args]
            for tile in tiles:
                tile.prepare(roots)
            totals = self._reduce(outer, tiles, reductions, over, roots)
            slots = [(tile, r) for tile in tiles for r in reductions]
            for (tile, reduction), state in zip(slots, totals, strict=True):
                tile.known[reduction.instr.result] = reduction.result(tile.ops, state)
            self.mark_stored(roots)
        values = [v for _, v in self.full]
        if self.full:
            for tile in tiles:
                tile.prepare([*values, *(v for _, v in self.kept)])
            self.nest(
                over, outer, lambda row: self.store(self._leaves(row, tiles), self.full), values
            )
        self.store(tiles, self.kept)

    def _leaves(self, row: Scope, tiles: list[Scope]) -> list[Scope]:
        """For each column vector, its element in one row."""
        if row is tiles[0].parent or row is tiles[0]:
            return tiles
        return [Scope(self.code, t.lanes, {}, row, t.mask, t) for t in tiles]

    def _reduce(
        self,
        outer: Scope,
        tiles: list[Scope],
        reductions: Sequence[Reduction],
        over: Sequence[int],
        roots: Sequence[Value],
    ) -> list[State]:
        slots = [(tile, r) for tile in tiles for r in reductions]
        starts = self._starts(outer, tiles, reductions, over)
        if not over:
            return self._row(outer, tiles, slots, starts, None)
        ops = tiles[0].ops
        *outers, inner = over
        many = outers or (self.plan.levels and any(r.rounds for r in reductions))
        if not many:
            outer.prepare(roots)
            return self._run(outer, tiles, slots, starts, inner, (0, self.code.sizes[inner]), roots)
        runs = Runs(self.w, ops, [(r, s) for (_, r), s in zip(slots, starts, strict=True)],
                    self.plan.levels)  # fmt: skip

        def stretch(scope: Scope) -> None:
            scope.prepare(roots)
            size = self.code.sizes[inner]
            assert isinstance(size, int)
            if size <= RUN:
                runs.push(self._run(scope, tiles, slots, starts, inner, (0, size), roots))
                return
            with self.w.loop(0, size, RUN, "run") as start:
                stop = self.w.binary("llvm.smin", self.w.add(start, RUN), size)
                runs.push(self._run(scope, tiles, slots, starts, inner, (start, stop), roots))

        self.nest(outers, outer, stretch, roots)
        return runs.totals()

    def _starts(
        self,
        outer: Scope,
        tiles: list[Scope],
        reductions: Sequence[Reduction],
        over: Sequence[int],
    ) -> list[State]:
        zero = {n: tiles[0].ops.index_const(0) for n in over}
        found = []
        row = Scope(self.code, 1, zero, outer) if over else outer
        for leaf in self._leaves(row, tiles):
            for r in reductions:
                first = leaf.at(r.instr.args[0]) if r.is_arg else None
                found.append(r.start(leaf.ops, first))
        return found

    def _run(
        self,
        scope: Scope,
        tiles: list[Scope],
        slots: Sequence[tuple[Scope, Reduction]],
        starts: list[State],
        inner: int,
        bounds: tuple[Number, Number],
        roots: Sequence[Value],
    ) -> list[State]:
        with self.w.carry(bounds[0], bounds[1], 1, flat(starts), "row") as loop:
            at = self.index(inner, loop.index)
            row = Scope(self.code, 1, {inner: at}, scope)
            row.prepare(roots)
            loop.next = flat(self._row(row, tiles, slots, unflat(loop.carried, starts), at))
        return unflat(loop.results, starts)

    def _row(
        self,
        row: Scope,
        tiles: list[Scope],
        slots: Sequence[tuple[Scope, Reduction]],
        states: list[State],
        at: LaneIndex | None,
    ) -> list[State]:
        leaves = dict(zip(tiles, self._leaves(row, tiles), strict=True))
        found = []
        for (tile, reduction), state in zip(slots, states, strict=True):
            leaf = leaves[tile]
            x = leaf.at(reduction.instr.args[0])
            index = at if at is not None else leaf.ops.index_const(0)
            found.append(reduction.step(leaf.ops, state, x, index, None))
        return found
