"""Emits contractions: the blocked product of packed panels, and plain loops for small ones.

The blocked product is one function for each dtype of a module; sizes, steps, block sizes and the
register tile are its arguments, so that code does not grow with the number of products:

    for each nc columns:  for each kc of k:   pack the right operand
      for each mc rows:   pack the left operand
        for each panel of columns, for each panel of rows:   tile (and edge)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    I8,
    I64,
    PTR,
    VOID,
    FunctionWriter,
    Type,
    Val,
    int_const,
    register_type,
    vec,
)
from treadle.codegen.plan_contract import Axis, ContractPlan, packing_offsets
from treadle.codegen.tiles import edge_function, pack_function, tile_function, zero
from treadle.ir.types import DType

TRUE = int_const(1, I1)
FALSE = int_const(0, I1)


def emit_contract(
    state: Emission, w: FunctionWriter, plan: ContractPlan, operands: Sequence[Val], scratch: Val
) -> None:
    """The body of one contraction: `operands` are the addresses of left, right and result."""
    left, right, result = operands
    if plan.swapped:
        left, right = right, left
    if plan.kind == "zero":
        size = plan.size * plan.dtype.itemsize
        w.external("llvm.memset.p0.i64", VOID, (result, int_const(0, I8), w.int(size), FALSE))
        return
    elem = register_type(plan.dtype)

    def inner(a: Val, b: Val, c: Val) -> None:
        if plan.kind == "simple":
            _simple(w, plan, a, b, c, elem)
        else:
            _sums(w, plan, a, b, elem, lambda a, b, add: _product(state, w, plan, a, b, c, add,
                                                                  scratch))  # fmt: skip

    _around(w, plan.loops, (left, right, result), elem, inner)


def _around(
    w: FunctionWriter,
    loops: Sequence[Axis],
    bases: tuple[Val, Val, Val],
    elem: Type,
    body: Callable[[Val, Val, Val], None],
) -> None:
    """`body` within `loops`, given the addresses where left, right and result begin."""
    if not loops:
        body(*bases)
        return
    axis = loops[0]
    with w.loop(0, axis.size, label="around") as i:
        moved = tuple(
            w.gep(base, w.mul(i, step), elem) if step else base
            for base, step in zip(bases, (axis.a, axis.b, axis.c), strict=True)
        )
        _around(w, loops[1:], (moved[0], moved[1], moved[2]), elem, body)


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


# --- the blocked product ---------------------------------------------------------------------


def _product(
    state: Emission, w: FunctionWriter, plan: ContractPlan, a: Val, b: Val, c: Val, add: Val,
    scratch: Val,
) -> None:  # fmt: skip
    name = f"product_{plan.dtype.short}"
    state.once(name, lambda name: _write_product(state, name, plan.dtype))
    tile = Val(f"@{tile_function(state, plan.dtype, plan.mr, plan.nr)}", PTR)
    width = state.target.lanes(plan.dtype)
    offsets = packing_offsets(plan.mr, plan.nr, plan.mc, plan.nc, plan.kc, width, plan.dtype)
    m, n, k = plan.m, plan.n, plan.k
    numbers = (
        m.size, n.size, k.size, m.a, k.a, k.b, n.b, m.c, n.c, plan.mc, plan.nc, plan.kc,
        plan.mr, plan.nr,
    )  # fmt: skip
    packed = [w.gep(scratch, o) for o in offsets]
    args = [
        a,
        b,
        c,
        *packed,
        tile,
        *(w.int(x) for x in numbers),
        int_const(int(plan.direct), I1),
        add,
    ]
    w.call(name, VOID, args)


_NUMBERS = ("m", "n", "k", "a_m", "a_k", "b_k", "b_n", "c_m", "c_n", "mc", "nc", "kc",
            "mr", "nr")  # fmt: skip


def _write_product(state: Emission, name: str, dtype: DType) -> None:
    pointers = ("a", "b", "c", "left", "right", "edge", "tile")
    params: list[tuple[Type, str]] = [(PTR, p) for p in pointers]
    params += [(I64, x) for x in _NUMBERS]
    params += [(I1, "direct"), (I1, "add")]
    w = state.module.function(name, VOID, params, internal=True)
    _Product(state, w, dtype).write()
    w.ret()


class _Product:
    """Writes the loops over blocks and panels."""

    def __init__(self, state: Emission, w: FunctionWriter, dtype: DType) -> None:
        self.w = w
        self.elem = register_type(dtype)
        self.edge_name = edge_function(state, dtype)
        self.pack_name = pack_function(state, dtype)
        (self.a, self.b, self.c, self.left, self.right, self.edge, self.tile, *numbers) = w.args
        (self.m, self.n, self.k, self.a_m, self.a_k, self.b_k, self.b_n, self.c_m, self.c_n,
         self.mc, self.nc, self.kc, self.mr, self.nr, self.direct, self.add) = numbers  # fmt: skip

    def _at(self, base: Val, *offsets: tuple[Val, Val]) -> Val:
        for index, step in offsets:
            base = self.w.gep(base, self.w.mul(index, step), self.elem)
        return base

    def _blocks(self, total: Val, size: Val) -> Val:
        """How many blocks of `size` cover `total`."""
        w = self.w
        return w.sdiv(w.sub(w.add(total, size), 1), size)

    def write(self) -> None:
        w = self.w
        with w.loop(0, self._blocks(self.n, self.nc), label="jc") as j:
            jc = w.mul(j, self.nc)
            nn = w.binary("llvm.smin", w.sub(self.n, jc), self.nc)
            with w.loop(0, self._blocks(self.k, self.kc), label="pc") as p:
                pc = w.mul(p, self.kc)
                kk = w.binary("llvm.smin", w.sub(self.k, pc), self.kc)
                add = w.or_(self.add, w.icmp("sgt", p, 0))
                self._right_block(jc, nn, pc, kk, add)

    def _right_block(self, jc: Val, nn: Val, pc: Val, kk: Val, add: Val) -> None:
        w = self.w
        b = self._at(self.b, (pc, self.b_k), (jc, self.b_n))
        whole = w.mul(w.sdiv(nn, self.nr), self.nr)
        direct = w.select(self.direct, whole, 0)
        w.call(
            self.pack_name,
            VOID,
            [self._at(b, (direct, self.b_n)), self._at(self.right, (direct, kk)),
             w.sub(nn, direct), kk, self.b_n, self.b_k,
             self.nr],
        )  # fmt: skip
        with w.loop(0, self._blocks(self.m, self.mc), label="ic") as i:
            ic = w.mul(i, self.mc)
            mm = w.binary("llvm.smin", w.sub(self.m, ic), self.mc)
            a = self._at(self.a, (ic, self.a_m), (pc, self.a_k))
            pack = [a, self.left, mm, kk, self.a_m, self.a_k, self.mr]
            w.call(self.pack_name, VOID, pack)
            c = self._at(self.c, (ic, self.c_m), (jc, self.c_n))
            self._panels(b, c, mm, nn, kk, direct, add)

    def _panels(self, b: Val, c: Val, mm: Val, nn: Val, kk: Val, direct: Val, add: Val) -> None:
        w = self.w
        with w.loop(0, self._blocks(nn, self.nr), label="jr") as j:
            jb = w.mul(j, self.nr)
            columns = w.binary("llvm.smin", w.sub(nn, jb), self.nr)
            in_place = w.icmp("slt", jb, direct)
            right = w.select(in_place, self._at(b, (jb, self.b_n)), self._at(self.right, (jb, kk)))
            step = w.select(in_place, self.b_k, self.nr)
            full = w.and_(w.icmp("eq", columns, self.nr), w.icmp("eq", self.c_n, 1))
            with w.loop(0, self._blocks(mm, self.mr), label="ir") as i:
                ib = w.mul(i, self.mr)
                rows = w.binary("llvm.smin", w.sub(mm, ib), self.mr)
                here = self._at(c, (ib, self.c_m), (jb, self.c_n))
                inside = w.and_(full, w.icmp("eq", rows, self.mr))
                args = [
                    self._at(self.left, (ib, kk)), right, step,
                    w.select(inside, here, self.edge), w.select(inside, self.c_m, self.nr), kk,
                    w.and_(inside, add),
                ]  # fmt: skip
                w.effect(f"call void {self.tile.ref}({', '.join(map(str, args))})")
                with w.if_(w.not_(inside), "over"):
                    edge = [self.edge, self.nr, here, rows, columns, self.c_m, self.c_n, add]
                    w.call(self.edge_name, VOID, edge)


# --- plain loops -----------------------------------------------------------------------------

_ROWS = 4


def _simple(w: FunctionWriter, plan: ContractPlan, a: Val, b: Val, c: Val, elem: Type) -> None:
    """Plain loops: rows, vectors of columns, and a sum in registers. Any numeric dtype."""
    rows = _ROWS if plan.m.size >= _ROWS else 1
    whole = plan.m.size // rows * rows
    for first, last, step in ((0, whole, rows), (whole, plan.m.size, 1)):
        if first == last:
            continue
        with w.loop(first, last, step, "row") as i:
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
