"""One internal function for each kernel: `void k3_softmax(ptr ctx, i64 tile, i64 slot)`.

It runs one of the kernel's tiles on the thread `slot`; see `abi` for `ctx`.

A kernel is written once for all that the plan finds equal to it, and dropped where its text is
that of an earlier one but for the name. A kernel that can fault is written for itself, since its
fault sites name its own lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from treadle.codegen.abi import KERNEL_PARAMS, Context
from treadle.codegen.adding import emit_adding
from treadle.codegen.addressed import Addresses
from treadle.codegen.attention import emit_attention
from treadle.codegen.attention_grad import emit_attention_grad
from treadle.codegen.channels import emit_channels
from treadle.codegen.check import emit_check
from treadle.codegen.contract import Workplace, emit_contract
from treadle.codegen.depthwise import emit_depthwise
from treadle.codegen.emission import Emission
from treadle.codegen.faults import can_fault, keep_fault, own_record
from treadle.codegen.fused import emit_fused
from treadle.codegen.host_call import emit_host_call
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Val
from treadle.codegen.loops import tile_bounds
from treadle.codegen.pixels import emit_pixels
from treadle.codegen.plan import HostPlan, KernelPlan, Product, TablePlan, region_of
from treadle.codegen.plan_attention import AttentionPlan
from treadle.codegen.plan_channels import ChannelPlan
from treadle.codegen.plan_control import ControlPlan
from treadle.codegen.plan_depthwise import DepthwisePlan
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_lines import LinesPlan
from treadle.codegen.plan_pixels import PixelPlan
from treadle.codegen.plan_taps import TapPlan
from treadle.codegen.plan_window_loops import WindowLoopsPlan
from treadle.codegen.plan_winograd import WinogradPlan
from treadle.codegen.regions import Region
from treadle.codegen.running import emit_running
from treadle.codegen.scope import RegionCode
from treadle.codegen.sequential import emit_sequential
from treadle.codegen.sorting import emit_sort
from treadle.codegen.taps import emit_taps
from treadle.codegen.topk import emit_topk
from treadle.codegen.window_loops import emit_window_loops
from treadle.codegen.winograd import emit_winograd
from treadle.ir.graph import Instr, Value
from treadle.ir.memory import Place


def emit_kernel(
    state: Emission, instr: Instr, plan: KernelPlan, places: Mapping[Value, Place], room: int
) -> str:
    """Write the kernel's function; its name (an earlier one's where that is the same code).

    `room`: bytes of scratch that each thread has.
    """
    w = state.module.function(plan.name, VOID, KERNEL_PARAMS, internal=True)
    sites = len(state.faults)
    ctx, tile, slot = w.args
    fields = Context(w, ctx)
    addresses = [fields.operand(n) for n in range(operand_count(instr, plan))]
    scratch = fields.scratch()
    if plan.scratch and plan.tiles > 1:
        scratch = w.gep(scratch, w.mul(slot, room))
    in_tiles = plan.tiles > 1 and can_fault(instr)
    shared = fields.fault()
    fault = own_record(w) if in_tiles else shared
    if isinstance(plan.body, TablePlan):
        _table(state, w, instr, plan.body, addresses[0], scratch, fault, tile)
    elif isinstance(plan.body, FusedPlan):
        _fused(state, w, instr, plan.body, addresses, scratch, fault, tile)
    elif isinstance(plan.body, Product):
        shared_room, pool = fields.shared(), fields.pool()
        where = Workplace(plan.name, ctx, shared_room, scratch, room, tile, *pool)
        _product(state, w, instr, plan.body, addresses, where)
    elif isinstance(plan.body, AttentionPlan):
        emit = emit_attention_grad if plan.body.backward else emit_attention
        emit(state, w, plan.body, addresses, scratch, tile)
    elif isinstance(plan.body, LinesPlan):
        _lines(state, w, instr, plan.body, places, addresses, scratch, fault, tile)
    elif isinstance(plan.body, HostPlan):
        emit_host_call(state, w, instr, fields)
    elif plan.body.op == "check":
        emit_check(state, w, instr, addresses[0], addresses[1], fault)
    else:
        in_place = places[instr.args[0]] == places[instr.result]
        at = Addresses(tuple(addresses[:-1]), addresses[-1], fault, in_place)
        emit_sequential(state, w, instr, at)
    if in_tiles:
        keep_fault(state, w, fault, shared, plan.instr, tile)
    w.ret()
    return state.merged(w) if len(state.faults) == sites else plan.name


def _lines(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: LinesPlan,
    places: Mapping[Value, Place],
    addresses: list[Val],
    scratch: Val,
    fault: Val,
    tile: Val,
) -> None:
    operands, results = addresses[: len(instr.args)], addresses[len(instr.args) :]
    if plan.op == "sort":
        emit_sort(w, instr, plan, operands, results, scratch, tile)
    elif plan.op == "topk":
        emit_topk(w, instr, plan, operands, results, scratch, tile)
    elif plan.op in ("scatter_add", "add_along"):
        in_place = places[instr.args[0]] == places[instr.result]
        at = Addresses(tuple(operands), results[0], fault, in_place)
        emit_adding(state, w, instr, plan, at, tile)
    else:
        emit_running(w, instr, plan, operands, results, tile)


def _product(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: Product,
    addresses: list[Val],
    where: Workplace,
) -> None:
    if isinstance(plan, ChannelPlan):
        emit_channels(state, w, instr, plan, addresses, where)
    elif isinstance(plan, PixelPlan):
        emit_pixels(state, w, instr, plan, addresses, where)
    elif isinstance(plan, DepthwisePlan):
        emit_depthwise(state, w, plan, addresses, where.tile)
    elif isinstance(plan, TapPlan):
        emit_taps(state, w, instr, plan, addresses, where)
    elif isinstance(plan, WinogradPlan):
        emit_winograd(state, w, instr, plan, addresses, where)
    elif isinstance(plan, WindowLoopsPlan):
        emit_window_loops(state, w, instr, plan, addresses, where)
    else:
        emit_contract(state, w, instr, plan, addresses, where)


def _fused(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: FusedPlan,
    addresses: list[Val],
    scratch: Val,
    fault: Val,
    tile: Val,
) -> None:
    region = region_of(instr)
    sizes = tuple(d.size if isinstance(d.size, int) else 0 for d in plan.dims)
    bounds = tile_bounds(w, plan.tiling, sizes, tile)
    emit_fused(_code(state, w, region, plan, addresses, scratch, fault, sizes, bounds))


def _code(
    state: Emission,
    w: FunctionWriter,
    region: Region,
    plan: FusedPlan,
    addresses: list[Val],
    scratch: Val,
    fault: Val,
    sizes: tuple[int | Val, ...],
    bounds: Mapping[int, tuple[Val, Val]],
) -> RegionCode:
    inputs = dict(zip(region.fn.inputs, addresses, strict=False))
    results = [r for i in region.fn.instrs for r in i.results]
    kept: dict[Value, Val] = {}
    at = 0
    for number, nbytes in zip(plan.stored, plan.stored_bytes, strict=True):
        kept[results[number]] = w.gep(scratch, at)
        at += nbytes
    return RegionCode(
        state=state,
        w=w,
        region=region,
        plan=plan,
        inputs=inputs,
        outputs=tuple(addresses[len(region.fn.inputs) :]),
        fault=fault,
        scratch=kept,
        room=w.gep(scratch, at) if plan.sweep else scratch,
        sizes=sizes,
        bounds=bounds,
    )


def _table(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: TablePlan,
    table: Val,
    scratch: Val,
    fault: Val,
    tile: Val,
) -> None:
    """For each row of the table (length, place, addresses): the map over that length, or over what
    of it lies in the tile."""
    region = region_of(instr)
    columns = table_columns(instr)
    first = w.mul(tile, plan.chunk)
    with w.loop(0, plan.count, label="instance") as i:
        row = w.gep(table, w.mul(i, columns), I64)
        length = w.load(I64, row)
        addresses = [w.load(PTR, w.gep(row, 2 + k, PTR)) for k in range(columns - 2)]

        def body(bounds: Mapping[int, tuple[Val, Val]], length: Val = length,
                 addresses: list[Val] = addresses) -> None:  # fmt: skip
            emit_fused(
                _code(state, w, region, plan.body, addresses, scratch, fault, (length,), bounds)
            )

        if plan.tiles == 1:
            body({})
        else:
            here = w.sub(first, w.load(I64, w.gep(row, 1, I64)))
            low = w.binary("llvm.smax", here, 0)
            high = w.binary("llvm.smin", w.add(here, plan.chunk), length)
            with w.if_(w.icmp("slt", low, high), "inside"):
                body({0: (low, high)})


def operand_count(instr: Instr, plan: KernelPlan) -> int:
    """How many addresses of operands and results a kernel's context holds; of a loop or branch also
    that of its workspace."""
    if isinstance(plan.body, TablePlan):
        return 1
    block = isinstance(plan.body, ControlPlan)
    return len(instr.args) + len(instr.results) + block


def table_columns(instr: Instr) -> int:
    """Entries of 8 bytes in one row of a `fused_table`'s table."""
    count: int = cast(Any, instr.attrs).count
    return 2 + (len(instr.args) + len(instr.results)) // count


def table_rows(instr: Instr) -> list[tuple[Value, ...]]:
    """The buffers of each row: an instance's operands, then its results."""
    count = cast(Any, instr.attrs).count
    takes, gives = len(instr.args) // count, len(instr.results) // count
    return [
        (*instr.args[i * takes : (i + 1) * takes], *instr.results[i * gives : (i + 1) * gives])
        for i in range(count)
    ]
