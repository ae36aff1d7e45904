"""Emits contractions: loops around the blocked product of packed panels (`product`), and plain
loops for small ones; each piece of the result is finished by the `epilogue`, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from treadle.codegen.dots import dots_function
from treadle.codegen.emission import Emission
from treadle.codegen.epilogue import epilogue_function, holder, product_spans
from treadle.codegen.llvm import (
    I1,
    I8,
    I64,
    NULL,
    VOID,
    FunctionWriter,
    Type,
    Val,
    int_const,
    register_type,
    vec,
)
from treadle.codegen.loops import Number, Piece, clipped, tile_bounds
from treadle.codegen.plan_contract import Axis, ContractPlan
from treadle.codegen.product import Frame, new_frame, product_function
from treadle.codegen.tiles import zero
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr

TRUE = int_const(1, I1)
FALSE = int_const(0, I1)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where and on what a kernel runs: its name and context, the packing memory that all threads
    share, this thread's scratch and the bytes to the next one's; the tile; the pool (or null) with
    its threads."""

    name: str
    ctx: Val
    shared: Val
    scratch: Val
    room: int
    tile: Val
    pool: Val
    threads: Val


def emit_contract(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: ContractPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """One tile of a contraction: `operands` are the addresses of its operands and results."""
    left, right = operands[:2]
    result = operands[len(instr.args) + (holder(instr) if instr.regions else 0)]
    if plan.swapped:
        left, right = right, left
    sizes = [x.size for x in plan.loops] + [plan.m.size]
    bounds = tile_bounds(w, plan.tiling, sizes, at.tile)
    spans = [bounds.get(n, (0, size)) for n, size in enumerate(sizes)]
    frame = _frame(state, w, plan, at)
    finish = _finish(state, w, instr, plan, frame, at, spans[-1])
    places = (left, right, result)
    if plan.kind == "zero":
        size = plan.size * plan.dtype.itemsize
        w.external("llvm.memset.p0.i64", VOID, (result, int_const(0, I8), w.int(size), FALSE))
        _around(w, plan, spans, places, frame, lambda a, b, c: finish())
    elif plan.kind == "simple":
        elem = register_type(plan.dtype)

        def simple(a: Val, b: Val, c: Val) -> None:
            _simple(w, plan, a, b, c, elem, spans[-1])
            finish()

        _around(w, plan, spans, places, frame, simple)
    elif plan.kind == "dots":

        def dots(a: Val, b: Val, c: Val) -> None:
            elem = register_type(plan.dtype)
            name = dots_function(state, plan.dtype, plan.mr, plan.nr)
            _sums(w, plan, a, b, elem, lambda a, b, add, last: _dots(w, plan, name, (a, b, c),
                                                                     spans[-1], add))  # fmt: skip
            finish()

        _around(w, plan, spans, places, frame, dots)
    else:
        _products(state, w, plan, places, frame, at, spans)


def _products(
    state: Emission,
    w: FunctionWriter,
    plan: ContractPlan,
    places: tuple[Val, Val, Val],
    frame: Frame,
    at: Workplace,
    spans: Sequence[tuple[Number, Number]],
) -> None:
    name = product_function(state, plan.dtype)
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))

    def product(a: Val, b: Val, add: Val, last: Val) -> None:
        frame.set("a", a)
        frame.set("b", b)
        frame.set("add", w.cast("zext", add, I64))
        frame.set("last", w.cast("zext", last, I64))
        w.call(name, VOID, [frame.base, pool, threads])

    def products(a: Val, b: Val, c: Val) -> None:
        frame.set("c", c)
        _sums(w, plan, a, b, register_type(plan.dtype), product)

    _around(w, plan, spans, places, frame, products)


def _finish(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: ContractPlan,
    frame: Frame,
    at: Workplace,
    rows: tuple[Number, Number],
) -> Callable[[], None]:
    """Puts the epilogue into the frame; what calls it for all columns of `rows`."""
    if plan.epilogue is None:
        if plan.kind == "packed":
            frame.set("epilogue", NULL)
        return lambda: None
    frame.set("ctx", at.ctx)
    spans = partial(product_spans, plan)
    address = epilogue_function(state, at.name, instr, plan.epilogue, spans)
    frame.set("epilogue", address)
    ends = [x if isinstance(x, Val) else w.int(x) for x in (*rows, 0, plan.n.size)]

    def finish() -> None:
        w.call(address.ref[1:], VOID, [frame.base, *ends])

    return finish


