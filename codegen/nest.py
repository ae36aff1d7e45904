"""What the schemes for looping over a region share: open loops, vectors, stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import Val
from treadle.codegen.loops import Number, Piece, clipped, pieces, run_piece
from treadle.codegen.random import Mates
from treadle.codegen.reduce import Reduction
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.scope import RegionCode, Scope
from treadle.ir.graph import Value

RowBody = Callable[[Scope], None]


class Nest:
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
        size = self.code.sizes[dim]
        last = size - 1 if isinstance(size, int) else None
        ops = LlvmScalarOps(self.w, piece.lanes)
        mates = Mates(piece.vectors)
        return [
            Scope(
                self.code,
                piece.lanes,
                {dim: ops.index_capped(ops.index_add(at, u * piece.lanes), last)},
                outer,
                mask,
                local=u * piece.lanes,
                mates=mates,
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
