"""The epilogue of a contraction: its region over a piece of the finished product.

    void k3_epilogue(ptr frame, i64 m0, i64 m1, i64 n0, i64 n1)

runs the region over rows m0 to m1 and columns n0 to n1 of the product whose other indices stand in
the frame. The product lies in the buffer of one of the results, the `holder`, from where it has
not left the cache: `product` calls this for each panel of columns, right after its last block of k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from treadle.codegen.abi import Context
from treadle.codegen.emission import Emission
from treadle.codegen.fused import emit_fused
from treadle.codegen.llvm import I64, NULL, PTR, VOID, FunctionWriter, Type, Val
from treadle.codegen.plan_contract import ContractPlan
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.product import Frame
from treadle.codegen.regions import Region
from treadle.codegen.scope import RegionCode
from treadle.ir.graph import Instr, Value


def holder(instr: Instr) -> int:
    """Which result's buffer holds the product: the product itself if it is stored."""
    region = instr.regions[0]
    product = region.inputs[0]
    same = [n for n, v in enumerate(region.outputs) if v.type.dtype == product.type.dtype]
    return next((n for n in same if region.outputs[n] is product), same[0])


Bounds = Mapping[int, tuple[Val, Val]]
Spans = Callable[[FunctionWriter, Frame], Bounds]


def epilogue_function(
    state: Emission, name: str, instr: Instr, loops: FusedPlan, spans: Spans
) -> Val:
    """The address of the function; an equal earlier one is taken again. `spans` gives where each of
    the plan's loops begins and ends, for the function's arguments and the frame."""
    params: list[tuple[Type, str]] = [(PTR, "frame")]
    params += [(I64, x) for x in ("m0", "m1", "n0", "n1")]
    w = state.module.function(f"{name}_epilogue", VOID, params, internal=True)
    inner = instr.regions[0]
    region = Region(inner, inner.inputs[0].type.shape, ())
    emit_fused(_code(state, w, instr, region, loops, spans))
    w.ret()
    return Val(f"@{state.merged(w)}", PTR)


def _code(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    region: Region,
    loops: FusedPlan,
    spans: Spans,
) -> RegionCode:
    frame = Frame(w, w.args[0])
    fields = Context(w, frame.get("ctx"))
    outputs = epilogue_results(instr, fields)
    inputs: dict[Value, Val] = {region.fn.inputs[0]: outputs[holder(instr)]}
    for n, value in enumerate(region.fn.inputs[1:], 2):
        inputs[value] = fields.operand(n)
    return RegionCode(
        state=state,
        w=w,
        region=region,
        plan=loops,
        inputs=inputs,
        outputs=outputs,
        fault=NULL,
        scratch={},
        room=NULL,
        sizes=tuple(d.size for d in loops.dims if isinstance(d.size, int)),
        bounds=spans(w, frame),
    )


def epilogue_results(instr: Instr, fields: Context) -> tuple[Val, ...]:
    """Where the epilogue's results lie; those of a tail come behind them."""
    first, count = len(instr.args), len(instr.regions[0].results)
    return tuple(fields.operand(first + n) for n in range(count))


def product_spans(plan: ContractPlan, w: FunctionWriter, frame: Frame) -> Bounds:
    """Of a product's loops, of which the epilogue has those that are longer than 1."""
    _, m0, m1, n0, n1 = w.args
    spans: list[tuple[Val, Val]] = []
    for number, axis in enumerate(plan.loops):
        if axis.size != 1:
            at = frame.index(number)
            spans.append((at, w.add(at, 1)))
    inner = [(plan.m, (m0, m1)), (plan.n, (n0, n1))]
    spans += [s for x, s in (reversed(inner) if plan.rows_last else inner) if x.size != 1]
    return dict(enumerate(spans))
