"""The loops of a contraction's tail, a region over what a tile has finished: `treadle.ir.tails`."""

from __future__ import annotations

from dataclasses import replace

from treadle.codegen.plan_fused import FusedPlan, plan_fused
from treadle.codegen.plan_tiles import whole
from treadle.codegen.regions import Region
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr
from treadle.ir.tails import has_tail, tail_of
from treadle.ir.types import Shape


@dataclass(frozen=True, slots=True)
class TailPlan:
    """`loops`: images, channels and pieces of `lines` of the product each by themselves, then what
    is inside of a piece. `product`: its shape."""

    loops: FusedPlan
    lines: int
    product: Shape


def plan_tail(instr: Instr, target: Target) -> TailPlan | None:
    """The tail of `instr`; None where it has none."""
    if not has_tail(instr):
        return None
    product = instr.regions[0].inputs[0].type.shape
    found = tail_of(instr.regions[1], product)
    region = region_of_tail(instr.regions[1], product)
    loops = plan_fused(region, target, frozenset({0, 1, 2}))
    assert not loops.stored and loops.sweep is None, "a tail keeps nothing between passes"
    sizes = [d.size for d in loops.dims if isinstance(d.size, int)]
    loops = replace(loops, turned=(), tiling=whole(sizes, 0))
    return TailPlan(loops, found.lines, product)


def region_of_tail(region: Function, product: Shape) -> Region:
    """The tail, analysed."""
    found = tail_of(region, product)
    return Region(region, found.space, found.reduced)
