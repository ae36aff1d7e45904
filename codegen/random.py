"""Random numbers in vectors: blocks of Philox 4x32-10 and their words as elements.

`treadle.ir.philox` says which word of which block belongs to an element. Vectors are filled with
whole blocks: each lane of 64 bits computes one, the four words of its counter in the lower half of
four vectors, so that a round is two multiplications, two shifts and four exclusive ors (two
instructions of three operands with AVX-512). The upper halves hold what is left over of earlier
rounds and are never looked at: multiplications take the lower halves.

    two vectors of W elements of 32 bits  =  W / 2 blocks, as many as a vector has lanes of 64 bits

So vectors are made in pairs wherever the loop body has two (`Mates`); a single one is made with
half as many lanes. Where an element is not the first of its block, or elements do not follow each
other, each lane computes its own block, which costs four times as much: rows whose length is no
multiple of 4, and transposed reads.

The first two rounds are the same for all blocks but for what comes from the number of the block,
and the keys of the rounds are known before the loop: `random_draw` writes them into a table on the
stack, from where instructions take them as memory operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Final

from treadle.codegen.lane_index import IndexOps, LaneIndex
from treadle.codegen.llvm import I32, I64, FunctionWriter, Val, lane_const, vec
from treadle.codegen.random_normal import box_muller
from treadle.ir.dataclass import dataclass
from treadle.ir.philox import M0, M1, MASK, ROUNDS, W0, W1
from treadle.ir.types import DType

_SLOTS: Final = 2 * ROUNDS - 1
_BLOCK_BITS: Final = 128

Counter = tuple[Val, Val, Val, Val]


@dataclass(frozen=True, slots=True)
class Draw:
    """What all blocks of a draw share: the address of a table with `lanes` copies of each entry."""

    table: Val
    lanes: int


@dataclass(slots=True)
class Mates:
    """The vectors of one step of a loop: what the first of two has made for the second."""

    vectors: int
    found: dict[tuple[Draw, str, int], Val] = field(default_factory=dict)


class RandomOps(IndexOps):
    """The random half of `ScalarOps`, for vectors of `lanes` lanes.

    `mates`: while the element is asked for that belongs to vector `number` of a step, the vectors
    of that step.
    """

    w: FunctionWriter
    lanes: int
    mates: Mates | None = None
    number: int = 0

    def draw_of(self, seed: Val, draw: Val, domain: int) -> Draw:
        """The table of a draw; `seed` and `draw` are i64 scalars."""
        w = self.w
        lanes = w.target.vector_bytes // 8
        table = Draw(w.alloca(I64, _SLOTS * lanes), lanes)
        for slot, entry in enumerate(_entries(w, seed, draw, domain)):
            w.store(w.splat(entry, lanes), w.gep(table.table, slot * lanes, I64))
        return table

    def words(self, draw: Draw, e: LaneIndex, dtype: DType) -> Val:
        """The words of elements `e`, as integers of the size of `dtype`."""
        return self._made("word", draw, e, dtype)

    def normals(self, draw: Draw, e: LaneIndex, dtype: DType) -> Val:
        """The normal numbers of elements `e`."""
        return self._made("normal", draw, e, dtype)

    def _made(self, kind: str, draw: Draw, e: LaneIndex, dtype: DType) -> Val:
        key = draw, f"{kind} {dtype.name}", self.number
        mates = self.mates
        if mates is not None and key in mates.found:
            return mates.found.pop(key)
        per_block = _BLOCK_BITS // dtype.bits
        if not self._is_run(e, per_block):
            one = _each_word if kind == "word" else _each_normal
            return one(self, draw, e, dtype)
        paired = mates is not None and self.number % 2 == 0 and self.number + 1 < mates.vectors
        count = self.lanes * (2 if paired else 1)
        first = self.w.lshr(self.scalar_of(e), per_block.bit_length() - 1)
        counter = self._run_of_blocks(draw, first, count // per_block)
        of_run = _run_of_words if kind == "word" else _run_of_normals
        found = of_run(self.w, counter, dtype, self.lanes)
        if mates is not None and paired:
            mates.found[draw, key[1], self.number + 1] = found[1]
        return found[0]

    def _is_run(self, e: LaneIndex, per_block: int) -> bool:
        """Do the lanes hold whole blocks, one behind the other?"""
        follows = e.step == e.every == 1 and not e.is_vector and e.guard is None
        follows = follows and self.lanes >= per_block
        return follows and e.divisor % per_block == 0

    def _run_of_blocks(self, draw: Draw, first: Val, count: int) -> Counter:
        """Blocks from number `first` on."""
        if count == 1:
            return self.blocks(draw, first)
        ramp = lane_const(list(range(count)), I64)
        return self.blocks(draw, self.w.add(self.w.splat(first, count), ramp))

    def blocks(self, draw: Draw, number: Val) -> Counter:
        """The blocks of these numbers, i64: a word each in the lower halves of four values."""
        w, lanes = self.w, number.type.lanes
        if lanes > draw.lanes:
            low, high = (self.blocks(draw, half) for half in w.halves(number))
            every = range(lanes)
            return _four([w.shuffle(a, b, every) for a, b in zip(low, high, strict=True)])
        return _rounds(w, draw, number)


def _four(values: Sequence[Val]) -> Counter:
    a, b, c, d = values
    return a, b, c, d


# --- the rounds --------------------------------------------------------------------------------


def _times(w: FunctionWriter, x: Val, by: int) -> Val:
    """The lower half of x times a word: both halves of the product."""
    return w.mul(w.and_(x, MASK), by)


def _upper(w: FunctionWriter, x: Val) -> Val:
    return w.lshr(x, 32)


def _entries(w: FunctionWriter, seed: Val, draw: Val, domain: int) -> list[Val]:
    """The entries of the table, in the order in which `_rounds` takes them. The counter of a block
    begins with (its number, domain, draw): what of the first two rounds does not depend on the
    number is computed here."""
    key0, key1 = [seed], [_upper(w, seed)]
    for _ in range(ROUNDS - 1):
        key0.append(w.add(key0[-1], W0))
        key1.append(w.add(key1[-1], W1))
    q = _times(w, draw, M1)
    c0 = w.xor(w.xor(_upper(w, q), domain), key0[0])
    p = _times(w, c0, M0)
    entries = [
        w.xor(_upper(w, draw), key1[0]),
        w.xor(q, key0[1]),
        w.xor(_upper(w, p), key1[1]),
        key0[2],
        w.xor(p, key1[2]),
    ]
    for k0, k1 in zip(key0[3:], key1[3:], strict=True):
        entries += [k0, k1]
    return entries


def _rounds(w: FunctionWriter, draw: Draw, number: Val) -> Counter:
    """Ten rounds of the blocks with these numbers."""

    def entry(slot: int) -> Val:
        at = w.gep(draw.table, slot * draw.lanes, I64)
        return w.load(number.type, at, 8 * max(number.type.lanes, 1))

    p = _times(w, number, M0)
    q = _times(w, w.xor(_upper(w, p), entry(0)), M1)
    c0, c1, c2 = w.xor(_upper(w, q), entry(1)), q, w.xor(p, entry(2))
    p, q = _times(w, c0, M0), _times(w, c2, M1)
    c0, c1 = w.xor(w.xor(_upper(w, q), c1), entry(3)), q
    c2, c3 = w.xor(_upper(w, p), entry(4)), p
    for slot in range(5, _SLOTS, 2):
        p, q = _times(w, c0, M0), _times(w, c2, M1)
        c0, c1, c2, c3 = (
            w.xor(w.xor(_upper(w, q), c1), entry(slot)),
            q,
            w.xor(w.xor(_upper(w, p), c3), entry(slot + 1)),
            p,
        )
    return c0, c1, c2, c3


# --- blocks as elements ------------------------------------------------------------------------


def _both(w: FunctionWriter, low: Val, high: Val) -> Val:
    """The lower halves of two values as one of 64 bits."""
    return w.or_(w.and_(low, MASK), w.shl(high, 32))


def _alternating(w: FunctionWriter, x: Val, y: Val, lanes: int) -> list[Val]:
    """x[0], y[0], x[1], y[1] .. as vectors of `lanes` lanes."""
    if not x.type.lanes:
        one = Val("poison", vec(x.type, 2))
        return [w.insert(w.insert(one, x, 0), y, 1)]
    count = x.type.lanes
    picks = [k // 2 + (count if k % 2 else 0) for k in range(2 * count)]
    return [w.shuffle(x, y, picks[k : k + lanes]) for k in range(0, 2 * count, lanes)]


def _run_of_words(w: FunctionWriter, counter: Counter, dtype: DType, lanes: int) -> list[Val]:
    """The words of blocks that follow each other, in vectors of `lanes` lanes."""
    c0, c1, c2, c3 = counter
    low, high = _both(w, c0, c1), _both(w, c2, c3)
    if dtype.bits == 64:
        return _alternating(w, low, high, lanes)
    found = _alternating(w, low, high, lanes // 2)
    return [w.bitcast(x, vec(I32, lanes)) for x in found]


def _run_of_normals(w: FunctionWriter, counter: Counter, dtype: DType, lanes: int) -> list[Val]:
    """The normal numbers of blocks that follow each other, in vectors of `lanes` lanes."""
    c0, c1, c2, c3 = counter
    if dtype.bits == 64:
        first, second = box_muller(w, _both(w, c0, c1), _both(w, c2, c3))
    else:  # the words 0 and 2 side by side, and 1 and 3
        pairs = vec(I32, 2 * max(c0.type.lanes, 1))
        even, odd = (w.bitcast(_both(w, a, b), pairs) for a, b in ((c0, c2), (c1, c3)))
        first, second = box_muller(w, even, odd)
    return _alternating(w, first, second, lanes)


def _each_block(ops: RandomOps, draw: Draw, e: LaneIndex, shift: int) -> tuple[Counter, Val]:
    """For each lane the block of its own element, and the element's number."""
    at = ops.scalar_of(e) if e.is_uniform else ops.vector_of(e, I64)
    return ops.blocks(draw, ops.w.lshr(at, shift)), at


