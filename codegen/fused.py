"""Writes the loops of a `fused` region as its plan says: map, rows or columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import I64, VOID, Val, memory_type
from treadle.codegen.loops import Number, Piece, clipped, pieces, run_piece
from treadle.codegen.plan_fused import RUN, PassPlan
from treadle.codegen.reduce import Reduction, Runs, State, flat, unflat
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.scope import RegionCode, Scope, TurnedRow
from treadle.codegen.tiles import pack_function
from treadle.codegen.turning import BLOCK, Turned
from treadle.ir.graph import Value
from treadle.ir.types import float32, float64

RowBody = Callable[[Scope], None]


def emit_fused(code: RegionCode) -> None:
    """The whole loop nest."""
    if any(s == 0 for s, d in zip(code.sizes, code.plan.dims, strict=True) if not d.reduced):
        return
    top = Scope(code, 1, {})
    if code.plan.scheme == "map":
        _Map(code).write(top)
    elif code.plan.scheme == "rows":
        _Rows(code).write(top)
    else:
        _Columns(code).write(top)


class _Loops:
    """What the three schemes share."""

    def __init__(self, code: RegionCode) -> None:
        self.code, self.plan, self.w = code, code.plan, code.w
        self.region = code.region
        outputs = self.region.fn.outputs
        self.full = [(n, outputs[n]) for n in self.region.full_results()]
        self.kept = [(n, outputs[n]) for n in self.region.kept_results()]
        self.passes = [
            (p, [Reduction(self.region.fn.instrs[n]) for n in p.reductions])
            for p in self.plan.passes
        ]

    def index(self, dim: int, base: Number, lanes: int = 1) -> LaneIndex:
        """The position along a loop whose steps begin at multiples of `lanes`."""
        size = self.code.sizes[dim]
        high = size - 1 if isinstance(size, int) else None
        ops = LlvmScalarOps(self.w, lanes)
        return ops.index(base, 1 if lanes > 1 else 0, 0, high, lanes)

    def span(self, dim: int) -> tuple[Number, Number]:
        """Where this tile begins and ends along a loop."""
        return self.code.bounds.get(dim, (0, self.code.sizes[dim]))

    def nest(
        self, dims: Sequence[int], outer: Scope, body: RowBody, roots: Sequence[Value]
    ) -> None:
        """`body` for each position along `dims`, in order; invariants before each loop."""
        outer.prepare(roots)
        for number, _ in (*self.full, *self.kept):
            outer.pointer(number)
        if not dims:
            body(outer)
            return
        dim = dims[0]
        first, last = self.span(dim)
        with self.w.loop(first, last, label=f"axis{dim}_") as i:
            scope = Scope(self.code, 1, {dim: self.index(dim, i)}, outer)
            self.nest(dims[1:], scope, body, roots)

    def steps(self, piece: Piece, base: Number, outer: Scope, mask: Val | None) -> list[Scope]:
        """The scopes of the vectors of one step along the vector loop."""
        dim = self.code.vector_dim
        if dim < 0:
            return [outer]
        at = self.index(dim, base, piece.lanes)
        ops = LlvmScalarOps(self.w, piece.lanes)
        return [
            Scope(
                self.code,
                piece.lanes,
                {dim: ops.index_add(at, u * piece.lanes)},
                outer,
                mask,
                local=u * piece.lanes,
            )
            for u in range(piece.vectors)
        ]

    def pieces(self, unroll: int) -> tuple[Piece, ...]:
        """How the vector loop is walked."""
        dim, plan = self.code.vector_dim, self.plan
        if dim < 0:
            return (Piece(0, 1, 1, 1, False, 1),)
        found = pieces(self.w, self.code.sizes[dim], plan.lanes, unroll, plan.tail)
        if dim not in self.code.bounds:
            return found
        return tuple(clipped(self.w, p, *self.code.bounds[dim]) for p in found)

    def store(self, scopes: Sequence[Scope], results: Sequence[tuple[int, Value]]) -> None:
        """Compute results in all scopes, then store them."""
        found = [(s, n, s.at(value)) for s in scopes for n, value in results]
        for scope, number, element in found:
            scope.write(number, element)

    def roots(self) -> list[Value]:
        """Everything that is computed at the space."""
        below = [a for _, rs in self.passes for r in rs for a in r.instr.args]
        return below + [v for _, v in (*self.full, *self.kept)]

    def mark_stored(self, roots: Sequence[Value]) -> None:
        """After a pass: what it put into scratch buffers is ready for the next ones."""
        seen = self.region.at_space(tuple(roots), frozenset(self.code.ready))
        self.code.ready.update(v for v in seen if v in self.code.scratch)

    def store_full(self, outer: Scope) -> None:
        """The last loop over a row, which stores the results of the space's shape."""
        if not self.full:
            return
        values = [v for _, v in self.full]
        outer.prepare(values)
        for piece in self.pieces(self.plan.unroll):

            def body(
                index: Number, mask: Val | None, _: Sequence[Val], piece: Piece = piece
            ) -> Sequence[Val]:
                self.store(self.steps(piece, index, outer, mask), self.full)
                return ()

            run_piece(self.w, piece, (), body)


