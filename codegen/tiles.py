"""The three pieces of the contraction engine that a module holds once for each register tile:

    pack   copies a block of an operand into panels of R rows, `[row / R][k][R]`, padded with zeros
    tile   the micro-kernel: an mr x nr tile of the result in registers, one loop over k
    edge   copies the valid part of a tile that hangs over the result's edge

An operand is a pointer and two steps (in elements), so a transposed one needs no code of its own.
A convolution or another source of panels would be another `pack`.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    I64,
    PTR,
    VOID,
    FunctionWriter,
    Type,
    Val,
    register_type,
    vec,
)
from treadle.ir.types import DType


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
    with w.carry(0, k, 1, [a, b, *[zero(row)] * (mr * vectors)], "k") as loop:
        at_a, at_b, *sums = loop.carried
        right = [w.load(row, w.gep(at_b, v * width, elem)) for v in range(vectors)]
        for i in range(mr):
            left = w.splat(w.load(elem, w.gep(at_a, i, elem)), width)
            for v in range(vectors):
                sums[i * vectors + v] = w.muladd(left, right[v], sums[i * vectors + v])
        loop.next = (w.gep(at_a, mr, elem), w.gep(at_b, b_step, elem), *sums)
    done = loop.results[2:]
    places = _row_places(w, c, c_step, mr, vectors, width, elem)

    def added() -> Sequence[Val]:
        return [w.fadd(w.load(row, p), s) for p, s in zip(places, done, strict=True)]

    for value, place in zip(w.branch(add, added, lambda: done, "add"), places, strict=True):
        w.store(value, place)
    w.ret()


def _row_places(
    w: FunctionWriter, c: Val, step: Val, rows: int, vectors: int, width: int, elem: Type
) -> list[Val]:
    places = []
    for i in range(rows):
        places += [w.gep(c, v * width, elem) for v in range(vectors)]
        if i + 1 < rows:
            c = w.gep(c, step, elem)
    return places


# --- edge ------------------------------------------------------------------------------------


def edge_function(state: Emission, dtype: DType, nr: int) -> str:
    """`edge(tile, c, rows, columns, c_m, c_n, add)`: c (+)= the first rows and columns of a tile
    whose rows are `nr` apart; c's steps may be anything."""
    name = f"edge_{dtype.short}_{nr}"
    return state.once(name, lambda name: _write_edge(state, name, dtype, nr))


def _write_edge(state: Emission, name: str, dtype: DType, nr: int) -> None:
    w = state.module.function(
        name,
        VOID,
        [(PTR, "tile"), (PTR, "c"), (I64, "rows"), (I64, "columns"), (I64, "c_m"), (I64, "c_n"),
         (I1, "add")],
        internal=True,
    )  # fmt: skip
    tile, c, rows, columns, c_m, c_n, add = w.args
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


def pack_function(state: Emission, dtype: DType, panel: int) -> str:
    """`pack(from, to, rows, ks, row_step, k_step)`: rows in panels of `panel`, the last one padded
    with zeros. A store may run over the end of the panels by less than a vector."""
    name = f"pack_{dtype.short}_{panel}"
    return state.once(name, lambda name: _write_pack(state, name, dtype, panel))


