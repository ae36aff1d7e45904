"""Emits the gradient of a depthwise convolution's weight; see `plan_depthwise`."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.line_vectors import Line
from treadle.codegen.llvm import FunctionWriter, Val, register_type
from treadle.codegen.loops import tile_bounds
from treadle.codegen.plan_depthwise import DepthwisePlan
from treadle.codegen.tiles import zero


def emit_depthwise(
    state: Emission, w: FunctionWriter, plan: DepthwisePlan, operands: Sequence[Val], tile: Val
) -> None:
    """One tile: `operands` are the addresses of the cotangent, the input and the result."""
    del state  # it has no function of its own
    bounds = tile_bounds(w, plan.tiling, [plan.what.groups], tile)
    first, last = bounds.get(0, (0, plan.what.groups))
    code = _Depthwise(w, plan)
    with w.loop(first, last, label="group") as group:
        code.group(group, *operands)


class _Depthwise:
    def __init__(self, w: FunctionWriter, plan: DepthwisePlan) -> None:
        self.w, self.plan, self.what = w, plan, plan.what
        self.elem = register_type(plan.dtype)
        high, wide = plan.what.high, plan.what.wide
        self.across = [wide.tap_step * t + wide.offset for t in range(wide.taps)]
        self.down = [high.tap_step * t + high.offset for t in range(high.taps)]
        self.g = Line(w, self.elem, plan.lanes, 1, wide.positions)
        self.x = Line(w, self.elem, plan.lanes, wide.step, wide.size)
        self.totals = w.alloca(self.x.row, plan.lines * wide.taps)

    def _moved(self, base: Val, *steps: tuple[Val, int]) -> Val:
        for index, step in steps:
            base = self.w.gep(base, self.w.mul(index, step), self.elem) if step else base
        return base

    def group(self, group: Val, left: Val, right: Val, result: Val) -> None:
        """All taps of one group."""
        what, lines = self.what, self.plan.lines
        g, x = self._moved(left, (group, what.a[1])), self._moved(right, (group, what.b[1]))
        to = self._moved(result, (group, what.c[1]))
        for first in range(0, what.high.taps, lines):
            self._taps(g, x, to, range(first, first + lines))

    def _taps(self, g: Val, x: Val, to: Val, down: range) -> None:
        """Some lines of taps, over all images."""
        w, what, row = self.w, self.what, self.x.row
        places = [w.gep(self.totals, n, row) for n in range(len(down) * len(self.across))]
        for place in places:
            w.store(zero(row), place)
        with w.loop(0, what.images, label="image") as n:
            images = self._moved(g, (n, what.a[0])), self._moved(x, (n, what.b[0]))
            for place, found in zip(places, self._image(*images, down), strict=True):
                w.store(w.fadd(w.load(row, place), found), place)
        for k, place in enumerate(places):
            tap = down[k // len(self.across)], k % len(self.across)
            at = w.gep(to, tap[0] * what.c[4] + tap[1] * what.c[5], self.elem)
            w.store(w.fold_lanes(w.load(row, place), w.fadd), at)

    def _image(self, g: Val, x: Val, down: range) -> Sequence[Val]:
        """The sums over one image."""
        w, what = self.w, self.what
        high, across = what.high, len(self.across)
        none = [zero(self.x.row)] * (len(down) * across)
        with w.carry(0, high.positions, 1, none, "line") as loop:
            line = self._moved(g, (loop.index, what.a[4]))
            at = [w.add(w.mul(loop.index, high.step), self.down[t]) for t in down]
            sources = [self._moved(x, (y, what.b[4])) for y in at]
            inside = [w.icmp("ult", y, high.size) for y in at]
            every = inside[0]
            for more in inside[1:]:
                every = w.and_(every, more)

            def apart() -> Sequence[Val]:
                """Lines of taps that lie in the image, one by one."""
                found: list[Val] = []
                for t, source in enumerate(sources):
                    sums = loop.carried[t * across : (t + 1) * across]
                    found += w.branch(
                        inside[t],
                        lambda s=source, sums=sums: self._line(line, [s], sums),  # type: ignore[misc]
                        lambda sums=sums: sums,  # type: ignore[misc]
                        "inside",
                    )
                return found

            loop.next = w.branch(
                every, lambda: self._line(line, sources, loop.carried), apart, "all"
            )
        return loop.results

    def _line(self, g: Val, sources: Sequence[Val], sums: Sequence[Val]) -> Sequence[Val]:
        """The sums after one line of positions, under one line of taps at each of `sources`."""
        w, plan = self.w, self.plan
        begin, end = plan.looped
        for v in range(plan.vectors):
            if v == begin < end:
                with w.carry(begin, end, 1, sums, "vector") as loop:
                    at = w.mul(loop.index, plan.lanes)
                    here = self._moved(g, (at, 1))
                    moved = [self._moved(s, (at, self.x.step)) for s in sources]
                    loop.next = self._vector(here, moved, loop.carried, None)
                sums = loop.results
            elif not begin <= v < end:
                sums = self._vector(g, sources, sums, v)
        return sums

    def _vector(
        self, g: Val, sources: Sequence[Val], sums: Sequence[Val], v: int | None
    ) -> Sequence[Val]:
        """The sums after the v-th vector of a line; None: one that lies inside, at these places."""
        w, lanes = self.w, self.plan.lanes
        there = [True] * lanes if v is None else self.g.inside(v, 0)
        cotangent = self.g.vector(g, v or 0, 0, there)
        found: list[Val] = []
        for t, source in enumerate(sources):
            for n, shift in enumerate(self.across):
                met = [True] * lanes if v is None else self.x.inside(v, shift)
                # Nothing is read where there is no position: 0 times infinity would be NaN.
                met = [a and b for a, b in zip(met, there, strict=True)]
                old = sums[t * len(self.across) + n]
                if not any(met):
                    found.append(old)
                    continue
                found.append(w.muladd(cotangent, self.x.vector(source, v or 0, shift, met), old))
        return found
