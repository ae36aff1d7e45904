"""Emits convolutions with the result's channels in the vector lanes; see `plan_channels`.

pack    once: a group's weights for `cb` channels, in panels of `nr` rows
tile    for each `cb` channels, image, phase, line and register tile: the micro-kernel of
        `channel_tile`; at the end sums are turned into the result, then the epilogue
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.channel_tile import channel_tile_function, turn_function
from treadle.codegen.channel_weights import pack_phase
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
from treadle.codegen.plan_blocks import up
from treadle.codegen.plan_channels import ChannelPlan, runs_of
from treadle.codegen.plan_pixels import PixelPhase
from treadle.ir.graph import Instr

_FIELDS = ("weights", "data", "result", "ctx", "packed", "own", "room")


def emit_channels(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: ChannelPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """All of it: `operands` are the addresses of its operands and results."""
    result = operands[len(instr.args) + (holder(instr) if instr.regions else 0)]
    frame = w.alloca(I64, len(_FIELDS))
    values = (*operands[:2], result, at.ctx, at.shared, at.scratch, w.int(at.room))
    for n, value in enumerate(values):
        w.store(value, w.gep(frame, n, I64), align=8)
    code = _Channels(state, at.name, instr, plan)
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))
    pack, tile = (Val(f"@{name}", PTR) for name in (code.pack(), code.tile()))
    run_tiles(state, w, pool, pack, frame, w.int(plan.packs), threads)
    run_tiles(state, w, pool, tile, frame, w.int(plan.tiles), threads)


class _Channels:
    """Writes the functions of one convolution."""

    def __init__(self, state: Emission, name: str, instr: Instr, plan: ChannelPlan) -> None:
        self.state, self.name, self.instr, self.plan = state, name, instr, plan
        self.what = plan.what
        self.elem = register_type(plan.dtype)
        self.rows = up(plan.what.rows, plan.nr)

    def _field(self, w: FunctionWriter, name: str) -> Val:
        type = I64 if name == "room" else PTR
        return w.load(type, w.gep(w.args[0], _FIELDS.index(name), I64), align=8)

    def _moved(self, w: FunctionWriter, base: Val, *steps: tuple[Val, int]) -> Val:
        """`base` plus some indices times their steps, in elements."""
        for index, step in steps:
            base = w.gep(base, w.mul(index, step), self.elem) if step else base
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
                    pack_phase(self.state, w, plan, phase, (source, to), count)
        w.ret()
        return self.state.merged(w)

    def _packed(self, w: FunctionWriter, phase: PixelPhase, group: Val, c: Val) -> Val:
        """Where the packed weights of a phase begin for channels from `c` on."""
        base = w.gep(self._field(w, "packed"), phase.packed, self.elem)
        channel = self.rows * phase.taps
        return self._moved(w, base, (group, channel * self.what.channels), (c, channel))

    # --- tiles -------------------------------------------------------------------------------

    def tile(self) -> str:
        plan, what = self.plan, self.what
        finish = finish_function(self.state, self.name, self.instr, plan)
        w = self.state.module.function(f"{self.name}_tile", VOID, KERNEL_PARAMS, internal=True)
        down, across = -(-what.images // plan.images), -(-what.high.positions // plan.span)
        columns, panels = down * across, self.rows // plan.nr
        inner, outer = (panels, columns) if plan.panels_first else (columns, panels)
        first, rest = w.urem(w.args[1], inner), w.udiv(w.args[1], inner)
        second, group = w.urem(rest, outer), w.udiv(rest, outer)
        panel, column = (first, second) if plan.panels_first else (second, first)
        row = w.mul(panel, plan.nr)
        rows = w.binary("llvm.smin", w.sub(w.int(what.rows), row), plan.nr)
        image = w.mul(w.udiv(column, across), plan.images)
        images = w.binary("llvm.smin", w.sub(w.int(what.images), image), plan.images)
        line = w.mul(w.urem(column, across), plan.span)
        lines = w.binary("llvm.smin", w.sub(w.int(what.high.positions), line), plan.span)
        sums = w.gep(self._field(w, "own"), w.mul(w.args[2], self._field(w, "room")))
        data = self._moved(
            w, self._field(w, "data"), (image, what.b[0]), (group, what.b[1])
        )  # fmt: skip
        if not all(p.taps for p in plan.phases):
            args = (sums, int_const(0, I8), w.int(plan.own), int_const(0, I1))
            w.external("llvm.memset.p0.i64", VOID, args)
        with w.loop(0, what.channels, plan.cb, "channels") as k:
            block = w.binary("llvm.smin", w.sub(w.int(what.channels), k), plan.cb)
            here, add = self._moved(w, data, (k, what.b[3])), w.icmp("sgt", k, 0)
            with w.loop(0, images, label="image") as n:
                x = self._moved(w, here, (n, what.b[0]))
                to = self._moved(w, sums, (n, self._positions() * plan.nr))
                for phase in plan.phases:
                    if not phase.taps:
                        continue
                    a = self._packed(w, phase, group, k)
                    a = w.gep(a, w.mul(row, w.mul(block, phase.taps)), self.elem)
                    self._phase(w, phase, (a, x, to), (line, lines), block, add)
        self._turn(w, sums, (image, images), group, (row, rows), (line, lines))
        if finish is not None:
            ctx = self._field(w, "ctx")
            pieces = (image, images), group, (row, rows), (line, plan.span)
            finish_pieces(w, plan, finish, ctx, *pieces)
        w.ret()
        return self.state.merged(w)

    def _positions(self) -> int:
        """Of one image in a tile."""
        return self.plan.span * self.what.wide.positions

    def _phase(
        self, w: FunctionWriter, phase: PixelPhase, places: tuple[Val, Val, Val],
        span: tuple[Val, Val], channels: Val, add: Val,
    ) -> None:  # fmt: skip
        """The lines of one phase in a tile, for some channels of one image."""
        plan, what, high = self.plan, self.what, phase.high
        a, x, c = places
        line, lines = span
        # A tile's first line is a multiple of `every`.
        begin = w.udiv(line, high.every)
        end = w.udiv(w.add(w.add(line, lines), high.every - 1 - high.start), high.every)
        with w.loop(begin, end, label="line") as i:
            skipped, met, first = self._taps_met(w, phase, i)
            left = self._moved(w, a, (skipped, len(phase.wide.taps) * plan.nr))
            right = self._moved(w, x, (first, what.b[4]))
            y = w.add(w.mul(w.sub(i, begin), high.every), high.start)
            to = self._moved(w, c, (y, what.wide.positions * plan.nr))
            to = w.gep(to, phase.wide.start * plan.nr, self.elem)
            self._line(w, phase, (left, right, to), (met, channels), add)

    def _taps_met(self, w: FunctionWriter, phase: PixelPhase, i: Val) -> tuple[Val, Val, Val]:
        """Of the taps that move a phase's i-th line: how many lie before the image, how many in it,
        and the line of the data under the first of these."""
        high = phase.high
        shifts = [shift for _, shift in high.taps]
        at = w.mul(i, high.step)
        before, met = w.int(0), w.int(0)
        size = self.what.high.size
        for shift in shifts:
            place = w.add(at, shift)
            outside = w.icmp("slt", place, 0) if self._down(phase) > 0 else (
                w.icmp("sge", place, size)
            )  # fmt: skip
            before = w.add(before, w.cast("zext", outside, I64))
            met = w.add(met, w.cast("zext", w.icmp("ult", place, size), I64))
        first = w.add(w.add(at, shifts[0]), w.mul(before, self._down(phase)))
        return before, met, first

    def _down(self, phase: PixelPhase) -> int:
        """Lines of the data from one tap to the next."""
        shifts = [shift for _, shift in phase.high.taps]
        return shifts[1] - shifts[0] if len(shifts) > 1 else 1

    def _line(
        self, w: FunctionWriter, phase: PixelPhase, places: tuple[Val, Val, Val],
        counts: tuple[Val, Val], add: Val,
    ) -> None:  # fmt: skip
        """The register tiles of one line of positions."""
        plan, what, wide = self.plan, self.what, phase.wide
        a, x, c = places
        met, channels = counts
        steps = w.int(what.b[3]), w.int(self._down(phase) * what.b[4])
        for run in runs_of(what, wide, plan.pixels):
            tile = channel_tile_function(self.state, plan, phase, run)
            with w.loop(0, run.count, label="tile") as n:
                at = w.add(w.mul(n, run.pixels), run.start)
                here = self._moved(w, x, (at, wide.step))
                to = self._moved(w, c, (at, wide.every * plan.nr))
                w.call(tile, VOID, [a, here, *steps, to, met, channels, add])

    def _turn(
        self, w: FunctionWriter, sums: Val, images: tuple[Val, Val], group: Val,
        rows: tuple[Val, Val], lines: tuple[Val, Val],
    ) -> None:  # fmt: skip
        """Put a tile's sums into the result."""
        plan, what = self.plan, self.what
        turn = turn_function(self.state, plan.dtype, plan.nr)
        positions = w.mul(lines[1], what.wide.positions)
        result = self._moved(
            w, self._field(w, "result"), (images[0], what.c[0]), (group, what.c[1]),
            (rows[0], what.c[2]), (lines[0], what.c[4]),
        )  # fmt: skip
        with w.loop(0, images[1], label="image") as n:
            here = self._moved(w, sums, (n, self._positions() * plan.nr))
            to = self._moved(w, result, (n, what.c[0]))
            w.call(turn, VOID, [here, to, w.int(what.c[2]), positions, rows[1]])
