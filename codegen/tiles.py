"""The three pieces of the contraction engine:

    pack   copies rows of an operand into panels of R rows, `[row / R][k][R]`
    tile   the micro-kernel: an mr x nr tile of the result in registers, one loop over k
    edge   copies the valid part of a tile that hangs over the result's edge

A module holds `tile` once for each register tile, the others once for each dtype: their sizes are
arguments, which costs their loops little and saves compilation for each register tile.

Rows that the last panel lacks are copies of others, or zeros: they end in rows or columns of a tile
that nobody stores. Nothing is read that is not the operand's; a store may run over the end of the
panels by less than a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    I32,
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
from treadle.ir.types import DType

_LINE: Final = 64  # bytes of a cache line
_KS: Final = 8  # ks of neighbouring rows that are copied at a time: the ways of an L1's set


def zero(type: Type) -> Val:
    """0 in every lane, of a float type."""
    return Val("zeroinitializer" if type.lanes else "0.0", type)


# --- tile ------------------------------------------------------------------------------------


def tile_function(state: Emission, dtype: DType, mr: int, nr: int) -> str:
    """`tile(a, b, b_step, c, c_step, k, add)`: c = a b, or c += a b where `add`.

    `a` is a packed panel of `mr` rows; row k of `b` begins at `b + k * b_step`, `nr` contiguous
    elements (a packed panel, or the operand where it lies); row i of `c` at `c + i * c_step`.
    """
    name = f"tile_{dtype.short}_{mr}x{nr}"
    return state.once(name, lambda name: _write_tile(state, name, dtype, mr, nr))


def _write_tile(state: Emission, name: str, dtype: DType, mr: int, nr: int) -> None:
    w = state.module.function(
        name,
        VOID,
        [(PTR, "a"), (PTR, "b"), (I64, "b_step"), (PTR, "c"), (I64, "c_step"), (I64, "k"),
         (I1, "add")],
        internal=True,
    )  # fmt: skip
    a, b, b_step, c, c_step, k, add = w.args
    elem = register_type(dtype)
    width = state.target.lanes(dtype)
    vectors = nr // width
    row = vec(elem, width)
    # The result's lines come while the loop runs; a tile's rows are too far apart for the hardware
    # to foresee (2048 x 2048: 4 %).
    line = _LINE // dtype.itemsize
    how = [int_const(x, I32) for x in (1, 3, 1)]  # to write, in all caches, data
    for place in row_places(w, c, c_step, mr, -(-nr // line), line, elem):
        w.external("llvm.prefetch.p0", VOID, (place, *how))
    with w.carry(0, k, 1, [a, b, *[zero(row)] * (mr * vectors)], "k") as loop:
        at_a, at_b, *sums = loop.carried
        right = [w.load(row, w.gep(at_b, v * width, elem)) for v in range(vectors)]
        for i in range(mr):
            left = w.splat(w.load(elem, w.gep(at_a, i, elem)), width)
            for v in range(vectors):
                sums[i * vectors + v] = w.muladd(left, right[v], sums[i * vectors + v])
        loop.next = (w.gep(at_a, mr, elem), w.gep(at_b, b_step, elem), *sums)
    done = loop.results[2:]
    places = row_places(w, c, c_step, mr, vectors, width, elem)

    def added() -> Sequence[Val]:
        return [w.fadd(w.load(row, p), s) for p, s in zip(places, done, strict=True)]

    for value, place in zip(w.branch(add, added, lambda: done, "add"), places, strict=True):
        w.store(value, place)
    w.ret()


def row_places(
    w: FunctionWriter, c: Val, step: Val, rows: int, vectors: int, width: int, elem: Type
) -> list[Val]:
    """Where the vectors of a tile's rows begin."""
    places = []
    for i in range(rows):
        places += [w.gep(c, v * width, elem) for v in range(vectors)]
        if i + 1 < rows:
            c = w.gep(c, step, elem)
    return places


