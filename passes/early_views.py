"""What is made of a few numbers and read through a view stands as early as it can.

    %3: f32[4, 32, 16, 16] = contract(..)                %3: f32[32, 1, 1] = reshape(%bias, ..)
    %4: f32[32, 1, 1] = reshape(%bias, ..)         ->    %4: f32[4, 32, 16, 16] = contract(..)
    %5: f32[4, 32, 16, 16] = add(%3, %4)                 %5: f32[4, 32, 16, 16] = add(%4, %3)

So an epilogue finds its operands there: a bias of a convolution, the scale and shift of a batch
norm by its running statistics. Moved are reshapes behind the first contraction, and the small
elementwise instructions that lead to them, each to where its last operand is known.
"""

from __future__ import annotations

from typing import Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.regions import is_epilogue_op
from treadle.passes.fuse_shapes import is_fusible

_SMALL: Final = 1 << 16  # elements


def run(fn: Function) -> Function:
    """`fn` with these instructions moved up; `fn` itself where none is."""
    first = next((n for n, i in enumerate(fn.instrs) if i.op.name == "contract"), None)
    moved = _moved(fn, first) if first is not None else set()
    if not moved:
        return fn
    place: dict[Value, int] = {}  # the instruction behind which a value is known
    behind: dict[int, list[Instr]] = {}
    for n, instr in enumerate(fn.instrs):
        at = n
        if instr in moved:
            at = max((place.get(a, -1) for a in instr.args), default=-1)
            behind.setdefault(at, []).append(instr)
        place.update((r, at) for r in instr.results)
    b = Builder(fn.name)
    for param in fn.params:
        b.keep_param(param)
    for instr in behind.get(-1, ()):
        b.append(instr)
    for n, instr in enumerate(fn.instrs):
        if instr not in moved:
            b.append(instr)
        for small in behind.get(n, ()):
            b.append(small)
    return b.finish(list(fn.results))


def _moved(fn: Function, first: int) -> set[Instr]:
    """Reshapes of few elements behind the first contraction, and what leads to them."""
    late: set[Instr | None] = {*fn.instrs[first:]}
    work = [i for i in fn.instrs[first:] if i.op.name == "reshape" and _is_small(i)]
    found: set[Instr] = set()
    while work:
        instr = work.pop()
        if instr in found:
            continue
        found.add(instr)
        work += [
            a.producer
            for a in instr.args
            if a.producer is not None and a.producer in late and _is_small(a.producer)
        ]
    for instr in fn.instrs[first:]:
        makers: set[Instr | None] = {a.producer for a in instr.args}
        if not makers.isdisjoint(found) and makers & late <= found and _is_small(instr):
            found.add(instr)
    return found


def _is_small(instr: Instr) -> bool:
    if len(instr.results) != 1 or instr.regions or instr.result.type.rank == 0:
        return instr.op.name == "const" and instr.result.type.rank == 0
    size = instr.result.type.size
    if not isinstance(size, int) or not 1 < size <= _SMALL:
        return False
    return instr.op.name == "reshape" or (is_fusible(instr) and is_epilogue_op(instr))
