"""From clusters to regions: what each stores, what it computes again, and the new Function.

Clusters are visited from the last to the first, so that it is known which of a cluster's values
others need. A value of another cluster is read from memory, or computed again where the cost model
of `treadle.passes.recompute` finds that less: a few inexpensive instructions over arrays that exist
anyway. A cluster of which nobody needs a value any more, because all its users compute it again,
vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.op import ArrayData, get_op
from treadle.ir.types import Shape, reduced_shape
from treadle.passes.fuse_draws import is_number_of_draw
from treadle.passes.fuse_regions import MAX_CHEAP, Growth, is_cheap, is_check
from treadle.passes.fuse_shapes import is_fusible
from treadle.passes.manager import PassContext
from treadle.passes.recompute import (
    MIN_ELEMENTS,
    Recompute,
    bytes_of,
    elements,
    note_stored,
    total,
)

MAX_LEAVES = 4  # arrays that a value computed again may be computed from


@dataclass(frozen=True, slots=True)
class Plan:
    """One region: its instructions (numbers, in order), what it stores, and its space."""

    body: tuple[int, ...]
    outputs: tuple[Value, ...]
    space: Shape
    reduced: tuple[int, ...]


def build(growth: Growth, ctx: PassContext) -> Function:
    """The Function of regions, views and kernels; notes on neighbours that stayed apart."""
    selection = _Selection(growth, ctx)
    chosen = selection.choose()
    _note_refusals(growth, chosen, ctx)
    return _emit(growth, chosen)


# --- what is stored, what is computed again --------------------------------------------------


class _Selection:
    """The walk from the last cluster to the first."""

    def __init__(self, growth: Growth, ctx: PassContext) -> None:
        self.growth, self.ctx = growth, ctx
        self.fn = growth.fn
        self.outputs = set(growth.fn.outputs)
        self.needed: set[Value] = set()
        self.running: set[int] = set()
        self.finished = self._finished_anyway()
        self.readers = self._readers()
        self.written = self._written()
        self._finish_what_is_not_cheap()
        self.told: set[Value] = set()

    def choose(self) -> list[Plan | Instr]:
        """Regions and other instructions that are needed, in order."""
        graph, instrs = self.growth.graph, self.growth.instrs
        self.needed.update(self.outputs)
        chosen: list[Plan | Instr] = []
        for cluster in reversed(graph.clusters()):
            instr = instrs[cluster]
            if self.growth.cluster_of(cluster) is not None:
                plan = self._region(cluster)
                if plan is not None:
                    chosen.append(plan)
            elif self._is_scalar(instr):
                chosen.append(Plan((cluster,), instr.results, (), ()))
            elif instr_must_run(instr) or not self.needed.isdisjoint(instr.results):
                self.needed.update(instr.args)
                chosen.append(instr)
        chosen.reverse()
        return chosen

    def _is_scalar(self, instr: Instr) -> bool:
        """A constant of rank 0 that a result or a kernel needs in memory."""
        if instr.op.name != "const" or instr.result.type.rank > 0:
            return False
        return instr.result in self.needed

    def _finished_anyway(self) -> set[Value]:
        """Values that must be in memory whatever regions choose: results, operands of kernels."""
        finished: set[Value] = set(self.outputs)
        for instr in reversed(self.fn.instrs):
            is_view = instr.op.name == "reshape"
            if not is_fusible(instr) and (not is_view or instr.result in finished):
                finished.update(instr.args)
            finished.update(a for a in instr.args if is_number_of_draw(a, instr))
        return finished

    def _readers(self) -> dict[Value, set[int]]:
        """For each value the clusters that read it."""
        readers: dict[Value, set[int]] = {}
        for n, instr in enumerate(self.fn.instrs):
            for arg in instr.args:
                readers.setdefault(arg, set()).add(self.growth.graph.find(n))
        return readers

    def _written(self) -> dict[Value, int]:
        """For each state parameter, where its new value is computed."""
        new = {r.path: r.value for r in self.fn.results if r.kind == "state"}
        written = {}
        for param in self.fn.params:
            maker = self.growth.index.get(new[param.path]) if param.path in new else None
            if param.kind == "state" and maker is not None:
                written[param.value] = self.growth.graph.order(maker)
        return written

    def _finish_what_is_not_cheap(self) -> None:
        """Other clusters read what they cannot compute again, whatever else is decided."""
        find = self.growth.graph.find
        for n, instr in enumerate(self.fn.instrs):
            if not is_fusible(instr) or is_scalar_const(instr.result):
                continue
            others = self.readers.get(instr.result, set()) - {find(n)}
            if any(isinstance(self._makers(instr.result, c), str) for c in others):
                self.finished.add(instr.result)

    def _region(self, cluster: int) -> Plan | None:
        members = sorted(self.growth.graph.members[cluster])
        outputs = self._results_of(members, self.needed)
        body = self._body(cluster, set(members), outputs)
        checks = [n for n in members if n not in body and self._must_run(n)]
        if checks:  # nothing that is needed leads over them
            alone = {r for n in checks for r in self.growth.instrs[n].results}
            outputs = self._results_of(members, self.needed | alone)
            body = self._body(cluster, set(members), outputs)
        if not outputs:
            return None
        self.running |= body
        what = self.growth.clusters[cluster]
        return Plan(tuple(sorted(body)), tuple(outputs), what.space, what.reduced)

    def _results_of(self, members: Sequence[int], wanted: set[Value]) -> list[Value]:
        return [r for n in members for r in self.growth.instrs[n].results if r in wanted]

    def _must_run(self, n: int) -> bool:
        """Whether instruction `n` can fail, and no later region runs it already."""
        instr = self.growth.instrs[n]
        return instr_must_run(instr) and n not in self.running

    def _body(self, cluster: int, members: set[int], outputs: Sequence[Value]) -> set[int]:
        """The instructions that compute `outputs`; operands from memory become needed."""
        index, instrs = self.growth.index, self.growth.instrs
        body = {index[v] for v in outputs}
        work = list(body)
        while work:
            for arg in instrs[work.pop()].args:
                maker = index.get(arg)
                if maker is None or maker in body:
                    continue
                inside = maker in members or is_scalar_const(arg)
                again = [maker] if inside else self._computed_again(arg, cluster)
                if again is None:
                    self.needed.add(arg)
                    continue
                work.extend(n for n in again if n not in body)
                body.update(again)
        return body

    def _computed_again(self, value: Value, cluster: int) -> list[int] | None:
        """The instructions that compute `value` inside `cluster` too; None: read it instead."""
        if self._is_finished(value):
            self._tell(value, cluster)
            return None
        found = self._makers(value, cluster)
        if isinstance(found, str):
            return None
        makers, leaves = found
        if elements(value.type) < MIN_ELEMENTS:
            return makers if self._is_worth_it(value, leaves, cluster) else None
        weighed = self._weighed(value, makers, leaves, cluster)
        weighed.note(self.ctx)
        return makers if weighed.against is None else None

    def _tell(self, value: Value, cluster: int) -> None:
        """Note why a value that an earlier region stores for `cluster` is not computed again."""
        maker = self.growth.index.get(value)
        if maker is None or value in self.told or not is_fusible(self.growth.instrs[maker]):
            return
        self.told.add(value)
        why = self._makers(value, cluster)
        if isinstance(why, str):
            note_stored(self.ctx, value, why)

    def _makers(self, value: Value, cluster: int) -> tuple[list[int], set[Value]] | str:
        """The instructions that compute `value` inside `cluster` from values that are in memory,
        and these values; or why there are none."""
        found: dict[int, None] = {}
        leaves: set[Value] = set()
        work = [value]
        while work:
            here = work.pop()
            maker = self.growth.index.get(here)
            if is_scalar_const(here) or maker in found:
                continue
            if here is not value and (self._is_finished(here) or self._is_small(here, value)):
                leaves.add(here)
                continue
            if maker is None or not self._is_cheap(maker, cluster):
                name = here.producer.op.name if here.producer is not None else "a parameter"
                return f"{name} is not computed twice"
            found[maker] = None
            if len(found) > MAX_CHEAP:
                return f"it takes more than {MAX_CHEAP} operations"
            work.extend(self.growth.instrs[maker].args)
        return list(found), leaves

    def _weighed(
        self, value: Value, makers: Sequence[int], leaves: set[Value], cluster: int
    ) -> Recompute:
        """What it costs to compute `value` again in `cluster` from `leaves`."""
        readers = self.readers[value]
        extra = [v for v in leaves if cluster not in self.readers.get(v, ())]
        size = bytes_of(value.type)
        saved = size + size // len(readers)  # each of the readers saves its part of the write
        if self._vanishes(value, cluster):
            home = self.growth.graph.find(self.growth.index[value])
            saved += total([v for v in leaves if home in self.readers[v]])
        kept = [v for v in extra if self._lives_longer(v, cluster)]
        instrs = tuple(self.growth.instrs[n] for n in makers)
        return Recompute(value, instrs, 1, saved, total(extra), total(kept))

    def _vanishes(self, value: Value, cluster: int) -> bool:
        """Is `value`, and that for `cluster`, all that its own cluster is there for?"""
        graph, instrs = self.growth.graph, self.growth.instrs
        home = graph.find(self.growth.index[value])
        if self.readers[value] != {cluster}:
            return False
        others = (instrs[n].result for n in graph.members[home] if instrs[n].result is not value)
        return all(self.readers.get(v, set()) <= {home} and v not in self.needed for v in others)

    def _lives_longer(self, value: Value, cluster: int) -> bool:
        """Would `value` stay in memory longer than before, if `cluster` read it?"""
        here = self.growth.graph.order(cluster)
        if value in self.written:
            return self.written[value] < here  # its buffer could not take the new state
        if value.producer is None or value in self.outputs:
            return False
        order = self.growth.graph.order
        return all(order(c) < here for c in self.readers.get(value, ()))

    def _is_cheap(self, maker: int, cluster: int) -> bool:
        instr = self.growth.instrs[maker]
        if is_check(instr):
            return self.readers.get(instr.result) == {cluster}
        return is_cheap(instr)

    def _is_finished(self, value: Value) -> bool:
        """In memory in any case."""
        maker = self.growth.index.get(value)
        if maker is None or value in self.needed or value in self.finished:
            return True
        return not is_fusible(self.growth.instrs[maker])

    def _is_small(self, value: Value, beside: Value) -> bool:
        """A scalar of a row, which its region can store at no cost beside a value of the space."""
        what = self.growth.cluster_of(self.growth.index[value])
        if what is None or not what.reduced:
            return False
        kept = reduced_shape(what.space, what.reduced, keepdims=True)
        return value.type.shape == kept and elements(value.type) * 8 <= elements(beside.type)

    def _is_worth_it(self, value: Value, leaves: set[Value], cluster: int) -> bool:
        """Does reading `leaves` instead cost no more than storing and reading `value`, which is so
        small that kernels count, not bytes?"""
        large = elements(value.type)
        extra = [
            v
            for v in leaves
            if elements(v.type) * 2 > large and cluster not in self.readers.get(v, ())
        ]
        if any(elements(v.type) > large for v in extra):
            return False
        alone = self.readers.get(value) == {cluster}
        return len(leaves) <= MAX_LEAVES and len(extra) <= (2 if alone else 1)


def is_scalar_const(value: Value) -> bool:
    """A constant that stands inside regions."""
    maker = value.producer
    return maker is not None and maker.op.name == "const" and scalar_const(maker) is not None


def scalar_const(instr: Instr) -> ArrayData | None:
    """The one element of a constant whose elements are all the same, bit for bit."""
    if instr.op.name != "const":
        return None
    attrs: Any = instr.attrs
    data: ArrayData = attrs.data
    size = data.dtype.itemsize
    count = len(data.data) // size
    if count == 0 or data.data != data.data[:size] * count:
        return None
    return ArrayData(data.dtype, (), data.data[:size])


# --- notes -----------------------------------------------------------------------------------


def _note_refusals(growth: Growth, chosen: Sequence[Plan | Instr], ctx: PassContext) -> None:
    """Why two neighbours did not fuse, where both are there and one reads the other's buffer."""
    home = {n: plan for plan in chosen if isinstance(plan, Plan) for n in plan.body}
    told: set[tuple[str, str, str]] = set()
    for (a, b), why in sorted(growth.refused.items(), key=lambda item: item[0][::-1]):
        maker, user = growth.instrs[a], growth.instrs[b]
        plan = home.get(b)
        if plan is None or a in plan.body or growth.graph.find(a) == growth.graph.find(b):
            continue
        text = f"{maker.op.name} and {user.op.name}: {why}"
        key = (str(maker.loc), str(user.loc), text)
        if key not in told:
            told.add(key)
            ctx.reason("not fused", user.loc, text, user.op.name)