def _frame(state: Emission, w: FunctionWriter, plan: ContractPlan, at: Workplace) -> Frame:
    """Packing memory is shared where the threads work on one product, each one's own else."""
    if plan.kind != "packed":
        return Frame.new(w, len(plan.loops))
    if plan.spread:
        return new_frame(state, w, plan, at.shared, at.scratch, at.room)
    own = w.gep(at.scratch, plan.packing.shared_bytes)
    return new_frame(state, w, plan, at.scratch, own, 0)


def _around(
    w: FunctionWriter,
    plan: ContractPlan,
    spans: Sequence[tuple[Number, Number]],
    places: tuple[Val, Val, Val],
    frame: Frame,
    body: Callable[[Val, Val, Val], None],
) -> None:
    """`body` within the spans of the plan's loops, given where left, right and result begin."""
    elem = register_type(plan.dtype)

    def level(number: int, places: tuple[Val, Val, Val]) -> None:
        if number == len(plan.loops):
            body(*places)
            return
        axis, (first, last) = plan.loops[number], spans[number]
        with w.loop(first, last, label="around") as i:
            if plan.epilogue is not None:
                frame.set_index(number, i)
            moved = tuple(
                w.gep(place, w.mul(i, step), elem) if step else place
                for place, step in zip(places, (axis.a, axis.b, axis.c), strict=True)
            )
            level(number + 1, (moved[0], moved[1], moved[2]))

    level(0, places)


def _sums(
    w: FunctionWriter,
    plan: ContractPlan,
    a: Val,
    b: Val,
    elem: Type,
    body: Callable[[Val, Val, Val, Val], None],
) -> None:
    """`body` for each index of the summed letters besides k; its last arguments say whether to add
    to what is there, and whether nothing will be added to it."""

    def level(axes: Sequence[Axis], a: Val, b: Val, add: Val, last: Val) -> None:
        if not axes:
            body(a, b, add, last)
            return
        axis = axes[0]
        with w.loop(0, axis.size, label="sum") as i:
            at_a, at_b = (w.gep(x, w.mul(i, s), elem) for x, s in ((a, axis.a), (b, axis.b)))
            further = w.or_(add, w.icmp("sgt", i, 0))
            level(axes[1:], at_a, at_b, further, w.and_(last, w.icmp("eq", i, axis.size - 1)))

    level(plan.sums, a, b, FALSE, TRUE)


# --- dot products ----------------------------------------------------------------------------


def _dots(
    w: FunctionWriter,
    plan: ContractPlan,
    name: str,
    places: tuple[Val, Val, Val],
    span: tuple[Number, Number],
    add: Val,
) -> None:
    """All of n for the rows of the span, `mr` x `nr` at a time."""
    a, b, c = places
    elem = register_type(plan.dtype)
    m, n = plan.m, plan.n
    stop = span[1] if isinstance(span[1], Val) else w.int(span[1])
    with w.loop(span[0], stop, plan.mr, "rows") as i:
        rows = w.binary("llvm.smin", w.sub(stop, i), plan.mr)
        at_a, at_c = _moved(w, a, i, m.a, elem), _moved(w, c, i, m.c, elem)
        with w.loop(0, n.size, plan.nr, "columns") as j:
            columns = w.binary("llvm.smin", w.sub(w.int(n.size), j), plan.nr)
            at_b, here = _moved(w, b, j, n.b, elem), _moved(w, at_c, j, n.c, elem)
            steps = [w.int(x) for x in (m.a, n.b, m.c, n.c)]
            with w.loop(0, plan.k.size, plan.blocks.kc, "block") as k:
                kk = w.binary("llvm.smin", w.sub(w.int(plan.k.size), k), plan.blocks.kc)
                from_a, from_b = w.gep(at_a, k, elem), w.gep(at_b, k, elem)
                further = w.or_(add, w.icmp("sgt", k, 0))
                w.call(name, VOID, [from_a, steps[0], from_b, steps[1], here, steps[2], steps[3],
                                    rows, columns, kk, further])  # fmt: skip


