"""Emits contractions: loops around the blocked product of packed panels (`product`), and plain
loops for small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treadle.codegen.emission import Emission
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

TRUE = int_const(1, I1)
FALSE = int_const(0, I1)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where and on what a kernel runs: the packing memory that all threads share, this thread's
    scratch and the bytes to the next one's; the tile; the pool (or null) with its threads."""

    shared: Val
    scratch: Val
    room: int
    tile: Val
    pool: Val
    threads: Val


def emit_contract(
    state: Emission, w: FunctionWriter, plan: ContractPlan, operands: Sequence[Val], at: Workplace
) -> None:
    """One tile of a contraction: `operands` are the addresses of left, right and result."""
    left, right, result = operands
    if plan.swapped:
        left, right = right, left
    if plan.kind == "zero":
        size = plan.size * plan.dtype.itemsize
        w.external("llvm.memset.p0.i64", VOID, (result, int_const(0, I8), w.int(size), FALSE))
        return
    elem = register_type(plan.dtype)

    sizes = [x.size for x in plan.loops] + [plan.m.size]
    bounds = tile_bounds(w, plan.tiling, sizes, at.tile)
    spans = [bounds.get(n, (0, size)) for n, size in enumerate(sizes)]
    if plan.kind == "simple":
        _around(w, plan.loops, spans, (left, right, result), elem,
                lambda a, b, c: _simple(w, plan, a, b, c, elem, spans[-1]))  # fmt: skip
        return
    name = product_function(state, plan.dtype)
    frame = _frame(state, w, plan, at)
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))

    def product(a: Val, b: Val, add: Val) -> None:
        frame.set("a", a)
        frame.set("b", b)
        frame.set("add", w.cast("zext", add, I64))
        w.call(name, VOID, [frame.base, pool, threads])

    def products(a: Val, b: Val, c: Val) -> None:
        frame.set("c", c)
        _sums(w, plan, a, b, elem, product)

    _around(w, plan.loops, spans, (left, right, result), elem, products)


def _frame(state: Emission, w: FunctionWriter, plan: ContractPlan, at: Workplace) -> Frame:
    """Packing memory is shared where the threads work on one product, each one's own else."""
    if plan.spread:
        return new_frame(state, w, plan, at.shared, at.scratch, at.room)
    edge = plan.own - plan.edge_bytes
    return new_frame(state, w, plan, at.scratch, w.gep(at.scratch, edge), 0)


def _around(
    w: FunctionWriter,
    loops: Sequence[Axis],
    spans: Sequence[tuple[Number, Number]],
    bases: tuple[Val, Val, Val],
    elem: Type,
    body: Callable[[Val, Val, Val], None],
) -> None:
    """`body` within the spans of `loops`, given where left, right and result begin."""
    if not loops:
        body(*bases)
        return
    axis, (first, last) = loops[0], spans[0]
    with w.loop(first, last, label="around") as i:
        moved = tuple(
            w.gep(base, w.mul(i, step), elem) if step else base
            for base, step in zip(bases, (axis.a, axis.b, axis.c), strict=True)
        )
        _around(w, loops[1:], spans[1:], (moved[0], moved[1], moved[2]), elem, body)


def _sums(
    w: FunctionWriter,
    plan: ContractPlan,
    a: Val,
    b: Val,
    elem: Type,
    body: Callable[[Val, Val, Val], None],
) -> None:
    """`body` for each index of the summed letters besides k; its last argument says to add."""

    def level(axes: Sequence[Axis], a: Val, b: Val, add: Val) -> None:
        if not axes:
            body(a, b, add)
            return
        axis = axes[0]
        with w.loop(0, axis.size, label="sum") as i:
            at_a, at_b = (w.gep(x, w.mul(i, s), elem) for x, s in ((a, axis.a), (b, axis.b)))
            level(axes[1:], at_a, at_b, w.or_(add, w.icmp("sgt", i, 0)))

    level(plan.sums, a, b, FALSE)


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
