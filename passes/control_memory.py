"""Where the regions of a loop or a branch keep what they compute: the plan of their memory.

A region is planned like a Function: parameters and results are buffers that whoever runs it hands
over, the rest is a block of workspace, which every step (and every branch) uses again. A carry is a
parameter and a result: where the step writes it when nothing reads the old one any more, it is
updated in place, in the buffer of the loop's result; else it has two buffers, the result's and a
spare one, which change places at each step. Rows of arrays are read and written where they lie. A
carry whose old values are kept as rows (for the loop back) lives there: a step reads it from its
own row and writes it into the next one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from treadle.ir.control import params, results, scan_attrs
from treadle.ir.graph import Function, Instr, Param, Result, Value
from treadle.ir.memory import ControlMemory, MemoryPlan

_FLAG = 64  # bytes for whether to go on


def plan_control(
    instr: Instr, plan: Callable[[Function], MemoryPlan], padded: Callable[[int], int]
) -> ControlMemory:
    """The memory of the regions of a scan or switch, with offsets from the start of its block."""
    if instr.op.name != "scan":
        plans = tuple(plan(region) for region in instr.regions)
        size = max((p.workspace for p in plans), default=0)
        return ControlMemory(plans, 0, padded(size))
    region = as_step(instr)
    inner = plan(region)
    a = scan_attrs(instr)
    first = a.consts
    shared = {result: param for param, result in inner.in_place}
    stacked = _stacked(instr, shared)
    rows = {int(a.until) + a.carries + row for row in stacked if row is not None}
    inner = replace(inner, copies=tuple(c for c in inner.copies if c.result not in rows))
    spare: list[int | None] = []
    at = padded(inner.workspace)
    flag = at
    at += _FLAG if a.until else 0
    for n, carry in enumerate(params(a, region.inputs).carries):
        if shared.get(int(a.until) + n) == first + n or stacked[n] is not None:
            spare.append(None)
        else:
            spare.append(at)
            at += padded(carry.type.nbytes)
    return ControlMemory((inner,), 0, max(at, padded(0)), tuple(spare), stacked, flag)


def _stacked(instr: Instr, shared: Mapping[int, int]) -> tuple[int | None, ...]:
    """For each carry the array of rows that are its old values; `shared`: what is in place."""
    a = scan_attrs(instr)
    (region,) = instr.regions
    carries = params(a, region.inputs).carries
    if a.steps or a.until or not a.length:
        return (None,) * len(carries)
    rows: dict[Value, int] = {}
    for n, value in enumerate(results(a, region.outputs).arrays):
        rows.setdefault(value, n)
    return tuple(None if n in shared else rows.get(c) for n, c in enumerate(carries))


def as_step(instr: Instr) -> Function:
    """The region of a scan, with its carries as state: what may be updated in place."""
    a = scan_attrs(instr)
    (region,) = instr.regions
    carried = set(params(a, range(len(region.params))).carries)
    made = results(a, range(len(region.results))).carries
    paths = {n: f"carry {k}" for k, n in enumerate(sorted(carried))}
    out = {n: f"carry {k}" for k, n in enumerate(made)}
    return Function(
        region.name,
        tuple(
            Param(p.value, paths[n], "state") if n in carried else Param(p.value, f"p{n}")
            for n, p in enumerate(region.params)
        ),
        region.instrs,
        tuple(
            Result(r.value, out[n], "state") if n in out else Result(r.value, f"r{n}")
            for n, r in enumerate(region.results)
        ),
    )
