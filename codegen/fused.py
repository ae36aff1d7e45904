"""Writes the loops of a `fused` region as its plan says: map, rows, columns or sweeps."""

from __future__ import annotations

from treadle.codegen.columns import Columns
from treadle.codegen.map import Map
from treadle.codegen.rows import Rows
from treadle.codegen.scope import RegionCode, Scope
from treadle.codegen.sweeps import Sweeps


def emit_fused(code: RegionCode) -> None:
    """The whole loop nest."""
    if any(s == 0 for s, d in zip(code.sizes, code.plan.dims, strict=True) if not d.reduced):
        return
    top = Scope(code, 1, {})
    if code.plan.scheme == "map":
        Map(code).write(top)
    elif code.plan.scheme == "rows":
        Rows(code).write(top)
    elif code.plan.scheme == "columns":
        Columns(code).write(top)
    else:
        Sweeps(code).write(top)
