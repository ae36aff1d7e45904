"""Composites become primitive ops, by their own `expand`, until none is left.

    %1: f32[4, 8] = silu(%0)      ->      %1: f32[4, 8] = sigmoid(%0)
                                          %2: f32[4, 8] = mul(%0, %1)

Afterwards the program is at CORE level. An expansion may use other composites.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import Trait
from treadle.passes.manager import Pass, PassContext
from treadle.passes.rewrite import Rule, rewrite


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` without composites."""
    return rewrite(fn, _rules, ctx)


def _expand(b: Builder, i: Instr) -> Value | tuple[Value, ...]:
    assert i.op.expand is not None
    found: Value | tuple[Value, ...] = i.op.expand(b, i.attrs, *i.args)
    return found


_RULES = (Rule("expand", (), _expand, "a composite is what it expands into"),)


def _rules(instr: Instr) -> Sequence[Rule]:
    return _RULES if instr.op.has(Trait.COMPOSITE) and instr.op.expand is not None else ()


PASS = Pass("expand", run, requires=Level.TRACED, ensures=Level.CORE)
