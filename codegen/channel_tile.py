"""The micro-kernels of convolutions with the result's channels in the vector lanes.

tile    some positions of a line by `nr` channels, in registers, over channels and taps
turn    puts finished sums, channels last, into their places in the result
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Type, Val, register_type, vec
from treadle.codegen.plan_channels import ChannelPlan, Run
from treadle.codegen.plan_pixels import PixelPhase
from treadle.codegen.tiles import turned_vectors, zero
from treadle.ir.types import DType


def channel_tile_function(state: Emission, plan: ChannelPlan, phase: PixelPhase, run: Run) -> str:
    """`tile(a, x, x_channel, x_line, c, lines, channels, add)`: c (+)= a x for one register tile.

    `a`: the weights of the first line of taps that is met, `x`: where the tile begins in the data
    under that line; `lines` of them follow each other, `x_line` elements apart in the data. `c`:
    the sums of the first position.
    """
    taps = ";".join(f"{t.offset},{t.first},{t.last}" for t in run.taps)
    high, wide = len(phase.high.taps), phase.wide
    name = (
        f"channel_tile_{plan.dtype.short}_{run.pixels}x{plan.nr}_{high}_{wide.step}_{wide.every}"
        f"_{taps.replace('-', 'm').replace(';', '__').replace(',', '_')}"
    )
    return state.once(name, lambda name: _Tile(state, name, plan, phase, run).write())


class _Tile:
    def __init__(
        self, state: Emission, name: str, plan: ChannelPlan, phase: PixelPhase, run: Run
    ) -> None:
        params: list[tuple[Type, str]] = [(PTR, "a"), (PTR, "x"), (I64, "x_channel")]
        params += [(I64, "x_line"), (PTR, "c"), (I64, "lines"), (I64, "channels"), (I1, "add")]
        self.w = state.module.function(name, VOID, params, internal=True)
        self.plan, self.run = plan, run
        self.lines, self.step = len(phase.high.taps), phase.wide.step
        self.every, self.across = phase.wide.every, len(phase.wide.taps)
        self.elem = register_type(plan.dtype)
        self.row = vec(self.elem, plan.lanes)
        self.vectors = plan.nr // plan.lanes

    def write(self) -> None:
        w, plan, run = self.w, self.plan, self.run
        a, x, x_channel, x_line, c, lines, channels, add = w.args
        places = [
            w.gep(c, p * self.every * plan.nr + v * plan.lanes, self.elem)
            for p in range(run.pixels)
            for v in range(self.vectors)
        ]

        def old() -> Sequence[Val]:
            return [w.load(self.row, p) for p in places]

        sums = w.branch(add, old, lambda: [zero(self.row)] * len(places), "add")
        if self.lines == 1:  # none or all of them
            channels = w.mul(channels, lines)
        with w.carry(0, channels, 1, [a, x, *sums], "channel") as loop:
            at_a, at_x, *found = loop.carried
            if self.lines == 1:
                done: Sequence[Val] = self._line(at_a, at_x, found)
            else:
                with w.carry(0, lines, 1, [at_a, at_x, *found], "line") as line:
                    line_a, line_x, *found = line.carried
                    line.next = (
                        w.gep(line_a, self.across * plan.nr, self.elem),
                        w.gep(line_x, x_line, self.elem),
                        *self._line(line_a, line_x, found),
                    )
                done = line.results[2:]
            next_a = w.gep(at_a, self.lines * self.across * plan.nr, self.elem)
            loop.next = (next_a, w.gep(at_x, x_channel, self.elem), *done)
        for value, place in zip(loop.results[2:], places, strict=True):
            w.store(value, place)
        w.ret()

    def _line(self, a: Val, x: Val, sums: list[Val]) -> list[Val]:
        """The sums after the taps of one line of one channel."""
        w, plan, vectors = self.w, self.plan, self.vectors
        for n, tap in enumerate(self.run.taps):
            if tap.first == tap.last:
                continue
            # No instruction, but an order: else LLVM 22 loads an element once for all taps that
            # meet it, and keeps it while the sums need all registers, which costs up to half.
            w.effect('fence syncscope("singlethread") seq_cst')
            weights = [
                w.load(self.row, w.gep(a, n * plan.nr + v * plan.lanes, self.elem))
                for v in range(vectors)
            ]
            for p in range(tap.first, tap.last):
                element = w.load(self.elem, w.gep(x, tap.offset + p * self.step, self.elem))
                pixel = w.splat(element, plan.lanes)
                for v in range(vectors):
                    at = p * vectors + v
                    sums[at] = w.muladd(pixel, weights[v], sums[at])
        return sums


# --- turn ------------------------------------------------------------------------------------


def turn_function(state: Emission, dtype: DType, nr: int) -> str:
    """`turn(from, to, step, positions, rows)`: element [p][r] of `from`, rows `nr` apart, becomes
    element [r][p] of `to`, rows `step` apart."""
    name = f"turn_weights_{dtype.short}_{nr}"
    return state.once(name, lambda name: _write_turn(state, name, dtype, nr))


def _write_turn(state: Emission, name: str, dtype: DType, nr: int) -> None:
    params: list[tuple[Type, str]] = [(PTR, "from"), (PTR, "to"), (I64, "step")]
    params += [(I64, "positions"), (I64, "rows")]
    w = state.module.function(name, VOID, params, internal=True)
    source, to, step, positions, rows = w.args
    elem, lanes = register_type(dtype), state.target.lanes(dtype)
    run = 128 // elem.bits
    enough = w.icmp("sge", positions, run)
    full = w.select(enough, w.sub(rows, w.urem(rows, lanes)), 0)
    with w.loop(0, full, lanes, "rows") as r:
        here, there = w.gep(source, r, elem), w.gep(to, w.mul(r, step), elem)
        with w.loop(0, positions, run, "positions") as block:
            p = w.binary("llvm.smin", block, w.sub(positions, run))
            at = w.gep(here, w.mul(p, nr), elem)
            _turn_block(w, at, w.gep(there, p, elem), step, nr, vec(elem, lanes))
    with w.loop(full, rows, label="row") as r:
        here, there = w.gep(source, r, elem), w.gep(to, w.mul(r, step), elem)
        with w.loop(0, positions, label="position") as p:
            w.store(w.load(elem, w.gep(here, w.mul(p, nr), elem)), w.gep(there, p, elem))
    w.ret()


def _turn_block(w: FunctionWriter, source: Val, to: Val, step: Val, nr: int, row: Type) -> None:
    """As many positions as 16 bytes hold by a vector of rows."""
    elem, lanes = row.scalar, row.lanes
    run = 128 // elem.bits
    lines = [w.load(row, w.gep(source, p * nr, elem)) for p in range(run)]
    turned = turned_vectors(w, lines)
    for r in range(lanes):
        part = range(r // run * run, (r // run + 1) * run)
        piece = turned[r % run]
        w.store(w.shuffle(piece, None, part) if lanes > run else piece, to)
        to = w.gep(to, step, elem)
