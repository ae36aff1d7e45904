"""The memory plan: where each value of a KERNELS-level Function lives, decided before any run.

    value  type        bytes  place         live
    %0     f32[8, 4]   128    param 0       -      x
    %3     f32[8, 4]   128    workspace+0   0..2
    %4     f32[8, 4]   128    result 0      2..

Results are written where the caller wants them; a value in between gets a piece of one workspace
from the instruction that makes it to its last use, the smallest free piece that holds it. A pure
map may write over an operand that it reads at the same index and nobody needs afterwards. Views
(reshape) share the place of what they view.

New state is written over the old where that cannot be noticed: every other reader of the old value
ran before, and the write comes after the fault barrier, the last instruction that can fault, so
that a failed call leaves all state as it was. Otherwise the new state gets a buffer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from treadle.ir.control import instr_can_fail, is_control
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.memory import ControlMemory, Copy, MemoryPlan, Place
from treadle.ir.printer import value_names
from treadle.ir.regions import reads_at_point
from treadle.passes.control_memory import plan_control

ALIGN = 64  # bytes: one cache line, one AVX-512 vector
_ELSEWHERE = -1
_ADDRESSED = frozenset({"scatter", "scatter_add", "add_along"})  # write into their first operand


def plan_memory(fn: Function) -> MemoryPlan:
    """The plan of `fn`, a Function at level KERNELS with fixed shapes.

    Raises ShapeError where a shape is symbolic.
    """
    return _Planner(fn).plan()


def fault_barrier(fn: Function) -> int:
    """The number of the last instruction that can fault, in itself or in its region; -1: none."""
    for n in range(len(fn.instrs) - 1, -1, -1):
        if can_fault(fn.instrs[n]):
            return n
    return -1


def can_fault(instr: Instr) -> bool:
    """Can a run of `instr` set the fault record?"""
    return instr_can_fail(instr)


@dataclass(slots=True)
class _Life:
    """When a buffer is written and read: numbers of instructions; params begin at -1."""

    start: int
    end: int


class _Planner:
    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.roots = _roots(fn)
        self.barrier = fault_barrier(fn)
        self.places: dict[Value, Place] = {}
        self.copies: list[Copy] = []
        self.in_place: list[tuple[int, int]] = []
        self.inner: dict[Instr, ControlMemory] = {}
        self.life = self._lives()
        self._pointwise: tuple[Instr, Mapping[Value, int]] | None = None

    def plan(self) -> MemoryPlan:
        self._place_fixed()
        self._place_results()
        free = _FreeList()
        busiest = self._place_workspace(free)
        for value, root in self.roots.items():
            if root in self.places:
                self.places[value] = self.places[root]
        shared = {result for _, result in self.in_place}
        outside = sum(p.value.type.nbytes for p in self.fn.params) + sum(
            r.value.type.nbytes for j, r in enumerate(self.fn.results) if j not in shared
        )
        return MemoryPlan(
            self.places,
            free.top,
            tuple(self.in_place),
            tuple(self.copies),
            self.barrier,
            outside + busiest,
            self.inner,
        )

    def _lives(self) -> dict[Value, _Life]:
        life = {v: _Life(-1, -1) for v in self.fn.inputs}
        for n, instr in enumerate(self.fn.instrs):
            if _is_view(instr):
                continue
            for arg in instr.args:
                life[self.roots[arg]].end = n
            for result in instr.results:
                life[result] = _Life(n, n)
        for value in self.fn.outputs:
            life[self.roots[value]].end = len(self.fn.instrs)
        return life

    def _place_fixed(self) -> None:
        for n, value in enumerate(self.fn.inputs):
            self.places[value] = Place("param", n)
        constants = [i.result for i in self.fn.instrs if i.op.name == "const"]
        for n, value in enumerate(constants):
            self.places[value] = Place("const", n)

    # --- results -----------------------------------------------------------------------------

    def _place_results(self) -> None:
        """Who writes each result's buffer: its instruction, or a copy at the end."""
        states = {p.path: n for n, p in enumerate(self.fn.params) if p.kind == "state"}
        direct: list[tuple[int, Value]] = []
        for j, result in enumerate(self.fn.results):
            root = self.roots[result.value]
            state = states.get(result.path) if result.kind == "state" else None
            fits = state is not None and result.value.type == self.fn.params[state].value.type
            if state is not None and fits and root is self.fn.params[state].value:
                self.in_place.append((state, j))  # unchanged: the buffer is the result already
            elif root in self.places:
                self.copies.append(Copy(result.value, j))
            else:
                self.places[root] = Place("result", j)
                direct.append((j, root))
        copied = {self.roots[c.value] for c in self.copies}
        for j, root in direct:
            result = self.fn.results[j]
            state = states.get(result.path) if result.kind == "state" else None
            # The array, with its shape and dtype, stays the parameter's: equal sizes do not do.
            if state is None or result.value.type != self.fn.params[state].value.type:
                continue
            if self._overwrites_safely(root, state, copied):
                self.in_place.append((state, j))
        taken = {j for _, j in self.in_place}
        for j, root in direct:
            if j not in taken:
                self._begin_in(self.places[root], root)

    def _begin_in(self, place: Place, result: Value) -> None:
        """What is written into, and made for that alone (a gradient's zeros), is made where the
        result shall lie. A fresh buffer of a result may be written at any time."""
        writer = result.producer
        while writer is not None and writer.op.name in _ADDRESSED:
            old = self.roots[writer.args[0]]
            begins = self._reads_where_it_writes(writer, result, old)
            ends = self.life[old].end == self.life[result].start
            if old in self.places or not (begins and ends):
                return
            self.places[old] = place
            result, writer = old, old.producer

    def _overwrites_safely(self, new: Value, state: int, copied: set[Value]) -> bool:
        """May `new` be written over the buffer of state parameter `state`?"""
        old = self.fn.params[state].value
        writer = self.life[new].start
        if writer <= self.barrier or old in copied:
            return False
        if self.life[old].end < writer:
            return True
        if self.life[old].end > writer:
            return False
        return self._reads_where_it_writes(self.fn.instrs[writer], new, old)

    # --- workspace ---------------------------------------------------------------------------

    def _place_workspace(self, free: _FreeList) -> int:
        """Places for all that is left, in order; returns the bytes live at the worst moment."""
        ends: dict[int, list[Value]] = {}
        live = busiest = 0
        for n, instr in enumerate(self.fn.instrs):
            if _is_view(instr) or instr.op.name == "const":
                continue
            block = self._control(instr, free) if is_control(instr) else None
            for result in instr.results:
                if result in self.places:
                    continue
                taken_over = self._dying_operand(n, instr, result, ends)
                if taken_over is not None:
                    self.places[result] = self.places[taken_over]
                    ends[n].remove(taken_over)
                    live -= taken_over.type.nbytes
                else:
                    offset = free.take(_padded(result.type.nbytes))
                    self.places[result] = Place("workspace", 0, offset)
                live += result.type.nbytes
                ends.setdefault(self.life[result].end, []).append(result)
            busiest = max(busiest, live + (block.size if block is not None else 0))
            if block is not None:
                free.give(block.offset, block.size)
            for value in ends.pop(n, ()):
                free.give(self.places[value].offset, _padded(value.type.nbytes))
                live -= value.type.nbytes
        return busiest

    def _control(self, instr: Instr, free: _FreeList) -> ControlMemory:
        """The regions' memory: a block that is free again when the instruction is done."""
        inner = plan_control(instr, plan_memory, _padded)
        self.inner[instr] = replace(inner, offset=free.take(inner.size))
        return self.inner[instr]

    def _dying_operand(
        self, n: int, instr: Instr, result: Value, ends: Mapping[int, list[Value]]
    ) -> Value | None:
        """A workspace operand that ends here and may be written over by `result`."""
        for old in ends.get(n, ()):
            fits = old.type.dtype == result.type.dtype and old.type.size == result.type.size
            if fits and self._reads_where_it_writes(instr, result, old):
                return old
        return None

    # --- in place ----------------------------------------------------------------------------

    def _reads_where_it_writes(self, instr: Instr, result: Value, old: Value) -> bool:
        """Does `instr` read the buffer `old` at the index only at which it writes `result`?"""
        if old.type.dtype != result.type.dtype:
            return False
        if self._pointwise is None or self._pointwise[0] is not instr:
            self._pointwise = instr, self._instances(instr)
        results = len(instr.regions[0].results) if instr.regions else 1
        return self._pointwise[1].get(old, _ELSEWHERE) == result.index // results

    def _instances(self, instr: Instr) -> dict[Value, int]:
        """For each buffer that `instr` reads at the point only, which instance reads it (0 but
        for a table). One that is read elsewhere too, or by two instances, is `_ELSEWHERE`."""
        found: dict[Value, int] = {}
        for n, instance in enumerate(_instance_of_operands(instr)):
            root = self.roots[instr.args[n]]
            found[root] = instance if found.get(root, instance) == instance else _ELSEWHERE
        return found