# --- the new Function ------------------------------------------------------------------------


def _emit(growth: Growth, chosen: Sequence[Plan | Instr]) -> Function:
    fn = growth.fn
    b = Builder(fn.name)
    for param in fn.params:
        b.keep_param(param)
    new: dict[Value, Value] = {}
    for item in chosen:
        if isinstance(item, Plan):
            _emit_region(b, growth, item, new)
            continue
        results = b.rebuild(item, [new.get(a, a) for a in item.args])
        new.update(zip(item.results, results, strict=True))
    return b.finish([Result(new.get(r.value, r.value), r.path, r.kind) for r in fn.results])


def _emit_region(b: Builder, growth: Growth, plan: Plan, new: dict[Value, Value]) -> None:
    instrs = [growth.instrs[n] for n in plan.body]
    region, operands = _region(instrs, plan.outputs)
    fused = get_op("fused")
    attrs = fused.attrs(space=plan.space, reduced=plan.reduced)  # type: ignore[call-arg]
    maker = plan.outputs[-1].producer
    with b.at(maker.loc if maker is not None else None):
        results = b.emit_typed(
            fused,
            [new.get(v, v) for v in operands],
            attrs,
            [v.type for v in plan.outputs],
            [region],
        )
    new.update(zip(plan.outputs, results, strict=True))


