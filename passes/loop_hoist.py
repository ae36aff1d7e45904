"""What need not run in every step runs before the loop.

    scan(w, c, xs) { ..; %p = permute(w); %z = matmul(x, %u); .. }
      ->
    %p = permute(w); %zs = matmul(xs, %u); scan(%p, c, %zs) { .. }

Two things leave the body: what depends on consts alone, and products of a row with a const, which
become one product for all steps, with the elementwise instructions behind them that need nothing
else. What only moves or repeats elements stays, since a kernel of the body reads through it, except
a transposition, which would make every step gather with strides. Rows of an array that only
elementwise instructions read are left in the loop: storing what they give would cost more memory
traffic than they save.
"""

from __future__ import annotations

from typing import Final

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.graph import Instr, Value
from treadle.ir.op import Trait
from treadle.passes.fuse_regions import moves_last_axis
from treadle.passes.inline import emit_copy
from treadle.passes.loop_draft import Draft
from treadle.passes.loop_lift import Lift, can_lift


def hoist_invariants(draft: Draft, b: Builder) -> int:
    """Move what consts determine in front of the loop; how many instructions went."""
    known = {t.param for t in draft.consts}
    candidates: set[Instr] = set()
    for instr in draft.instrs:
        if _is_pure(instr) and all(draft.of(a) in known for a in instr.args):
            candidates.add(instr)
            known.update(instr.results)
    wanted = _with_makers(draft, [i for i in draft.instrs if i in candidates and _is_worth(i)])
    if not wanted:
        return 0
    outer = {t.param: t.operand for t in draft.consts}
    for instr in draft.instrs:
        if instr not in wanted:
            continue
        for arg in instr.args:
            outer[arg] = outer[draft.of(arg)]
        emit_copy(b, instr, outer)
    rest = [i for i in draft.instrs if i not in wanted]
    crossing = {draft.of(a) for i in rest for a in i.args} | set(draft.ends())
    for instr in draft.instrs:
        for result in instr.results if instr in wanted else ():
            if result in crossing:
                draft.replace(result, draft.const(outer[result], "hoisted"))
    draft.instrs = rest
    draft.sweep()
    return len(wanted)


def _is_pure(instr: Instr) -> bool:
    return not (instr_must_run(instr) or instr.op.has(Trait.BARRIER))


def _is_worth(instr: Instr) -> bool:
    op = instr.op
    if op.name == "const":
        return instr.result.type.rank > 0
    if op.name == "permute":
        return moves_last_axis(instr)
    return bool(instr.args) and not (op.has(Trait.MOVEMENT) and op.name != "gather")


def _with_makers(draft: Draft, roots: list[Instr]) -> set[Instr]:
    """`roots`, and what they are computed from inside."""
    makers = {r: i for i in draft.instrs for r in i.results}
    found = set(roots)
    work = list(roots)
    while work:
        for arg in work.pop().args:
            made = makers.get(draft.of(arg))
            if made is not None and made not in found:
                found.add(made)
                work.append(made)
    return found


_DEEP: Final = 8  # multiplications for an element of a product

# --- products for all steps ----------------------------------------------------------------------


def hoist_products(draft: Draft, b: Builder) -> int:
    """Make products of rows with consts before the loop; how many products went."""
    if not draft.fixed or draft.length < 2:
        return 0
    consts = {t.param for t in draft.consts}
    rows = {t.param for t in draft.arrays}
    liftable: dict[Value, Instr] = {}
    products: set[Instr] = set()
    for instr in draft.instrs:
        args = [draft.of(a) for a in instr.args]
        if not args or not all(a in consts or a in rows for a in args):
            continue
        stacked = [a in rows for a in args]
        if not any(stacked):
            continue  # depends on consts alone, and has stayed for a reason
        if instr_must_run(instr) or not can_lift(instr, stacked):
            continue
        rows.add(instr.result)
        liftable[instr.result] = instr
        behind = any(a in liftable and liftable[a] in products for a in args)
        product = instr.op.name == "matmul" and not stacked[1] and _is_deep(instr)
        if product or (instr.op.elementwise and behind and _keeps_size(instr)):
            products.add(instr)
    if not any(i.op.name == "matmul" for i in products):
        return 0
    _lift_products(draft, b, products, liftable)
    return sum(i.op.name == "matmul" for i in products)


def _is_deep(instr: Instr) -> bool:
    """Is an element enough work to be worth storing and loading?"""
    depth = instr.args[0].type.shape[-1]
    return isinstance(depth, int) and depth >= _DEEP


def _keeps_size(instr: Instr) -> bool:
    """No more is stored than the product itself."""
    size = instr.result.type.size
    return any(a.type.size == size and a.type.dtype == instr.result.type.dtype for a in instr.args)


def _lift_products(
    draft: Draft, b: Builder, products: set[Instr], liftable: dict[Value, Instr]
) -> None:
    lift = Lift(b, draft.length)
    lift.rows.update((t.param, t.operand) for t in draft.arrays)
    lift.consts.update((t.param, t.operand) for t in draft.consts)
    wanted = _with_makers(draft, list(products)) & set(liftable.values())
    for instr in draft.instrs:
        if instr in wanted:
            lift.lift(instr, [draft.of(a) for a in instr.args])
    rest = [i for i in draft.instrs if i not in products]
    crossing = {draft.of(a) for i in rest for a in i.args} | set(draft.ends())
    for instr in draft.instrs:
        if instr in products and instr.result in crossing:
            draft.replace(instr.result, draft.array(lift.rows[instr.result], "product"))
    draft.instrs = rest
    draft.sweep()
