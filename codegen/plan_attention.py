"""How attention runs: blocks of queries in vector lanes, blocks of keys in a loop.

A tile of the kernel is a run of heads (and, forward, a run of query blocks). One block of queries
lies in the lanes of `vectors` vectors: its logits are computed with the keys as rows, so that the
maximum and the sum over keys are taken from vector to vector, never across lanes; queries are
packed once a block, keys and values are read where they lie, one element for all lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, cast

from treadle.codegen.plan_tiles import Tiling, tiling
from treadle.codegen.regions import row_major
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr
from treadle.ir.ops.attention_kernels import View, mask_operands, strided_operands
from treadle.ir.types import DType, TensorType, bool_

_BLOCK_BYTES = 8192  # of logits: two such blocks, the packed queries and cotangents fit an L1
_MOST_KEYS = 128
_SHORT = 64  # queries: measured 14 to 25 % faster with one vector, causal, forward and backward
_EXP_CYCLES = 25  # a vector, with mask, maximum and sum


@dataclass(frozen=True, slots=True)
class Lay:
    """How an operand or result lies, in elements: where it begins, the steps of its batch axes and
    of its rows. Elements of a row are neighbours."""

    offset: int
    batch: tuple[int, ...]
    row: int

    def __str__(self) -> str:
        return f"{self.offset}+{'/'.join(map(str, (*self.batch, self.row)))}"


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """`keep` (bool) or `bias` (added); steps of its batch axes, of a key and of a query (0: one
    for all); `filled`: an operand says what stands where a key is not kept, else it is -inf."""

    kind: Literal["keep", "bias"]
    batch: tuple[int, ...]
    key: int
    query: int
    filled: bool

    def __str__(self) -> str:
        each = "" if self.query else " for all queries"
        return f", mask: {self.kind}{each}{', filled' if self.filled else ''}"


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The kernel of an attention_forward or attention_backward.

    `lays`: of q, k, v, out, and backward of ct, dq, dk, dv. Registers: forward products have
    `key_rows` keys by `vectors` vectors of queries, the others `query_rows` or `key_rows` rows by
    at most `group` vectors of features. `keys`: of one block, a multiple of `key_rows`.
    """

    backward: bool
    dtype: DType
    scale: float
    causal: bool
    batch: tuple[int, ...]
    t: int
    s: int
    d: int
    e: int
    lanes: int
    vectors: int
    keys: int
    key_rows: int
    query_rows: int
    group: int
    lays: tuple[Lay, ...]
    mask: MaskPlan | None
    tiling: Tiling

    @property
    def heads(self) -> int:
        return prod(self.batch)

    @property
    def queries(self) -> int:
        """Of one block."""
        return self.lanes * self.vectors

    @property
    def blocks(self) -> int:
        """Blocks of queries in a head."""
        return -(-self.t // self.queries)

    @property
    def single(self) -> bool:
        """One block holds all keys, so that no maximum has to be corrected later."""
        return self.s <= self.keys

    @property
    def rooms(self) -> dict[str, int]:
        """Bytes of each piece of a thread's scratch. What `pack` writes may run over by a vector"""
        size, over = self.dtype.itemsize, self.lanes
        features = {"queries": self.d}
        if self.backward:
            features |= {"cotangents": self.e, "outs": self.e, "slopes": self.keys}
        features |= {"weights": self.keys, "factors": 1}
        return {n: _aligned((x * self.queries + over) * size) for n, x in features.items()}

    @property
    def scratch(self) -> int:
        """Bytes of workspace that each thread uses for itself."""
        return sum(self.rooms.values())

    def __str__(self) -> str:
        name = "attention, backward" if self.backward else "attention"
        sizes = f"{self.heads} of {self.t} queries, {self.s} keys, {self.d} and {self.e} features"
        masked = f"{', causal' if self.causal else ''}{self.mask or ''}"
        registers = (
            f"registers {self.key_rows} x {self.vectors} and {self.query_rows} x {self.group}"
        )
        return (
            f"{name}: {sizes} {self.dtype}{masked}, blocks of {self.queries} queries and "
            f"{self.keys} keys, {registers} of {self.lanes} lanes, {self.scratch} bytes a thread; "
            f"{self.tiling}"
        )


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def plan_attention(instr: Instr, target: Target) -> AttentionPlan:
    """The plan of an attention_forward or attention_backward on `target`."""
    attrs = cast(Any, instr.attrs)
    backward = instr.op.name == "attention_backward"
    types = [a.type for a in instr.args]
    dtype = types[0].dtype
    numbers = strided_operands(instr.op.name, len(types))
    views: Sequence[View] = attrs.views or ((),) * len(numbers)
    seen = [_seen(types[n], view) for n, view in zip(numbers, views, strict=True)]
    lays = [_lay(*x) for x in seen]
    orders = attrs.orders or ((),) * 3
    results = instr.results if backward else instr.results[:1]
    lays += [_result_lay(r.type, order) for r, order in zip(results, orders, strict=False)]
    (*batch, t, d), (*_, s, e) = seen[0][1], seen[2][1]
    lanes, wide = target.lanes(dtype), target.registers >= 32
    vectors, key_rows = 2, 8 if wide else 6
    mask = _mask(instr, len(batch))
    if t <= lanes or (t <= _SHORT and (attrs.causal or mask is not None)):
        vectors = 1  # smaller blocks of queries leave more of the keys out
    keys = _BLOCK_BYTES // (vectors * lanes * dtype.itemsize) // key_rows * key_rows
    keys = min(keys, _MOST_KEYS // key_rows * key_rows)
    work = _work(t, s, d, e, lanes, lanes * vectors, attrs.causal, backward) * prod(batch)
    blocks = -(-t // (lanes * vectors))
    cut = tiling((prod(batch),), (1,), work)
    if not backward:
        cut = tiling((prod(batch), blocks), (1, 1), work)
    return AttentionPlan(
        backward, dtype, attrs.scale, attrs.causal, tuple(batch), t, s, d, e, lanes, vectors, keys,
        key_rows, 8 if wide else 4, 2, tuple(lays), mask, cut,
    )  # fmt: skip


def _work(
    t: int, s: int, d: int, e: int, lanes: int, queries: int, causal: bool, backward: bool
) -> int:
    """Cycles of one head, at one FMA a cycle."""
    ends = [min(s, q + queries) if causal else s for q in range(0, t, queries)]
    vectors = sum(ends) * queries // lanes
    each = 3 * d + 2 * e + 2 * _EXP_CYCLES if backward else d + e + _EXP_CYCLES
    return vectors * each


Seen = tuple[int, tuple[int, ...], tuple[int, ...]]


def _seen(t: TensorType, view: View) -> Seen:
    """Offset, shape and strides of an operand."""
    if view:
        (offset,), shape, strides = view
        return offset, shape, strides
    return 0, t.static_shape, cast("tuple[int, ...]", row_major(t.static_shape))


def _lay(offset: int, shape: Sequence[int], strides: Sequence[int]) -> Lay:
    if strides[-1] != 1 and shape[-1] > 1:
        raise ValueError(f"attention reads rows of neighbours, found strides {strides}")
    return Lay(offset, tuple(strides[:-2]), strides[-2])


def _result_lay(t: TensorType, order: Sequence[int]) -> Lay:
    """The steps of a result's logical axes, of which its own are `order`."""
    own = cast("tuple[int, ...]", row_major(t.static_shape))
    axes = order or range(t.rank)
    steps, shape = [0] * t.rank, [0] * t.rank
    for size, step, axis in zip(t.static_shape, own, axes, strict=True):
        shape[axis], steps[axis] = size, step
    return _lay(0, shape, steps)


def _mask(instr: Instr, rank: int) -> MaskPlan | None:
    numbers = mask_operands(instr.op.name, len(instr.args))
    if not numbers:
        return None
    t = instr.args[3].type
    shape, own = t.static_shape, cast("tuple[int, ...]", row_major(t.static_shape))
    steps = [0 if size == 1 else step for size, step in zip(shape, own, strict=True)]
    steps = [0] * (rank + 2 - len(steps)) + steps
    kind: Literal["keep", "bias"] = "keep" if t.dtype == bool_ else "bias"
    return MaskPlan(kind, tuple(steps[:rank]), steps[rank], steps[rank + 1], len(numbers) > 1)