# --- edge ------------------------------------------------------------------------------------


def edge_function(state: Emission, dtype: DType) -> str:
    """`edge(tile, nr, c, rows, columns, c_m, c_n, add)`: c (+)= the first rows and columns of a
    tile whose rows are `nr` apart; c's steps may be anything."""
    return state.once(f"edge_{dtype.short}", lambda name: _write_edge(state, name, dtype))


def _write_edge(state: Emission, name: str, dtype: DType) -> None:
    w = state.module.function(
        name,
        VOID,
        [(PTR, "tile"), (I64, "nr"), (PTR, "c"), (I64, "rows"), (I64, "columns"), (I64, "c_m"),
         (I64, "c_n"), (I1, "add")],
        internal=True,
    )  # fmt: skip
    tile, nr, c, rows, columns, c_m, c_n, add = w.args
    elem = register_type(dtype)
    width = state.target.lanes(dtype)
    unit = w.icmp("eq", c_n, 1)
    with w.loop(0, rows, label="row") as i:
        source = w.gep(tile, w.mul(i, nr), elem)
        to = w.gep(c, w.mul(i, c_m), elem)

        def vectors(source: Val = source, to: Val = to) -> Sequence[Val]:
            return [_edge_vectors(w, source, to, columns, add, elem, width)]

        (done,) = w.branch(unit, vectors, lambda: [w.int(0)], "unit")
        with w.loop(done, columns, label="column") as j:
            place = w.gep(to, w.mul(j, c_n), elem)
            value = w.load(elem, w.gep(source, j, elem))
            (total,) = w.branch(
                add,
                lambda place=place, value=value: [w.fadd(w.load(elem, place), value)],  # type: ignore[misc]
                lambda value=value: [value],  # type: ignore[misc]
                "add",
            )
            w.store(total, place)
    w.ret()


def _edge_vectors(
    w: FunctionWriter, source: Val, to: Val, columns: Val, add: Val, elem: Type, width: int
) -> Val:
    """Copy what is contiguous in vectors; the number of columns done. With cheap masks all."""
    row = vec(elem, width)
    masked = w.target.masked_memory
    step = w.sdiv(w.add(columns, width - 1), width) if masked else w.sdiv(columns, width)
    with w.loop(0, step, label="part") as part:
        j = w.mul(part, width)
        place = w.gep(to, j, elem)
        mask = w.lane_mask(w.sub(columns, j), width) if masked else None
        value = w.load(row, w.gep(source, j, elem))

        def added() -> Sequence[Val]:
            old = w.masked_load(row, place, mask, 0.0) if mask else w.load(row, place)
            return [w.fadd(old, value)]

        (total,) = w.branch(add, added, lambda: [value], "add")
        if mask:
            w.masked_store(total, place, mask)
        else:
            w.store(total, place)
    return columns if masked else w.mul(step, width)


# --- pack ------------------------------------------------------------------------------------


def pack_function(state: Emission, dtype: DType) -> str:
    """`pack(from, to, rows, ks, row_step, k_step, panel)`: what begins at `from`, in panels of
    `panel` rows."""
    return state.once(f"pack_{dtype.short}", lambda name: _Pack(state, name, dtype).write())


