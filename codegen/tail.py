"""Writes a contraction's tail: its region over the lines that a tile has finished.

    void k3_tail(ptr frame, i64 m0, i64 m1, i64 first, i64 last)

runs it over channels m0 to m1 and the pieces of lines first to last of the image that stands in the
frame. What it reads of the epilogue has just been written, and lies in the nearest caches.
"""

from __future__ import annotations

from treadle.codegen.abi import Context
from treadle.codegen.emission import Emission
from treadle.codegen.epilogue import Bounds, epilogue_results
from treadle.codegen.fused import emit_fused
from treadle.codegen.llvm import I64, NULL, PTR, VOID, FunctionWriter, Type, Val
from treadle.codegen.plan_tail import TailPlan, region_of_tail
from treadle.codegen.product import Frame
from treadle.codegen.scope import RegionCode
from treadle.ir.graph import Instr, Value


def tail_function(state: Emission, name: str, instr: Instr, plan: TailPlan) -> Val:
    """The address of the function; an equal earlier one is taken again."""
    params: list[tuple[Type, str]] = [(PTR, "frame")]
    params += [(I64, x) for x in ("m0", "m1", "first", "last")]
    w = state.module.function(f"{name}_tail", VOID, params, internal=True)
    region = region_of_tail(instr.regions[1], plan.product)
    frame = Frame(w, w.args[0])
    fields = Context(w, frame.get("ctx"))
    made = epilogue_results(instr, fields)
    inputs: dict[Value, Val] = dict(zip(region.fn.inputs, made, strict=False))
    for n, value in enumerate(region.fn.inputs[len(made) :], 1 + len(instr.regions[0].params)):
        inputs[value] = fields.operand(n)
    behind = len(instr.args) + len(instr.results) - len(region.fn.results)
    outputs = tuple(fields.operand(behind + n) for n in range(len(region.fn.results)))
    emit_fused(
        RegionCode(
            state=state,
            w=w,
            region=region,
            plan=plan.loops,
            inputs=inputs,
            outputs=outputs,
            fault=NULL,
            scratch={},
            room=NULL,
            sizes=tuple(d.size for d in plan.loops.dims if isinstance(d.size, int)),
            bounds=_bounds(w, plan, frame),
        )
    )
    w.ret()
    return Val(f"@{state.merged(w)}", PTR)


def _bounds(w: FunctionWriter, plan: TailPlan, frame: Frame) -> Bounds:
    """Of the loops over images, channels and pieces; the others run through."""
    _, m0, m1, first, last = w.args
    image = frame.index(0)
    pieces = plan.loops.dims
    spans = {
        (0,): (image, w.add(image, 1)),
        (1,): (m0, m1),
        (2,): (w.udiv(first, plan.lines), w.udiv(last, plan.lines)),
    }
    return {n: spans[d.axes] for n, d in enumerate(pieces) if d.axes in spans}
