"""Emits convolutions of the form `pixels`: packed weights times pixels that each tile gathers.

    pack    once: a group's weights for `cb` channels, in panels of `mr` rows, as `tiles` has them
    tile    for each phase, for each `cb` channels: gather (`pixel_gather`), then for each panel of
            columns, for each panel of rows: the micro-kernel of `tiles`; at the end the copy of a
            staged tile to its places (`pixel_scatter`), then the epilogue

A product's columns are the positions of a tile one after the other: lines of an image, or images.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.contract import Workplace
from treadle.codegen.emission import Emission, run_tiles
from treadle.codegen.epilogue import holder
from treadle.codegen.llvm import I64, NULL, PTR, VOID, FunctionWriter, Val, register_type
from treadle.codegen.pixel_epilogue import finish_function, finish_pieces
from treadle.codegen.pixel_gather import gather_function
from treadle.codegen.pixel_scatter import emit_scatter
from treadle.codegen.plan_blocks import up
from treadle.codegen.plan_pixels import PixelPhase, PixelPlan
from treadle.codegen.shifted_tile import shifted_tile_function
from treadle.codegen.tiles import edge_function, pack_function, tile_function, zero
from treadle.ir.graph import Instr

_FIELDS = ("weights", "data", "result", "ctx", "packed", "own", "room")


def emit_pixels(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: PixelPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """All of it: `operands` are the addresses of its operands and results."""
    result = operands[len(instr.args) + (holder(instr) if instr.regions else 0)]
    frame = w.alloca(I64, len(_FIELDS))
    values = (*operands[:2], result, at.ctx, at.shared, at.scratch, w.int(at.room))
    for n, value in enumerate(values):
        w.store(value, w.gep(frame, n, I64), align=8)
    code = _Pixels(state, at.name, instr, plan)
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))
    pack, tile = (Val(f"@{name}", PTR) for name in (code.pack(), code.tile()))
    run_tiles(state, w, pool, pack, frame, w.int(plan.packs), threads)
    run_tiles(state, w, pool, tile, frame, w.int(plan.tiles), threads)


class _Pixels:
    """Writes the functions of one convolution."""

    def __init__(self, state: Emission, name: str, instr: Instr, plan: PixelPlan) -> None:
        self.state, self.name, self.instr, self.plan = state, name, instr, plan
        self.what = plan.what
        self.elem = register_type(plan.dtype)
        self.size = plan.dtype.itemsize
        self.panels = up(plan.what.rows, plan.mr)

    def _field(self, w: FunctionWriter, name: str) -> Val:
        type = I64 if name == "room" else PTR
        return w.load(type, w.gep(w.args[0], _FIELDS.index(name), I64), align=8)

    def _moved(self, w: FunctionWriter, base: Val, *steps: tuple[Val | int, int]) -> Val:
        """`base` plus some indices times their steps, in elements."""
        for index, step in steps:
            if isinstance(index, Val):
                base = w.gep(base, w.mul(index, step), self.elem)
            elif index * step:
                base = w.gep(base, index * step, self.elem)
        return base

    # --- weights -----------------------------------------------------------------------------

    def pack(self) -> str:
        """A tile of it is one block of channels of one group; with one piece all of them."""
        plan, what = self.plan, self.what
        w = self.state.module.function(f"{self.name}_pack", VOID, KERNEL_PARAMS, internal=True)
        blocks = -(-what.channels // plan.cb)
        first = w.args[1]
        last = w.add(first, 1) if plan.packs > 1 else w.int(what.groups * blocks)
        with w.loop(first, last, label="piece") as piece:
            group, block = w.udiv(piece, blocks), w.urem(piece, blocks)
            c = w.mul(block, plan.cb)
            count = w.binary("llvm.smin", w.sub(w.int(what.channels), c), plan.cb)
            source = self._moved(
                w, self._field(w, "weights"), (group, what.a[1]), (c, what.a[3])
            )  # fmt: skip
            for phase in plan.phases:
                if phase.taps:
                    to = self._packed(w, phase, group, c)
                    self._pack_phase(w, phase, source, to, count)
        w.ret()
        return self.state.merged(w)

    def _packed(self, w: FunctionWriter, phase: PixelPhase, group: Val, c: Val) -> Val:
        """Where the packed weights of a phase begin for channels from `c` on."""
        base = self._moved(w, self._field(w, "packed"), (phase.packed, 1))
        channel = self.panels * phase.taps
        return self._moved(w, base, (group, channel * self.what.channels), (c, channel))

    def _pack_phase(
        self, w: FunctionWriter, phase: PixelPhase, source: Val, to: Val, count: Val
    ) -> None:
        plan, what = self.plan, self.what
        _, _, row, channel, high, wide = what.a
        whole = phase.taps == what.high.taps * what.wide.taps
        if whole and channel == phase.taps and wide in (0, 1) and high in (0, what.wide.taps):
            ks = w.mul(count, phase.taps)
            args = [source, to, w.int(what.rows), ks, w.int(row), w.int(1), w.int(plan.mr)]
            w.call(pack_function(self.state, plan.dtype), VOID, args)
            return
        elem, mr = self.elem, plan.mr
        steps = [high * t for t, _ in phase.high.taps], [wide * t for t, _ in phase.wide.taps]
        places = [h + v for h in steps[0] for v in steps[1]]
        with w.loop(0, self.panels // mr, label="panel") as panel:
            rows = w.binary("llvm.smin", w.sub(w.int(what.rows), w.mul(panel, mr)), mr)
            from_ = self._moved(w, source, (panel, mr * row))
            begin = self._moved(w, to, (w.mul(panel, count), mr * phase.taps))
            with w.loop(0, count, label="channel") as c:
                here = self._moved(w, from_, (c, channel))
                there = self._moved(w, begin, (c, mr * phase.taps))
                with w.loop(0, rows, label="row") as i:
                    at, cell = self._moved(w, here, (i, row)), w.gep(there, i, elem)
                    for n, place in enumerate(places):
                        value = w.load(elem, w.gep(at, place, elem))
                        w.store(value, w.gep(cell, n * mr, elem))
                with w.loop(rows, mr, label="pad") as i:
                    cell = w.gep(there, i, elem)
                    for n in range(len(places)):
                        w.store(zero(elem), w.gep(cell, n * mr, elem))

    # --- tiles -------------------------------------------------------------------------------

    def tile(self) -> str:
        plan, what = self.plan, self.what
        gathers = [
            gather_function(self.state, f"{self.name}_gather{n}", plan, phase)
            if phase.taps else ""
            for n, phase in enumerate(plan.phases)
        ]  # fmt: skip
        finish = finish_function(self.state, self.name, self.instr, plan)
        w = self.state.module.function(f"{self.name}_tile", VOID, KERNEL_PARAMS, internal=True)
        tile, slot = w.args[1], w.args[2]
        lines = max(p.high.count for p in plan.phases)
        down, across = -(-what.images // plan.images), -(-lines // plan.span)
        pieces = -(-what.rows // plan.bm)
        column, rest = w.urem(tile, down * across), w.udiv(tile, down * across)
        piece, group = w.urem(rest, pieces), w.udiv(rest, pieces)
        image = w.mul(w.udiv(column, across), plan.images)
        images = w.binary("llvm.smin", w.sub(w.int(what.images), image), plan.images)
        line = w.mul(w.urem(column, across), plan.span)
        row = w.mul(piece, plan.bm)
        rows = w.binary("llvm.smin", w.sub(w.int(what.rows), row), plan.bm)
        own = w.gep(self._field(w, "own"), w.mul(slot, self._field(w, "room")))
        staging = w.gep(own, self._gathered_bytes())
        each = up(up(plan.bm, plan.mr) * plan.ld * self.size, 64)
        edge = w.gep(staging, each * len(plan.phases) if plan.staged else 0)
        data = self._moved(
            w, self._field(w, "data"), (image, what.b[0]), (group, what.b[1])
        )  # fmt: skip
        result = self._moved(
            w, self._field(w, "result"),
            (image, what.c[0]), (group, what.c[1]), (row, what.c[2]),
        )  # fmt: skip
        staged = [w.gep(staging, each * n) for n in range(len(plan.phases))]
        for n, phase in enumerate(plan.phases):
            if not phase.taps:
                continue
            count = w.binary("llvm.smin", w.sub(w.int(phase.high.count), line), plan.span)
            with w.if_(w.icmp("sgt", count, 0), "phase"):
                columns = w.mul(w.mul(images, count), phase.wide.count)
                c = staged[n] if plan.staged else self._moved(w, result, (line, what.c[4]))
                step = plan.ld if plan.staged else what.c[2]
                with w.loop(0, what.channels, plan.cb, "channels") as k:
                    block = w.binary("llvm.smin", w.sub(w.int(what.channels), k), plan.cb)
                    here = self._moved(w, data, (k, what.b[3]))
                    w.call(gathers[n], VOID, [here, own, images, line, count, block])
                    left = self._packed(w, phase, group, k)
                    ks = w.mul(block, phase.taps)
                    left = w.gep(left, w.mul(row, ks), self.elem)
                    add = w.icmp("sgt", k, 0)
                    self._multiply(w, left, own, (c, step), (rows, columns), ks, edge, add)
        if plan.staged:
            emit_scatter(w, plan, staged, result, (images, line, rows))
        if finish is not None:
            every = what.high.every
            whole = w.mul(line, every), plan.span * every
            ctx = self._field(w, "ctx")
            finish_pieces(w, plan, finish, ctx, (image, images), group, (row, rows), whole)
        w.ret()
        return self.state.merged(w)

    def _gathered_bytes(self) -> int:
        plan = self.plan
        taps = max(max(p.taps for p in plan.phases), 1) // plan.shifts
        return up(plan.cb * taps * plan.ld * self.size, 64)

    def _multiply(
        self, w: FunctionWriter, left: Val, right: Val, c: tuple[Val, int],
        sizes: tuple[Val, Val], ks: Val, edge: Val, add: Val,
    ) -> None:  # fmt: skip
        """`rows` x `columns` of the result for one block of channels."""
        plan, elem = self.plan, self.elem
        (result, step), (rows, columns) = c, sizes
        mr, nr, lanes = plan.mr, plan.nr, plan.lanes
        kernels = [Val(f"@{self._micro(v * lanes)}", PTR) for v in range(1, nr // lanes + 1)]
        with w.loop(0, columns, nr, "columns") as j:
            wide = w.binary("llvm.smin", w.sub(columns, j), nr)
            micro, have = kernels[-1], w.int(nr)
            for n in reversed(range(len(kernels) - 1)):  # the narrowest that holds what is left
                fits = w.icmp("sle", wide, (n + 1) * lanes)
                micro = w.select(fits, kernels[n], micro)
                have = w.select(fits, w.int((n + 1) * lanes), have)
            b = w.gep(right, j, elem)
            with w.loop(0, rows, mr, "rows") as i:
                a = w.gep(left, w.mul(i, ks), elem)
                here = self._moved(w, result, (i, step), (j, 1))
                if plan.staged:
                    self._call(w, micro, (a, b, here, w.int(step), ks, add))
                else:
                    high = w.binary("llvm.smin", w.sub(rows, i), mr)
                    inside = w.and_(w.icmp("eq", high, mr), w.icmp("eq", wide, have))
                    to, apart = w.select(inside, here, edge), w.select(inside, w.int(step), have)
                    self._call(w, micro, (a, b, to, apart, ks, w.and_(inside, add)))
                    with w.if_(w.not_(inside), "over"):
                        w.call(
                            edge_function(self.state, plan.dtype), VOID,
                            [edge, have, here, high, wide, w.int(step), w.int(1), add],
                        )  # fmt: skip

    def _micro(self, nr: int) -> str:
        """The micro-kernel for `nr` columns."""
        plan, wide = self.plan, self.what.wide
        if plan.shifts == 1:
            return tile_function(self.state, plan.dtype, plan.mr, nr)
        (phase,) = plan.phases
        lowest = min(shift for _, shift in phase.high.taps)
        lines = tuple(shift - lowest for _, shift in phase.high.taps)
        return shifted_tile_function(
            self.state, plan.dtype, plan.mr, nr, wide.taps, lines, plan.ld, wide.positions
        )

    def _call(
        self, w: FunctionWriter, micro: Val, given: tuple[Val, Val, Val, Val, Val, Val]
    ) -> None:
        a, b, c, step, ks, add = given
        args = (a, b, w.int(self.plan.ld), c, step, ks, add)
        w.effect(f"call void {micro.ref}({', '.join(map(str, args))})")
