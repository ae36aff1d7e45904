"""What a loop keeps of each step for the loop back, and what that computes again: the cost model.

A value that every step reads, and a row of an array, are there anyway. What is computed from consts
alone is computed again: it leaves the loop later. A movement, a cheap elementwise instruction and a
mask that was drawn are computed again where that keeps no more bytes than the value has. All else
is kept: a product, a sum, an exponential.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from treadle.ir.control import instr_can_fail, instr_must_run, params
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value
from treadle.ir.op import Trait
from treadle.ir.ops.control import ScanAttrs
from treadle.ir.scalar import Numbered
from treadle.passes.recompute import bytes_of

_CHAIN = 8  # instructions that are computed again for one value


@dataclass(frozen=True, slots=True)
class Kept:
    """`saved`: values kept as rows. `again`: instructions of the step that the step back repeats.
    `read`: parameters that it reads: consts and rows."""

    saved: tuple[Value, ...]
    again: frozenset[Instr]
    read: frozenset[Value]


def choose(
    forward: Sequence[Instr],
    backward: Sequence[Instr],
    grads: Iterable[Value],
    inputs: Sequence[Value],
    a: ScanAttrs,
) -> Kept:
    """What the instructions `backward`, and the results `grads`, need of `forward`."""
    inside = params(a, inputs)
    there = {*inside.consts, *inside.arrays}
    made = {r for i in forward for r in i.results}
    wanted: dict[Value, None] = {}
    for value in (*(v for i in backward for v in i.args), *grads):
        if value in made or value in inputs:
            wanted[value] = None
    choice = _Choice(there, _invariants(forward, inside.consts))
    needed = [v for v in (*inputs, *(r for i in forward for r in i.results)) if v in wanted]
    for value in needed:  # what has to be kept first: cheap ones may come from it
        if not choice.is_cheap(value):
            choice.keep(value)
    for value in needed:
        choice.decide(value)
    return choice.kept(inputs)


def _invariants(forward: Sequence[Instr], consts: Iterable[Value]) -> set[Value]:
    """What depends on consts alone."""
    found = set(consts)
    for instr in forward:
        if not instr_must_run(instr) and all(v in found for v in instr.args):
            found.update(instr.results)
    return found


class _Choice:
    def __init__(self, there: set[Value], invariant: set[Value]) -> None:
        self.there, self.invariant = there, invariant
        self.saved: dict[Value, None] = {}
        self.again: set[Instr] = set()
        self.read: set[Value] = set()

    def is_cheap(self, value: Value) -> bool:
        made = value.producer
        if value in self.there or value in self.invariant:
            return True
        return made is not None and _is_cheap(made)

    def keep(self, value: Value) -> None:
        if value not in self.there:
            self.saved[value] = None

    def decide(self, value: Value) -> None:
        """Keep `value`, or compute it again."""
        if value in self.saved:
            return
        if value in self.there:
            self.read.add(value)
            return
        chain, leaves = self._above(value)
        more = [v for v in leaves if v not in self.there and v not in self.saved]
        if len(chain) > _CHAIN and value not in self.invariant:
            self.keep(value)
            return
        if sum(bytes_of(v.type) for v in more) > bytes_of(value.type):
            self.keep(value)
            return
        for leaf in more:
            self.keep(leaf)
        self.again.update(chain)

    def _above(self, value: Value) -> tuple[set[Instr], set[Value]]:
        """The instructions that `value` is computed again by, and what they start from."""
        chain: set[Instr] = set()
        leaves: set[Value] = set()
        work = [value]
        while work:
            here = work.pop()
            made = here.producer
            if here in self.saved or here in self.there or made is None:
                leaves.add(here)
            elif here in self.invariant or _is_cheap(made):
                if made not in chain:
                    chain.add(made)
                    work.extend(made.args)
            else:
                leaves.add(here)
        return chain, leaves

    def kept(self, inputs: Sequence[Value]) -> Kept:
        for instr in self.again:
            self.read.update(v for v in instr.args if v in self.there)
        return Kept(tuple(self.saved), frozenset(self.again), frozenset(self.read))


def _is_cheap(instr: Instr) -> bool:
    op = instr.op
    if instr.regions or op.has(Trait.EXPENSIVE) or op.has(Trait.COMPOSITE) or instr_can_fail(instr):
        return False
    if not instr.args:
        return True
    if isinstance(op.lower, Numbered):  # random numbers, from the number of their draw
        return True
    return op.elementwise or (op.has(Trait.MOVEMENT) and op.name != "gather")
