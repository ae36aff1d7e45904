"""The blocked product of two matrices: gathered panels, register tiles, and tiles for threads.

One set of functions for each dtype of a module; a product is a frame of numbers in memory that they
read, so that code does not grow with the number of products:

    for each nc columns, for each kb of k:
        gather    once for all tiles: the right operand, bn columns a tile, and a left one whose
                  rows more than one tile needs, bm rows a tile
        multiply  bm x bn a tile: for each kc of k: gather the left rows, unless that is done; for
                  each panel of columns, for each panel of rows: tile (and edge); after the last of
                  k the epilogue

`gather` and `multiply` each run in tiles, on the pool if they are given one: no two tiles of one
write to the same memory, and `multiply` begins when all is gathered. All of k that the right
operand's memory has room for runs within one tile, so that its part of the result stays with one
core. The order of additions into an element is that of k, whatever the tiles.
"""

from __future__ import annotations

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.emission import Emission, run_tiles
from treadle.codegen.gather import strided_gather
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Type, Val, register_type
from treadle.codegen.plan_contract import ContractPlan
from treadle.codegen.tiles import edge_function, tile_function
from treadle.ir.types import DType

# The frame: what a product is, then the block that is being worked on.
_POINTERS = (
    "a", "b", "c", "left", "right", "edge", "tile", "gather_a", "gather_b", "epilogue", "ctx",
)  # fmt: skip
_NUMBERS = (
    "m", "n", "k", "a_m", "a_k", "b_k", "b_n", "c_m", "c_n", "nc", "kb", "kc", "mr", "nr", "bm",
    "bn", "strip", "group", "left_block", "right_block", "room", "direct", "own", "shift", "mask",
    "across", "add", "last",
)  # fmt: skip
_BLOCK = ("jc", "nn", "pc", "kk", "going_on", "lefts")
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
    state: Emission, w: FunctionWriter, plan: ContractPlan, shared: Val, own: Val, room: int
) -> Frame:
    """A frame with all that does not differ between the products of one contraction.

    `shared`: memory for what is gathered once; `own`: the first thread's memory, `room` bytes
    before the next one's.
    """
    frame = Frame.new(w, len(plan.loops))
    m, n, k, blocks, where = plan.m, plan.n, plan.k, plan.blocks, plan.packing
    gather = Val(f"@{strided_gather(state, plan.dtype)}", PTR)
    pointers = {
        "left": own if blocks.own else w.gep(shared, where.right_bytes),
        "right": shared,
        "edge": w.gep(own, where.own_bytes),
        "tile": Val(f"@{tile_function(state, plan.dtype, plan.mr, plan.nr)}", PTR),
        "gather_a": gather,
        "gather_b": gather,
    }
    for name, address in pointers.items():
        frame.set(name, address)
    numbers = (
        m.size, n.size, k.size, m.a, k.a, k.b, n.b, m.c, n.c, blocks.nc, blocks.kb, blocks.kc,
        plan.mr, plan.nr, blocks.bm, blocks.bn, blocks.strip, where.group, where.left_block,
        where.right_block, room, int(blocks.direct), int(blocks.own), *_columns(plan),
    )  # fmt: skip
    for name, value in zip(_NUMBERS, numbers, strict=False):
        frame.set(name, w.int(value))
    return frame


def _columns(plan: ContractPlan) -> tuple[int, int, int]:
    """How the right operand's columns lie: column j is `(j >> shift) * across + (j & mask)`."""
    if not plan.panel:
        return 0, 0, plan.n.b
    return plan.panel.bit_length() - 1, plan.panel - 1, plan.panel * plan.k.size


def product_function(state: Emission, dtype: DType) -> str:
    """`product(frame, pool, threads)`."""
    return state.once(f"product_{dtype.short}", lambda name: _Product(state, dtype).write(name))


