"""Loops and branches: native code that calls the functions of their regions.

A region is a function `void region(ptr bufs, ptr fields)`: `bufs` as the module's entry has it
(pointers to parameters, results, constants of which a region has none, the workspace, the pool, the
number of threads), `fields` the first fields of a kernel's context (see `abi`). Whoever runs it
fills `bufs` before each call: the code of a step is there once, however many there are.

    kernel k3_scan:  for each step: rows = array + i * bytes; carries in two buffers by turns; call

A step that records a fault ends the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.abi import KERNEL_PARAMS, Context
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    I8,
    I64,
    PTR,
    VOID,
    FunctionWriter,
    Val,
    int_const,
    register_type,
)
from treadle.codegen.plan import KernelPlan
from treadle.codegen.plan_control import ControlPlan
from treadle.ir.control import (
    instr_can_fail,
    operands,
    params,
    results,
    scan_attrs,
)
from treadle.ir.graph import Instr
from treadle.ir.ops.control import ScanAttrs

REGION_PARAMS = ((PTR, "bufs"), (PTR, "fields"))
_AFTER_RESULTS = 3  # workspace, pool, threads

Turning = tuple[int, Val, Val]  # a carry's number, what even steps read, what they write
EmitRegion = Callable[[int, str], str]


def emit_control(state: Emission, instr: Instr, kernel: KernelPlan, emit_region: EmitRegion) -> str:
    """Write the kernel of a scan or switch; `emit_region(n, name)` writes the n-th region's
    function. Its context has one operand more: the block of workspace."""
    assert isinstance(kernel.body, ControlPlan)
    names = [emit_region(n, f"{kernel.name}_{n}") for n in range(len(instr.regions))]
    w = state.module.function(kernel.name, VOID, KERNEL_PARAMS, internal=True)
    if instr.op.name == "scan":
        _Loop(w, instr, kernel.body, names[0]).emit()
    else:
        _emit_switch(w, instr, names)
    w.ret()
    return kernel.name


class _Call:
    """The buffers of calls of a region, on the stack."""

    def __init__(self, w: FunctionWriter, params: int, results: int, block: Val) -> None:
        self.w, self.count = w, params
        self.fields = Context(w, w.args[0])
        self.bufs = w.alloca(PTR, params + results + _AFTER_RESULTS)
        pool, threads = self.fields.pool()
        last = params + results
        self.set(last, block)
        self.set(last + 1, pool)
        w.store(threads, w.gep(self.bufs, last + 2, I64), align=8)

    def set(self, slot: int, address: Val) -> None:
        self.w.store(address, self.w.gep(self.bufs, slot, PTR), align=8)

    def result(self, number: int, address: Val) -> None:
        self.set(self.count + number, address)

    def run(self, name: str) -> None:
        self.w.call(name, VOID, [self.bufs, self.fields.base])


def _emit_switch(w: FunctionWriter, instr: Instr, names: Sequence[str]) -> None:
    fields = Context(w, w.args[0])
    args, outs = len(instr.args), len(instr.results)
    call = _Call(w, args - 1, outs, fields.operand(args + outs))
    for n in range(1, args):
        call.set(n - 1, fields.operand(n))
    for n in range(outs):
        call.result(n, fields.operand(args + n))
    type = instr.args[0].type.dtype
    elem = register_type(type)
    index = w.load(elem, fields.operand(0))
    if type.bits < 64:
        index = w.cast("sext" if type.kind == "i" else "zext", index, I64)
    last = len(names) - 1
    index = w.binary("llvm.smin", w.binary("llvm.smax", index, 0), last)
    for n, name in enumerate(names):
        with w.if_(w.icmp("eq", index, n), f"branch{n}"):
            call.run(name)


class _Loop:
    """Writes the kernel of one scan."""

    def __init__(self, w: FunctionWriter, instr: Instr, plan: ControlPlan, name: str) -> None:
        self.w, self.instr, self.plan, self.name = w, instr, plan, name
        self.a: ScanAttrs = scan_attrs(instr)
        (self.region,) = instr.regions
        self.fields = fields = Context(w, w.args[0])
        args, outs = len(instr.args), len(instr.results)
        self.given = operands(self.a, range(args))
        self.out = results(self.a, range(args, args + outs))
        self.inside = params(self.a, range(len(self.region.params)))
        self.made = results(self.a, range(len(self.region.results)))
        self.block = fields.operand(args + outs)
        self.call = _Call(w, len(self.region.params), len(self.region.results), self.block)

    @property
    def fixed(self) -> bool:
        """Is the number of steps known?"""
        return not (self.a.steps or self.a.until)

    def emit(self) -> None:
        w, a = self.w, self.a
        for param, n in zip(self.inside.consts, self.given.consts, strict=True):
            self.call.set(param, self.fields.operand(n))
        if self.made.first is not None:
            self.call.result(self.made.first, w.gep(self.block, self.plan.memory.flag))
        bound = self._bound()
        buffers = self._enter_carries()
        arrays = self._rows()
        can_stop = a.until or instr_can_fail(self.instr)

        def go_on(carried: Sequence[Val]) -> Val:
            more = w.icmp("slt", carried[0], bound)
            return w.and_(more, carried[1]) if can_stop else more

        def step(carried: Sequence[Val]) -> Sequence[Val]:
            done = carried[0]
            at = w.sub(w.sub(bound, 1), done) if a.reverse else done
            for slot, base, nbytes in arrays:
                self.call.set(slot, w.gep(base, w.mul(at, nbytes)) if nbytes else base)
            self._turn(buffers, done)
            self._move_on(done, at)
            self.call.run(self.name)
            following = [w.add(done, 1)]
            return [*following, self._goes_on()] if can_stop else following

        first = [w.int(0), int_const(1, I1)] if can_stop else [w.int(0)]
        done = w.while_(first, go_on, step, "step")[0]
        self._leave(buffers, done)

    def _bound(self) -> Val:
        """The number of steps at most."""
        w, length = self.w, self.a.length
        if self.given.steps is None:
            return w.int(2**63 - 1 if length is None else length)
        steps = w.binary("llvm.smax", w.load(I64, self.fields.operand(self.given.steps)), 0)
        return steps if length is None else w.binary("llvm.smin", steps, length)

    def _goes_on(self) -> Val:
        """Whether the step has recorded no fault, and says so."""
        w = self.w
        going = w.icmp("eq", w.load(I64, self.fields.fault()), 0)
        if not self.a.until:
            return going
        flag = w.load(I8, w.gep(self.block, self.plan.memory.flag))
        return w.and_(going, w.icmp("ne", flag, 0))

    # --- carries -----------------------------------------------------------------------------

    def _enter_carries(self) -> list[Turning]:
        """The first contents are copied in. For each carry in two buffers: its number, the buffer
        that even steps read and the one that they write."""
        w = self.w
        found: list[Turning] = []
        memory = self.plan.memory
        for n, spare in enumerate(memory.spare):
            operand = self.instr.args[self.given.carries[n]]
            result = self.fields.operand(self.out.carries[n])
            start = result
            row = memory.stacked[n]
            if row is not None:
                assert self.a.length is not None
                array = self.fields.operand(self.out.arrays[row])
                start = w.gep(array, (self.a.length - 1) * operand.type.nbytes * self.a.reverse)
            elif spare is None:
                self.call.set(self.inside.carries[n], result)
                self.call.result(self.made.carries[n], result)
            else:
                other = w.gep(self.block, spare)
                # so that the last step of a known number writes the result's buffer
                odd = self.fixed and self.a.length is not None and self.a.length % 2 == 1
                start, second = (other, result) if odd else (result, other)
                found.append((n, start, second))
            self._copy(start, self.fields.operand(self.given.carries[n]), operand.type.nbytes)
        return found

    def _turn(self, buffers: Sequence[Turning], done: Val) -> None:
        """What the last step wrote is what this one reads."""
        w = self.w
        if not buffers:
            return
        even = w.icmp("eq", w.and_(done, 1), 0)
        for entry in buffers:
            n, first, second = entry
            self.call.set(self.inside.carries[n], w.select(even, first, second))
            self.call.result(self.made.carries[n], w.select(even, second, first))

    def _move_on(self, done: Val, at: Val) -> None:
        """A carry that lives in rows is read from this step's and written into the next one's."""
        w, length = self.w, self.a.length
        for n, row in enumerate(self.plan.memory.stacked):
            if row is None:
                continue
            assert length is not None
            nbytes = self.instr.args[self.given.carries[n]].type.nbytes
            array = self.fields.operand(self.out.arrays[row])
            here = w.gep(array, w.mul(at, nbytes))
            following = w.gep(here, -nbytes if self.a.reverse else nbytes)
            result = self.fields.operand(self.out.carries[n])
            is_last = w.icmp("eq", done, length - 1)
            self.call.set(self.inside.carries[n], here)
            self.call.result(self.made.carries[n], w.select(is_last, result, following))

    def _leave(self, buffers: Sequence[Turning], done: Val) -> None:
        w = self.w
        if self.out.first is not None:
            w.store(done, self.fields.operand(self.out.first))
        if self.fixed:
            return
        odd = w.icmp("ne", w.and_(done, 1), 0)
        with w.if_(odd, "elsewhere"):
            for entry in buffers:
                n, result, other = entry
                nbytes = self.instr.args[self.given.carries[n]].type.nbytes
                self._copy(result, other, nbytes)
        for n in self.out.arrays:
            value = self.instr.results[n - len(self.instr.args)]
            if value.type.nbytes:
                self._clear(self.fields.operand(n), value.type.nbytes, done)

    def _clear(self, base: Val, nbytes: int, done: Val) -> None:
        """The rows of steps that were not run are zero."""
        w = self.w
        assert self.a.length is not None
        each = nbytes // self.a.length
        rest = w.mul(w.sub(w.int(self.a.length), done), each)
        args = (w.gep(base, w.mul(done, each)), Val("0", I8), rest, int_const(0, I1))
        w.external("llvm.memset.p0.i64", VOID, args)

    def _copy(self, to: Val, source: Val, nbytes: int) -> None:
        if nbytes:
            args = (to, source, self.w.int(nbytes), int_const(0, I1))
            self.w.external("llvm.memmove.p0.p0.i64", VOID, args)

    # --- rows --------------------------------------------------------------------------------

    def _rows(self) -> list[tuple[int, Val, int]]:
        """For each array, read or written: the slot in `bufs`, its address, bytes of a row."""
        found: list[tuple[int, Val, int]] = []
        for param, n in zip(self.inside.arrays, self.given.arrays, strict=True):
            nbytes = self.region.inputs[param].type.nbytes
            found.append((param, self.fields.operand(n), nbytes))
        for row, n in zip(self.made.arrays, self.out.arrays, strict=True):
            nbytes = self.region.outputs[row].type.nbytes
            found.append((self.call.count + row, self.fields.operand(n), nbytes))
        return found
