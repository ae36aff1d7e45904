"""Packs the weights of a convolution with the result's channels in the vector lanes.

For each panel of `nr` rows, which are those channels, `[channel][tap][row]`. Rows that the last
panel lacks are zeros, or copies of others: nobody reads what comes of them.
"""

from __future__ import annotations

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import VOID, FunctionWriter, Val, register_type, vec
from treadle.codegen.plan_blocks import up
from treadle.codegen.plan_channels import ChannelPlan
from treadle.codegen.plan_pixels import PixelPhase
from treadle.codegen.tiles import pack_function, turned_vectors, zero


def pack_phase(
    state: Emission,
    w: FunctionWriter,
    plan: ChannelPlan,
    phase: PixelPhase,
    places: tuple[Val, Val],
    count: Val,
) -> None:
    """The weights of one phase for `count` channels; `places`: those of the first one, and where
    they go."""
    what = plan.what
    _, _, row, channel, high, wide = what.a
    source, to = places
    lined = wide in (0, 1) and high in (0, what.wide.taps)
    if phase.taps == what.high.taps * what.wide.taps and lined and channel == phase.taps:
        ks = w.mul(count, phase.taps)
        args = [source, to, w.int(what.rows), ks, w.int(row), w.int(1), w.int(plan.nr)]
        w.call(pack_function(state, plan.dtype), VOID, args)
        return
    _Strided(w, plan, phase).write(source, to, count)


class _Strided:
    """Weights whose channels lie apart, or of some of the taps: panel by panel."""

    def __init__(self, w: FunctionWriter, plan: ChannelPlan, phase: PixelPhase) -> None:
        self.w, self.plan, self.what = w, plan, plan.what
        self.elem = register_type(plan.dtype)
        _, _, self.row, self.channel, high, wide = plan.what.a
        self.places = [high * t + wide * u for t, _ in phase.high.taps for u, _ in phase.wide.taps]

    def write(self, source: Val, to: Val, count: Val) -> None:
        w, plan, elem = self.w, self.plan, self.elem
        nr, taps = plan.nr, len(self.places)
        with w.loop(0, up(self.what.rows, nr) // nr, label="panel") as panel:
            first = w.mul(panel, nr)
            rows = w.binary("llvm.smin", w.sub(w.int(self.what.rows), first), nr)
            from_ = w.gep(source, w.mul(first, self.row), elem)
            begin = w.gep(to, w.mul(w.mul(panel, count), nr * taps), elem)
            with w.loop(0, count, label="channel") as c:
                here = w.gep(from_, w.mul(c, self.channel), elem)
                there = w.gep(begin, w.mul(c, nr * taps), elem)
                done = self._turned(here, there, rows)
                with w.loop(done, rows, label="row") as i:
                    self._one(w.gep(here, w.mul(i, self.row), elem), w.gep(there, i, elem))
                with w.loop(rows, nr, label="pad") as i:
                    self._one(None, w.gep(there, i, elem))

    def _one(self, source: Val | None, to: Val) -> None:
        """The taps of one row, or zeros."""
        w, elem = self.w, self.elem
        for n, place in enumerate(self.places):
            value = zero(elem) if source is None else w.load(elem, w.gep(source, place, elem))
            w.store(value, w.gep(to, n * self.plan.nr, elem))

    def _turned(self, source: Val, to: Val, rows: Val) -> Val:
        """As many rows at a time as 16 bytes have elements, and as many taps; how many rows are
        done. Only where taps are neighbours, and no fewer than that."""
        w, elem = self.w, self.elem
        run = 128 // elem.bits
        taps = len(self.places)
        if taps < run or self.places != list(range(self.places[0], self.places[0] + taps)):
            return w.int(0)
        done = w.sub(rows, w.urem(rows, run))
        starts = [min(t, taps - run) for t in range(0, taps, run)]
        with w.loop(0, done, run, "rows") as i:
            here = w.gep(source, w.mul(i, self.row), elem)
            there = w.gep(to, i, elem)
            for start in starts:
                lines = [
                    w.load(vec(elem, run), w.gep(here, r * self.row + self.places[start], elem))
                    for r in range(run)
                ]
                for n, column in enumerate(turned_vectors(w, lines)):
                    w.store(column, w.gep(there, (start + n) * self.plan.nr, elem))
        return done
