"""The kernel of `callback`, `watch` and `debug_print` in the middle of a program: calls Python.

The caller's function `i64 host(i64 number, ptr operands)` gets the number of the call and the
addresses of operands and results; it answers 1. Any other answer is a fault: the program ends
before it has written anything that outlives it, and the caller knows why. The kernel runs on the
calling thread, between kernels, when no tile of any other is at work.
"""

from __future__ import annotations

from typing import Any

from treadle.codegen.abi import CONTEXT_FIELDS, Context
from treadle.codegen.emission import Emission, HostCall
from treadle.codegen.faults import HOST_WORD, record_fault
from treadle.codegen.llvm import I64, PTR, FunctionWriter
from treadle.ir.graph import Instr
from treadle.ir.host_function import HostFunction
from treadle.ir.ops.host_calls import INTERRUPTED


def emit_host_call(state: Emission, w: FunctionWriter, instr: Instr, fields: Context) -> None:
    """Writes the call, and what follows where it fails."""
    number = state.host_call(_described(instr))
    site = state.fault_site(INTERRUPTED, instr.loc)
    fault = fields.fault()
    host = w.load(PTR, w.gep(fault, HOST_WORD, I64), align=8)
    operands = fields.address(CONTEXT_FIELDS)
    answer = w.inst(I64, f"call i64 {host.ref}(i64 {number}, ptr {operands.ref})", "answer")
    record_fault(w, fault, site, w.icmp("ne", answer, 1), w.int(0))


def _described(instr: Instr) -> HostCall:
    attrs: Any = instr.attrs
    text, number = "", -1
    if instr.op.name == "watch":
        text = attrs.name
    elif instr.op.name == "debug_print":
        text = attrs.text
    else:
        text = str(attrs.host)
        if isinstance(attrs.host, HostFunction):
            text, number = attrs.host.label, attrs.host.number
    takes = tuple(a.type for a in instr.args)
    return HostCall(instr.op.name, text, number, takes, tuple(r.type for r in instr.results))
