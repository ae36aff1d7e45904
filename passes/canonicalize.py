"""One form for one thing, so that fold, cse and fusion have fewer cases to know.

    %1: f32[4] = sum(%0, axes=(1,), keepdims=False)      %1: f32[4, 1] = sum(%0, .., keepdims=True)
    %2: f32[4, 1] = reshape(%1)                      ->  %2: f32[4, 8] = div(%0, %1)
    %3: f32[4, 8] = broadcast_to(%2)
    %4: f32[4, 8] = div(%0, %3)

The rules stand in `canonical_arithmetic`, `canonical_layout` and `canonical_random`. Each is exact:
the reference gives the same bits before and after, for special values too (any NaN is a NaN).
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.graph import Function, Instr, Level
from treadle.ir.op import Trait
from treadle.passes import canonical_arithmetic, canonical_layout, canonical_random
from treadle.passes.manager import Pass, PassContext
from treadle.passes.rewrite import Rule, RuleSet, rewrite

RULES = RuleSet()
for _rule in (*canonical_arithmetic.RULES, *canonical_layout.RULES, *canonical_random.RULES):
    RULES.add(_rule)

_ELEMENTWISE = Rule(
    "broadcast_inside", (), canonical_layout.broadcast_inside, "op(broadcast(x), y) = op(x, y)"
)


def rules_of(instr: Instr) -> Sequence[Rule]:
    """The rules that start at `instr`: those of its op, and one for every elementwise op."""
    found = RULES.of(instr.op.name)
    if instr.op.elementwise and not instr.op.has(Trait.BARRIER):
        return (_ELEMENTWISE, *found)
    return found


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` in canonical form."""
    return rewrite(fn, rules_of, ctx)


PASS = Pass("canonicalize", run, requires=Level.TRACED, ensures=Level.TRACED)
