"""Emits contractions with windows as plain loops; see `plan_window_loops`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treadle.codegen.contract import Workplace
from treadle.codegen.emission import Emission
from treadle.codegen.epilogue import epilogue_function, holder
from treadle.codegen.llvm import I1, VOID, FunctionWriter, Type, Val, int_const, register_type
from treadle.codegen.loops import tile_bounds
from treadle.codegen.plan_window_loops import WindowLoopsPlan
from treadle.codegen.product import Frame
from treadle.ir.graph import Instr
from treadle.ir.ops.contract_spec import Term, Window


def emit_window_loops(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: WindowLoopsPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """One tile: `operands` are the addresses of its operands and results."""
    result = operands[len(instr.args) + (holder(instr) if instr.regions else 0)]
    elem = register_type(plan.dtype)
    bounds = tile_bounds(w, plan.tiling, plan.out, at.tile)
    indices: dict[str, Val] = {}

    def level(number: int, place: Val) -> None:
        if number == len(plan.out):
            w.store(_sum(w, plan, operands, indices, elem), w.gep(result, place, elem))
            return
        size = plan.out[number]
        first, last = bounds.get(number, (0, size))
        with w.loop(first, last, label=plan.spec.out[number]) as i:
            indices[plan.spec.out[number]] = i
            level(number + 1, w.add(w.mul(place, size), i))

    level(0, w.int(0))
    if plan.epilogue is not None:
        _finish(state, w, instr, plan, bounds, at)


def _finish(
    state: Emission, w: FunctionWriter, instr: Instr, plan: WindowLoopsPlan,
    bounds: Mapping[int, tuple[Val, Val]], at: Workplace,
) -> None:  # fmt: skip
    """The epilogue over the tile, whose bounds stand in the frame."""
    assert plan.epilogue is not None
    frame = Frame.new(w, 2 * len(plan.out))
    frame.set("ctx", at.ctx)
    for n, size in enumerate(plan.out):
        for k, end in enumerate(bounds.get(n, (w.int(0), w.int(size)))):
            frame.set_index(2 * n + k, end)

    def spans(w: FunctionWriter, frame: Frame) -> Mapping[int, tuple[Val, Val]]:
        long = [n for n, size in enumerate(plan.out) if size != 1]
        return {k: (frame.index(2 * n), frame.index(2 * n + 1)) for k, n in enumerate(long)}

    finish = epilogue_function(state, at.name, instr, plan.epilogue, spans)
    w.call(finish.ref[1:], VOID, [frame.base, *[w.int(0)] * 4])


def _sum(
    w: FunctionWriter, plan: WindowLoopsPlan, operands: Sequence[Val],
    indices: Mapping[str, Val], elem: Type,
) -> Val:  # fmt: skip
    """The sum of one element's terms."""
    nothing = Val("0.0", elem) if elem.is_float else int_const(0, elem)
    found = dict(indices)
    sums = plan.sums

    def level(number: int, total: Val) -> Val:
        if number == len(sums):
            return _term(w, plan, operands, found, total, elem)
        with w.carry(0, plan.summed[number], 1, [total], sums[number]) as loop:
            found[sums[number]] = loop.index
            loop.next = [level(number + 1, loop.carried[0])]
        return loop.results[0]

    return level(0, nothing)


def _term(
    w: FunctionWriter, plan: WindowLoopsPlan, operands: Sequence[Val],
    indices: Mapping[str, Val], total: Val, elem: Type,
) -> Val:  # fmt: skip
    """`total` plus one product, if its window's element is there."""
    left, _ = _place(w, plan.spec.left, plan.left, indices)
    right, inside = _place(w, plan.spec.right, plan.right, indices)

    def more() -> Sequence[Val]:
        a, b = (
            w.load(elem, w.gep(base, at, elem))
            for base, at in zip(operands[:2], (left, right), strict=True)
        )
        return [w.muladd(a, b, total) if elem.is_float else w.add(total, w.mul(a, b))]

    return w.branch(inside, more, lambda: [total], "inside")[0]


def _place(
    w: FunctionWriter, term: Term, shape: Sequence[int], indices: Mapping[str, Val]
) -> tuple[Val, Val]:
    """Where the element lies, in elements, and whether it is there."""
    place, inside = w.int(0), int_const(1, I1)
    for x, size in zip(term, shape, strict=True):
        if isinstance(x, Window):
            at, there = _index(w, x, size, indices)
            inside = w.and_(inside, there)
        else:
            at = indices[x]
        place = w.add(w.mul(place, size), at)
    return place, inside


def _index(w: FunctionWriter, x: Window, size: int, indices: Mapping[str, Val]) -> tuple[Val, Val]:
    """The index of a window's element, and whether it is there."""
    moved = w.mul(indices[x.first], x.step), w.mul(indices[x.second], x.tap_step)
    at = w.add(w.add(*moved), x.offset)
    if x.every == 1:
        return at, w.icmp("ult", at, size)
    index = w.sdiv(at, x.every)
    whole = w.icmp("eq", w.mul(index, x.every), at)
    return index, w.and_(whole, w.icmp("ult", index, size))
