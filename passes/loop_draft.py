"""A scan that is being changed: its parts as lists, from which a new one is made.

Values inside and outside are kept apart: an operand stands beside its parameter, a result beside
what the region gives. `inside` says which value of the region stands for another one now, `outside`
which value of the program stands for a result of the old scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from treadle.ir.builder import Builder
from treadle.ir.control import (
    has_effect,
    instr_must_run,
    operands,
    params,
    results,
    scan_attrs,
    stacked_type,
)
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.ops.control import ScanAttrs
from treadle.ir.types import TensorType, int64
from treadle.passes.inline import emit_copy


@dataclass(slots=True)
class Taken:
    """An operand (const or array) with its parameter."""

    operand: Value
    param: Value


@dataclass(slots=True)
class Carried:
    """A carry: first content, parameter, what a step makes of it, the old scan's result."""

    init: Value
    param: Value
    out: Value
    result: Value | None


@dataclass(slots=True)
class Row:
    """A row that a step gives, and the old scan's result."""

    value: Value
    result: Value | None


class Draft:
    """The parts of one scan."""

    def __init__(self, instr: Instr, args: Sequence[Value]) -> None:
        self.instr = instr
        self.a = a = scan_attrs(instr)
        (self.region,) = instr.regions
        given, inside = operands(a, args), params(a, self.region.inputs)
        made, out = results(a, self.region.outputs), results(a, instr.results)
        self.steps = given.steps
        self.consts = [Taken(o, p) for o, p in zip(given.consts, inside.consts, strict=True)]
        self.arrays = [Taken(o, p) for o, p in zip(given.arrays, inside.arrays, strict=True)]
        zipped = zip(given.carries, inside.carries, made.carries, out.carries, strict=True)
        self.carries = [Carried(*parts) for parts in zipped]
        self.rows = [Row(v, r) for v, r in zip(made.arrays, out.arrays, strict=True)]
        self.go_on, self.done = made.first, out.first
        self.instrs = list(self.region.instrs)
        self.names = {p.value: p.path for p in self.region.params}
        self.inside: dict[Value, Value] = {}
        self.outside: dict[Value, Value] = {}
        self.changed = False

    @property
    def fixed(self) -> bool:
        """Do all steps run?"""
        return not (self.a.steps or self.a.until) and self.a.length is not None

    @property
    def length(self) -> int:
        assert self.a.length is not None
        return self.a.length

    def of(self, value: Value) -> Value:
        """What stands for `value` inside."""
        while value in self.inside:
            value = self.inside[value]
        return value

    def replace(self, old: Value, new: Value) -> None:
        """Inside, `new` stands for `old`."""
        self.changed = True
        self.inside[old] = new

    def const(self, operand: Value, name: str) -> Value:
        """The parameter for a value of the program around."""
        for taken in self.consts:
            if taken.operand is operand:
                return taken.param
        self.changed = True
        param = Value(operand.type)
        self.consts.append(Taken(operand, param))
        self.names[param] = name
        return param

    def array(self, operand: Value, name: str) -> Value:
        """The parameter for the rows of an array of the program around."""
        for taken in self.arrays:
            if taken.operand is operand:
                return taken.param
        self.changed = True
        param = Value(TensorType(operand.type.dtype, operand.type.shape[1:]))
        self.arrays.append(Taken(operand, param))
        self.names[param] = name
        return param

    def users(self) -> dict[Value, int]:
        """How often each value is used inside, by instructions and results."""
        count: dict[Value, int] = {}
        for instr in self.instrs:
            for arg in instr.args:
                arg = self.of(arg)
                count[arg] = count.get(arg, 0) + 1
        for value in self.ends():
            count[value] = count.get(value, 0) + 1
        return count

    def ends(self) -> list[Value]:
        """What the region gives."""
        first = [] if self.go_on is None else [self.go_on]
        listed = [*first, *(c.out for c in self.carries), *(r.value for r in self.rows)]
        return [self.of(v) for v in listed]

    # --- what nobody needs -------------------------------------------------------------------

    def sweep(self) -> None:
        """Leave out instructions that nothing needs, and parameters that nothing reads."""
        needed = set(self.ends())
        live: list[Instr] = []
        for instr in reversed(self.instrs):
            keep = has_effect(instr) or instr_must_run(instr)
            if keep or not needed.isdisjoint(instr.results):
                live.append(instr)
                needed.update(self.of(a) for a in instr.args)
            else:
                self.changed = True
        live.reverse()
        self.instrs = live
        for taken in (self.consts, self.arrays):
            kept = [t for t in taken if t.param in needed]
            self.changed |= len(kept) < len(taken)
            taken[:] = kept

    # --- out ---------------------------------------------------------------------------------

    def finish(self, b: Builder) -> None:
        """Emit the new scan; `outside` then knows all results of the old one."""
        first = [] if self.done is None else [TensorType(int64)]
        ends = self.ends()
        region = self._region(ends)
        attrs = ScanAttrs(
            len(self.consts), len(self.carries), self.a.length, self.a.reverse,
            self.steps is not None, self.a.until,
        )  # fmt: skip
        args = [] if self.steps is None else [self.steps]
        args += [t.operand for t in self.consts]
        args += [c.init for c in self.carries]
        args += [t.operand for t in self.arrays]
        types = [*first, *(c.init.type for c in self.carries)]
        types += [stacked_type(row.value.type, self.length) for row in self.rows]
        with b.at(self.instr.loc):
            made = b.emit_typed(self.instr.op, args, attrs, types, [region])
        old = [] if self.done is None else [self.done]
        listed: list[Value | None] = [*old, *(c.result for c in self.carries)]
        listed += [r.result for r in self.rows]
        for before, after in zip(listed, made, strict=True):
            if before is not None:
                self.outside[before] = after
        self.made = made

    def _region(self, ends: Sequence[Value]) -> Function:
        """With values of its own, in the order of operands."""
        inner = Builder(self.region.name)
        known: dict[Value, Value] = {}
        used: set[str] = set()
        order: Iterable[Value] = (
            *(t.param for t in self.consts),
            *(c.param for c in self.carries),
            *(t.param for t in self.arrays),
        )
        for param in order:
            name = unused(self.names.get(param, "p"), used)
            known[param] = inner.param(param.type, name)
        for instr in self.instrs:
            for arg in instr.args:
                if arg in self.inside:
                    known[arg] = known[self.of(arg)]
            emit_copy(inner, instr, known)
        paths = {r.value: r.path for r in self.region.results}
        names = [paths.get(v, f"row {n}") for n, v in enumerate(ends)]
        outs = [Result(known[v], n) for v, n in zip(ends, names, strict=True)]
        return inner.finish(outs)


def unused(name: str, used: set[str]) -> str:
    """`name`, with a number where it is in `used`, to which it is added."""
    found, count = name, 1
    while found in used:
        found, count = f"{name} {count}", count + 1
    used.add(found)
    return found