class _Pack:
    """Writes it. Its paths: rows that are neighbours in memory, ks that are, anything else."""

    def __init__(self, state: Emission, name: str, dtype: DType) -> None:
        names = ("rows", "ks", "row_step", "k_step", "panel")
        params = [(PTR, "from"), (PTR, "to"), *((I64, n) for n in names)]
        self.w = state.module.function(name, VOID, params, internal=True)
        self.elem = register_type(dtype)
        self.width = state.target.lanes(dtype)
        (self.source, self.to, self.rows, self.ks, self.row_step, self.k_step,
         self.panel) = self.w.args  # fmt: skip

    def _at(self, base: Val, index: Val, step: Val) -> Val:
        return self.w.gep(base, self.w.mul(index, step), self.elem)

    def write(self) -> None:
        w = self.w
        count = w.sdiv(w.sub(w.add(self.rows, self.panel), 1), self.panel)
        unit_row, unit_k = w.icmp("eq", self.row_step, 1), w.icmp("eq", self.k_step, 1)
        turns = w.and_(unit_k, w.icmp("sge", self.ks, self.width))
        turns = w.and_(turns, w.icmp("sge", self.panel, 128 // self.elem.bits))
        copy, other = w.new_block("copy"), w.new_block("other")
        w.cond_br(unit_row, copy, other)
        w.start(copy)
        # Some ks of all panels, then the next ones: a line of memory has rows of two panels, and
        # lines that are a power of two apart leave the cache soon.
        with w.loop(0, self.ks, _KS, "ks") as k, w.loop(0, count, label="panel") as p:
            here, there, valid = self._panel(p)
            here, there = self._at(here, k, self.k_step), self._at(there, k, self.panel)
            self._copy(here, there, w.binary("llvm.smin", w.sub(self.ks, k), _KS), valid)
        w.ret()
        w.start(other)
        with w.loop(0, count, label="panel") as p:
            here, there, valid = self._panel(p)
            turn, each, after = w.new_block("turn"), w.new_block("each"), w.new_block("after")
            w.cond_br(turns, turn, each)
            w.start(turn)
            self._turn(here, there, valid)
            w.br(after)
            w.start(each)
            self._each(here, there, self.ks, w.int(0), valid)
            w.br(after)
            w.start(after)
        w.ret()

    def _panel(self, number: Val) -> tuple[Val, Val, Val]:
        """Where a panel's rows are and where it goes; how many of its rows are there."""
        w = self.w
        first = w.mul(number, self.panel)
        valid = w.binary("llvm.smin", w.sub(self.rows, first), self.panel)
        return self._at(self.source, first, self.row_step), self._at(self.to, first, self.ks), valid

    # --- rows that are neighbours in memory --------------------------------------------------

    def _copy(self, source: Val, to: Val, ks: Val, valid: Val) -> None:
        """`ks` of one panel. Vectors that overlap need no masks and do not run over the end: the
        last one of a row ends where the row does."""
        w, panel = self.w, self.panel
        least = 128 // self.elem.bits
        masked = w.target.masked_memory
        wanted = w.select(w.icmp("eq", valid, panel), valid, 0) if masked else valid
        done: Val = w.int(0)
        lanes = self.width
        while lanes >= least:
            fits = w.and_(w.icmp("eq", done, 0), w.icmp("sge", wanted, lanes))
            with w.if_(fits, "fits"):
                self._overlapped(source, to, ks, lanes, valid)
            done = w.select(fits, valid, done)
            lanes //= 2
        with w.if_(w.icmp("slt", done, panel), "rest"):
            if masked:
                self._masked(source, to, ks, valid)
            else:
                self._each(source, to, ks, done, valid)

    def _masked(self, source: Val, to: Val, ks: Val, valid: Val) -> None:
        """A panel that lacks rows: zeros in their place."""
        w, width = self.w, self.width
        type = vec(self.elem, width)
        with w.loop(0, self.panel, width, "part") as at:
            here, there = w.gep(source, at, self.elem), w.gep(to, at, self.elem)
            reads = w.lane_mask(w.binary("llvm.smax", w.sub(valid, at), 0), width)
            writes = w.lane_mask(w.sub(self.panel, at), width)
            with w.carry(0, ks, 1, [here, there], "k") as loop:
                a, b = loop.carried
                w.masked_store(w.masked_load(type, a, reads), b, writes)
                loop.next = [w.gep(a, self.k_step, self.elem), w.gep(b, self.panel, self.elem)]

    def _overlapped(self, source: Val, to: Val, ks: Val, lanes: int, valid: Val) -> None:
        w = self.w
        type, last = vec(self.elem, lanes), w.sub(valid, lanes)
        with w.loop(0, valid, lanes, "part") as part:
            at = w.binary("llvm.smin", part, last)
            here, there = w.gep(source, at, self.elem), w.gep(to, at, self.elem)
            with w.carry(0, ks, 1, [here, there], "k") as loop:
                a, b = loop.carried
                w.store(w.load(type, a), b)
                loop.next = [w.gep(a, self.k_step, self.elem), w.gep(b, self.panel, self.elem)]

    # --- ks that are neighbours in memory ----------------------------------------------------

    def _turn(self, source: Val, to: Val, valid: Val) -> None:
        """Vectors of ks from a few rows are turned within each 16 bytes, and each 16 bytes stored
        (whole vectors turned by wider shuffles take LLVM's x86 backend 15 ms to select).

        A row that is not there is the last one again. The last rows end where the panel does, the
        last vector of ks where the ks do, and some are written once more: nothing is stored beyond
        the panel, behind which another thread may be writing the next one.
        """
        w, width, panel = self.w, self.width, self.panel
        rows = 128 // self.elem.bits
        groups = w.sdiv(w.add(panel, rows - 1), rows)
        last_row, last_k = w.sub(valid, 1), w.sub(self.ks, width)
        with w.loop(0, groups, label="rows") as g:
            first = w.binary("llvm.smin", w.mul(g, rows), w.sub(panel, rows))
            group = [w.binary("llvm.smin", w.add(first, i), last_row) for i in range(rows)]
            starts = [self._at(source, row, self.row_step) for row in group]
            column = w.gep(to, first, self.elem)
            with w.loop(0, self.ks, width, "block") as block:
                k = w.binary("llvm.smin", block, last_k)
                lines = [w.load(vec(self.elem, width), w.gep(s, k, self.elem)) for s in starts]
                there = self._at(column, k, panel)
                turned = turned_vectors(w, lines)
                for i in range(width):
                    part = range(i // rows * rows, (i // rows + 1) * rows)
                    piece = w.shuffle(turned[i % rows], None, part) if width > rows else turned[i]
                    w.store(piece, there)
                    there = w.gep(there, panel, self.elem)

    # --- anything else -----------------------------------------------------------------------

    def _each(self, source: Val, to: Val, ks: Val, done: Val, valid: Val) -> None:
        """Element by element, from row `done` on; zeros in the rows that are not there."""
        w, elem = self.w, self.elem
        with w.loop(0, ks, label="k") as k:
            here, there = self._at(source, k, self.k_step), self._at(to, k, self.panel)
            with w.loop(done, valid, label="row") as i:
                w.store(w.load(elem, self._at(here, i, self.row_step)), w.gep(there, i, elem))
            with w.loop(valid, self.panel, label="pad") as i:
                w.store(zero(elem), w.gep(there, i, elem))


def turned_vectors(w: FunctionWriter, lines: list[Val]) -> list[Val]:
    """n vectors turned within each run of n lanes: lane n q + r of the j-th result is lane
    n q + j of the r-th line."""
    n, size = len(lines), lines[0].type.lanes

    def merged(x: Val, y: Val, picks: Sequence[int]) -> Val:
        """Within each run: lanes of x (below n) and y (from n on)."""
        return w.shuffle(
            x, y, [q + p if p < n else size + q + p - n for q in range(0, size, n) for p in picks]
        )

    if n == 2:
        return [merged(lines[0], lines[1], picks) for picks in ((0, 2), (1, 3))]
    low = [merged(lines[i], lines[i + 1], (0, 4, 1, 5)) for i in (0, 2)]
    high = [merged(lines[i], lines[i + 1], (2, 6, 3, 7)) for i in (0, 2)]
    quarters = ((0, 1, 4, 5), (2, 3, 6, 7))
    return [merged(pair[0], pair[1], picks) for pair in (low, high) for picks in quarters]
