"""Which results are stored past the caches.

A store to memory that is in no cache first reads the line that it writes. Where a result is larger
than the cache anyway and nothing reads it soon, a streaming store saves that third of the traffic,
and leaves the cache to the operands. Where the result would have stayed in the cache until it is
read, a streaming store costs a trip to memory and back: hence the distance to the next reader.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from treadle.codegen.regions import Region, aligned, row_major
from treadle.codegen.target import Target
from treadle.ir.graph import Function, Value
from treadle.ir.memory import MemoryPlan

if TYPE_CHECKING:
    from treadle.codegen.plan_fused import LoopDim

LARGE: Final = 24 << 20  # bytes: what a last-level cache does not keep beside the operands


def far_results(fn: Function, memory: MemoryPlan, number: int) -> tuple[int, ...]:
    """Numbers of the results of the `number`-th instruction that nothing reads before some `LARGE`
    bytes have been written or read, the result itself included."""
    instr = fn.instrs[number]
    own = {memory.places[a] for a in instr.args if a in memory.places}
    traffic = _traffic(fn)
    return tuple(
        n
        for n, value in enumerate(instr.results)
        if memory.places[value] not in own and traffic.distance(number, value) >= LARGE
    )


class _Traffic:
    """Bytes that instructions touch, added up, and who reads a value first: read off once, since
    every kernel of a program asks."""

    def __init__(self, fn: Function) -> None:
        self.before = [0]  # what the first n instructions touch; a reshape touches nothing
        for instr in fn.instrs:
            values = () if instr.op.name == "reshape" else (*instr.args, *instr.results)
            self.before.append(self.before[-1] + sum(v.type.nbytes for v in values))
        self.reader: dict[Value, int] = {}
        for number in range(len(fn.instrs) - 1, -1, -1):
            instr = fn.instrs[number]
            reads = number if instr.op.name != "reshape" else self.reader.get(instr.result)
            if reads is not None:
                for arg in instr.args:
                    self.reader[arg] = min(reads, self.reader.get(arg, reads))

    def distance(self, number: int, value: Value) -> int:
        """Bytes that are touched from the writing of `value`, by the `number`-th instruction, to
        its next reader or the end."""
        reader = self.reader.get(value)
        if reader is None and value.type.nbytes < LARGE:
            return 0
        end = len(self.before) - 1 if reader is None else reader
        return value.type.nbytes + self.before[end] - self.before[number + 1]


@lru_cache(maxsize=1)  # a plan asks for one function at a time
def _traffic(fn: Function) -> _Traffic:
    return _Traffic(fn)


def streamed_results(
    region: Region, dims: tuple[LoopDim, ...], lanes: int, target: Target, far: tuple[int, ...]
) -> tuple[int, ...]:
    """Those of the results `far` that can be streamed: whole vectors, at aligned places where the
    array itself is aligned."""
    found = []
    for n in far:
        value = region.fn.outputs[n]
        whole = lanes * value.type.dtype.itemsize == target.vector_bytes
        steps = row_major(aligned(value.type.shape, len(region.space)))
        starts = [steps[d.axes[-1]] for d in dims[:-1]]
        starts += [dims[-1].size] if len(dims) > 1 else []
        fits = all(isinstance(s, int) and s % lanes == 0 for s in starts)
        if whole and fits and n in region.full_results():
            found.append(n)
    return tuple(found)
