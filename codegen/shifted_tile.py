"""The micro-kernel of a convolution whose lines are gathered once for all taps that move them.

As `tile` in `tiles`, with a piece of code for each tap: the loop runs over channels, and the pixels
of a tap lie some lines further on.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I1, I64, PTR, VOID, Val, register_type, vec
from treadle.codegen.tiles import row_places, zero
from treadle.ir.types import DType


def shifted_tile_function(
    state: Emission,
    dtype: DType,
    mr: int,
    nr: int,
    across: int,
    lines: Sequence[int],
    ld: int,
    line: int,
) -> str:
    """`tile(a, b, b_step, c, c_step, k, add)`: c (+)= a b, `k` of them, a multiple of the taps.

    Tap (i, j) of a channel has its pixels at `lines[i]` lines of `line` elements from the j-th of
    `across` rows of b, which are `ld` apart, whatever `b_step`.
    """
    name = f"tile_{dtype.short}_{mr}x{nr}_{across}_{ld}_{line}_{'_'.join(map(str, lines))}"
    offsets = [j * ld + i * line for i in lines for j in range(across)]
    return state.once(name, lambda name: _write(state, name, dtype, mr, nr, offsets, across * ld))


def _write(
    state: Emission, name: str, dtype: DType, mr: int, nr: int, offsets: Sequence[int], step: int
) -> None:
    w = state.module.function(
        name,
        VOID,
        [(PTR, "a"), (PTR, "b"), (I64, "b_step"), (PTR, "c"), (I64, "c_step"), (I64, "k"),
         (I1, "add")],
        internal=True,
    )  # fmt: skip
    a, b, _, c, c_step, k, add = w.args
    elem, width = register_type(dtype), state.target.lanes(dtype)
    vectors, row = nr // width, vec(elem, width)
    with w.carry(0, k, len(offsets), [a, b, *[zero(row)] * (mr * vectors)], "k") as loop:
        at_a, at_b, *sums = loop.carried
        for tap, offset in enumerate(offsets):
            right = [w.load(row, w.gep(at_b, offset + v * width, elem)) for v in range(vectors)]
            for i in range(mr):
                left = w.splat(w.load(elem, w.gep(at_a, tap * mr + i, elem)), width)
                for v in range(vectors):
                    n = i * vectors + v
                    sums[n] = w.muladd(left, right[v], sums[n])
        loop.next = (w.gep(at_a, mr * len(offsets), elem), w.gep(at_b, step, elem), *sums)
    done = loop.results[2:]
    places = row_places(w, c, c_step, mr, vectors, width, elem)

    def added() -> Sequence[Val]:
        return [w.fadd(w.load(row, p), s) for p, s in zip(places, done, strict=True)]

    for value, place in zip(w.branch(add, added, lambda: done, "add"), places, strict=True):
        w.store(value, place)
    w.ret()
