"""Gathers the pixels under each tap, for a tile of a convolution of the form `pixels`.

    gather(data, to, images, line, lines, channels)

writes, for each channel, tap and position, `to[channel][tap][position]`, rows `ld` apart: the
product's right operand. A line of positions is written in whole vectors, of which the last may run
over into the next line's place; that is written later. What lies outside of the input is 0, and is
not read.
"""

from __future__ import annotations

from treadle.codegen.emission import Emission
from treadle.codegen.line_vectors import Line
from treadle.codegen.llvm import I64, PTR, VOID, Type, Val, register_type, vec
from treadle.codegen.plan_pixels import PixelPhase, PixelPlan
from treadle.codegen.tiles import zero

_UNROLL = 8  # vectors of a line that are written out; more of them are a loop


def gather_function(state: Emission, name: str, plan: PixelPlan, phase: PixelPhase) -> str:
    """The name of the function for one phase of a convolution."""
    return _Gather(state, name, plan, phase).write()


class _Gather:
    def __init__(self, state: Emission, name: str, plan: PixelPlan, phase: PixelPhase) -> None:
        params: list[tuple[Type, str]] = [(PTR, "data"), (PTR, "to")]
        params += [(I64, n) for n in ("images", "line", "lines", "channels")]
        self.state, self.plan, self.phase = state, plan, phase
        self.w = state.module.function(name, VOID, params, internal=True)
        self.elem = register_type(plan.dtype)
        self.lanes = plan.lanes
        self.row = vec(self.elem, self.lanes)
        wide = plan.what.wide
        self.line = Line(self.w, self.elem, self.lanes, phase.wide.step, wide.size)

    def write(self) -> str:
        w, plan, high = self.w, self.plan, self.phase.high
        what = plan.what
        if plan.flat:
            self._images()
            w.ret()
            return self.state.merged(w)
        data, to, images, line, lines, channels = w.args
        shifts = [shift for _, shift in high.taps]
        step = shifts[1] - shifts[0] if len(shifts) > 1 else 0
        if plan.shifts > 1:  # the lines of all taps, once
            lines = w.add(lines, max(shifts) - min(shifts))
            shifts, step = [min(shifts)], 0
        columns = self.phase.wide.count
        across = len(self.phase.wide.taps)
        with (
            w.loop(0, len(shifts), label="tap") as t,
            w.loop(0, images, label="image") as n,
            w.loop(0, lines, label="line") as i,
        ):
            at = w.add(w.mul(w.add(line, i), high.step), w.add(w.mul(t, step), shifts[0]))
            inside = w.icmp("ult", at, what.high.size)
            place = w.mul(w.add(w.mul(n, lines), i), columns)
            there = w.gep(to, w.add(w.mul(t, across * plan.ld), place), self.elem)
            here = self._moved(data, (n, what.b[0]), (at, what.b[4]))
            apart = len(shifts) * across * plan.ld
            with w.if_(inside, "inside"), w.loop(0, channels, label="channel") as c:
                self._taps(self._moved(here, (c, what.b[3])), self._moved(there, (c, apart)))
            with w.if_(w.not_(inside), "outside"), w.loop(0, channels, label="channel") as c:
                self._taps(None, self._moved(there, (c, apart)))
        w.ret()
        return self.state.merged(w)

    def _images(self) -> None:
        """Whole images, a tap's positions of one as a single line."""
        w, plan, what = self.w, self.plan, self.plan.what
        data, to, images, _, _, channels = w.args
        taps = [
            (high, wide) for _, high in self.phase.high.taps for _, wide in self.phase.wide.taps
        ]
        with w.loop(0, images, label="image") as n, w.loop(0, channels, label="channel") as c:
            here = self._moved(data, (n, what.b[0]), (c, what.b[3]))
            there = self._moved(to, (n, what.pixels), (c, len(taps) * plan.ld))
            for k, (high, wide) in enumerate(taps):
                for v in range(-(-what.pixels // self.lanes)):
                    value = self._flat_vector(here, v, high, wide)
                    place = k * plan.ld + v * self.lanes
                    w.store(value, w.gep(there, place, self.elem))

    def _flat_vector(self, source: Val, v: int, high: int, wide: int) -> Val:
        """The v-th vector of an image's positions, moved by so many lines and columns."""
        what, first = self.plan.what, v * self.lanes
        lines, columns = what.high.size, what.wide.size
        inside = []
        for i in range(first, first + self.lanes):
            y, x = i // columns, i % columns
            inside.append(i < what.pixels and 0 <= y + high < lines and 0 <= x + wide < columns)
        if not any(inside):
            return zero(self.row)
        return self.line.load(source, first + high * columns + wide, inside)

    def _moved(self, base: Val, *steps: tuple[Val, int]) -> Val:
        for index, step in steps:
            base = self.w.gep(base, self.w.mul(index, step), self.elem) if step else base
        return base

    def _taps(self, source: Val | None, to: Val) -> None:
        """One line for each of the last axis's taps; zeros without a source."""
        for n, (_, shift) in enumerate(self.phase.wide.taps):
            there = self.w.gep(to, n * self.plan.ld, self.elem) if n else to
            self._line(source, there, shift)

    def _line(self, source: Val | None, to: Val, shift: int) -> None:
        w, lanes, wide = self.w, self.lanes, self.phase.wide
        vectors = -(-wide.count // lanes)
        whole = [v for v in range(vectors) if source is None or all(self.line.inside(v, shift))]
        looped = range(whole[0], whole[-1] + 1) if len(whole) > _UNROLL else range(0)
        for v in range(vectors):
            if v not in looped:
                value = self.line.vector(source, v, shift)
                w.store(value, w.gep(to, v * lanes, self.elem))
        if looped:
            with w.loop(looped.start, looped.stop, label="vector") as v_:
                moved = None
                if source is not None:
                    moved = self._moved(source, (v_, lanes * wide.step))
                value = self.line.vector(moved, 0, shift, [True] * lanes)
                w.store(value, self._moved(to, (v_, lanes)))