class _Map(_Loops):
    """Nothing is reduced."""

    def write(self, top: Scope) -> None:
        last = self.code.vector_dim
        if not self.plan.turned:
            self.nest(range(last), top, self.store_full, self.roots())
            return
        across = self.plan.turned[0].across
        self.nest([n for n in range(last) if n != across], top, self._blocks, self.roots())

    def _blocks(self, outer: Scope) -> None:
        """Blocks of the loop across and the vector loop, with turned operands."""
        w, plan, lanes = self.w, self.plan, self.plan.lanes
        across = plan.turned[0].across
        first, last = self.span(across)
        params = [self.region.fn.inputs[t.param] for t in plan.turned]
        tiles = [w.alloca(memory_type(p.type.dtype), BLOCK * lanes * plan.unroll) for p in params]
        with w.loop(first, last, BLOCK, "block") as start:
            steps = w.binary("llvm.smin", w.sub(w._as(last, I64), start), BLOCK)
            for piece in self.pieces(plan.unroll):

                def body(
                    index: Number, mask: Val | None, _: Sequence[Val], piece: Piece = piece
                ) -> Sequence[Val]:
                    at = Scope(self.code, 1, {across: self.index(across, start)}, outer)
                    if piece.lanes > 1:
                        for turned, tile in zip(plan.turned, tiles, strict=True):
                            self._turn(turned, tile, at, index, steps, piece.step)
                    with w.loop(0, steps, label="across") as u:
                        place = self.index(across, w.add(start, u))
                        row = Scope(self.code, 1, {across: place}, outer)
                        for param, tile in zip(params, tiles, strict=True):
                            elem = memory_type(param.type.dtype)
                            row.turned[param] = TurnedRow(w.gep(tile, w.mul(u, lanes), elem), steps)
                        row.prepare([v for _, v in self.full])
                        self.store(self.steps(piece, index, row, mask), self.full)
                    return ()

                run_piece(w, piece, (), body)

    def _turn(
        self, turned: Turned, tile: Val, at: Scope, index: Number, steps: Val, width: int
    ) -> None:
        """Fill a tile: row u holds the lanes' elements for step u of the loop across."""
        w, last = self.w, self.code.vector_dim
        param = self.region.fn.inputs[turned.param]
        dtype = float64 if param.type.dtype.itemsize == 8 else float32
        elem = memory_type(param.type.dtype)
        here = w.gep(self.code.inputs[param], turned.offset, elem)
        for dim, step in enumerate(turned.steps):
            position = self.index(dim, index) if dim == last else at.position(dim)
            assert position is not None
            here = w.gep(here, w.mul(at.ops.scalar_of(position), step), elem)
        size = self.code.sizes[last]
        assert isinstance(size, int)
        first = index if isinstance(index, Val) else w.int(index)
        rows = w.binary("llvm.smin", w.sub(w.int(size), first), width)
        pack = pack_function(self.code.state, dtype)
        numbers = (rows, steps, w.int(turned.steps[-1]), w.int(1), w.int(self.plan.lanes))
        w.call(pack, VOID, [here, tile, *numbers])


class _Rows(_Loops):
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
        loops: _Loops,
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


class _Columns(_Loops):
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