def _write_pack(state: Emission, name: str, dtype: DType, panel: int) -> None:
    w = state.module.function(
        name,
        VOID,
        [(PTR, "from"), (PTR, "to"), (I64, "rows"), (I64, "ks"), (I64, "row_step"),
         (I64, "k_step")],
        internal=True,
    )  # fmt: skip
    source, to, rows, ks, row_step, k_step = w.args
    elem = register_type(dtype)
    width = state.target.lanes(dtype)
    count = w.sdiv(w.add(rows, panel - 1), panel)
    unit_row, unit_k = w.icmp("eq", row_step, 1), w.icmp("eq", k_step, 1)
    with w.loop(0, count, label="panel") as p:
        first = w.mul(p, panel)
        here = w.gep(source, w.mul(first, row_step), elem)
        there = w.gep(to, w.mul(first, ks), elem)
        valid = w.binary("llvm.smin", w.sub(rows, first), panel)

        def rows_together() -> Sequence[Val]:
            _copy_rows(w, here, there, ks, k_step, panel, width, elem)
            return [ks]

        def ks_together() -> Sequence[Val]:
            return [_transpose_rows(w, here, there, ks, row_step, panel, width, elem)]

        def whole() -> Sequence[Val]:
            return w.branch(
                unit_row,
                rows_together,
                lambda: w.branch(unit_k, ks_together, lambda: [w.int(0)], "unit_k"),
                "unit_row",
            )

        (done,) = w.branch(w.icmp("eq", valid, panel), whole, lambda: [w.int(0)], "whole")
        _copy_any(w, here, there, done, ks, row_step, k_step, valid, panel, elem)
    w.ret()


def _copy_rows(
    w: FunctionWriter, source: Val, to: Val, ks: Val, k_step: Val, panel: int, width: int,
    elem: Type,
) -> None:  # fmt: skip
    """A whole panel whose rows are neighbours in memory."""
    pieces = [(at, min(width, panel - at)) for at in range(0, panel, width)]
    with w.loop(0, ks, label="k") as k:
        here = w.gep(source, w.mul(k, k_step), elem)
        there = w.gep(to, w.mul(k, panel), elem)
        for at, lanes in pieces:
            value = w.load(vec(elem, lanes), w.gep(here, at, elem))
            w.store(value, w.gep(there, at, elem))


def _transpose_rows(
    w: FunctionWriter, source: Val, to: Val, ks: Val, row_step: Val, panel: int, width: int,
    elem: Type,
) -> Val:  # fmt: skip
    """A whole panel whose ks are neighbours in memory; returns the number of ks done.

    Vectors of `width` ks from a few rows are turned within each 16 bytes (whole vectors turned by
    wider shuffles take LLVM's x86 backend 15 ms to select), and each 16 bytes stored. Where `panel`
    is no multiple of the rows in 16 bytes, the last rows are read twice and stores run over into
    the next k, which is written later: hence rows from last to first, ks from first to last.
    """
    rows = 128 // elem.bits
    groups = -(-panel // rows)
    blocks = w.sdiv(ks, width)
    with w.loop(0, blocks, label="block") as block:
        k = w.mul(block, width)
        with w.loop(0, groups, label="rows") as g:
            first = w.mul(w.sub(w.int(groups - 1), g), rows)
            lines = []
            for i in range(rows):
                row = w.binary("llvm.smin", w.add(first, i), panel - 1)
                start = w.gep(source, w.add(w.mul(row, row_step), k), elem)
                lines.append(w.load(vec(elem, width), start))
            there = w.gep(to, w.add(w.mul(k, panel), first), elem)
            turned = _turned(w, lines)
            for i in range(width):
                part = range(i // rows * rows, (i // rows + 1) * rows)
                piece = w.shuffle(turned[i % rows], None, part) if width > rows else turned[i]
                w.store(piece, w.gep(there, i * panel, elem))
    return w.mul(blocks, width)


def _turned(w: FunctionWriter, lines: list[Val]) -> list[Val]:
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


def _copy_any(
    w: FunctionWriter, source: Val, to: Val, first: Val, ks: Val, row_step: Val, k_step: Val,
    valid: Val, panel: int, elem: Type,
) -> None:  # fmt: skip
    """The rest of a panel, element by element, with zeros in the rows that are not there."""
    with w.loop(first, ks, label="k") as k:
        here = w.gep(source, w.mul(k, k_step), elem)
        there = w.gep(to, w.mul(k, panel), elem)
        with w.loop(0, valid, label="row") as i:
            w.store(w.load(elem, w.gep(here, w.mul(i, row_step), elem)), w.gep(there, i, elem))
        with w.loop(valid, panel, label="pad") as i:
            w.store(zero(elem), w.gep(there, i, elem))