def _instance_of_operands(instr: Instr) -> list[int]:
    if instr.op.name == "fused_table":
        takes = max(len(instr.regions[0].params), 1)
        return [n // takes for n in range(len(instr.args))]
    attrs: Any = instr.attrs
    if instr.op.name in _ADDRESSED:
        return [0, *[_ELSEWHERE] * (len(instr.args) - 1)]
    if instr.op.name != "fused" or attrs.reduced:
        return [_ELSEWHERE] * len(instr.args)
    (region,) = instr.regions
    pulled = _pulled(region)
    return [_ELSEWHERE if v in pulled or v.type.shape != attrs.space else 0 for v in region.inputs]


def _pulled(region: Function) -> set[Value]:
    """Values of a pure map that are read at another index than the point's."""
    at_point = set(region.outputs)
    pulled: set[Value] = set()
    for inner in reversed(region.instrs):
        if not at_point.isdisjoint(inner.results):
            (at_point if reads_at_point(inner.op) else pulled).update(inner.args)
        if not pulled.isdisjoint(inner.results):
            pulled.update(inner.args)
    return pulled


def _roots(fn: Function) -> dict[Value, Value]:
    """For each value the one whose buffer it is: reshapes are views."""
    roots = {v: v for v in fn.inputs}
    for instr in fn.instrs:
        if _is_view(instr):
            roots[instr.result] = roots[instr.args[0]]
        else:
            roots.update((r, r) for r in instr.results)
    return roots


def _is_view(instr: Instr) -> bool:
    return instr.op.name == "reshape"


def _padded(nbytes: int) -> int:
    """A whole number of cache lines, at least one, so that every buffer has an address."""
    return max(-(-nbytes // ALIGN), 1) * ALIGN


class _FreeList:
    """Free pieces of the workspace, by offset, neighbours joined."""

    def __init__(self) -> None:
        self.top = 0
        self._pieces: dict[int, int] = {}  # offset -> size
        self._ends: dict[int, int] = {}  # end -> offset

    def take(self, size: int) -> int:
        """The smallest free piece that holds `size`; the end of the workspace grows if none."""
        best = min(((s, o) for o, s in self._pieces.items() if s >= size), default=None)
        if best is not None:
            found, offset = best
            self._remove(offset)
            if found > size:
                self._add(offset + size, found - size)
            return offset
        offset = self._ends.get(self.top, self.top)
        if offset != self.top:
            self._remove(offset)
        self.top = offset + size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Put a piece back."""
        before = self._ends.get(offset)
        if before is not None:
            size += self._pieces[before]
            self._remove(before)
            offset = before
        behind = self._pieces.get(offset + size)
        if behind is not None:
            self._remove(offset + size)
            size += behind
        self._add(offset, size)

    def _add(self, offset: int, size: int) -> None:
        self._pieces[offset] = size
        self._ends[offset + size] = offset

    def _remove(self, offset: int) -> None:
        del self._ends[offset + self._pieces.pop(offset)]


# --- the table -------------------------------------------------------------------------------


def print_memory(fn: Function, plan: MemoryPlan) -> str:
    """The plan as a table: value, type, bytes, place, the instructions between which it lives."""
    names = value_names(fn)
    rows = [("value", "type", "bytes", "place", "live", "")]
    rows += [
        (names[value], str(value.type), str(value.type.nbytes), place, live, remark)
        for value, place, live, remark in _rows(fn, plan)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines += [_inner_line(instr, inner) for instr, inner in plan.inner.items()]
    lines += [f"copy {names[c.value]} to result {c.result} at the end" for c in plan.copies]
    lines += [
        f"param {p} is result {r}: {fn.params[p].path!r} is updated in place"
        for p, r in plan.in_place
    ]
    barrier = "nothing can fault"
    if plan.fault_barrier >= 0:
        barrier = f"fault barrier after instruction {plan.fault_barrier}"
    lines.append(f"workspace {plan.workspace} bytes, peak {plan.peak} bytes, {barrier}")
    return "\n".join(line.rstrip() for line in lines)


def _inner_line(instr: Instr, inner: ControlMemory) -> str:
    """What a loop or branch uses again in each step."""
    text = f"{_label(instr)}: {inner.size} bytes at workspace+{inner.offset}"
    if instr.op.name != "scan":
        return text
    return f"{text}, carries {inner.carries}"


def _rows(fn: Function, plan: MemoryPlan) -> Iterator[tuple[Value, str, str, str]]:
    """(value, place, live range, remark) of every value that has memory."""
    planner = _Planner(fn)
    for param in fn.params:
        yield param.value, str(plan.places[param.value]), "-", param.path
    for instr in fn.instrs:
        for result in instr.results:
            place = str(plan.places[result])
            root = planner.roots[result]
            life = planner.life[root]
            end = "" if life.end == len(fn.instrs) else str(life.end)
            remark = "view" if _is_view(instr) else _label(instr)
            yield result, place, f"{life.start}..{end}", remark


def _label(instr: Instr) -> str:
    return " ".join([instr.op.name, *(r.name for r in instr.regions)])
