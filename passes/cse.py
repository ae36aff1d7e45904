"""Common subexpressions: of instructions that compute the same value the first one stays.

    %1: f32[8] = exp(%0)
    %2: f32[8] = exp(%0)          ->      %1: f32[8] = exp(%0)
    %3: f32[8] = add(%1, %2)              %2: f32[8] = add(%1, %1)

Value numbering in one walk: the key of an instruction is its op, its attributes bit for bit and
its operands, those of commutative ops in one order. `variable` (BARRIER) and EFFECT instructions
are never merged: two variables of one value are two things to differentiate by. It runs twice,
before stabilize and after autodiff, under two names.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache

from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import OpDef, Trait
from treadle.ir.structure import attrs_key
from treadle.passes.copier import Copier, Shared
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with every value computed once."""
    copier = Copier(fn)
    regions = Shared(lambda region: run(region, ctx))
    known: dict[Hashable, Instr] = {}
    numbers: dict[Value, int] = {}
    for param in fn.params:
        numbers[param.value] = len(numbers)
    for instr in fn.instrs:
        current = copier.renewed(instr, regions.of(instr))
        first = None
        if _mergeable(instr):
            first = known.setdefault(_key(current, numbers), current)
        if first is None or first is current:
            copier.put(instr, current)
            for result in current.results:
                numbers[result] = len(numbers)
            continue
        ctx.fired("same-value", instr.loc, instr.op.name)
        for old, new in zip(instr.results, first.results, strict=True):
            copier.replace(old, new)
    return copier.finish()


def _mergeable(instr: Instr) -> bool:
    return not (instr.regions or _kept_apart(instr.op))


@cache
def _kept_apart(op: OpDef) -> bool:
    return op.has(Trait.BARRIER) or op.has(Trait.EFFECT)


def _key(instr: Instr, numbers: dict[Value, int]) -> Hashable:
    operands = tuple(numbers[a] for a in instr.args)
    if instr.op.has(Trait.COMMUTATIVE):
        operands = tuple(sorted(operands))
    return instr.op.name, operands, attrs_key(instr.attrs)


EARLY = Pass("early_cse", run, requires=Level.TRACED, ensures=Level.TRACED)
PASS = Pass("cse", run, requires=Level.TRACED, ensures=Level.TRACED)
