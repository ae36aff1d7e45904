"""A whole function as one LLVM module: kernels, and the entry that calls them in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from treadle.codegen.abi import ENTRY, Buffers, entry_function
from treadle.codegen.emission import Emission, FaultSite
from treadle.codegen.kernels import emit_kernel, table_columns, table_rows
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Module, Val, int_const
from treadle.codegen.plan import KernelPlan, Plan, TablePlan
from treadle.codegen.target import Target
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.memory import MemoryPlan
from treadle.ir.op import ArrayData

__all__ = ["Emitted", "FaultSite", "emit_module"]

_ALIGN = 64


class Options(Protocol):
    """What a `jit` may ask of code generation."""

    @property
    def reassociate(self) -> bool: ...
    @property
    def contract(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Emitted:
    """A module's text and what a call must bring: `workspace` bytes (kernels' scratch included),
    the arrays of `constants`, in order. `faults`: what a returned site number means."""

    ir: str
    entry: str
    workspace: int
    constants: tuple[ArrayData, ...]
    faults: tuple[FaultSite, ...]


def emit_module(
    fn: Function, memory: MemoryPlan, plan: Plan, target: Target, options: Options
) -> Emitted:
    """LLVM IR for a KERNELS-level function with its memory plan and kernel plan."""
    state = Emission(Module(target), target, options.reassociate, options.contract)
    constants = _constants(fn, memory)
    w = entry_function(state.module)
    calls = _Calls(state, w, Buffers(w, fn, memory, len(constants)), fn, memory)
    w.store(w.int(0), w.args[1])
    checked = False
    for kernel in plan.kernels:
        if kernel.instr > memory.fault_barrier and not checked:
            checked = _check(state, w)
        calls.call(kernel)
    if not checked:
        _check(state, w)
    calls.copies()
    w.ret(0)
    workspace = calls.scratch_at + plan.scratch
    return Emitted(str(state.module), ENTRY, workspace, constants, tuple(state.faults))


def _constants(fn: Function, memory: MemoryPlan) -> tuple[ArrayData, ...]:
    """The constant arrays in the order in which the memory plan numbers them."""
    found: dict[int, ArrayData] = {}
    for instr in fn.instrs:
        if instr.op.name == "const" and instr.result in memory.places:
            found[memory.places[instr.result].index] = cast(Any, instr.attrs).data
    return tuple(found[n] for n in range(len(found)))


def _check(state: Emission, w: FunctionWriter) -> bool:
    """Return at once where a fault is recorded."""
    if state.faults:
        site = w.load(I64, w.args[1])
        bad = w.new_block("fault")
        go_on = w.new_block("no_fault")
        w.cond_br(w.icmp("ne", site, 0), bad, go_on, unlikely=True)
        w.start(bad)
        w.ret(site)
        w.start(go_on)
    return True


class _Calls:
    """Writes the entry's calls."""

    def __init__(
        self, state: Emission, w: FunctionWriter, buffers: Buffers, fn: Function, memory: MemoryPlan
    ) -> None:
        self.state, self.w, self.buffers = state, w, buffers
        self.fn, self.memory = fn, memory
        self.scratch_at = -(-memory.workspace // _ALIGN) * _ALIGN

    def _address(self, value: Value) -> Val:
        return self.buffers.address(self.memory.places[value])

    def call(self, kernel: KernelPlan) -> None:
        """One kernel, with the user's lines above it."""
        w, instr = self.w, self.fn.instrs[kernel.instr]
        name = emit_kernel(self.state, instr, kernel, self.memory.places)
        lines = ", ".join(str(x) for x in kernel.lines)
        w.comment(f"{kernel.name}" + (f": {lines}" if lines else ""))
        scratch = self.buffers.workspace(self.scratch_at)
        if isinstance(kernel.body, TablePlan):
            operands: Sequence[Val] = [self._table(instr, kernel.body)]
        else:
            operands = [self._address(v) for v in (*instr.args, *instr.results)]
        w.call(name, VOID, [*operands, scratch, w.args[1]])

    def _table(self, instr: Instr, plan: TablePlan) -> Val:
        """The table on the stack: for each instance its length and the addresses of its buffers."""
        w, columns = self.w, table_columns(instr)
        table = w.alloca(I64, columns * plan.count)
        for i, (length, values) in enumerate(zip(plan.lengths, table_rows(instr), strict=True)):
            w.store(w.int(length), w.gep(table, i * columns, I64))
            for k, value in enumerate(values):
                place = w.gep(table, i * columns + 1 + k, PTR)
                w.store(self._address(value), place, align=8)
        return table

    def copies(self) -> None:
        """Results that must not share memory with what they are equal to."""
        params = len(self.fn.params)
        for copy in self.memory.copies:
            to = self.buffers.pointer(params + copy.result)
            nbytes = self.w.int(copy.value.type.nbytes)
            args = (to, self._address(copy.value), nbytes, int_const(0, I1))
            self.w.external("llvm.memcpy.p0.p0.i64", VOID, args)
