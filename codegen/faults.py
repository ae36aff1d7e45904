"""Run-time faults: what only a run can tell is recorded, and the access made safe.

The caller hands over two i64: the number of the first fault's site plus one (0: none yet), and the
offending value. Inside, a step keeps a record of four: site plus one, value, the place in the order
of kernels and tiles, a lock. A kernel that runs in tiles records the first fault of each tile in a
record of its own, and of those the one of the lowest tile is kept: the same for any number of
threads, and the first that one thread would meet.

A caller whose program calls Python hands over, in the place of the value, the address of what is to
be called (see `host_call`); it stands behind the record.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Val
from treadle.ir.graph import Instr, walk
from treadle.ir.op import Trait

HOST_WORD: Final = 4  # of a step's record


def record_fault(w: FunctionWriter, fault: Val, site: int, bad: Val, value: Val) -> None:
    """Where `bad` (an i1) and no fault is recorded yet: record `site` and `value` (an i64)."""
    with w.if_(bad, "bad", unlikely=True), w.if_(w.icmp("eq", w.load(I64, fault), 0), "first"):
        w.store(w.int(site + 1), fault)
        w.store(value, w.gep(fault, 1, I64))


def can_fault(instr: Instr) -> bool:
    """Whether a run of the instruction's kernel may record a fault."""
    inside = [i for region in instr.regions for i in walk(region)]
    return any(
        i.op.has(Trait.CAN_FAULT) and getattr(i.attrs, "checked", True) for i in (instr, *inside)
    )


def own_record(w: FunctionWriter) -> Val:
    """An empty record for one tile."""
    record = w.alloca(I64, 2)
    w.store(w.int(0), record)
    return record


def keep_fault(
    state: Emission, w: FunctionWriter, record: Val, fault: Val, kernel: int, tile: Val
) -> None:
    """After a tile of the kernel number `kernel`: hand what it recorded to the step's record."""
    site = w.load(I64, record)
    with w.if_(w.icmp("ne", site, 0), "faulted", unlikely=True):
        name = state.once("keep_fault", lambda name: _write_keep_fault(state, name))
        order = w.add(tile, kernel << 32)
        w.call(name, VOID, [fault, site, w.load(I64, w.gep(record, 1, I64)), order])


def step_record(w: FunctionWriter, given: Val | None = None) -> Val:
    """The empty record of a step; behind it stands what the caller's record `given` holds in the
    place of the value: the address of the function that calls Python."""
    record = w.alloca(I64, 4 if given is None else HOST_WORD + 1)
    for word, value in enumerate((0, 0, -1, 0)):
        w.store(w.int(value), w.gep(record, word, I64))
    if given is not None:
        address = w.load(I64, w.gep(given, 1, I64))
        w.store(address, w.gep(record, HOST_WORD, I64))
    return record


def _write_keep_fault(state: Emission, name: str) -> None:
    """A fault that a kernel without tiles recorded has the order -1: it was there before."""
    params = [(PTR, "fault"), (I64, "site"), (I64, "value"), (I64, "order")]
    w = state.module.function(name, VOID, params, internal=True)
    fault, site, value, order = w.args
    at = w.gep(fault, 2, I64)
    lock = w.gep(fault, 3, I64)
    taken = w.int(1)

    def take(_: object) -> list[Val]:
        return [w.inst(I64, f"atomicrmw xchg {lock}, i64 1 acquire")]

    w.while_([taken], lambda held: w.icmp("ne", held[0], 0), take, "lock")
    none = w.icmp("eq", w.load(I64, fault), 0)
    with w.if_(w.or_(none, w.icmp("slt", order, w.load(I64, at))), "earlier"):
        w.store(site, fault)
        w.store(value, w.gep(fault, 1, I64))
        w.store(order, at)
    w.effect(f"store atomic i64 0, {lock} release, align 8")
    w.ret()
