"""Vectors of what lies under the positions of a line: elements at any step, 0 outside of it.

The lanes that lie inside are known when the code is written, and nothing else is read.
"""

from __future__ import annotations

from treadle.codegen.llvm import I1, FunctionWriter, Type, Val, vec
from treadle.codegen.llvm_types import lane_const
from treadle.codegen.tiles import zero


class Line:
    """Position p of a line of `size` elements meets element `step` * p + shift."""

    def __init__(self, w: FunctionWriter, elem: Type, lanes: int, step: int, size: int) -> None:
        self.w, self.elem, self.lanes = w, elem, lanes
        self.step, self.size = step, size
        self.row = vec(elem, lanes)

    def inside(self, v: int, shift: int) -> list[bool]:
        """Which lanes of the line's v-th vector of positions meet an element."""
        first = v * self.lanes
        return [0 <= self.step * (first + i) + shift < self.size for i in range(self.lanes)]

    def vector(self, source: Val | None, v: int, shift: int, met: list[bool] | None = None) -> Val:
        """The elements under one vector of positions of the line at `source` (None: zeros); `met`:
        the lanes that are wanted, if that is known otherwise."""
        w, lanes, step = self.w, self.lanes, self.step
        known = met is not None
        inside = self.inside(v, shift) if met is None else met
        if source is None or not any(inside):
            return zero(self.row)
        first = step * v * lanes + shift
        if step == 1:
            return self.load(source, first, inside)
        if step == 2:
            parts = []
            for half in range(2):
                there = [False] * lanes
                for i in range(half * lanes // 2, (half + 1) * lanes // 2):
                    there[2 * i - half * lanes] = inside[i]
                at = first + half * lanes
                parts.append(self.load(source, at, self._safe(there, at, known)))
            return w.shuffle(parts[0], parts[1], range(0, 2 * lanes, 2))
        value = zero(self.row)
        for i in range(lanes):
            if inside[i]:
                one = w.load(self.elem, w.gep(source, first + step * i, self.elem))
                value = w.insert(value, one, i)
        return value

    def _safe(self, wanted: list[bool], first: int, known: bool) -> list[bool]:
        """The lanes to load so that `wanted` are there: all, where the line has them."""
        if not known and first >= 0 and first + self.lanes <= self.size:
            return [True] * self.lanes
        return wanted

    def load(self, source: Val, first: int, inside: list[bool]) -> Val:
        """Some lanes of the vector that begins with the `first` element, 0 in the others."""
        w = self.w
        address = w.gep(source, first, self.elem) if first else source
        if all(inside):
            return w.load(self.row, address)
        return w.masked_load(self.row, address, lane_const([int(x) for x in inside], I1), 0)
