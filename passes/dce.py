"""Dead code elimination: what no result needs is left out.

    %1: f32[8] = exp(%0)
    %2: f32[8] = neg(%0)          ->      %1: f32[8] = neg(%0)
    return %2                             return %1

Instructions with the EFFECT trait stay. An instruction that can only fault goes with its results:
a check that must run whatever happens is an EFFECT.
"""

from __future__ import annotations

from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import Trait
from treadle.passes.copier import Copier
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` without what nobody reads."""
    live = _live(fn)
    copier = Copier(fn)
    for instr in fn.instrs:
        if instr in live:
            copier.keep(instr, [run(region, ctx) for region in instr.regions])
        else:
            ctx.fired("dead", instr.loc, instr.op.name)
            copier.leave_out()
    return copier.finish()


def _live(fn: Function) -> set[Instr]:
    needed: set[Value] = set(fn.outputs)
    live: set[Instr] = set()
    for instr in reversed(fn.instrs):
        if instr.op.has(Trait.EFFECT) or not needed.isdisjoint(instr.results):
            live.add(instr)
            needed.update(instr.args)
    return live


PASS = Pass("dce", run, requires=Level.TRACED, ensures=Level.TRACED)
