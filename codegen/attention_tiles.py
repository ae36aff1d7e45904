"""The products inside attention: register tiles that read their operands where they lie.

    c[i, j] (+)= sum over k of a[i, k] b[k, j]

Rows i are elements of `a`, one for all lanes; columns j are lanes, neighbours in `b` and `c`. All
steps between elements are constants of the tile. Columns need not fill whole vectors: the last
vector begins where it ends with the last column, and what it shares with the one before is computed
twice, with the same result. So there are no masks, and nothing is read beyond an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Val, register_type, vec
from treadle.codegen.tiles import zero
from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType

Finish = Literal["set", "add", "decay", "scale"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Vectors of `lanes` lanes that begin at `starts` and are computed together."""

    starts: tuple[int, ...]
    lanes: int


def columns(width: int, lanes: int, group: int) -> tuple[Columns, ...]:
    """Groups of at most `group` vectors (two or more) that cover `width` columns. Vectors that
    overlap are in one group, so that none of them adds to what the other has added to."""
    while lanes > width:
        lanes //= 2
    starts = list(range(0, width - lanes + 1, lanes))
    if starts[-1] + lanes < width:
        starts.append(width - lanes)
    groups: list[Columns] = []
    while starts:
        groups.insert(0, Columns(tuple(starts[-group:]), lanes))
        del starts[-group:]
    return tuple(groups)


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` of c; steps of a along rows and k, of b along k, of c along rows.

    set: c = sum; add: c = c + sum; decay: c = c * factor of the row + sum; scale: c = sum * factor.
    """

    rows: int
    columns: Columns
    a_m: int
    a_k: int
    b_k: int
    c_m: int
    finish: Finish

    @property
    def name(self) -> str:
        starts = "_".join(map(str, self.columns.starts))
        steps = f"{self.a_m}_{self.a_k}_{self.b_k}_{self.c_m}"
        return f"{self.rows}x{starts}_of_{self.columns.lanes}_by_{steps}_{self.finish}"


def tile_function(state: Emission, dtype: DType, tile: Tile) -> str:
    """`tile(a, b, c, k, factors)`: k is at least 1; `factors`: one for each row."""
    name = f"attend_{dtype.short}_{tile.name}"
    return state.once(name, lambda name: _write(state, name, dtype, tile))


def _write(state: Emission, name: str, dtype: DType, tile: Tile) -> None:
    params = [(PTR, "a"), (PTR, "b"), (PTR, "c"), (I64, "k"), (PTR, "factors")]
    w = state.module.function(name, VOID, params, internal=True)
    a, b, c, k, factors = w.args
    elem = register_type(dtype)
    starts, lanes = tile.columns.starts, tile.columns.lanes
    row, count = vec(elem, lanes), len(tile.columns.starts)
    with w.carry(0, k, 1, [a, b, *[zero(row)] * (tile.rows * count)], "k") as loop:
        at_a, at_b, *sums = loop.carried
        right = [w.load(row, w.gep(at_b, start, elem)) for start in starts]
        for i in range(tile.rows):
            left = w.splat(w.load(elem, w.gep(at_a, i * tile.a_m, elem)), lanes)
            for v in range(count):
                sums[i * count + v] = w.muladd(left, right[v], sums[i * count + v])
        loop.next = (w.gep(at_a, tile.a_k, elem), w.gep(at_b, tile.b_k, elem), *sums)
    done = loop.results[2:]
    for i in range(tile.rows):
        places = [w.gep(c, i * tile.c_m + start, elem) for start in starts]
        found = list(done[i * count : (i + 1) * count])
        if tile.finish in ("decay", "scale"):
            factor = w.splat(w.load(elem, w.gep(factors, i, elem)), lanes)
        if tile.finish in ("add", "decay"):
            old = [w.load(row, place) for place in places]
            if tile.finish == "decay":
                old = [w.fmul(x, factor) for x in old]
            found = [w.fadd(x, y) for x, y in zip(old, found, strict=True)]
        elif tile.finish == "scale":
            found = [w.fmul(x, factor) for x in found]
        for value, place in zip(found, places, strict=True):
            w.store(value, place)
    w.ret()


def in_rows(
    w: FunctionWriter, count: Val, size: int, ends: Sequence[int], body: Callable[[Val, int], None]
) -> None:
    """`body(first, rows)` for runs of `size` rows, and for the one left over, whose length is the
    remainder of one of `ends`."""
    whole = w.mul(w.udiv(count, size), size)
    with w.loop(0, whole, size, "rows") as i:
        body(i, size)
    for rest in sorted({end % size for end in ends} - {0}):
        with w.if_(w.icmp("eq", w.sub(count, whole), rest), "rest"):
            body(whole, rest)
