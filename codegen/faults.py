"""Run-time faults: what only a run can tell is recorded, and the access made safe.

The caller hands over two i64: the number of the first fault's site plus one (0: none yet), and the
offending value.
"""

from __future__ import annotations

from treadle.codegen.llvm import I64, FunctionWriter, Val


def record_fault(w: FunctionWriter, fault: Val, site: int, bad: Val, value: Val) -> None:
    """Where `bad` (an i1) and no fault is recorded yet: record `site` and `value` (an i64)."""
    with w.if_(bad, "bad", unlikely=True), w.if_(w.icmp("eq", w.load(I64, fault), 0), "first"):
        w.store(w.int(site + 1), fault)
        w.store(value, w.gep(fault, 1, I64))
