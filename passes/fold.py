"""Constants are computed at compile time, by the ops' references.

    %1: f32[] = const(data=f32[]{3.0})
    %2: f32[] = sqrt(%1)          ->      %1: f32[] = const(data=f32[]{1.7320508})
    %3: f32[8] = mul(%0, %2)              %2: f32[8] = mul(%0, %1)

Only operands that are constants fold: `x * 0` stays, since x may be NaN. A constant of rank 0 is
an immediate in a kernel, others are memory, so nothing grows here: a broadcast stays one, and an
elementwise op on broadcasts of single numbers is computed once and broadcast. New constants open
canonical forms (`x^(3-1)` is `x x`), so the rules of `canonicalize` run along.
What can fault, has an effect or is a barrier is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import Array, OpDef, Trait
from treadle.passes import canonicalize
from treadle.passes.manager import Pass, PassContext
from treadle.passes.patterns import LAYOUT, constant, splat
from treadle.passes.rewrite import Rule, rewrite

LIMIT = 4096  # elements of an operand or a result
_NEVER = frozenset({Trait.EFFECT, Trait.BARRIER, Trait.CAN_FAULT, Trait.COMPOSITE})
_STAYS = frozenset({"broadcast_to", "gradient"})


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with everything computed that its constants determine."""
    settled = ctx.after == "canonicalize"  # whose rules fire on nothing that is as it left it
    return rewrite(fn, _rules, ctx, _folding if settled else None)


def _foldable(op: OpDef) -> bool:
    return op.traits.isdisjoint(_NEVER) and op.name not in _STAYS


def _is_small(value: Value) -> bool:
    return isinstance(value.type.size, int) and value.type.size <= LIMIT


def _fold_constants(b: Builder, i: Instr) -> tuple[Value, ...] | None:
    if not all(_is_small(v) for v in (*i.args, *i.results)):
        return None
    data = [constant(a) for a in i.args]
    arrays = [d.array() for d in data if d is not None]
    if len(arrays) != len(data):
        return None
    outs = i.op.run_ref(i.attrs, arrays)
    return tuple(b.const(_one_nan(o), r.type.dtype) for o, r in zip(outs, i.results, strict=True))


def _one_nan(array: Array) -> Array:
    """Which NaN an operation gives differs between machines; programs must not."""
    return np.where(np.isnan(array), np.nan, array) if array.dtype.kind == "f" else array


def _fold_splats(b: Builder, i: Instr) -> Value | None:
    """Every element is computed from the same numbers, so one computation does."""
    if not i.op.elementwise or i.result.type.rank == 0:
        return None
    found = [splat(a) for a in i.args]
    numbers = [n for n in found if n is not None]
    if len(numbers) != len(found):
        return None
    (one,) = i.op.run_ref(i.attrs, numbers)
    return b.broadcast_to(b.const(_one_nan(one), i.result.type.dtype), i.result.type.shape)


_RULES = (
    Rule("fold_constants", (), _fold_constants, "op(constants) = a constant"),
    Rule("fold_splats", (), _fold_splats, "op(broadcast(c)) = broadcast(op(c)), elementwise"),
)


def _rules(instr: Instr) -> Sequence[Rule]:
    """Folding first, then the canonical forms that a new constant may have opened."""
    return (*_folding(instr), *canonicalize.rules_of(instr))


def _folding(instr: Instr) -> Sequence[Rule]:
    """The rules for an instruction whose operands are all constants."""
    if not instr.args or instr.regions or not all(map(_may_be_constant, instr.args)):
        return ()
    return _RULES if _foldable(instr.op) else ()


def _may_be_constant(value: Value) -> bool:
    """Whether `value` is a constant, or a layout of one."""
    made = value.producer
    while made is not None and made.op.name in LAYOUT:
        made = made.args[0].producer
    return made is not None and made.op.name == "const"


PASS = Pass("fold", run, requires=Level.TRACED, ensures=Level.TRACED)
