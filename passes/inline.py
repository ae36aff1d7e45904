"""Regions written out in place: every instruction again, with other operands.

A region's instructions are never shared between two places of a program: each copy has values of
its own, those of the regions inside it included.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.custom import is_attached
from treadle.ir.graph import Function, Instr, Param, Result, Value


def inline(
    b: Builder, region: Function, args: Sequence[Value], effects: bool = True
) -> tuple[Value, ...]:
    """Emit `region` into `b`; its results. Without `effects` what only has effects is left out,
    in loops and branches inside of it too."""
    known = dict(zip(region.inputs, args, strict=True))
    used = {a for i in region.instrs for a in i.args} | set(region.outputs)
    for instr in region.instrs:
        if not effects and instr_must_run(instr) and used.isdisjoint(instr.results):
            continue
        emit_copy(b, instr, known, effects)
    return tuple(known.get(v, v) for v in region.outputs)


def emit_copy(b: Builder, instr: Instr, known: dict[Value, Value], effects: bool = True) -> Instr:
    """Append a copy of `instr` with operands by `known`, to which its results are added."""
    args = [known.get(a, a) for a in instr.args]
    types = [r.type for r in instr.results]
    regions = [copied(region, effects or is_attached(instr)) for region in instr.regions]
    made = Instr(instr.op, args, instr.attrs, types, instr.loc, regions)
    b.append(made)
    known.update(zip(instr.results, made.results, strict=True))
    return made


def copied(fn: Function, effects: bool = True) -> Function:
    """`fn` with values of its own; `effects` as for `inline`."""
    b = Builder(fn.name)
    params = tuple(Param(Value(p.value.type), p.path, p.kind) for p in fn.params)
    outs = inline(b, fn, [p.value for p in params], effects)
    results = tuple(Result(v, r.path, r.kind) for v, r in zip(outs, fn.results, strict=True))
    return Function(fn.name, params, tuple(b.instrs), results)


def with_instrs(b: Builder, replaced: Sequence[tuple[Instr, Instr]]) -> dict[Value, Value]:
    """For each pair (old, new) of instructions in `b`, where `new` has the operands of `old` and
    its results first: `new` stands where `old` stood. What became of the values that changed."""
    stand = dict(replaced)
    moved = set(stand.values())
    known: dict[Value, Value] = {}
    instrs = list(b.instrs)
    b.clear()
    for instr in instrs:
        if instr in moved:
            continue
        current = stand.get(instr, instr)
        args = [known.get(a, a) for a in instr.args]
        made = current
        if args != list(current.args):
            types = [r.type for r in current.results]
            made = Instr(current.op, args, current.attrs, types, current.loc, current.regions)
            known.update(zip(current.results, made.results, strict=True))
        if current is not instr:
            known.update(zip(instr.results, made.results, strict=False))
        b.append(made)
    return known
