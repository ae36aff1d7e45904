"""The loops of a contraction's epilogue: those of the product, the columns in vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.codegen.plan_fused import FusedPlan, LoopDim, Tail, plan_fused
from treadle.codegen.plan_tiles import whole
from treadle.codegen.regions import Region
from treadle.codegen.target import Target
from treadle.ir.graph import Function
from treadle.ir.types import TensorType

Loop = tuple[int, int]  # a loop's size and the step, in elements, that it takes in the product


def plan_epilogue(region: Function, loops: Sequence[Loop], target: Target) -> FusedPlan:
    """`loops`: those of the product, the columns last."""
    product = region.inputs[0].type
    dims = tuple(
        LoopDim(size, _axes(product, size, step), False) for size, step in loops if size != 1
    )
    columns, step = loops[-1]
    lanes = target.lanes(product.dtype) if step == 1 and columns > 1 else 1
    while lanes > 1 and lanes // 2 >= columns:
        lanes //= 2
    tail: Tail = "none"
    if columns % lanes:
        tail = "mask" if target.masked_memory else "peel"
    sizes = [d.size for d in dims if isinstance(d.size, int)]
    return replace(
        plan_fused(Region(region, product.shape, ()), target),
        dims=dims,
        lanes=lanes,
        unroll=1,
        tail=tail,
        turned=(),
        tiling=whole(sizes, 0),
    )


def joins_freely(region: Function) -> bool:
    """May neighbouring axes of the product be run as one? Yes where each operand has all of them or
    none, and none counts along one."""
    product = region.inputs[0].type
    return not any(i.op.name == "iota" for i in region.instrs) and all(
        v.type.size == 1 or v.type.shape == product.shape for v in region.inputs
    )


def _axes(product: TensorType, size: int, step: int) -> tuple[int, ...]:
    """The axes of the product that one loop runs over."""
    shape = product.static_shape
    found: list[int] = []
    at, covered = 1, 1
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] != 1 and at >= step and covered < size:
            found.insert(0, axis)
            covered *= shape[axis]
        at *= shape[axis]
    assert covered == size, "a loop runs over whole axes"
    return tuple(found)
