"""The blocked product of two matrices: packed panels, register tiles, and tiles for threads.

One set of functions for each dtype of a module; a product is a frame of numbers in memory that they
read, so that code does not grow with the number of products:

    for each nc columns, for each kc of k, for each block of rows:
        pack      the left block (bm rows a tile) and, once, the right block (bn columns a tile)
        multiply  bm x bn a tile: for each panel of columns, for each panel of rows: tile (and
                  edge); after the last of k the panel's epilogue

`pack` and `multiply` each run in tiles, on the pool if they are given one: no two tiles of one
write to the same memory, and `multiply` begins when all is packed. The order of additions into an
element is that of k, whatever the tiles.
"""

from __future__ import annotations

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.emission import Emission, run_tiles
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Type, Val, register_type
from treadle.codegen.plan_contract import ContractPlan, packing
from treadle.codegen.tiles import edge_function, pack_function, tile_function
from treadle.ir.types import DType

# The frame: what a product is, then the block that is being worked on.
_POINTERS = ("a", "b", "c", "left", "right", "edge", "tile", "epilogue", "ctx")
_NUMBERS = (
    "m", "n", "k", "a_m", "a_k", "b_k", "b_n", "c_m", "c_n", "rows", "nc", "kc", "mr", "nr",
    "bm", "bn", "group", "room", "direct", "add", "last",
)  # fmt: skip
_BLOCK = ("jc", "nn", "pc", "kk", "ic", "mm", "going_on", "lefts")
_FIELDS = {name: n for n, name in enumerate((*_POINTERS, *_NUMBERS, *_BLOCK))}


class Frame:
    """The fields of a product, in memory; behind them its index along each loop around it.

    `epilogue` is what finishes the product, or null, `ctx` the kernel's context for it; `last` says
    that nothing is added to the product any more.
    """

    def __init__(self, w: FunctionWriter, base: Val) -> None:
        self.w, self.base = w, base

    @staticmethod
    def new(w: FunctionWriter, loops: int) -> Frame:
        """On the stack."""
        return Frame(w, w.alloca(I64, len(_FIELDS) + loops))

    def index(self, loop: int) -> Val:
        """The index along a loop around the product."""
        return self.w.load(I64, self.w.gep(self.base, len(_FIELDS) + loop, I64), align=8)

    def set_index(self, loop: int, value: Val) -> None:
        self.w.store(value, self.w.gep(self.base, len(_FIELDS) + loop, I64), align=8)

    def set(self, name: str, value: Val) -> None:
        self.w.store(value, self.w.gep(self.base, _FIELDS[name], I64), align=8)

    def get(self, name: str) -> Val:
        type = PTR if name in _POINTERS else I64
        return self.w.load(type, self.w.gep(self.base, _FIELDS[name], I64), align=8)


def new_frame(
    state: Emission, w: FunctionWriter, plan: ContractPlan, packed: Val, edges: Val, room: int
) -> Frame:
    """A frame with all that does not differ between the products of one contraction.

    `packed`: where both operands are packed; `edges`: where the first thread's tile at the result's
    edges lies, `room` bytes before the next one's.
    """
    frame = Frame.new(w, len(plan.loops))
    where = packing(plan.blocks, plan.mr, plan.nr, state.target.lanes(plan.dtype), plan.dtype)
    frame.set("left", packed)
    frame.set("right", w.gep(packed, where.right))
    frame.set("edge", edges)
    frame.set("tile", Val(f"@{tile_function(state, plan.dtype, plan.mr, plan.nr)}", PTR))
    m, n, k, blocks = plan.m, plan.n, plan.k, plan.blocks
    numbers = (
        m.size, n.size, k.size, m.a, k.a, k.b, n.b, m.c, n.c, blocks.rows, blocks.nc, blocks.kc,
        plan.mr, plan.nr, blocks.bm, blocks.bn, where.group, room, int(plan.direct),
    )  # fmt: skip
    for name, value in zip(_NUMBERS, numbers, strict=False):
        frame.set(name, w.int(value))
    return frame


def product_function(state: Emission, dtype: DType) -> str:
    """`product(frame, pool, threads)`."""
    return state.once(f"product_{dtype.short}", lambda name: _Product(state, dtype).write(name))