class _Product:
    """Writes the three functions."""

    def __init__(self, state: Emission, dtype: DType) -> None:
        self.state, self.dtype = state, dtype
        self.elem = register_type(dtype)
        self.edge_name = edge_function(state, dtype)
        self.gather_name, self.multiply_name = (
            f"{what}_tile_{dtype.short}" for what in ("gather", "multiply")
        )

    # --- the loops over blocks ---------------------------------------------------------------

    def write(self, name: str) -> None:
        self.write_gather(self.gather_name)
        self.write_multiply(self.multiply_name)
        params: list[tuple[Type, str]] = [(PTR, "frame"), (PTR, "pool"), (I64, "threads")]
        w = self.state.module.function(name, VOID, params, internal=True)
        f = Frame(w, w.args[0])
        n, nc, k, kb = map(f.get, ("n", "nc", "k", "kb"))
        f.set("lefts", _count(w, f.get("m"), f.get("bm")))
        with w.loop(0, _count(w, n, nc), label="jc") as j:
            self._set_block(f, ("jc", "nn"), w.mul(j, nc), n, nc)
            with w.loop(0, _count(w, k, kb), label="pc") as p:
                self._set_block(f, ("pc", "kk"), w.mul(p, kb), k, kb)
                later = w.cast("zext", w.icmp("sgt", p, 0), I64)
                f.set("going_on", w.or_(f.get("add"), later))
                self._run(f)
        w.ret()

    def _set_block(
        self, f: Frame, names: tuple[str, str], start: Val, total: Val, size: Val
    ) -> None:
        w = f.w
        f.set(names[0], start)
        f.set(names[1], w.binary("llvm.smin", w.sub(total, start), size))

    def _run(self, f: Frame) -> None:
        """Both regions for one block."""
        w = f.w
        _, pool, threads = w.args
        lefts, columns, nn = f.get("lefts"), f.get("bn"), f.get("nn")
        blocks = _count(w, f.get("kk"), f.get("kc"))
        gathers = w.mul(blocks, w.add(self._lefts(f), self._rights(f)))
        with w.if_(w.icmp("sgt", gathers, 0), "gather"):
            gather = Val(f"@{self.gather_name}", PTR)
            run_tiles(self.state, w, pool, gather, f.base, gathers, threads)
        tiles = w.mul(lefts, _count(w, nn, columns))
        run_tiles(
            self.state, w, pool, Val(f"@{self.multiply_name}", PTR), f.base, tiles, threads
        )  # fmt: skip

    def _in_place(self, f: Frame) -> Val:
        """How many columns of the block are read where they lie: whole panels, or none."""
        w = f.w
        nr = f.get("nr")
        whole = w.mul(w.sdiv(f.get("nn"), nr), nr)
        return w.select(w.icmp("ne", f.get("direct"), 0), whole, 0)

    def _lefts(self, f: Frame) -> Val:
        """How many pieces of each block of k of the left operand are gathered once."""
        return f.w.select(f.w.icmp("eq", f.get("own"), 0), f.get("lefts"), 0)

    def _rights(self, f: Frame) -> Val:
        """The same of the right one."""
        return _count(f.w, f.w.sub(f.get("nn"), self._in_place(f)), f.get("bn"))

    def _block_of_k(self, f: Frame, number: Val) -> tuple[Val, Val]:
        """Where a block of `kc` begins, from `pc` on, and how long it is."""
        w, kc = f.w, f.get("kc")
        start = w.mul(number, kc)
        return start, w.binary("llvm.smin", w.sub(f.get("kk"), start), kc)

    # --- gathering ---------------------------------------------------------------------------

    def write_gather(self, name: str) -> None:
        """One tile: for one block of k `bm` rows of the left operand or `bn` columns of the right
        one."""
        w = self.state.module.function(name, VOID, KERNEL_PARAMS, internal=True)
        f, tile = Frame(w, w.args[0]), w.args[1]
        lefts, rights = self._lefts(f), self._rights(f)
        each = w.add(lefts, rights)
        number, piece = w.udiv(tile, each), w.urem(tile, each)
        start, ks = self._block_of_k(f, number)
        left, right = w.new_block("left"), w.new_block("right")
        w.cond_br(w.icmp("slt", piece, lefts), left, right)
        w.start(left)
        self._gather_left(f, piece, start, ks, self._shared_left(f, piece, number))
        w.ret()
        w.start(right)
        first = w.mul(w.sub(piece, lefts), f.get("bn"))
        at = w.add(self._in_place(f), first)
        columns = w.binary("llvm.smin", w.sub(f.get("nn"), at), f.get("bn"))
        to = self._at(w, f.get("right"), (number, f.get("right_block")), (first, ks))
        self._gather(f, "b", to, w.add(f.get("jc"), at), columns, w.add(f.get("pc"), start), ks)
        w.ret()

    def _shared_left(self, f: Frame, piece: Val, number: Val) -> Val:
        """Pieces of rows lie `group` apart, since the last store of one may run over its end."""
        offsets = (number, f.get("left_block")), (piece, f.get("group"))
        return self._at(f.w, f.get("left"), *offsets)

    def _gather_left(self, f: Frame, piece: Val, start: Val, ks: Val, to: Val) -> None:
        w = f.w
        first = w.mul(piece, f.get("bm"))
        rows = w.binary("llvm.smin", w.sub(f.get("m"), first), f.get("bm"))
        self._gather(f, "a", to, first, rows, w.add(f.get("pc"), start), ks)

    def _gather(
        self, f: Frame, operand: str, to: Val, first: Val, rows: Val, k: Val, ks: Val
    ) -> None:
        steps = ("a_m", "a_k", "mr") if operand == "a" else ("b_n", "b_k", "nr")
        source, function = f.get(operand), f.get(f"gather_{operand}")
        args = (f.base, source, to, first, rows, k, ks, *map(f.get, steps))
        f.w.effect(f"call void {function.ref}({', '.join(map(str, args))})")

    # --- multiplying -------------------------------------------------------------------------

    def write_multiply(self, name: str) -> None:
        """One tile: `bm` x `bn` of the result. Tiles side by side share their right panels."""
        w = self.state.module.function(name, VOID, KERNEL_PARAMS, internal=True)
        f, tile, slot = Frame(w, w.args[0]), w.args[1], w.args[2]
        lefts, bm, bn = map(f.get, ("lefts", "bm", "bn"))
        piece, first = w.urem(tile, lefts), w.mul(w.udiv(tile, lefts), bn)
        row = w.mul(piece, bm)
        mm = w.binary("llvm.smin", w.sub(f.get("m"), row), bm)
        last = w.binary("llvm.smin", w.add(first, bn), f.get("nn"))
        skip = w.mul(slot, f.get("room"))
        mine, edge = w.gep(f.get("left"), skip), w.gep(f.get("edge"), skip)
        own = w.icmp("ne", f.get("own"), 0)
        blocks = _count(w, f.get("kk"), f.get("kc"))
        with w.loop(0, blocks, label="block") as number:
            start, ks = self._block_of_k(f, number)
            left = w.select(own, mine, self._shared_left(f, piece, number))
            with w.if_(own, "gather"):
                self._gather_left(f, piece, start, ks, left)
            is_last = w.icmp("eq", number, w.sub(blocks, 1))
            later = w.icmp("sgt", number, 0)
            add = w.or_(w.icmp("ne", f.get("going_on"), 0), later)
            self._multiply(
                f, (row, mm, first, last), (number, start, ks), left, edge, add,
                w.and_(is_last, self._is_ready(f)),
            )  # fmt: skip
        w.ret()

    def _multiply(
        self, f: Frame, bounds: tuple[Val, Val, Val, Val], block: tuple[Val, Val, Val], left: Val,
        edge: Val, add: Val, ready: Val,
    ) -> None:  # fmt: skip
        """The tile's rows and columns for one block of k. `ready`: what has been added is all."""
        w = f.w
        row, mm, first, last = bounds
        number, start, ks = block
        mr, nr, b_k, c_m, c_n = map(f.get, ("mr", "nr", "b_k", "c_m", "c_n"))
        jc = f.get("jc")
        b = self._at(w, f.get("b"), (w.add(f.get("pc"), start), b_k))
        c = self._at(w, f.get("c"), (row, c_m), (jc, c_n))
        micro, in_place, strip = f.get("tile"), self._in_place(f), f.get("strip")
        packed = self._at(w, f.get("right"), (number, f.get("right_block")))
        unit = w.icmp("eq", c_n, 1)
        panels = _count(w, w.sub(last, first), nr)
        with w.loop(0, panels, label="jr") as j:
            jb = w.add(first, w.mul(j, nr))
            columns = w.binary("llvm.smin", w.sub(last, jb), nr)
            lies = w.icmp("slt", jb, in_place)
            there = self._at(w, packed, (w.sub(jb, in_place), ks))
            right = w.select(lies, self._column(f, b, w.add(jc, jb)), there)
            step = w.select(lies, b_k, nr)
            full = w.and_(w.icmp("eq", columns, nr), unit)
            with w.loop(0, _count(w, mm, mr), label="ir") as i:
                ib = w.mul(i, mr)
                rows = w.binary("llvm.smin", w.sub(mm, ib), mr)
                here = self._at(w, c, (ib, c_m), (jb, c_n))
                inside = w.and_(full, w.icmp("eq", rows, mr))
                args = [
                    self._at(w, left, (ib, ks)), right, step, w.select(inside, here, edge),
                    w.select(inside, c_m, nr), ks, w.and_(inside, add),
                ]  # fmt: skip
                w.effect(f"call void {micro.ref}({', '.join(map(str, args))})")
                with w.if_(w.not_(inside), "over"):
                    w.call(self.edge_name, VOID, [edge, nr, here, rows, columns, c_m, c_n, add])
            with w.if_(ready, "ready"):
                done = w.urem(j, strip)  # panels before this one that are not finished
                ends = w.icmp("eq", w.add(j, 1), panels)
                with w.if_(w.or_(ends, w.icmp("eq", w.add(done, 1), strip)), "finish"):
                    at = w.sub(w.add(jc, jb), w.mul(done, nr))
                    over = w.add(w.add(jc, jb), columns)
                    listed = ", ".join(map(str, (f.base, row, w.add(row, mm), at, over)))
                    w.effect(f"call void {f.get('epilogue').ref}({listed})")

    def _column(self, f: Frame, base: Val, column: Val) -> Val:
        """Where a column of the right operand begins, read where it lies."""
        w = f.w
        panel = w.mul(w.lshr(column, f.get("shift")), f.get("across"))
        return w.gep(base, w.add(panel, w.and_(column, f.get("mask"))), self.elem)

    def _is_ready(self, f: Frame) -> Val:
        """Is the product complete with these `kb` of k, and something to be done with it?"""
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