def _bit(w: FunctionWriter, x: Val, bit: int) -> Val:
    return w.icmp("ne", w.and_(x, bit), 0)


def _each_word(ops: RandomOps, draw: Draw, e: LaneIndex, dtype: DType) -> Val:
    w = ops.w
    if dtype.bits == 64:
        (c0, c1, c2, c3), at = _each_block(ops, draw, e, 1)
        return w.select(_bit(w, at, 1), _both(w, c2, c3), _both(w, c0, c1))
    (c0, c1, c2, c3), at = _each_block(ops, draw, e, 2)
    upper = _bit(w, at, 2)
    even, odd = w.select(upper, c2, c0), w.select(upper, c3, c1)
    return w.cast("trunc", w.select(_bit(w, at, 1), odd, even), I32)


def _each_normal(ops: RandomOps, draw: Draw, e: LaneIndex, dtype: DType) -> Val:
    w = ops.w
    (c0, c1, c2, c3), at = _each_block(ops, draw, e, 1 if dtype.bits == 64 else 2)
    if dtype.bits == 64:
        x, y = _both(w, c0, c1), _both(w, c2, c3)
    else:
        upper = _bit(w, at, 2)
        x = w.cast("trunc", w.select(upper, c2, c0), I32)
        y = w.cast("trunc", w.select(upper, c3, c1), I32)
    first, second = box_muller(w, x, y)
    return w.select(_bit(w, at, 1), second, first)
