"""Copies a staged tile of a convolution of the form `pixels` to its places in the result.

The tile holds, phase by phase, [row][image, line, position]; the phases of the last axis stand side
by side in a line of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.llvm import FunctionWriter, Val, register_type, vec
from treadle.codegen.plan_pixels import PixelPhase, PixelPlan
from treadle.codegen.tiles import zero


def emit_scatter(
    w: FunctionWriter,
    plan: PixelPlan,
    staged: Sequence[Val],
    result: Val,
    sizes: tuple[Val, Val, Val],
) -> None:
    """`result`: where the tile's first image and row begin; `sizes`: its images, its first line of
    a phase, its rows."""
    images, first, rows = sizes
    what, elem = plan.what, register_type(plan.dtype)
    starts = sorted({p.high.start for p in plan.phases})
    with w.loop(0, rows, label="row") as m, w.loop(0, images, label="image") as n:
        base = w.gep(result, w.mul(m, what.c[2]), elem)
        base = w.gep(base, w.mul(n, what.c[0]), elem)
        for start in starts:
            listed = [
                (p, w.gep(at, w.mul(m, plan.ld), elem))
                for p, at in zip(plan.phases, staged, strict=True)
                if p.high.start == start
            ]
            high = listed[0][0].high
            count = w.binary("llvm.smin", w.sub(w.int(high.count), first), plan.span)
            with w.loop(0, count, label="line") as i:
                line = w.add(w.mul(w.add(first, i), high.every), start)
                to = w.gep(base, w.mul(line, what.c[4]), elem) if what.c[4] else base
                place = w.add(w.mul(n, count), i)
                sources = [(p, w.gep(at, w.mul(place, p.wide.count), elem)) for p, at in listed]
                _line(w, plan, sources, to)


def _line(
    w: FunctionWriter, plan: PixelPlan, sources: Sequence[tuple[PixelPhase, Val]], to: Val
) -> None:
    """One line of the result, from its phases along the last axis."""
    elem, lanes = register_type(plan.dtype), plan.lanes
    row = vec(elem, lanes)
    shortest = min(p.wide.count for p, _ in sources)
    every = sources[0][0].wide.every
    done = shortest // lanes * lanes if len(sources) == every <= 2 else 0
    if done:
        with w.loop(0, done, lanes, "vector") as j:
            parts = [w.load(row, w.gep(at, j, elem)) if p.taps else zero(row) for p, at in sources]
            there = w.gep(to, w.mul(j, every), elem)
            if every == 1:
                w.store(parts[0], there)
            else:
                pairs = [x for i in range(lanes) for x in (i, lanes + i)]
                for half in range(2):
                    picks = pairs[half * lanes : (half + 1) * lanes]
                    place = w.gep(there, half * lanes, elem)
                    w.store(w.shuffle(parts[0], parts[1], picks), place)
    for p, at in sources:
        with w.loop(done, p.wide.count, label="position") as j:
            value = w.load(elem, w.gep(at, j, elem)) if p.taps else zero(elem)
            place = w.add(w.mul(j, every), p.wide.start)
            w.store(value, w.gep(to, place, elem))
