"""A whole function as one LLVM module: kernels, and the entry that calls them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, cast

from treadle.codegen.abi import CONTEXT_FIELDS, ENTRY, Buffers, Context, entry_function
from treadle.codegen.control import REGION_PARAMS, emit_control
from treadle.codegen.emission import Emission, FaultSite, HostCall, run_tiles
from treadle.codegen.faults import step_record
from treadle.codegen.kernels import emit_kernel, operand_count, table_columns, table_rows
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Module, Val, int_const
from treadle.codegen.operands import FEW, Operands
from treadle.codegen.plan import KernelPlan, Plan, TablePlan
from treadle.codegen.plan_control import ControlPlan
from treadle.codegen.stamps import Stamps
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.host import calls_host, has_host_calls
from treadle.ir.memory import MemoryPlan, Place
from treadle.ir.op import ArrayData

__all__ = ["Emitted", "FaultSite", "HostCall", "emit_module"]

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
    means; `host_calls`: what a number means that Python is called with. `parallel`: whether more
    than one thread can be of use. `functions`: of each kernel, the function in the module that runs
    it; equal kernels share one. `apart`: the text without the functions of a library that is to be
    linked with it; None where none is."""

    ir: str
    entry: str
    workspace: int
    scratch: int
    parallel: bool
    constants: tuple[ArrayData, ...]
    faults: tuple[FaultSite, ...]
    host_calls: tuple[HostCall, ...] = ()
    functions: tuple[str, ...] = ()
    apart: str | None = None


def emit_module(
    fn: Function,
    memory: MemoryPlan,
    plan: Plan,
    target: Target,
    options: Options,
    library: Module | None = None,
) -> Emitted:
    """LLVM IR for a KERNELS-level function with its memory plan and kernel plan. `library`: a
    module of functions for the same target and options, compiled apart."""
    state = Emission(Module(target, library), target, options.reassociate, options.contract)
    constants = _constants(fn, memory)
    w = entry_function(state.module)
    buffers = Buffers(w, fn, memory, len(constants))
    scratch_at = -(-memory.workspace // _ALIGN) * _ALIGN
    fault = step_record(w, w.args[1] if has_host_calls(fn) else None)
    shared = buffers.workspace(scratch_at)
    own = buffers.workspace(scratch_at + plan.shared)
    fields = (shared, own, fault, *buffers.pool())
    calls = _Calls(state, w, buffers, fn, memory, plan, fields, plan.scratch, options.profile)
    calls.all(lambda site: _leave(w, fault, site))
    calls.operands.finish()
    if calls.stamps is not None:
        calls.stamps.end()
    w.store(w.int(0), w.args[1])  # done: tells a caller who was interrupted just after
    w.ret(0)
    parallel = any(k.parallel for k in plan.kernels)
    workspace = scratch_at + plan.shared
    text = str(state.module)
    faults = tuple(state.faults)
    functions = tuple(calls.functions)
    apart = state.module.apart() if state.module.has_taken else None
    return Emitted(
        text, ENTRY, workspace, plan.scratch, parallel, constants, faults,
        tuple(state.host_calls), functions, apart,
    )  # fmt: skip


def _leave(w: FunctionWriter, fault: Val, site: Val) -> None:
    """The caller gets what the step has recorded."""
    w.store(site, w.args[1])
    w.store(w.load(I64, w.gep(fault, 1, I64)), w.gep(w.args[1], 1, I64))
    w.ret(site)


def _region_function(
    state: Emission, fn: Function, memory: MemoryPlan, plan: Plan, name: str, room: int
) -> str:
    """The function of a loop's body or of a branch; see `treadle.codegen.control`."""
    w = state.module.function(name, VOID, REGION_PARAMS, internal=True)
    buffers = Buffers(w, fn, memory, 0)
    kinds = (PTR, PTR, PTR, PTR, I64)
    fields = [w.load(t, w.gep(w.args[1], n, PTR), align=8) for n, t in enumerate(kinds)]
    calls = _Calls(state, w, buffers, fn, memory, plan, fields, room, False)
    calls.all(lambda site: w.ret())
    w.ret()
    return name


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
        fields: Sequence[Val],
        room: int,
        profile: bool,
    ) -> None:
        self.state, self.w, self.buffers = state, w, buffers
        self.functions: list[str] = []
        self.written: dict[str, str] = {}  # the function of each kernel whose code is its own
        self.fn, self.memory, self.plan = fn, memory, plan
        self.room = room
        self.fault = fields[2]
        # One context serves all kernels: the next is filled when every tile of the last is done.
        counts = [operand_count(fn.instrs[k.instr], k) for k in plan.kernels]
        most = max(counts, default=0)
        self.ctx = Context(w, w.alloca(PTR, CONTEXT_FIELDS + most + profile))
        for n, field in enumerate(fields):
            w.store(field, self.ctx.address(n), align=8)
        total = sum(counts) + sum(
            table_columns(fn.instrs[k.instr]) * k.body.count
            for k in plan.kernels
            if isinstance(k.body, TablePlan)
        )
        is_entry = w.name == ENTRY  # of tables of operands there is one
        self.operands = Operands(state, w, buffers, many=total > FEW and is_entry)
        self.first = self.ctx.address(CONTEXT_FIELDS)  # where a kernel's operands begin
        self.stamps: Stamps | None = None
        if profile:
            last = CONTEXT_FIELDS + most
            self.stamps = Stamps(state, w, plan, buffers.stamps(), self.ctx, last)
            self.stamps.begin()

    def all(self, leave: Callable[[Val], None]) -> None:
        """Every kernel, and the check for faults before the first that may not run after one."""
        checked = False
        for kernel in self.plan.kernels:
            if kernel.instr > self.memory.fault_barrier and not checked:
                checked = self.check(leave)
            if calls_host(self.fn.instrs[kernel.instr]):  # not in a run that has failed
                self.check(leave)
                self.call(kernel)
                self.check(leave)
                continue
            self.call(kernel)
        if not checked:
            self.check(leave)
        self.copies()

    def check(self, leave: Callable[[Val], None]) -> bool:
        """Return at once, as `leave` writes it, where a fault is recorded."""
        w = self.w
        if self.state.faults:
            site = w.load(I64, self.fault)
            bad = w.new_block("fault")
            go_on = w.new_block("no_fault")
            w.cond_br(w.icmp("ne", site, 0), bad, go_on, unlikely=True)
            w.start(bad)
            leave(site)
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
            if isinstance(kernel.body, ControlPlan):
                places.append(Place("workspace", 0, self.memory.inner[instr].offset))
            self.operands.write(self.first, places)
        with nullcontext() if self.stamps is None else self.stamps.around(kernel):
            self._run(name, kernel)

    def _code(self, instr: Instr, kernel: KernelPlan) -> str:
        """The name of the function that runs the kernel, written where no earlier one will do."""
        if kernel.code not in self.written:
            self.written[kernel.code] = self._written(instr, kernel)
        return self.written[kernel.code]

    def _written(self, instr: Instr, kernel: KernelPlan) -> str:
        body, state = kernel.body, self.state
        if not isinstance(body, ControlPlan):
            return emit_kernel(state, instr, kernel, self.memory.places, self.room)

        def region(n: int, name: str) -> str:
            inner, memory = instr.regions[n], body.memory.plans[n]
            return _region_function(state, inner, memory, body.regions[n], name, self.room)

        return emit_control(state, instr, kernel, region)

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