class _Product:
    """Writes the three functions."""

    def __init__(self, state: Emission, dtype: DType) -> None:
        self.state, self.dtype = state, dtype
        self.elem = register_type(dtype)
        self.edge_name = edge_function(state, dtype)
        self.pack_name = pack_function(state, dtype)

    # --- the loops over blocks ---------------------------------------------------------------

    def write(self, name: str) -> None:
        self.write_pack(f"pack_tile_{self.dtype.short}")
        self.write_multiply(f"multiply_tile_{self.dtype.short}")
        params: list[tuple[Type, str]] = [(PTR, "frame"), (PTR, "pool"), (I64, "threads")]
        w = self.state.module.function(name, VOID, params, internal=True)
        f = Frame(w, w.args[0])
        n, nc, k, kc, m, rows = map(f.get, ("n", "nc", "k", "kc", "m", "rows"))
        with w.loop(0, _count(w, n, nc), label="jc") as j:
            self._set_block(f, ("jc", "nn"), w.mul(j, nc), n, nc)
            with w.loop(0, _count(w, k, kc), label="pc") as p:
                self._set_block(f, ("pc", "kk"), w.mul(p, kc), k, kc)
                later = w.cast("zext", w.icmp("sgt", p, 0), I64)
                f.set("going_on", w.or_(f.get("add"), later))
                with w.loop(0, _count(w, m, rows), label="ic") as i:
                    self._set_block(f, ("ic", "mm"), w.mul(i, rows), m, rows)
                    self._run(f, i)
        w.ret()

    def _set_block(
        self, f: Frame, names: tuple[str, str], start: Val, total: Val, size: Val
    ) -> None:
        w = f.w
        f.set(names[0], start)
        f.set(names[1], w.binary("llvm.smin", w.sub(total, start), size))

    def _run(self, f: Frame, i: Val) -> None:
        """Both regions for one block. The right operand is packed with the first block of rows."""
        w = f.w
        lefts = _count(w, f.get("mm"), f.get("bm"))
        f.set("lefts", lefts)
        columns, nn = f.get("bn"), f.get("nn")
        rights = w.select(w.icmp("eq", i, 0), _count(w, w.sub(nn, self._in_place(f)), columns), 0)
        _, pool, threads = w.args
        pack, multiply = (Val(f"@{k}_tile_{self.dtype.short}", PTR) for k in ("pack", "multiply"))
        run_tiles(self.state, w, pool, pack, f.base, w.add(lefts, rights), threads)
        tiles = w.mul(lefts, _count(w, nn, columns))
        run_tiles(self.state, w, pool, multiply, f.base, tiles, threads)

    def _in_place(self, f: Frame) -> Val:
        """How many columns of the block are read where they lie: whole panels, or none."""
        w = f.w
        nr = f.get("nr")
        whole = w.mul(w.sdiv(f.get("nn"), nr), nr)
        return w.select(w.icmp("ne", f.get("direct"), 0), whole, 0)

    # --- packing -----------------------------------------------------------------------------

    def write_pack(self, name: str) -> None:
        """One tile: `bm` rows of the left block, or `bn` columns of the right one."""
        w = self.state.module.function(name, VOID, KERNEL_PARAMS, internal=True)
        f, tile = Frame(w, w.args[0]), w.args[1]
        lefts = f.get("lefts")
        is_left = w.icmp("slt", tile, lefts)
        left, right = w.new_block("left"), w.new_block("right")
        w.cond_br(is_left, left, right)
        w.start(left)
        self._pack_left(f, tile)
        w.ret()
        w.start(right)
        self._pack_right(f, w.sub(tile, lefts))
        w.ret()

    def _pack_left(self, f: Frame, tile: Val) -> None:
        """Groups of panels lie `group` apart, since a panel's last store may run over its end."""
        w = f.w
        first = w.mul(tile, f.get("bm"))
        rows = w.binary("llvm.smin", w.sub(f.get("mm"), first), f.get("bm"))
        a_m, a_k = f.get("a_m"), f.get("a_k")
        source = self._at(w, f.get("a"), (w.add(f.get("ic"), first), a_m), (f.get("pc"), a_k))
        to = self._at(w, f.get("left"), (tile, f.get("group")))
        w.call(self.pack_name, VOID, [source, to, rows, f.get("kk"), a_m, a_k, f.get("mr")])

    def _pack_right(self, f: Frame, tile: Val) -> None:
        w = f.w
        first = w.add(self._in_place(f), w.mul(tile, f.get("bn")))
        columns = w.binary("llvm.smin", w.sub(f.get("nn"), first), f.get("bn"))
        b_k, b_n, kk = f.get("b_k"), f.get("b_n"), f.get("kk")
        source = self._at(w, f.get("b"), (f.get("pc"), b_k), (w.add(f.get("jc"), first), b_n))
        to = self._at(w, f.get("right"), (first, kk))
        w.call(self.pack_name, VOID, [source, to, columns, kk, b_n, b_k, f.get("nr")])

    # --- multiplying -------------------------------------------------------------------------

    def write_multiply(self, name: str) -> None:
        """One tile: `bm` x `bn` of the result. Tiles side by side share their right panels."""
        w = self.state.module.function(name, VOID, KERNEL_PARAMS, internal=True)
        f, tile, slot = Frame(w, w.args[0]), w.args[1], w.args[2]
        lefts, bm, bn, mr, nr, kk = map(f.get, ("lefts", "bm", "bn", "mr", "nr", "kk"))
        group, first = w.urem(tile, lefts), w.mul(w.udiv(tile, lefts), bn)
        row = w.mul(group, bm)
        left = self._at(w, f.get("left"), (group, f.get("group")))
        mm = w.binary("llvm.smin", w.sub(f.get("mm"), row), bm)
        last = w.binary("llvm.smin", w.add(first, bn), f.get("nn"))
        b_k, b_n, c_m, c_n = map(f.get, ("b_k", "b_n", "c_m", "c_n"))
        b = self._at(w, f.get("b"), (f.get("pc"), b_k), (f.get("jc"), b_n))
        c = self._at(w, f.get("c"), (w.add(f.get("ic"), row), c_m), (f.get("jc"), c_n))
        edge = w.gep(f.get("edge"), w.mul(slot, f.get("room")))
        micro, packed, in_place = f.get("tile"), f.get("right"), self._in_place(f)
        add = w.icmp("ne", f.get("going_on"), 0)
        unit = w.icmp("eq", c_n, 1)
        ready = self._is_ready(f)
        row, jc = w.add(f.get("ic"), row), f.get("jc")
        panels = _count(w, w.sub(last, first), nr)
        with w.loop(0, panels, label="jr") as j:
            jb = w.add(first, w.mul(j, nr))
            columns = w.binary("llvm.smin", w.sub(last, jb), nr)
            lies = w.icmp("slt", jb, in_place)
            right = w.select(lies, self._at(w, b, (jb, b_n)), self._at(w, packed, (jb, kk)))
            step = w.select(lies, b_k, nr)
            full = w.and_(w.icmp("eq", columns, nr), unit)
            with w.loop(0, _count(w, mm, mr), label="ir") as i:
                ib = w.mul(i, mr)
                rows = w.binary("llvm.smin", w.sub(mm, ib), mr)
                here = self._at(w, c, (ib, c_m), (jb, c_n))
                inside = w.and_(full, w.icmp("eq", rows, mr))
                args = [
                    self._at(w, left, (ib, kk)), right, step, w.select(inside, here, edge),
                    w.select(inside, c_m, nr), kk, w.and_(inside, add),
                ]  # fmt: skip
                w.effect(f"call void {micro.ref}({', '.join(map(str, args))})")
                with w.if_(w.not_(inside), "over"):
                    w.call(self.edge_name, VOID, [edge, nr, here, rows, columns, c_m, c_n, add])
            with w.if_(ready, "finish"):
                at = w.add(jc, jb)
                ends = [row, w.add(row, mm), at, w.add(at, columns)]
                listed = ", ".join(map(str, (f.base, *ends)))
                w.effect(f"call void {f.get('epilogue').ref}({listed})")
        w.ret()

    def _is_ready(self, f: Frame) -> Val:
        """Is the tile complete with this block of k, and something to be done with it?"""
        w = f.w
        done = w.icmp("eq", w.add(f.get("pc"), f.get("kk")), f.get("k"))
        is_last = w.icmp("ne", f.get("last"), 0)
        has_epilogue = w.inst(I1, f"icmp ne {f.get('epilogue')}, null")
        return w.and_(has_epilogue, w.and_(done, is_last))

    def _at(self, w: FunctionWriter, base: Val, *offsets: tuple[Val, Val]) -> Val:
        for index, step in offsets:
            base = w.gep(base, w.mul(index, step), self.elem)
        return base


def _count(w: FunctionWriter, total: Val, size: Val) -> Val:
    """How many blocks of `size` cover `total`."""
    return w.sdiv(w.sub(w.add(total, size), 1), size)
