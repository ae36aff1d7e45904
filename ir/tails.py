"""The tail of a contraction over windows: what else becomes of a tile's lines, once finished.

`contract(a, b, args..; spec) { epilogue } { tail }`

  1. The product is [image, channel, line, position], all sizes fixed.
  2. The tail's first parameters are the epilogue's results, in order; the others are the last
     operands of the instruction. The instruction's results are the epilogue's, then the tail's.
  3. A tail that reduces has the space [image, channel, piece, lines of a piece, position], under
     which it sees arrays of the product's shape, and reduces the last two axes.
  4. Any other is a map over windows, [image, channel, window, window], which reads arrays of the
     product's shape by slices alone, that take every s-th line and position from one below s on;
     of L lines of the product it has L // s, so that pieces of lines and windows are the same.
  5. All else that it reads broadcasts to its space. It can neither fault nor is it expensive.

So a tile that has whole pieces of lines, or of windows, has all that its part of the tail reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import Trait, can_fail
from treadle.ir.scalar import Reduce, Scalar
from treadle.ir.types import Dim, Shape, shape_text


@dataclass(frozen=True, slots=True)
class Tail:
    """The iteration space of a tail, the axes that it reduces, and how many lines of the product
    belong to one index of its axis of lines."""

    space: Shape
    reduced: tuple[int, ...]
    lines: int


def has_tail(instr: Instr) -> bool:
    """Is `instr` a contraction with a tail?"""
    return instr.op.name == "contract" and len(instr.regions) == 2


def tail_of(region: Function, product: Shape) -> Tail:
    """The loops of a legal tail behind a product of this shape."""
    for inner in region.instrs:
        if isinstance(inner.op.lower, Reduce):
            space = inner.args[0].type.shape
            lines = space[3]
            assert isinstance(lines, int)
            return Tail(space, (3, 4), lines)
    steps = [_attrs(i).steps[2] for i in region.instrs if i.op.name == "slice"]
    return Tail(region.outputs[0].type.shape, (), steps[0])


def tail_faults(region: Function, reads: int, product: Shape) -> Iterator[str]:
    """What is illegal about a tail whose first `reads` parameters are the epilogue's results."""
    if not region.results:
        yield "a tail has results"
        return
    for inner in region.instrs:
        if can_fail(inner.op, inner.attrs) or inner.op.has(Trait.EXPENSIVE):
            yield f"{inner.op.name} in a tail: it can fault, or takes long"
    if any(isinstance(i.op.lower, Reduce) for i in region.instrs):
        yield from _sums(region, product)
    else:
        yield from _windows(region, product)


def _sums(region: Function, product: Shape) -> Iterator[str]:
    """Rule 3."""
    spaces = {i.args[0].type.shape for i in region.instrs if isinstance(i.op.lower, Reduce)}
    space = next(iter(spaces))
    if len(spaces) > 1 or len(space) != 5 or (*space[:2], space[4]) != (*product[:2], product[3]):
        yield f"a tail reduces pieces of the product {shape_text(product)}, found {spaces}"
        return
    if space[2] * space[3] != product[2]:
        yield f"a tail has all lines of the product {shape_text(product)}, found {spaces}"
    for inner in region.instrs:
        plain = isinstance(inner.op.lower, Scalar) or inner.op.name in ("const", "broadcast_to")
        if isinstance(inner.op.lower, Reduce):
            if _attrs(inner).axes != (3, 4) or not _attrs(inner).keepdims:
                yield f"{inner.op.name} in a tail reduces axes 3 and 4, and keeps them"
        elif not plain and not _is_view(inner, region, space):
            yield f"{inner.op.name} in a tail that reduces"
    yield from _outside(region, (space, (*space[:3], 1, 1)))


def _windows(region: Function, product: Shape) -> Iterator[str]:
    """Rule 4."""
    space = region.outputs[0].type.shape
    if len(space) != 4 or space[:2] != product[:2]:
        yield f"a tail of windows has a result of images and channels, found {shape_text(space)}"
        return
    whole: set[Value] = {v for v in region.inputs if v.type.shape == product}
    found: set[tuple[int, ...]] = set()
    for inner in region.instrs:
        read = whole.intersection(inner.args)
        if inner.op.name == "slice":
            a = _attrs(inner)
            found.add(a.steps)
            if a.starts[:2] != (0, 0) or a.steps[:2] != (1, 1) or a.shape != space:
                yield "a slice in a tail takes all images and channels"
            if any(start >= step for start, step in zip(a.starts, a.steps, strict=True)):
                yield "a slice in a tail begins within the first window"
        elif isinstance(inner.op.lower, Scalar):
            whole.update(inner.results if read else ())
        elif inner.op.name not in ("const", "broadcast_to"):
            yield f"{inner.op.name} in a tail of windows"
    if len(found) != 1:
        yield "a tail of windows reads the product by slices of one step"
    elif any(_window_count(product[2], steps[2]) != space[2] for steps in found):
        yield "a tail of windows has a result for each window of lines"
    if not whole.isdisjoint(region.outputs):
        yield "a result of a tail of windows has a window's shape"
    yield from _outside(region, (space,))


def _window_count(lines: int | Dim, step: int) -> int | None:
    """How many windows of `step` lines there are; None where the lines have no number."""
    return lines // step if isinstance(lines, int) else None


def _is_view(inner: Instr, region: Function, space: Shape) -> bool:
    """An array of the product's shape, seen as pieces."""
    return (
        inner.op.name == "reshape"
        and inner.args[0] in region.inputs
        and inner.result.type.shape == space
    )


def _outside(region: Function, shapes: tuple[Shape, ...]) -> Iterator[str]:
    for value in region.outputs:
        if value.type.shape not in shapes:
            yield f"a result of a tail has shape {shape_text(value.type.shape)}"


def _attrs(instr: Instr) -> Any:
    return instr.attrs
