"""Products of few rows with many, both contiguous along k: sums over k in vectors, nothing packed.

In `x @ W.T` with few rows of x (one: a matrix times a vector) packing W, to use each element a few
times, costs more than the product. Here an element of the result is a dot product: `mr` x `nr` of
them at a time keep one vector of partial sums each, so that W is read once, where it lies, at the
memory's speed.

Order of additions: lane l has the terms l, l + W, l + 2W, .. one after the other; then the lanes
are added by halves. The caller cuts k into blocks, each added to the result, so that the error's
bound is no larger than the packed product's.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    lane_const,
    register_type,
    vec,
)
from treadle.codegen.tiles import edge_function, zero
from treadle.ir.types import DType


def dots_function(state: Emission, dtype: DType, mr: int, nr: int) -> str:
    """`dots(a, a_m, b, b_n, c, c_m, c_n, rows, columns, k, add)`: c (+)= the dot products of `rows`
    (at most mr) rows of a and `columns` (at most nr) rows of b, of length k, which is at least one
    vector. Rows begin `a_m` and `b_n` elements apart."""
    name = f"dots_{dtype.short}_{mr}x{nr}"
    return state.once(name, lambda name: _Dots(state, name, dtype, mr, nr).write())


class _Dots:
    def __init__(self, state: Emission, name: str, dtype: DType, mr: int, nr: int) -> None:
        params: list[tuple[Type, str]] = [(PTR, "a"), (I64, "a_m"), (PTR, "b"), (I64, "b_n")]
        params += [(PTR, "c"), (I64, "c_m"), (I64, "c_n")]
        params += [(I64, "rows"), (I64, "columns"), (I64, "k"), (I1, "add")]
        self.w = state.module.function(name, VOID, params, internal=True)
        self.mr, self.nr = mr, nr
        self.elem = register_type(dtype)
        self.width = state.target.lanes(dtype)
        self.row = vec(self.elem, self.width)
        self.edge_name = edge_function(state, dtype)

    def write(self) -> None:
        w, width = self.w, self.width
        a, a_m, b, b_n, c, c_m, c_n, rows, columns, k, add = w.args
        self.lefts = self._starts(a, a_m, rows, self.mr)
        self.rights = self._starts(b, b_n, columns, self.nr)
        rest = w.and_(k, width - 1)
        with w.carry(0, w.sub(k, rest), width, [zero(self.row)] * (self.mr * self.nr)) as loop:
            loop.next = self._step(loop.index, loop.carried, None)
        some = w.icmp("ne", rest, 0)
        last = w.sub(k, width)

        def tail() -> Sequence[Val]:
            return self._step(last, loop.results, self._mask(rest))

        sums = w.branch(some, tail, lambda: loop.results, "rest")
        tile = w.alloca(self.elem, self.mr * self.nr + width)
        at = 0
        for group in _groups(sums, width):
            w.store(_folded(w, group), w.gep(tile, at, self.elem))
            at += len(group)
        w.call(self.edge_name, VOID, [tile, w.int(self.nr), c, rows, columns, c_m, c_n, add])
        w.ret()

    def _starts(self, base: Val, step: Val, count: Val, most: int) -> list[Val]:
        """Where rows begin; one that is not there is the last one again, whose sums nobody uses."""
        w = self.w
        last = w.sub(count, 1)
        at = [w.binary("llvm.smin", w.int(i), last) if i else w.int(0) for i in range(most)]
        return [w.gep(base, w.mul(i, step), self.elem) for i in at]

    def _mask(self, rest: Val) -> Val:
        """The last `rest` lanes: the vector that ends with the row holds terms that are done."""
        w = self.w
        done = w.cast("trunc", w.sub(w.int(self.width), rest), I32)
        return w.icmp("uge", lane_const(range(self.width), I32), w.splat(done, self.width))

    def _step(self, k: Val, sums: Sequence[Val], mask: Val | None) -> Sequence[Val]:
        w = self.w

        def load(start: Val) -> Val:
            value = w.load(self.row, w.gep(start, k, self.elem))
            return value if mask is None else w.select(mask, value, zero(self.row))

        right = [load(start) for start in self.rights]
        found: list[Val] = []
        for i, start in enumerate(self.lefts):
            left, own = load(start), sums[i * self.nr : (i + 1) * self.nr]
            found += [w.muladd(left, x, total) for x, total in zip(right, own, strict=True)]
        return found


def _groups(sums: Sequence[Val], width: int) -> list[Sequence[Val]]:
    """Powers of two of sums, each no more than a vector holds."""
    groups = []
    at = 0
    while at < len(sums):
        size = min(width, 1 << (len(sums) - at).bit_length() - 1)
        groups.append(sums[at : at + size])
        at += size
    return groups


def _folded(w: FunctionWriter, vectors: Sequence[Val]) -> Val:
    """The sum of the lanes of each of a power of two of vectors, in one vector, in their order.

    Two vectors are folded into one: each of its runs of lanes is half a run of theirs.
    """
    runs, length = 1, vectors[0].type.lanes
    while length > 1:
        half = length // 2
        low = [r * length + i for r in range(runs) for i in range(half)]
        pairs: list[tuple[Val, Val | None]] = [(vectors[0], None)]
        if len(vectors) > 1:
            size = vectors[0].type.lanes
            low += [size + x for x in low]
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            runs *= 2
        high = [x + half for x in low]
        vectors = [w.fadd(w.shuffle(x, y, low), w.shuffle(x, y, high)) for x, y in pairs]
        length = half
    (found,) = vectors
    return found
