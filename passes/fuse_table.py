"""Equal maps over arrays of different sizes become one loop body that runs over a table.

    %4, %5, %6 = fused(%g1, %m1, %v1, %p1, space=(784, 512), reduced=()) { adam }
    %7, %8, %9 = fused(%g2, %m2, %v2, %p2, space=(512,), reduced=()) { adam }
      ->
    .. views of all operands as flat arrays ..
    %10, .., %15 = fused_table(.., count=2) { adam over (n,) }
    .. views of the results in their shapes ..

A region takes part where it is elementwise over whole contiguous arrays of its space and scalars,
so that its shape does not matter. Regions of one table must not depend on each other; the graph of
clusters decides that. So an optimiser's code does not grow with the number of parameters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.host import in_order
from treadle.ir.op import get_op
from treadle.ir.regions import FLAT_LENGTH
from treadle.ir.scalar import Scalar
from treadle.ir.types import TensorType
from treadle.passes.fuse_graph import ClusterGraph
from treadle.passes.manager import PassContext

_SEARCH_PER_INSTR = 8  # edges that one search may look at, for each instruction of the function


@dataclass(frozen=True, slots=True)
class Flat:
    """A region as a flat map: `key` is equal for regions that differ in sizes only; `operands`
    are the instruction's, in the order in which the region first uses them, with whether each is
    a scalar."""

    instr: Instr
    key: Hashable
    operands: tuple[tuple[int, bool], ...]


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with its equal, independent flat maps in tables."""
    alike: dict[Hashable, list[int]] = {}
    flats: dict[int, Flat] = {}
    known: dict[Function, Flat | None] = {}  # updates of parameters share regions
    for n, instr in enumerate(fn.instrs):
        if instr.op.name != "fused":
            continue
        (region,) = instr.regions
        if region not in known:
            known[region] = flattened(instr)
        found = known[region]
        if found is not None:
            flat = flats[n] = replace(found, instr=instr)
            alike.setdefault(flat.key, []).append(n)
    if all(len(nodes) < 2 for nodes in alike.values()):
        return fn
    graph = _graph(fn)
    budget = _SEARCH_PER_INSTR * len(fn.instrs)
    for nodes in alike.values():
        _gather(graph, nodes, fn, budget, ctx)
    return _emit(fn, graph, flats)


def _graph(fn: Function) -> ClusterGraph:
    index = {r: n for n, i in enumerate(fn.instrs) for r in i.results}
    after = [[index[a] for a in i.args if a in index] for i in fn.instrs]
    for first, second in in_order(fn):
        after[second].append(first)
    return ClusterGraph(after)


def _gather(
    graph: ClusterGraph, nodes: Sequence[int], fn: Function, budget: int, ctx: PassContext
) -> None:
    """Merge the nodes that do not depend on each other; each joins the one before it or starts
    the next table."""
    table = nodes[0]
    for node in nodes[1:]:
        why = "one reads the other" if graph.reads(node, table) else None
        why = why or graph.merge(table, node, budget)
        if why is not None:
            instr = fn.instrs[node]
            ctx.reason("not in one table", instr.loc, f"{instr.regions[0].name}: {why}", "fused")
            table = node


# --- which regions are flat maps -------------------------------------------------------------


