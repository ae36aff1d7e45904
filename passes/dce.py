"""Dead code elimination: what no result needs is left out.

    %1: f32[8] = exp(%0)
    %2: f32[8] = neg(%0)          ->      %1: f32[8] = neg(%0)
    return %2                             return %1

Instructions with the EFFECT trait stay, and those that can fail: an index out of range is an error
whoever reads what it leads to, as it is without jit. Above all the gradient of a lookup does not
need its value, and is wrong where the index is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from treadle.ir.control import has_effect, instr_can_fail, instr_must_run
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import can_fail
from treadle.ir.ops.indexing import IndexAttrs
from treadle.passes.copier import Copier, Shared
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` without what nobody reads. Of two instructions that check the same, one may go."""
    return _swept(fn, ctx, _live)


def sweep(fn: Function) -> Function:
    """`fn` without what nobody reads, with every instruction that can fail: the first of them in
    the program is the one to be told of, with its line."""
    return _swept(fn, PassContext(), _needed)


def _swept(fn: Function, ctx: PassContext, living: Callable[[Function], set[Instr]]) -> Function:
    live = living(fn)
    copier = Copier(fn)
    regions = Shared(lambda region: _swept(region, ctx, living))
    for instr in fn.instrs:
        if instr in live:
            copier.keep(instr, regions.of(instr))
        else:
            ctx.fired("dead", instr.loc, instr.op.name)
            copier.leave_out()
    return copier.finish()


def _needed(fn: Function) -> set[Instr]:
    return _leading_to(fn, [i for i in fn.instrs if instr_must_run(i)])


def _live(fn: Function) -> set[Instr]:
    live = _leading_to(fn, ())
    checks = [i for i in fn.instrs if i not in live and instr_can_fail(i) and instr_must_run(i)]
    if not checks:
        return live
    known = {_checked(i) for i in live if can_fail(i.op, i.attrs)}
    roots: list[Instr] = []
    for instr in checks:
        what = _checked(instr)
        if what not in known:
            roots.append(instr)
            known.add(what)
    return _leading_to(fn, roots)


def _leading_to(fn: Function, roots: Sequence[Instr]) -> set[Instr]:
    """What results, effects and `roots` need."""
    needed: set[Value] = set(fn.outputs)
    live: set[Instr] = set(roots)
    for instr in reversed(fn.instrs):
        if not needed.isdisjoint(instr.results) or instr in live or has_effect(instr):
            live.add(instr)
            needed.update(instr.args)
    return live


def _checked(instr: Instr) -> Hashable:
    """What `instr` checks: two that look up the same indices in axes of the same sizes (a rule
    has replaced one by the other) fail together."""
    attrs = instr.attrs
    if not isinstance(attrs, IndexAttrs):
        return instr
    sizes = tuple(instr.args[0].type.shape[axis] for axis in attrs.axes)
    return sizes, instr.args[-len(attrs.axes) :]


PASS = Pass("dce", run, requires=Level.TRACED, ensures=Level.TRACED)
