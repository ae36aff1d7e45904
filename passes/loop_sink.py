"""What a step computes for its rows alone runs behind the loop, for all steps at once.

    %ys = scan(wo, ..) { ..; y = matmul(h, wo) + b; return h1, y }
      ->
    %hs = scan(..) { ..; return h1, h };  %ys = matmul(%hs, wo) + b

Only what holds a product goes, with the elementwise instructions and movements behind it that
nothing else in the step needs. What the product reads is given as rows instead, unless that is much
more memory than the rows that it replaces.
"""

from __future__ import annotations

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value
from treadle.passes.loop_draft import Draft, Row
from treadle.passes.loop_lift import Lift, can_lift
from treadle.passes.recompute import bytes_of

_MORE = 4  # times the bytes of the rows that go: what other rows may take in their place
_BEHIND = frozenset({"permute", "reshape", "broadcast_to", "slice"})


@dataclass(frozen=True, slots=True)
class Sunk:
    """A row that is computed behind the loop by `chain`, from rows, arrays and consts by their
    values inside."""

    row: Row
    chain: tuple[Instr, ...]
    rows: dict[Value, Row]
    arrays: dict[Value, Value]
    consts: dict[Value, Value]


def sink_rows(draft: Draft) -> list[Sunk]:
    """Take rows out of `draft` that products give; `add_rows` emits them behind it."""
    if not draft.fixed or draft.length < 2:
        return []
    found: list[Sunk] = []
    for row in list(draft.rows):
        sunk = _sunk(draft, row)
        if sunk is not None:
            draft.rows.remove(row)
            draft.rows += [r for r in sunk.rows.values() if r not in draft.rows]
            draft.changed = True
            draft.sweep()
            found.append(sunk)
    return found


def _sunk(draft: Draft, row: Row) -> Sunk | None:
    arrays = {t.param: t.operand for t in draft.arrays}
    consts = {t.param: t.operand for t in draft.consts}
    chain, leaves = _chain(draft, draft.of(row.value), set(consts))
    if not any(i.op.name == "matmul" for i in chain):
        return None
    if not any(v not in consts for v in leaves):
        return None
    rows: dict[Value, Row] = {}
    more = 0
    for value in leaves:
        if value in arrays or value in consts:
            continue
        known = next((r for r in draft.rows if draft.of(r.value) is value), None)
        more += 0 if known is not None else bytes_of(value.type)
        rows[value] = known if known is not None else Row(value, None)
    if more > _MORE * bytes_of(row.value.type):
        return None
    used_arrays = {v: arrays[v] for v in leaves if v in arrays}
    used_consts = {v: consts[v] for v in leaves if v in consts}
    order = tuple(i for i in draft.instrs if i in chain)
    return Sunk(row, order, rows, used_arrays, used_consts)


def _chain(draft: Draft, end: Value, consts: set[Value]) -> tuple[set[Instr], dict[Value, None]]:
    """The instructions that compute `end` and that nothing else needs, down to a product; and what
    they read."""
    users = draft.users()
    inside = set(draft.instrs)
    chain: set[Instr] = set()
    leaves: dict[Value, None] = {}
    counted: dict[Value, int] = {}
    work = [end]
    while work:
        value = work.pop()
        made = value.producer
        counted[value] = counted.get(value, 0) + 1
        if made is None or made not in inside or made in chain or value in consts:
            leaves[value] = None
            continue
        alone = users.get(value, 0) == 1
        if not alone or not _goes(made):
            leaves[value] = None
            continue
        chain.add(made)
        args = [draft.of(a) for a in made.args]
        if made.op.name == "matmul":
            leaves.update(dict.fromkeys(args))
        else:
            work.extend(args)
    stacked = {v for v in leaves if v not in consts}
    for instr in draft.instrs:
        if instr not in chain:
            continue
        args = [draft.of(a) for a in instr.args]
        marks = [a in stacked for a in args]
        if not any(marks) or not can_lift(instr, marks):
            return set(), {}
        stacked.add(instr.result)
    return chain, leaves


def _goes(instr: Instr) -> bool:
    if instr_must_run(instr) or not instr.args or len(instr.results) != 1:
        return False
    op = instr.op
    return op.name == "matmul" or op.elementwise or op.name in _BEHIND


def add_rows(draft: Draft, sunk: list[Sunk], b: Builder) -> None:
    """Emit the rows behind the new scan."""
    first = (draft.done is not None) + len(draft.carries)
    for each in sunk:
        if each.row.result is None:
            continue
        lift = Lift(b, draft.length)
        lift.rows.update(each.arrays)
        lift.consts.update(each.consts)
        for leaf, row in each.rows.items():
            lift.rows[leaf] = draft.made[first + draft.rows.index(row)]
        for instr in each.chain:
            lift.lift(instr, [draft.of(a) for a in instr.args])
        draft.outside[each.row.result] = lift.rows[draft.of(each.row.value)]
