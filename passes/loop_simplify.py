"""Scans without what nobody needs, and without what is the same in every step.

a row that nobody reads, a carry that only its own next value is computed from     is left out
a carry that no step changes, an array of which all rows are one                   is a const
a row that is a row of an operand                                                  is that operand
one operand twice, one row twice                                                   is there once
"""

from __future__ import annotations

from collections.abc import Collection

from treadle.ir.builder import Builder
from treadle.ir.control import has_effect
from treadle.ir.graph import Value
from treadle.ir.op import Trait
from treadle.passes.loop_draft import Draft, Row, Taken


def simplify(draft: Draft, used: Collection[Value], b: Builder) -> None:
    """Change `draft`; `used`: values of the program around that somebody reads."""
    _merge_operands(draft)
    _constant_arrays(draft, b)
    _unchanged_carries(draft)
    _passing_rows(draft)
    _dead_rows(draft, used)
    _dead_carries(draft, used)
    draft.sweep()


def _merge_operands(draft: Draft) -> None:
    for listed in (draft.consts, draft.arrays):
        first: dict[Value, Taken] = {}
        for taken in listed:
            known = first.setdefault(taken.operand, taken)
            if known is not taken:
                draft.replace(taken.param, known.param)
        listed[:] = first.values()


def _constant_arrays(draft: Draft, b: Builder) -> None:
    """An array that is broadcast along its rows: a step reads what is broadcast."""
    for taken in list(draft.arrays):
        made = taken.operand.producer
        if made is None or made.op.name != "broadcast_to":
            continue
        source = made.args[0]
        extra = taken.operand.type.rank - source.type.rank
        shape = source.type.shape
        if extra < 1:
            if shape[0] != 1 or taken.operand.type.shape[0] == 1:
                continue
            source = b.reshape(source, shape[1:])
        param = draft.const(source, draft.names[taken.param])
        new = param
        if param.type != taken.param.type:
            inner = Builder(loc=draft.instr.loc)
            new = inner.broadcast_to(param, taken.param.type.shape)
            draft.instrs[:0] = inner.instrs
        draft.arrays.remove(taken)
        draft.replace(taken.param, new)


def _unchanged_carries(draft: Draft) -> None:
    for carry in list(draft.carries):
        if draft.of(carry.out) is not carry.param:
            continue
        draft.carries.remove(carry)
        draft.replace(carry.param, draft.const(carry.init, draft.names[carry.param]))
        if carry.result is not None:
            draft.outside[carry.result] = carry.init


def _passing_rows(draft: Draft) -> None:
    arrays = {t.param: t.operand for t in draft.arrays}
    first: dict[Value, Row] = {}
    for row in list(draft.rows):
        value = draft.of(row.value)
        array = arrays.get(value)
        if array is not None and draft.fixed:
            _stand_for(draft, row, array)
            continue
        known = first.setdefault(value, row)
        if known is not row and row.result is not None and known.result is not None:
            _stand_for(draft, row, known.result)


def _stand_for(draft: Draft, row: Row, outside: Value) -> None:
    draft.changed = True
    draft.rows.remove(row)
    if row.result is not None:
        draft.outside[row.result] = outside


def _dead_rows(draft: Draft, used: Collection[Value]) -> None:
    read = {draft.outside.get(v, v) for v in used} | set(used)
    kept = [r for r in draft.rows if r.result in read]
    draft.changed |= len(kept) < len(draft.rows)
    draft.rows[:] = kept


def _dead_carries(draft: Draft, used: Collection[Value]) -> None:
    """What a step needs of carries for what somebody reads: all others go."""
    live = [c for c in draft.carries if c.result in used]
    while True:
        needed = {draft.of(c.out) for c in live} | {draft.of(r.value) for r in draft.rows}
        if draft.go_on is not None:
            needed.add(draft.of(draft.go_on))
        for instr in reversed(draft.instrs):
            wanted = has_effect(instr) or instr.op.has(Trait.CAN_FAULT)
            if wanted or not needed.isdisjoint(instr.results):
                needed.update(draft.of(a) for a in instr.args)
        more = [c for c in draft.carries if c.param in needed or c in live]
        if len(more) == len(live):
            break
        live = more
    draft.changed |= len(live) < len(draft.carries)
    draft.carries[:] = live