def _region(instrs: Sequence[Instr], outputs: Sequence[Value]) -> tuple[Function, list[Value]]:
    """The region of `instrs`, and the outer values that it takes, in order of their first use."""
    inner = Builder(_name(instrs))
    inside: dict[Value, Value] = {}
    operands: list[Value] = []
    made = {r for i in instrs for r in i.results}
    for instr in instrs:
        for arg in instr.args:
            if arg not in made and arg not in inside and not is_scalar_const(arg):
                inside[arg] = inner.param(arg.type, f"p{len(operands)}")
                operands.append(arg)
    for instr in instrs:
        with inner.at(instr.loc):
            if instr.op.name == "const":
                inside[instr.result] = _constant(inner, instr)
                continue
            args = [inside[a] for a in instr.args]
            results = inner.emit_typed(instr.op, args, instr.attrs, [r.type for r in instr.results])
            inside.update(zip(instr.results, results, strict=True))
    results_inside = [Result(inside[v], f"r{n}") for n, v in enumerate(outputs)]
    return inner.finish(results_inside), operands


def _constant(inner: Builder, instr: Instr) -> Value:
    data = scalar_const(instr)
    assert data is not None, "only constants of one element are copied into regions"
    scalar = inner.call("const", data=data)
    return inner.broadcast_to(scalar, instr.result.type.shape)


def _name(instrs: Sequence[Instr]) -> str:
    """Says what is inside: the names of its first ops."""
    names = list(dict.fromkeys(i.op.name for i in instrs if i.op.name != "const"))
    plain = [n for n in names if n not in ("broadcast_to", "cast")] or names
    return "_".join(plain[:4]) or "const"
