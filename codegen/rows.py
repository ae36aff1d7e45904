"""Rows: the vector loop is over a reduced axis, a row at a time."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.llvm import Val
from treadle.codegen.loops import Number, Piece, run_piece
from treadle.codegen.nest import Nest
from treadle.codegen.plan_fused import RUN, PassPlan
from treadle.codegen.reduce import Reduction, Runs, State, flat, unflat
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.scope import Scope
from treadle.ir.graph import Value


class Rows(Nest):
    """The vector loop is over a reduced axis: a row at a time."""

    def write(self, top: Scope) -> None:
        kept = [n for n, d in enumerate(self.plan.dims) if not d.reduced]
        self.nest(kept, top, self._row, self.roots())

    def _row(self, row: Scope) -> None:
        self.code.ready.clear()
        outers = [n for n, d in enumerate(self.plan.dims) if d.reduced][:-1]
        for plan, reductions in self.passes:
            roots = [a for r in reductions for a in r.instr.args]
            row.prepare(roots)
            totals = self._reduce(row, plan, reductions, outers, roots)
            for reduction, state in zip(reductions, totals, strict=True):
                row.known[reduction.instr.result] = reduction.result(row.ops, state)
            self.mark_stored(roots)
        if self.full:
            values = [v for _, v in self.full]
            row.prepare([*values, *(v for _, v in self.kept)])
            self.nest(outers, row, self.store_full, values)
        self.store([row], self.kept)

    def _reduce(
        self,
        row: Scope,
        plan: PassPlan,
        reductions: Sequence[Reduction],
        outers: Sequence[int],
        roots: Sequence[Value],
    ) -> list[State]:
        ops = LlvmScalarOps(self.w, self.plan.lanes)
        starts = self._starts(row, ops, reductions)
        walk = _RowWalk(self, plan, reductions, roots, starts, ops)
        if not outers and not (self.plan.levels and any(r.rounds for r in reductions)):
            states = walk.whole(row)
        else:
            walk.runs = Runs(
                self.w, ops, list(zip(reductions, starts, strict=True)), self.plan.levels
            )
            self.nest(outers, row, walk.in_runs, roots)
            states = walk.runs.totals()
        return [r.folded(ops, s) for r, s in zip(reductions, states, strict=True)]

    def _starts(
        self, row: Scope, ops: LlvmScalarOps, reductions: Sequence[Reduction]
    ) -> list[State]:
        if not any(r.is_arg for r in reductions):
            return [r.start(ops, None) for r in reductions]
        zero = {n: ops.index_const(0) for n, d in enumerate(self.plan.dims) if d.reduced}
        first = Scope(self.code, 1, zero, row)
        return [r.start(ops, first.at(r.instr.args[0]) if r.is_arg else None) for r in reductions]


class _RowWalk:
    """One pass over one row, or over one innermost stretch of it."""

    def __init__(
        self,
        loops: Nest,
        plan: PassPlan,
        reductions: Sequence[Reduction],
        roots: Sequence[Value],
        starts: list[State],
        ops: LlvmScalarOps,
    ) -> None:
        self.loops, self.plan, self.reductions = loops, plan, reductions
        self.roots, self.starts, self.ops = roots, starts, ops
        self.runs: Runs | None = None

    def whole(self, row: Scope) -> list[State]:
        """The row as a single run."""
        states = self.starts
        for piece in self.loops.pieces(self.plan.unroll):
            states = self._piece(piece, row, states)
        return states

    def in_runs(self, row: Scope) -> None:
        """The stretch in runs of `RUN` steps; what is left over goes with the last one."""
        assert self.runs is not None
        states = self.starts
        for piece in self.loops.pieces(self.plan.unroll):
            chunk = RUN * piece.step
            if (
                isinstance(piece.stop, int)
                and isinstance(piece.start, int)
                and (
                    piece.stop - piece.start > chunk
                    and piece.vectors * piece.lanes == piece.step
                    and not (piece.lanes == 1 and self.ops.lanes > 1)
                )
            ):
                self._chunks(piece, chunk, row)
            else:
                states = self._piece(piece, row, states)
        if states is not self.starts:
            self.runs.push(states)

    def _chunks(self, piece: Piece, chunk: int, row: Scope) -> None:
        w, runs = self.loops.w, self.runs
        assert runs is not None
        with w.loop(piece.start, piece.stop, chunk, "run") as start:
            stop = w.binary("llvm.smin", w.add(start, chunk), w._as(piece.stop, start.type))
            part = Piece(start, stop, piece.lanes, piece.vectors, piece.masked, piece.size)
            runs.push(self._piece(part, row, self.starts))

    def _piece(self, piece: Piece, row: Scope, states: list[State]) -> list[State]:
        """`states` with all of the piece."""
        if piece.lanes == self.ops.lanes:
            return self._vectors(piece, row, states)
        ops = LlvmScalarOps(self.loops.w, 1)
        starts = [
            tuple(self.loops.w.extract(v, 0) for v in s) if r.is_arg else r.start(ops, None)
            for r, s in zip(self.reductions, self.starts, strict=True)
        ]
        found = self._run(piece, row, starts, 1, ops)
        lanes = [
            r.in_lane_0(self.ops, s, x)
            for r, s, x in zip(self.reductions, self.starts, found, strict=True)
        ]
        return [
            r.merge(self.ops, s, x) for r, s, x in zip(self.reductions, states, lanes, strict=True)
        ]

    def _vectors(self, piece: Piece, row: Scope, states: list[State]) -> list[State]:
        """An accumulator for each vector of a step; the first ones go on from `states`."""
        width = piece.vectors
        if width == 1:
            return self._run(piece, row, states, 1, self.ops)
        spread = [s if u == 0 else self.starts[n] for n, s in enumerate(states)
                  for u in range(width)]  # fmt: skip
        found = self._run(piece, row, spread, width, self.ops)
        return [
            r.joined(self.ops, found[n * width : (n + 1) * width])
            for n, r in enumerate(self.reductions)
        ]

    def _run(
        self, piece: Piece, row: Scope, states: list[State], width: int, ops: LlvmScalarOps
    ) -> list[State]:
        dim = self.loops.code.vector_dim

        def body(index: Number, mask: Val | None, carried: Sequence[Val]) -> Sequence[Val]:
            now = unflat(carried, states)
            for u, scope in enumerate(self.loops.steps(piece, index, row, mask)):
                at = scope.position(dim)
                assert at is not None
                for n, reduction in enumerate(self.reductions):
                    k = n * width + u
                    x = scope.at(reduction.instr.args[0])
                    now[k] = reduction.step(ops, now[k], x, at, mask)
            return flat(now)

        return unflat(run_piece(self.loops.w, piece, flat(states), body), states)
