"""Loops do in each step what differs from step to step, and no more.

    %0 = scan(w, u, h0, xs) {                    %p = matmul(xs, w)
      z = matmul(x, w) + matmul(h, u)       ->   %0 = scan(u, h0, %p) {
      ..                                           z = p + matmul(h, u)
    }                                              ..
                                                 }

  loop_simplify  rows and carries that nobody reads go; what is the same in every step is a const
  loop_hoist     what consts determine, and products of a row with a const, run before the loop
  loop_sink      products that a step gives as rows only run behind the loop
  loop_sums      a carry that adds up products is one product behind the loop
  loop_panels    weights that every step multiplies with lie as the product reads them

It runs twice. Before autodiff products of rows leave, so that their derivatives are outside from
the first; behind it, what autodiff has made.

Loops inside of loops first, so that what leaves the inner one may leave the outer one. A `remat` is
written out here, behind the last pass that would find what it computes again to be the same as what
was computed before; operands that no branch of a switch reads are dropped, so that nothing keeps
them alive.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.control import has_control, is_control
from treadle.ir.graph import Function, Instr, Level, Value, walk
from treadle.passes import dce
from treadle.passes.copier import Copier
from treadle.passes.inline import inline
from treadle.passes.loop_draft import Draft
from treadle.passes.loop_hoist import hoist_invariants, hoist_products
from treadle.passes.loop_panels import use_panels
from treadle.passes.loop_simplify import simplify
from treadle.passes.loop_sink import add_rows, sink_rows
from treadle.passes.loop_sums import add_sums, take_sums
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with lean loops, without `remat`."""
    if not has_control(fn):
        return fn
    done = _rewritten(dce.sweep(_without_remat(fn, ctx)), ctx, False)
    return dce.sweep(done)


def run_early(fn: Function, ctx: PassContext) -> Function:
    """`fn`, as the user wrote it, with lean loops."""
    return _rewritten(_unmarked(fn), ctx, True) if has_control(fn) else fn


def _unmarked(fn: Function, inside: bool = False) -> Function:
    """`fn`, where `variable`s in loops and branches in which no derivative is taken are gone: they
    mean nothing there, and would stand between an instruction and what it reads."""
    copier = Copier(fn)
    keep = not inside or any(i.op.name == "gradient" for i in walk(fn))
    for instr in fn.instrs:
        if instr.op.name == "variable" and not keep:
            copier.replace(instr.result, copier.of(instr.args[0]))
        else:
            copier.keep(instr, [_unmarked(region, True) for region in instr.regions])
    return copier.finish()


def _without_remat(fn: Function, ctx: PassContext) -> Function:
    copier = Copier(fn)
    for instr in fn.instrs:
        regions = [_without_remat(region, ctx) for region in instr.regions]
        if instr.op.name != "remat":
            copier.keep(instr, regions)
            continue
        outs = inline(copier.builder, regions[0], [copier.of(a) for a in instr.args])
        ctx.fired("remat", instr.loc, f"{len(regions[0].instrs)} instructions written out")
        copier.leave_out()  # it may have no results, where it does nothing but check
        for old, new in zip(instr.results, outs, strict=True):
            copier.replace(old, new)
    return copier.finish()


def _rewritten(fn: Function, ctx: PassContext, early: bool) -> Function:
    used = {a for i in fn.instrs for a in i.args} | set(fn.outputs)
    copier = Copier(fn)
    for instr in fn.instrs:
        if not is_control(instr):
            copier.keep(instr)
            continue
        regions = [dce.sweep(_rewritten(region, ctx, early)) for region in instr.regions]
        current = copier.renewed(instr, regions)
        if instr.op.name == "remat":
            copier.put(instr, current)
        elif instr.op.name == "scan":
            _loop(copier, instr, current, used, ctx, early)
        else:
            _branch(copier, instr, current)
    return copier.finish()


def _loop(
    copier: Copier,
    instr: Instr,
    current: Instr,
    used: set[Value],
    ctx: PassContext,
    early: bool,
) -> None:
    b = copier.builder
    draft = Draft(current, current.args)
    read = {new for new, old in zip(current.results, instr.results, strict=True) if old in used}
    simplify(draft, read, b)
    invariant = hoist_invariants(draft, b)
    products = hoist_products(draft, b)
    simplify(draft, read, b)
    sunk = sink_rows(draft)
    sums = take_sums(draft)
    panels = 0 if early else use_panels(draft, b)
    for count, rule, what in (
        (invariant, "hoist", "instructions that are the same in every step"),
        (products, "hoist_products", "products of rows"),
        (len(sunk), "sink", "products that are rows"),
        (len(sums), "sum", "sums of products"),
        (panels, "panels", "products with consts"),
    ):
        if count:
            ctx.fired(rule, instr.loc, f"{count} {what}")
    if not draft.changed:
        copier.put(instr, current)
        return
    draft.finish(b)
    add_rows(draft, sunk, b)
    add_sums(draft, sums, b)
    for old, new in zip(instr.results, current.results, strict=True):
        found = _final(draft, new)
        if found is not None:
            copier.replace(old, found)


def _final(draft: Draft, value: Value) -> Value | None:
    """What stands for a result of the old scan; None where nobody reads it."""
    found = draft.outside.get(value)
    while found in draft.outside:
        found = draft.outside[found]
    return found


def _branch(copier: Copier, instr: Instr, current: Instr) -> None:
    """Operands that no branch reads are dropped; constant arrays become operands, since a region
    has no buffers of its own for them."""
    current = _without_arrays(copier, current)
    args = current.args[1:]
    read = [False] * len(args)
    for region in current.regions:
        needed = {a for i in region.instrs for a in i.args} | set(region.outputs)
        read = [r or p in needed for r, p in zip(read, region.inputs, strict=True)]
    if all(read):
        copier.put(instr, current)
        return
    kept = [n for n, r in enumerate(read) if r]
    regions = [
        Function(r.name, tuple(r.params[n] for n in kept), r.instrs, r.results)
        for r in current.regions
    ]
    operands = (current.args[0], *(args[n] for n in kept))
    types = [r.type for r in instr.results]
    copier.put(instr, Instr(instr.op, operands, instr.attrs, types, instr.loc, regions))


def _without_arrays(copier: Copier, instr: Instr) -> Instr:
    found = [i for region in instr.regions for i in region.instrs if _is_array(i)]
    if not found:
        return instr
    b = copier.builder
    with b.at(instr.loc):
        operands = [b.emit(i.op, (), i.attrs)[0] for i in found]
    regions = [_with_parameters(region, found) for region in instr.regions]
    types = [r.type for r in instr.results]
    return Instr(instr.op, (*instr.args, *operands), instr.attrs, types, instr.loc, regions)


def _is_array(instr: Instr) -> bool:
    return instr.op.name == "const" and instr.result.type.rank > 0


def _with_parameters(region: Function, arrays: Sequence[Instr]) -> Function:
    """`region` with a parameter for each of `arrays`, of which some are its instructions."""
    copier = Copier(region)
    params = [copier.builder.param(i.result.type, f"array {n}") for n, i in enumerate(arrays)]
    known = dict(zip(arrays, params, strict=True))
    for instr in region.instrs:
        if instr in known:
            copier.replace(instr.result, known[instr])
        else:
            copier.keep(instr)
    copier.leave_out()  # it has parameters that it did not have
    return copier.finish()


EARLY = Pass("early_loops", run_early, requires=Level.TRACED, ensures=Level.TRACED)
PASS = Pass("loops", run, requires=Level.CORE, ensures=Level.CORE)