# --- plain loops -----------------------------------------------------------------------------

_ROWS = 4


def _simple(
    w: FunctionWriter,
    plan: ContractPlan,
    a: Val,
    b: Val,
    c: Val,
    elem: Type,
    span: tuple[Number, Number],
) -> None:
    """Plain loops: rows, vectors of columns, and a sum in registers. Any numeric dtype."""
    size, rows = plan.m.size, _ROWS if plan.m.size >= _ROWS else 1
    whole = size // rows * rows
    for piece in (Piece(0, whole, 1, rows, False, size), Piece(whole, size, 1, 1, False, size)):
        if piece.is_empty:
            continue
        if isinstance(span[0], Val):
            piece = clipped(w, piece, *span)
        step = piece.step
        with w.loop(piece.start, piece.stop, step, "row") as i:
            at_a = _moved(w, a, i, plan.m.a, elem)
            at_c = _moved(w, c, i, plan.m.c, elem)
            _simple_columns(w, plan, (at_a, b, at_c), step, elem)


def _moved(w: FunctionWriter, base: Val, index: Val | int, step: int, elem: Type) -> Val:
    """`base` plus `index` steps."""
    if isinstance(index, Val):
        return w.gep(base, w.mul(index, step) if step != 1 else index, elem) if step else base
    return w.gep(base, index * step, elem) if index * step else base


def _simple_columns(
    w: FunctionWriter, plan: ContractPlan, at: tuple[Val, Val, Val], rows: int, elem: Type
) -> None:
    a, b, c = at
    lanes, n = plan.lanes, plan.n
    whole = n.size // lanes * lanes
    masked = w.target.masked_memory and lanes > 1
    pieces: list[tuple[int, int, int, Val | None]] = [(0, whole, lanes, None)]
    if whole + 1 < n.size and masked:
        mask = w.lane_mask(w.int(n.size - whole), lanes)
        pieces.append((whole, whole + lanes, lanes, mask))
    elif whole < n.size:
        pieces.append((whole, n.size, 1, None))
    for first, last, width, part in pieces:
        if first == last:
            continue
        with w.loop(first, last, width, "column") as j:
            at_b, at_c = _moved(w, b, j, n.b, elem), _moved(w, c, j, n.c, elem)
            sums = _simple_sums(w, plan, a, at_b, rows, width, part, elem)
            for i, total in enumerate(sums):
                place = _moved(w, at_c, i, plan.m.c, elem)
                if part is not None:
                    w.masked_store(total, place, part)
                else:
                    w.store(total, place)


def _simple_sums(
    w: FunctionWriter, plan: ContractPlan, a: Val, b: Val, rows: int, width: int,
    mask: Val | None, elem: Type,
) -> Sequence[Val]:  # fmt: skip
    """The sums over k (and the other summed letters) of `rows` vectors of the result."""
    type = vec(elem, width)
    nothing = zero(type) if elem.is_float else int_const(0, type)

    def level(axes: Sequence[Axis], a: Val, b: Val, sums: Sequence[Val]) -> Sequence[Val]:
        axis = axes[0]
        with w.carry(0, axis.size, 1, sums, "k") as loop:
            at_a, at_b = (_moved(w, x, loop.index, s, elem) for x, s in ((a, axis.a), (b, axis.b)))
            if len(axes) > 1:
                loop.next = level(axes[1:], at_a, at_b, loop.carried)
            else:
                loop.next = step(at_a, at_b, loop.carried)
        return loop.results

    def step(a: Val, b: Val, sums: Sequence[Val]) -> Sequence[Val]:
        right = w.masked_load(type, b, mask) if mask is not None else w.load(type, b)
        found = []
        for i, total in enumerate(sums):
            left = w.splat(w.load(elem, _moved(w, a, i, plan.m.a, elem)), width)
            if elem.is_float:
                found.append(w.muladd(left, right, total))
            else:
                found.append(w.add(total, w.mul(left, right)))
        return found

    return level((*plan.sums, plan.k), a, b, [nothing] * rows)
