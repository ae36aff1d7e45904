"""Emits attention_backward: the weights once more from q, k and what the forward pass has left.

    for each head:  dk = dv = 0
        for each block of queries, for each block of keys that the mask does not empty:
            P      [key][query] = exp(logit - top) / total
            dS     [key][query] = P (v ct^T - delta) scale,   delta = rowsum(ct out)
            dv += P ct,   dk += dS q,   dq += dS k

One thread does a whole head, and adds to dk and dv in the order of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.attention_blocks import Block, Rows, span
from treadle.codegen.attention_tiles import Finish
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import FunctionWriter, Val
from treadle.codegen.loops import tile_bounds
from treadle.codegen.plan_attention import AttentionPlan
from treadle.codegen.tiles import zero


def emit_attention_grad(
    state: Emission,
    w: FunctionWriter,
    plan: AttentionPlan,
    operands: Sequence[Val],
    scratch: Val,
    tile: Val,
) -> None:
    """One tile: a run of heads. `operands`: q, k, v, perhaps a mask and its fill, then out, top,
    total, ct, then dq, dk, dv."""
    bounds = tile_bounds(w, plan.tiling, (plan.heads,), tile)
    first, last = bounds.get(0, (0, plan.heads))
    b = Block(state, w, plan, operands[3:-7], scratch)
    given = (*operands[:3], operands[-7], *operands[-4:])
    with w.loop(first, last, label="head") as head:
        at = b.indices(head)
        q, k, v, out, ct, dq, dk, dv = [
            b.head(x, lay, at) for x, lay in zip(given, plan.lays, strict=True)
        ]
        b.set_head(at)
        top, total = (b.at(x, head, plan.t) for x in operands[-6:-4])
        for rows, width in ((dk, plan.d), (dv, plan.e)):
            b.clear(rows, w.int(0), w.int(plan.s), width)
        with w.loop(0, plan.blocks, label="block") as block:
            b.set_queries(block)
            for rows, width, room in (
                (q, plan.d, "queries"),
                (ct, plan.e, "cotangents"),
                (out, plan.e, "outs"),
            ):
                b.pack(rows, width, room)
            _Queries(b, top, total).write((q, k, v, ct), (dq, dk, dv))


class _Queries:
    """One block of queries, and what is known of each of them."""

    def __init__(self, b: Block, top: Val, total: Val) -> None:
        self.b = b
        self.tops = b.finite(b.take_row(top))
        self.inverses = b.inverse(b.take_row(total))
        self.deltas = _deltas(b)

    def write(self, given: Sequence[Rows], grads: Sequence[Rows]) -> None:
        b, w, plan = self.b, self.b.w, self.b.plan
        (q, k, v, ct), (dq, dk, dv) = given, grads
        low, high = b.keys()
        if not plan.single:
            b.clear(dq, b.first, b.rows, plan.d)

        def keys(first: Val, count: Val) -> None:
            b.by_queries(k, first, count, plan.d, "queries", "weights")
            b.by_queries(v, first, count, plan.e, "cotangents", "slopes")
            self._slopes(first, count)
            b.from_queries("weights", first, count, ct, dv, plan.e)
            b.from_queries("slopes", first, count, q, dk, plan.d)
            finish: Finish = "set" if plan.single else "add"
            b.from_keys("slopes", first, count, k, dq, plan.d, finish)

        if plan.single:
            keys(low, w.sub(high, low))
            return
        with w.loop(low, high, plan.keys, "keys") as first:
            keys(first, span(w, first, high, plan.keys))

    def _slopes(self, first: Val, count: Val) -> None:
        """Products become weights, and v ct^T the cotangents of logits; 0 where a weight is 0."""
        b, w = self.b, self.b.w
        weights, slopes = b.room["weights"], b.room["slopes"]
        nothing = zero(b.row)
        with w.loop(0, count, label="key") as i:
            logits, kept = b.logits(w.add(first, i), b.load(weights, i))
            rows = zip(logits, self.tops, self.inverses, strict=True)
            p = [w.fmul(b.below(x, m), inverse) for x, m, inverse in rows]
            b.store(p, weights, i)
            found: list[Val] = []
            for v, dp in enumerate(b.load(slopes, i)):
                slope = w.fmul(w.fmul(p[v], w.fsub(dp, self.deltas[v])), b.plan.scale)
                slope = w.select(w.fcmp("oeq", p[v], 0.0), nothing, slope)
                found.append(w.select(kept[v], slope, nothing) if kept else slope)
            b.store(found, slopes, i)


def _deltas(b: Block) -> list[Val]:
    """rowsum(ct out) of each query."""
    w = b.w
    with w.carry(0, b.plan.e, 1, [zero(b.row)] * b.plan.vectors, "feature") as loop:
        cts, outs = (b.load(b.room[x], loop.index) for x in ("cotangents", "outs"))
        rows = zip(cts, outs, loop.carried, strict=True)
        loop.next = [w.muladd(x, y, total) for x, y, total in rows]
    return list(loop.results)
