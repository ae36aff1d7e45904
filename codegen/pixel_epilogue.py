"""Finishes what a tile of a convolution of the form `pixels` has: its epilogue, its tail."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from treadle.codegen.emission import Emission
from treadle.codegen.epilogue import Bounds, epilogue_function
from treadle.codegen.llvm import VOID, FunctionWriter, Val
from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_tail import plan_tail
from treadle.codegen.product import Frame
from treadle.codegen.tail import tail_function
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr


class Finished(Protocol):
    """What a plan says of its epilogue. `line_pieces`: it runs line by line."""

    @property
    def what(self) -> Convolution: ...
    @property
    def line_pieces(self) -> bool: ...
    @property
    def epilogue(self) -> FusedPlan | None: ...


@dataclass(frozen=True, slots=True)
class Finish:
    """The addresses of the epilogue's function and of the tail's, as far as there are such."""

    epilogue: Val | None
    tail: Val | None


def finish_function(state: Emission, name: str, instr: Instr, plan: Finished) -> Finish | None:
    """The functions that finish a tile; None where there are none."""
    loops, tail = plan.epilogue, plan_tail(instr, state.target)
    if loops is None and tail is None:
        return None
    return Finish(
        epilogue_function(state, name, instr, loops, partial(_spans, plan)) if loops else None,
        tail_function(state, name, instr, tail) if tail else None,
    )


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
    w: FunctionWriter, plan: Finished, finish: Finish, ctx: Val, images: tuple[Val, Val],
    group: Val, rows: tuple[Val, Val], lines: tuple[Val, int],
) -> None:  # fmt: skip
    """The epilogue, then the tail, for what a tile has of each of its images: `images`, `rows` and
    `lines` are the first one and how many, of lines at most."""
    high = plan.what.high
    frame = Frame.new(w, 3)
    frame.set("ctx", ctx)
    frame.set_index(1, group)
    first = lines[0]
    last = w.binary("llvm.smin", w.add(first, lines[1]), high.positions)
    m0, m1 = rows[0], w.add(*rows)
    with w.loop(0, images[1], label="image") as n:
        frame.set_index(0, w.add(images[0], n))
        if finish.epilogue is not None:
            _epilogue(w, plan, finish.epilogue, frame, (m0, m1), (first, last))
        if finish.tail is not None:
            w.call(finish.tail.ref[1:], VOID, [frame.base, m0, m1, first, last])


def _epilogue(
    w: FunctionWriter, plan: Finished, finish: Val, frame: Frame, rows: tuple[Val, Val],
    lines: tuple[Val, Val],
) -> None:  # fmt: skip
    wide = plan.what.wide.positions
    if not plan.line_pieces:
        ends = [w.mul(x, wide) for x in lines]
        w.call(finish.ref[1:], VOID, [frame.base, *rows, *ends])
        return
    with w.loop(*lines, label="line") as y:
        frame.set_index(2, y)
        w.call(finish.ref[1:], VOID, [frame.base, *rows, w.int(0), w.int(wide)])
