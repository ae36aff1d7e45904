"""Emits convolutions by Winograd's algorithm: see `plan_winograd` for what is computed.

    pack    the transformed weights of one register tile's rows, for each of the n n products
    tile    transforms its squares of the input, multiplies, transforms back, then the epilogue

Both run once, or in each round of rows. A piece of a round that has no rows is nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.contract import Workplace
from treadle.codegen.emission import Emission, run_tiles
from treadle.codegen.epilogue import holder
from treadle.codegen.llvm import (
    I1,
    I8,
    I64,
    NULL,
    PTR,
    VOID,
    FunctionWriter,
    Val,
    int_const,
    register_type,
)
from treadle.codegen.pixel_epilogue import finish_function, finish_pieces
from treadle.codegen.plan_winograd import WinogradPlan
from treadle.codegen.tiles import tile_function
from treadle.codegen.winograd_transforms import input_function, output_function, weights_function
from treadle.ir.graph import Instr

_FIELDS = ("weights", "data", "result", "ctx", "packed", "own", "room", "row")


def emit_winograd(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: WinogradPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """All of it: `operands` are the addresses of its operands and results."""
    result = operands[len(instr.args) + (holder(instr) if instr.regions else 0)]
    frame = w.alloca(I64, len(_FIELDS))
    values = (*operands[:2], result, at.ctx, at.shared, at.scratch, w.int(at.room))
    for n, value in enumerate(values):
        w.store(value, w.gep(frame, n, I64), align=8)
    code = _Winograd(state, at.name, instr, plan)
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))
    pack, tile = (Val(f"@{name}", PTR) for name in (code.pack(), code.tile()))
    with w.loop(0, plan.what.rows, plan.round, "round") as row:
        w.store(row, w.gep(frame, len(values), I64), align=8)
        run_tiles(state, w, pool, pack, frame, w.int(plan.packs), threads)
        run_tiles(state, w, pool, tile, frame, w.int(plan.tiles), threads)


class _Winograd:
    """Writes the functions of one convolution."""

    def __init__(self, state: Emission, name: str, instr: Instr, plan: WinogradPlan) -> None:
        self.state, self.name, self.instr, self.plan = state, name, instr, plan
        self.what = plan.what
        self.elem = register_type(plan.dtype)

    def _field(self, w: FunctionWriter, name: str) -> Val:
        type = I64 if name in ("room", "row") else PTR
        return w.load(type, w.gep(w.args[0], _FIELDS.index(name), I64), align=8)

    def _moved(self, w: FunctionWriter, base: Val, *steps: tuple[Val, int]) -> Val:
        """`base` plus some indices times their steps, in elements."""
        for index, step in steps:
            base = w.gep(base, w.mul(index, step), self.elem) if step else base
        return base

    def _group(self, w: FunctionWriter, group: Val) -> Val:
        """Where the transformed weights of a group begin."""
        return self._moved(w, self._field(w, "packed"), (group, self.plan.n**2 * self.plan.u_step))

    def pack(self) -> str:
        """A tile of it is one register tile's rows of one group; with one piece all of them."""
        plan, what = self.plan, self.what
        transform = weights_function(self.state, f"{self.name}_weights", plan)
        w = self.state.module.function(f"{self.name}_pack", VOID, KERNEL_PARAMS, internal=True)
        first = w.args[1]
        last = w.add(first, 1) if plan.packs > 1 else w.int(what.groups * plan.panels)
        with w.loop(first, last, label="piece") as piece:
            group, panel = w.udiv(piece, plan.panels), w.urem(piece, plan.panels)
            source = self._moved(w, self._field(w, "weights"), (group, what.a[1]))
            to = self._moved(w, self._group(w, group), (panel, plan.mr * what.channels))
            row = w.add(self._field(w, "row"), w.mul(panel, plan.mr))
            w.call(transform, VOID, [source, to, row])
        w.ret()
        return self.state.merged(w)

    def tile(self) -> str:
        plan, what, state = self.plan, self.what, self.state
        transform = input_function(state, f"{self.name}_input", plan)
        back = output_function(state, f"{self.name}_output", plan)
        finish = finish_function(state, self.name, self.instr, plan)
        w = state.module.function(f"{self.name}_tile", VOID, KERNEL_PARAMS, internal=True)
        tile, slot = w.args[1], w.args[2]
        down, across = -(-what.images // plan.images), -(-plan.high // plan.span)
        pieces = -(-plan.round // plan.bm)
        column, rest = w.urem(tile, down * across), w.udiv(tile, down * across)
        piece, group = w.urem(rest, pieces), w.udiv(rest, pieces)
        image = w.mul(w.udiv(column, across), plan.images)
        images = w.binary("llvm.smin", w.sub(w.int(what.images), image), plan.images)
        line = w.mul(w.urem(column, across), plan.span)
        count = w.binary("llvm.smin", w.sub(w.int(plan.high), line), plan.span)
        below = w.mul(piece, plan.bm)
        row = w.add(self._field(w, "row"), below)
        rows = w.binary("llvm.smin", w.sub(w.int(what.rows), row), plan.bm)
        rows = w.binary("llvm.smin", rows, w.sub(w.int(plan.round), below))
        some, none = w.new_block("some"), w.new_block("none")
        w.cond_br(w.icmp("sgt", rows, 0), some, none)
        w.start(none)
        w.ret()
        w.start(some)
        v = w.gep(self._field(w, "own"), w.mul(slot, self._field(w, "room")))
        in_v, in_m, in_lines, in_zeros = plan.parts
        products = w.gep(v, in_v)
        lines = w.gep(products, in_m)
        zeros = w.gep(lines, in_lines)
        nothing = int_const(0, I8), w.int(in_zeros), int_const(0, I1)
        w.external("llvm.memset.p0.i64", VOID, (zeros, *nothing))
        data = self._moved(w, self._field(w, "data"), (image, what.b[0]), (group, what.b[1]))
        w.call(transform, VOID, [data, v, lines, zeros, images, line, count])
        left = self._moved(w, self._group(w, group), (below, what.channels))
        columns = w.mul(w.mul(images, count), plan.wide)
        self._multiply(w, left, v, products, rows, columns)
        result = self._moved(
            w, self._field(w, "result"),
            (image, what.c[0]), (group, what.c[1]), (row, what.c[2]),
        )  # fmt: skip
        w.call(back, VOID, [products, result, images, line, count, rows])
        if finish is not None:
            ctx, begins = self._field(w, "ctx"), (w.mul(line, plan.m), plan.span * plan.m)
            finish_pieces(w, plan, finish, ctx, (image, images), group, (row, rows), begins)
        w.ret()
        return self.state.merged(w)

    def _multiply(
        self, w: FunctionWriter, left: Val, v: Val, products: Val, rows: Val, columns: Val
    ) -> None:
        """The n n products of matrices."""
        plan, channels = self.plan, self.what.channels
        lanes, nr = plan.lanes, plan.nr
        names = [
            tile_function(self.state, plan.dtype, plan.mr, n * lanes)
            for n in range(1, nr // lanes + 1)
        ]
        kernels = [Val(f"@{name}", PTR) for name in names]
        ld, ks = w.int(plan.ld), w.int(channels)
        with w.loop(0, plan.n**2, label="product") as t:
            a = self._moved(w, left, (t, plan.u_step))
            b, c = self._moved(w, v, (t, plan.v_step)), self._moved(w, products, (t, plan.m_step))
            with w.loop(0, columns, nr, "columns") as j:
                wide = w.sub(columns, j)
                micro = kernels[-1]
                for n in reversed(range(len(kernels) - 1)):  # the narrowest that holds what is left
                    micro = w.select(w.icmp("sle", wide, (n + 1) * lanes), kernels[n], micro)
                right, here = w.gep(b, j, self.elem), w.gep(c, j, self.elem)
                with w.loop(0, rows, plan.mr, "rows") as i:
                    at = w.gep(a, w.mul(i, channels), self.elem)
                    to = self._moved(w, here, (i, plan.ld))
                    given = (at, right, ld, to, ld, ks, int_const(0, I1))
                    w.effect(f"call void {micro.ref}({', '.join(map(str, given))})")
