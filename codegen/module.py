"""A whole function as one LLVM module: kernels, and the entry that calls them in order."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Protocol, cast

from treadle.codegen.abi import CONTEXT_FIELDS, ENTRY, Buffers, Context, entry_function
from treadle.codegen.emission import Emission, FaultSite, run_tiles
from treadle.codegen.faults import step_record
from treadle.codegen.kernels import emit_kernel, operand_count, table_columns, table_rows
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Module, Val, int_const
from treadle.codegen.operands import FEW, Operands
from treadle.codegen.plan import KernelPlan, Plan, TablePlan
from treadle.codegen.stamps import Stamps
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.memory import MemoryPlan, Place
from treadle.ir.op import ArrayData

__all__ = ["Emitted", "FaultSite", "emit_module"]

_ALIGN = 64


class Options(Protocol):
    """What a `jit` may ask of code generation."""

    @property
    def reassociate(self) -> bool: ...
    @property
    def contract(self) -> bool: ...
    @property
    def profile(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Emitted:
    """A module's text and what a call must bring: `workspace` bytes and after them `scratch` bytes
    for each thread, the arrays of `constants`, in order. `faults`: what a returned site number
    means. `parallel`: whether more than one thread can be of use. `functions`: of each kernel, the
    function in the module that runs it; equal kernels share one."""

    ir: str
    entry: str
    workspace: int
    scratch: int
    parallel: bool
    constants: tuple[ArrayData, ...]
    faults: tuple[FaultSite, ...]
    functions: tuple[str, ...] = ()


def emit_module(
    fn: Function, memory: MemoryPlan, plan: Plan, target: Target, options: Options
) -> Emitted:
    """LLVM IR for a KERNELS-level function with its memory plan and kernel plan."""
    state = Emission(Module(target), target, options.reassociate, options.contract)
    constants = _constants(fn, memory)
    w = entry_function(state.module)
    buffers = Buffers(w, fn, memory, len(constants))
    calls = _Calls(state, w, buffers, fn, memory, plan, options.profile)
    checked = False
    for kernel in plan.kernels:
        if kernel.instr > memory.fault_barrier and not checked:
            checked = calls.check()
        calls.call(kernel)
    if not checked:
        calls.check()
    calls.copies()
    calls.operands.finish()
    if calls.stamps is not None:
        calls.stamps.end()
    w.store(w.int(0), w.args[1])  # done: tells a caller who was interrupted just after
    w.ret(0)
    parallel = any(k.parallel for k in plan.kernels)
    workspace = calls.scratch_at + plan.shared
    text = str(state.module)
    faults = tuple(state.faults)
    functions = tuple(calls.functions)
    return Emitted(text, ENTRY, workspace, plan.scratch, parallel, constants, faults, functions)


def _constants(fn: Function, memory: MemoryPlan) -> tuple[ArrayData, ...]:
    """The constant arrays in the order in which the memory plan numbers them."""
    found: dict[int, ArrayData] = {}
    for instr in fn.instrs:
        if instr.op.name == "const" and instr.result in memory.places:
            found[memory.places[instr.result].index] = cast(Any, instr.attrs).data
    return tuple(found[n] for n in range(len(found)))


class _Calls:
    """Writes the entry's calls."""

    def __init__(
        self,
        state: Emission,
        w: FunctionWriter,
        buffers: Buffers,
        fn: Function,
        memory: MemoryPlan,
        plan: Plan,
        profile: bool,
    ) -> None:
        self.state, self.w, self.buffers = state, w, buffers
        self.functions: list[str] = []
        self.written: dict[str, str] = {}  # the function of each kernel whose code is its own
        self.fn, self.memory, self.plan = fn, memory, plan
        self.scratch_at = -(-memory.workspace // _ALIGN) * _ALIGN
        self.fault = step_record(w)
        # One context serves all kernels: the next is filled when every tile of the last is done.
        counts = [operand_count(fn.instrs[k.instr], k) for k in plan.kernels]
        most = max(counts, default=0)
        self.ctx = Context(w, w.alloca(PTR, CONTEXT_FIELDS + most + profile))
        shared = buffers.workspace(self.scratch_at)
        own = buffers.workspace(self.scratch_at + plan.shared)
        for n, field in enumerate((shared, own, self.fault, *buffers.pool())):
            w.store(field, self.ctx.address(n), align=8)
        total = sum(counts) + sum(
            table_columns(fn.instrs[k.instr]) * k.body.count
            for k in plan.kernels
            if isinstance(k.body, TablePlan)
        )
        self.operands = Operands(state, w, buffers, many=total > FEW)
        self.first = self.ctx.address(CONTEXT_FIELDS)  # where a kernel's operands begin
        self.stamps: Stamps | None = None
        if profile:
            last = CONTEXT_FIELDS + most
            self.stamps = Stamps(state, w, plan, buffers.stamps(), self.ctx, last)
            self.stamps.begin()

    def check(self) -> bool:
        """Return at once where a fault is recorded."""
        w = self.w
        if self.state.faults:
            site = w.load(I64, self.fault)
            bad = w.new_block("fault")
            go_on = w.new_block("no_fault")
            w.cond_br(w.icmp("ne", site, 0), bad, go_on, unlikely=True)
            w.start(bad)
            w.store(site, w.args[1])
            w.store(w.load(I64, w.gep(self.fault, 1, I64)), w.gep(w.args[1], 1, I64))
            w.ret(site)
            w.start(go_on)
        return True

    def _address(self, value: Value) -> Val:
        return self.buffers.address(self.memory.places[value])

    def call(self, kernel: KernelPlan) -> None:
        """One kernel, with the user's lines above it."""
        w, instr = self.w, self.fn.instrs[kernel.instr]
        name = self._code(instr, kernel)
        self.functions.append(name)
        lines = ", ".join(str(x) for x in kernel.lines)
        w.comment(f"{kernel.name}" + (f": {lines}" if lines else ""))
        if isinstance(kernel.body, TablePlan):
            w.store(self._table(instr, kernel.body), self.first, align=8)
        else:
            places = [self.memory.places[v] for v in (*instr.args, *instr.results)]
            self.operands.write(self.first, places)
        with nullcontext() if self.stamps is None else self.stamps.around(kernel):
            self._run(name, kernel)

    def _code(self, instr: Instr, kernel: KernelPlan) -> str:
        """The name of the function that runs the kernel, written where no earlier one will do."""
        if kernel.code not in self.written:
            places, scratch = self.memory.places, self.plan.scratch
            self.written[kernel.code] = emit_kernel(self.state, instr, kernel, places, scratch)
        return self.written[kernel.code]

    def _run(self, name: str, kernel: KernelPlan) -> None:
        """All tiles of a kernel, whose operands are in the context."""
        w = self.w
        if kernel.tiles == 1:
            w.call(name, VOID, [self.ctx.base, w.int(0), w.int(0)])
            return
        if self.stamps is not None:
            name = self.stamps.tile_function(name, kernel)
        fn, tiles = Val(f"@{name}", PTR), w.int(kernel.tiles)
        pool, threads = self.ctx.pool()
        run_tiles(self.state, w, pool, fn, self.ctx.base, tiles, threads)

    def _table(self, instr: Instr, plan: TablePlan) -> Val:
        """The table on the stack: for each instance its length, its place in the line of all of
        them, and the addresses of its buffers."""
        table = self.w.alloca(I64, table_columns(instr) * plan.count)
        entries: list[Place | int] = []
        for i, values in enumerate(table_rows(instr)):
            entries += (plan.lengths[i], plan.places[i], *(self.memory.places[v] for v in values))
        self.operands.write(table, entries)
        return table

    def copies(self) -> None:
        """Results that must not share memory with what they are equal to."""
        params = len(self.fn.params)
        for copy in self.memory.copies:
            to = self.buffers.pointer(params + copy.result)
            nbytes = self.w.int(copy.value.type.nbytes)
            args = (to, self._address(copy.value), nbytes, int_const(0, I1))
            self.w.external("llvm.memcpy.p0.p0.i64", VOID, args)