def flattened(instr: Instr) -> Flat | None:
    """`instr` as a flat map, if its region is elementwise over whole arrays and scalars."""
    attrs: Any = instr.attrs
    (region,) = instr.regions
    if attrs.reduced or not TensorType(region.outputs[0].type.dtype, attrs.space).is_static:
        return None
    position = {v: n for n, v in enumerate(region.inputs)}
    number: dict[Value, int] = {}  # in the flat region
    scalar: dict[Value, bool] = {}
    operands: list[tuple[int, bool]] = []
    key: list[Hashable] = []
    for value in _operands_first(region):
        made, number[value] = value.producer, len(number)
        if value in position or made is None:
            if value.type.shape != attrs.space and value.type.size != 1:
                return None
            scalar[value] = value.type.shape != attrs.space
            operands.append((position[value], scalar[value]))
            key.append((value.type.dtype, scalar[value]))
        elif made.op.name == "broadcast_to" and scalar[made.args[0]]:
            number[value], scalar[value] = number[made.args[0]], True
        elif isinstance(made.op.lower, Scalar) or made.op.name == "const":
            scalar[value] = all(scalar[a] for a in made.args)
            key.append((made.op.name, made.attrs, tuple(number[a] for a in made.args)))
        else:
            return None
    if any(scalar[v] for v in region.outputs) or len(operands) != len(position):
        return None
    return Flat(instr, (*key, *(number[v] for v in region.outputs)), tuple(operands))


def _operands_first(region: Function) -> list[Value]:
    """The region's values, each behind its operands, in an order that the wiring alone gives:
    regions that compute the same list their values alike, whatever order they were written in."""
    order: list[Value] = []
    done: set[Value] = set()
    work = list(reversed(region.outputs))
    while work:
        value = work[-1]
        args = value.producer.args if value.producer is not None else ()
        left = [a for a in args if a not in done]
        if left:
            work.extend(reversed(left))
            continue
        work.pop()
        if value not in done:
            done.add(value)
            order.append(value)
    return order


def _flat_region(flat: Flat) -> Function:
    (region,) = flat.instr.regions
    inner_b = Builder(region.name)
    inside: dict[Value, Value] = {}
    for n, (which, is_scalar) in enumerate(flat.operands):
        param = region.params[which]
        shape = () if is_scalar else (FLAT_LENGTH,)
        inside[param.value] = inner_b.param(TensorType(param.value.type.dtype, shape), f"p{n}")
    for inner in region.instrs:
        if inner.op.name == "broadcast_to":
            inside[inner.result] = inside[inner.args[0]]
            continue
        with inner_b.at(inner.loc):
            (inside[inner.result],) = inner_b.emit(
                inner.op, [inside[a] for a in inner.args], inner.attrs
            )
    return inner_b.finish([Result(inside[r.value], r.path, r.kind) for r in region.results])


# --- the new Function ------------------------------------------------------------------------


def _emit(fn: Function, graph: ClusterGraph, flats: dict[int, Flat]) -> Function:
    b = Builder(fn.name)
    for param in fn.params:
        b.keep_param(param)
    new: dict[Value, Value] = {}
    for cluster in graph.clusters():
        members = sorted(graph.members[cluster])
        if len(members) > 1:
            _emit_table(b, [flats[n] for n in members], new)
            continue
        instr = fn.instrs[members[0]]
        results = b.rebuild(instr, [new.get(a, a) for a in instr.args])
        new.update(zip(instr.results, results, strict=True))
    return b.finish([Result(new.get(r.value, r.value), r.path, r.kind) for r in fn.results])


def _emit_table(b: Builder, rows: Sequence[Flat], new: dict[Value, Value]) -> None:
    """One fused_table for `rows`, flat views of their operands before, of the results behind."""
    table = get_op("fused_table")
    args: list[Value] = []
    types: list[TensorType] = []
    with b.at(rows[-1].instr.loc):
        for row in rows:
            attrs: Any = row.instr.attrs
            length = TensorType(row.instr.results[0].type.dtype, attrs.space).size
            for which, is_scalar in row.operands:
                operand = row.instr.args[which]
                operand = new.get(operand, operand)
                args.append(b.reshape(operand, () if is_scalar else (length,)))
            types.extend(r.type.with_shape((length,)) for r in row.instr.results)
        made = b.emit_typed(
            table,
            args,
            table.attrs(count=len(rows)),  # type: ignore[call-arg]
            types,
            [_flat_region(rows[0])],
        )
        old = [r for row in rows for r in row.instr.results]
        for before, after in zip(old, made, strict=True):
            new[before] = b.reshape(after, before.type.shape)
