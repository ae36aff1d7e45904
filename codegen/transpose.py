"""Transposes in vector registers: W vectors of W lanes become their columns.

First the lanes within each 16 bytes are turned, then the runs of 16 bytes among the vectors: each
shuffle is one instruction of AVX2, AVX-512 and NEON. `turn` is the function made of them that fills
the tiles of maps with turned operands.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Type, Val, register_type, vec
from treadle.codegen.turning import BLOCK
from treadle.ir.types import DType


def transposed(w: FunctionWriter, lines: Sequence[Val]) -> list[Val]:
    """Lane i of the j-th result is lane j of `lines[i]`; a power of two of lines, as many lanes."""
    size = len(lines)
    run = min(128 // lines[0].type.bits, size)
    within: list[list[Val]] = [[] for _ in range(run)]
    for first in range(0, size, run):
        for j, turned in enumerate(_within_runs(w, lines[first : first + run])):
            within[j].append(turned)
    columns = [_among_runs(w, vectors, run) for vectors in within]
    return [columns[k % run][k // run] for k in range(size)]


def _within_runs(w: FunctionWriter, lines: Sequence[Val]) -> list[Val]:
    """n = 2 or 4 lines, turned within each n lanes."""
    n, size = len(lines), lines[0].type.lanes

    def merged(x: Val, y: Val, picks: Sequence[int]) -> Val:
        lanes = [q + p if p < n else size + q + p - n for q in range(0, size, n) for p in picks]
        return w.shuffle(x, y, lanes)

    if n == 2:
        return [merged(lines[0], lines[1], picks) for picks in ((0, 2), (1, 3))]
    low = [merged(lines[i], lines[i + 1], (0, 4, 1, 5)) for i in (0, 2)]
    high = [merged(lines[i], lines[i + 1], (2, 6, 3, 7)) for i in (0, 2)]
    quarters = ((0, 1, 4, 5), (2, 3, 6, 7))
    return [merged(pair[0], pair[1], picks) for pair in (low, high) for picks in quarters]


def _among_runs(w: FunctionWriter, vectors: Sequence[Val], run: int) -> list[Val]:
    """m vectors of m runs of `run` lanes: run i of the j-th result is run j of `vectors[i]`."""
    if len(vectors) == 1:
        return list(vectors)
    lanes = range(2 * vectors[0].type.lanes)
    found: list[list[Val]] = []
    for odd in (0, 1):
        picks = [k for k in lanes if k // run % 2 == odd]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        found.append(_among_runs(w, [w.shuffle(x, y, picks) for x, y in pairs], run))
    return [v for pair in zip(*found, strict=True) for v in pair]


def turn_function(state: Emission, dtype: DType, lanes: int) -> str:
    """`turn(from, step, to, rows, ks)`: element k of row r goes to lane r % lanes of vector k in
    block r / lanes of `to`. A block has `BLOCK` vectors of `lanes`; ks is at most `BLOCK`."""
    name = f"turn_{dtype.short}_{lanes}"
    return state.once(name, lambda name: _write_turn(state, name, dtype, lanes))


def _write_turn(state: Emission, name: str, dtype: DType, lanes: int) -> None:
    params = [(PTR, "from"), (I64, "step"), (PTR, "to"), (I64, "rows"), (I64, "ks")]
    w = state.module.function(name, VOID, params, internal=True)
    source, step, to, rows, ks = w.args
    elem = register_type(dtype)
    size = min(state.target.lanes(dtype), lanes)

    def place(row: Val) -> Val:
        block = w.mul(w.and_(row, -lanes), BLOCK)
        return w.gep(to, w.add(block, w.and_(row, lanes - 1)), elem)

    def squares() -> Sequence[Val]:
        whole = w.and_(rows, -size)
        with w.loop(0, whole, size, "rows") as row:
            _squares(w, w.gep(source, w.mul(row, step), elem), step, place(row), size, lanes, elem)
        return [whole]

    (done,) = w.branch(w.icmp("eq", ks, BLOCK), squares, lambda: [w.int(0)], "whole")
    with w.loop(done, rows, label="row") as row:
        here, there = w.gep(source, w.mul(row, step), elem), place(row)
        with w.loop(0, ks, label="k") as k:
            value = w.load(elem, w.gep(here, k, elem))
            w.store(value, w.gep(there, w.mul(k, lanes), elem))
    w.ret()


def _squares(
    w: FunctionWriter, source: Val, step: Val, to: Val, size: int, lanes: int, elem: Type
) -> None:
    """`size` rows of `BLOCK` elements, square by square."""
    starts = [source]
    for _ in range(size - 1):
        starts.append(w.gep(starts[-1], step, elem))
    for first in range(0, BLOCK, size):
        lines = [w.load(vec(elem, size), w.gep(s, first, elem)) for s in starts]
        for k, column in enumerate(transposed(w, lines)):
            w.store(column, w.gep(to, (first + k) * lanes, elem))
