"""Writes the loops of a `fused` region as its plan says: map, rows, columns or sweeps."""

from __future__ import annotations

from dataclasses import replace

from treadle.codegen.columns import Columns
from treadle.codegen.llvm import I64, VOID, Val
from treadle.codegen.map import Map
from treadle.codegen.rows import Rows
from treadle.codegen.scope import RegionCode, Scope
from treadle.codegen.sweeps import Sweeps


def emit_fused(code: RegionCode) -> None:
    """The whole loop nest; twice where results may be streamed: with streaming stores if these
    results are aligned, and plainly."""
    if any(s == 0 for s, d in zip(code.sizes, code.plan.dims, strict=True) if not d.reduced):
        return
    if not code.plan.streamed:
        _write(code)
        return
    w = code.w
    low = w.int(0)
    for n in code.plan.streamed:
        low = w.or_(low, w.cast("ptrtoint", code.outputs[n], I64))
    is_aligned = w.icmp("eq", w.and_(low, code.state.target.vector_bytes - 1), 0)

    def streamed() -> list[Val]:
        _write(replace(code, streaming=True, ready=set()))
        if code.state.target.is_x86:
            w.external("llvm.x86.sse.sfence", VOID, ())
        return []

    def plain() -> list[Val]:
        _write(replace(code, ready=set()))
        return []

    w.branch(is_aligned, streamed, plain, "aligned")


def _write(code: RegionCode) -> None:
    top = Scope(code, 1, {})
    if code.plan.scheme == "map":
        Map(code).write(top)
    elif code.plan.scheme == "rows":
        Rows(code).write(top)
    elif code.plan.scheme == "columns":
        Columns(code).write(top)
    else:
        Sweeps(code).write(top)
