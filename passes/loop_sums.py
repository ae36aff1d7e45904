"""A sum over the steps of a product is one product behind the loop.

    scan(.., %dw0, ..) { ..; %p = matmul(permute(h), dz); %dw1 = add(dw, %p); return .., %dw1, dz }
      ->
    %.., %dzs = scan(..) { ..; return .., dz }
    %dw = add(%dw0, sum(matmul(permute(%hs), %dzs), axes=(0,)))

A carry to which every step adds a product or a reduction, and that nothing else reads, leaves the
loop. What the product is made of is given as rows, where it is not a row of an array already; the
sum over steps becomes a part of the contraction (`passes/contract.py`), whose weights are read once
instead of being updated in every step.
"""

from __future__ import annotations

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value
from treadle.passes.loop_draft import Carried, Draft, Row
from treadle.passes.loop_lift import Lift, can_lift

_MOVING = frozenset({"permute", "reshape", "broadcast_to"})


@dataclass(frozen=True, slots=True)
class _Sum:
    """A carry to which each step adds `part`, the end of `chain`; `leaves`: what that reads."""

    carry: Carried
    part: Value
    chain: tuple[Instr, ...]
    leaves: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Summed:
    """A sum that has left the loop, and what holds what it needs: rows that the loop gives, arrays
    that it reads."""

    sum: _Sum
    rows: dict[Value, Row]
    arrays: dict[Value, Value]


def take_sums(draft: Draft) -> list[Summed]:
    """Take sums over steps out of `draft`; `add_sums` emits them behind it."""
    if not draft.fixed or draft.length < 2:
        return []
    found = [s for c in draft.carries if (s := _sum_of(draft, c)) is not None]
    taken: list[Summed] = []
    there = {t.param: t.operand for t in draft.arrays}
    for each in found:
        rows = {leaf: _row_of(draft, leaf) for leaf in each.leaves if leaf not in there}
        arrays = {leaf: there[leaf] for leaf in each.leaves if leaf in there}
        draft.carries.remove(each.carry)
        draft.changed = True
        taken.append(Summed(each, rows, arrays))
    draft.sweep()
    return taken


def _row_of(draft: Draft, value: Value) -> Row:
    known = next((r for r in draft.rows if draft.of(r.value) is value), None)
    if known is None:
        known = Row(value, None)
        draft.rows.append(known)
    return known


def _sum_of(draft: Draft, carry: Carried) -> _Sum | None:
    out = draft.of(carry.out)
    adds = out.producer
    if adds is None or adds.op.name != "add" or adds not in draft.instrs:
        return None
    args = [draft.of(a) for a in adds.args]
    if args.count(carry.param) != 1:
        return None
    part = args[1] if args[0] is carry.param else args[0]
    users = draft.users()
    if users.get(carry.param, 0) != 1 or users.get(out, 0) != 1 or part.type != out.type:
        return None
    return _chain(draft, carry, part)


def _chain(draft: Draft, carry: Carried, part: Value) -> _Sum | None:
    """From the part upwards: movements, one product or reduction, movements."""
    inside = set(draft.instrs)
    chain: list[Instr] = []
    leaves: dict[Value, None] = {}
    work = [(part, False)]
    found = False
    while work:
        value, behind = work.pop()
        made = value.producer
        moves = made is not None and made in inside and made.op.name in _MOVING
        sums = made is not None and made in inside and made.op.name in ("matmul", "sum")
        if made is None or not (moves or (sums and not behind)) or instr_must_run(made):
            if not behind:
                return None
            leaves[value] = None
            continue
        found = found or sums
        chain.append(made)
        work.extend((draft.of(a), behind or sums) for a in made.args)
    if not found or not _can_lift_all(draft, chain, leaves) or _too_large(part, leaves, draft):
        return None
    return _Sum(carry, part, tuple(i for i in draft.instrs if i in chain), tuple(leaves))


def _can_lift_all(draft: Draft, chain: list[Instr], leaves: dict[Value, None]) -> bool:
    consts = {t.param for t in draft.consts}
    if consts & set(leaves):
        return False
    return all(can_lift(i, [True] * len(i.args)) for i in chain)


def _too_large(part: Value, leaves: dict[Value, None], draft: Draft) -> bool:
    """Would the rows be much more memory than they save?"""
    there = {t.param for t in draft.arrays} | {draft.of(r.value) for r in draft.rows}
    new = [v for v in leaves if v not in there]
    return any(v.type.nbytes > 64 * max(part.type.nbytes, 1024) for v in new)


def add_sums(draft: Draft, taken: list[Summed], b: Builder) -> None:
    """Emit the sums behind the new scan."""
    first = (draft.done is not None) + len(draft.carries)
    for each in taken:
        lift = Lift(b, draft.length)
        lift.rows.update(each.arrays)
        for leaf, row in each.rows.items():
            lift.rows[leaf] = draft.made[first + draft.rows.index(row)]
        for instr in each.sum.chain:
            lift.lift(instr, [draft.of(a) for a in instr.args])
        loc = each.sum.chain[-1].loc
        with b.at(loc):
            total = b.sum(lift.rows[each.sum.part], (0,))
            carry = each.sum.carry
            if carry.result is not None:
                draft.outside[carry.result] = b.add(carry.init, total)
