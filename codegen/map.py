"""Maps: nothing is reduced; a loop nest that stores, in blocks where operands are turned."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.llvm import I64, VOID, Val, memory_type
from treadle.codegen.loops import Number, Piece, run_piece
from treadle.codegen.nest import Nest
from treadle.codegen.scope import Scope
from treadle.codegen.transpose import turn_function
from treadle.codegen.turning import BLOCK, Turned
from treadle.ir.types import float32, float64

_LINE = 64  # bytes of a cache line


class Map(Nest):
    """Nothing is reduced."""

    def write(self, top: Scope) -> None:
        last = self.code.vector_dim
        if not self.plan.turned:
            self.nest(range(last), top, self.store_full, self.roots())
            return
        across = self.plan.turned[0].across
        self.nest([n for n in range(last) if n != across], top, self._blocks, self.roots())

    def _blocks(self, outer: Scope) -> None:
        """Blocks of the vector loop and the loop across, with turned operands."""
        w, plan, lanes = self.w, self.plan, self.plan.lanes
        across = plan.turned[0].across
        first, last = self._aligned_span(across)
        params = [self.region.fn.inputs[t.param] for t in plan.turned]
        tiles = [w.alloca(memory_type(p.type.dtype), BLOCK * lanes * plan.unroll) for p in params]
        for piece in self.pieces(plan.unroll):

            def body(
                index: Number, mask: Val | None, _: Sequence[Val], piece: Piece = piece
            ) -> Sequence[Val]:
                with w.loop(first, last, BLOCK, "block") as block:
                    start = w.binary("llvm.smax", block, 0)
                    stop = w.binary("llvm.smin", w.add(block, BLOCK), last)
                    steps = w.sub(stop, start)
                    at = Scope(self.code, 1, {across: self.index(across, start)}, outer)
                    if piece.lanes > 1:
                        for turned, tile in zip(plan.turned, tiles, strict=True):
                            self._turn(turned, tile, at, index, steps, piece.step)
                    with w.loop(0, steps, label="across") as u:
                        place = self.index(across, w.add(start, u))
                        row = Scope(self.code, 1, {across: place}, outer)
                        for param, tile in zip(params, tiles, strict=True):
                            elem = memory_type(param.type.dtype)
                            row.turned[param] = w.gep(tile, w.mul(u, lanes), elem)
                        row.prepare([v for _, v in self.full])
                        self.store(self.steps(piece, index, row, mask), self.full)
                return ()

            run_piece(w, piece, (), body)

    def _aligned_span(self, across: int) -> tuple[Number, Number]:
        """The span moved back, so that blocks begin where cache lines of the first turned operand
        do. Otherwise two blocks share each line: where rows lie a power of two apart it has left
        the cache before the second one comes (measured: half the speed)."""
        first, last = self.span(across)
        turned, size = self.plan.turned[0], self.code.sizes[across]
        param = self.region.fn.inputs[turned.param]
        itemsize = param.type.dtype.itemsize
        in_line = _LINE // itemsize
        if any(s % in_line for n, s in enumerate(turned.steps) if n != across):
            return first, last
        w = self.w
        start = w.gep(self.code.inputs[param], turned.offset, memory_type(param.type.dtype))
        at = w.cast("ptrtoint", start, I64)
        back = w.lshr(w.and_(at, _LINE - 1), itemsize.bit_length() - 1)
        moved = w.sub(w._as(last, I64), back)
        is_end = w.icmp("eq", w._as(last, I64), size)
        return w.sub(w._as(first, I64), back), w.select(is_end, w._as(size, I64), moved)

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
        turn = turn_function(self.code.state, dtype, self.plan.lanes)
        w.call(turn, VOID, [here, w.int(turned.steps[-1]), tile, rows, steps])
