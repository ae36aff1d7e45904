"""Finishes what a tile of a convolution of the form `pixels` has computed: calls its epilogue."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from treadle.codegen.emission import Emission
from treadle.codegen.epilogue import Bounds, epilogue_function
from treadle.codegen.llvm import VOID, FunctionWriter, Val
from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.product import Frame
from treadle.ir.graph import Instr


class Finished(Protocol):
    """What a plan says of its epilogue. `line_pieces`: it runs line by line."""

    @property
    def what(self) -> Convolution: ...
    @property
    def line_pieces(self) -> bool: ...
    @property
    def epilogue(self) -> FusedPlan | None: ...


def finish_function(state: Emission, name: str, instr: Instr, plan: Finished) -> Val | None:
    """The address of the epilogue's function; None where there is none."""
    if plan.epilogue is None:
        return None
    return epilogue_function(state, name, instr, plan.epilogue, partial(_spans, plan))


def _spans(plan: Finished, w: FunctionWriter, frame: Frame) -> Bounds:
    """Where the epilogue's loops begin and end; loops over a single index are left out."""
    what, args = plan.what, w.args
    sizes = [what.images, what.groups]
    if plan.line_pieces:
        sizes.append(what.high.positions)
    found: list[tuple[Val, Val]] = []
    for n, size in enumerate(sizes):
        if size != 1:
            at = frame.index(n)
            found.append((at, w.add(at, 1)))
    wide = what.wide.positions if plan.line_pieces else what.pixels
    for n, size in ((1, what.rows), (3, wide)):
        if size != 1:
            found.append((args[n], args[n + 1]))
    return dict(enumerate(found))


def finish_pieces(
    w: FunctionWriter, plan: Finished, finish: Val, ctx: Val, images: tuple[Val, Val], group: Val,
    rows: tuple[Val, Val], lines: tuple[Val, int],
) -> None:  # fmt: skip
    """The epilogue for what a tile has of each of its images: `images`, `rows` and `lines` are the
    first one and how many, of lines at most."""
    high, wide = plan.what.high, plan.what.wide
    frame = Frame.new(w, 3)
    frame.set("ctx", ctx)
    frame.set_index(1, group)
    first = lines[0]
    last = w.binary("llvm.smin", w.add(first, lines[1]), high.positions)
    m0, m1 = rows[0], w.add(*rows)
    with w.loop(0, images[1], label="image") as n:
        frame.set_index(0, w.add(images[0], n))
        if plan.line_pieces:
            with w.loop(first, last, label="line") as y:
                frame.set_index(2, y)
                ends = [w.int(0), w.int(wide.positions)]
                w.call(finish.ref[1:], VOID, [frame.base, m0, m1, *ends])
        else:
            ends = [w.mul(x, wide.positions) for x in (first, last)]
            w.call(finish.ref[1:], VOID, [frame.base, m0, m1, *ends])
