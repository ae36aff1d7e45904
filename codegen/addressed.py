"""What kernels share that write to places which index operands say."""

from __future__ import annotations

from typing import Any, cast

from treadle.codegen.emission import Emission
from treadle.codegen.faults import record_fault
from treadle.codegen.llvm import I64, FunctionWriter, Val
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr
from treadle.ir.ops.indexing import fault_message
from treadle.ir.types import DType


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a kernel's operands, its result and the fault record lie; `in_place`: the result
    takes the place of the first operand."""

    operands: tuple[Val, ...]
    result: Val
    fault: Val
    in_place: bool


def added(w: FunctionWriter, x: Val, y: Val) -> Val:
    return w.fadd(x, y) if x.type.is_float else w.add(x, y)


def checked_index(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    raw: Val,
    dtype: DType,
    axis: int,
    fault: Val,
) -> Val:
    """An element of an index operand, clamped to its axis; a fault is recorded where that is asked
    for."""
    size = instr.result.type.static_shape[axis]
    if raw.type.bits < 64:
        raw = w.cast("sext" if dtype.kind == "i" else "zext", raw, I64)
    index = w.select(w.icmp("slt", raw, 0), w.add(raw, size), raw)
    if cast(Any, instr.attrs).checked:
        message = fault_message(instr.op.name, axis, size)
        site = state.fault_site(message, instr.loc)
        record_fault(w, fault, site, w.icmp("uge", index, size), raw)
    return w.binary("llvm.smax", w.binary("llvm.smin", index, size - 1), 0)
