"""The epilogue of a convolution of the form `pixels`: its loops, and where pieces of it may end."""

from __future__ import annotations

from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_epilogue import plan_epilogue
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.target import Target
from treadle.ir.graph import Function


def pixel_epilogue(
    what: Convolution, region: Function | None, target: Target
) -> tuple[FusedPlan | None, bool]:
    """The epilogue's loops; whether they run line by line."""
    if region is None:
        return None, False
    loops = [(what.images, what.c[0]), (what.groups, what.c[1])]
    high, wide = what.high.positions, what.wide.positions
    if _joins(region, what):
        inner = [(what.rows, what.c[2]), (high * wide, 1)]
        return plan_epilogue(region, [*loops, *inner], target), False
    inner = [(high, what.c[4]), (what.rows, what.c[2]), (wide, 1)]
    return plan_epilogue(region, [*loops, *inner], target), True


def _joins(region: Function, what: Convolution) -> bool:
    """May both spatial axes run as one? Yes where each operand has both or none."""
    if what.high.positions == 1 or what.wide.positions == 1:
        return True
    if any(i.op.name == "iota" for i in region.instrs):
        return False
    product = region.inputs[0].type.static_shape[-2:]
    for value in region.inputs:
        shape = value.type.static_shape
        last = (1, 1, *shape)[-2:]
        if last not in ((1, 1), product):
            return False
    return True


def may_end(what: Convolution, lines: int, epilogue: FusedPlan | None, line_pieces: bool) -> bool:
    """May a tile end behind so many lines, where others follow? Its tail takes whole pieces of
    them, and its epilogue whole vectors unless it runs line by line."""
    if lines % what.grain:
        return False
    return epilogue is None or line_pieces or ends_on_vector(what, lines, epilogue)


def ends_on_vector(what: Convolution, lines: int, epilogue: FusedPlan) -> bool:
    """Does the epilogue of a tile of so many lines begin and end between vectors? A vector that
    runs over would finish positions of the next tile."""
    return lines * what.wide.positions % epilogue.lanes == 0
