"""Emits attention_forward: a softmax that is corrected as it meets larger logits.

    for each head, for each block of queries:
        for each block of keys that the mask does not empty:
            logits    [key][query] = k q^T, scaled, masked; the maximum so far
            weights   exp(logit - maximum), their sum; exp(old maximum - new one)
            out       corrected by that factor, plus weights v
        out divided by the sum

Method: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al.,
"FlashAttention" (2022). A row of which all logits are -inf sums to 0 and gives 0; logits of +inf
are each exp(0) beside a maximum of +inf; NaN goes through the exponentials into the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.attention_blocks import NEG_INF, Block, Rows, span
from treadle.codegen.attention_tiles import columns
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import FunctionWriter, Val, vec
from treadle.codegen.loops import tile_bounds
from treadle.codegen.plan_attention import AttentionPlan
from treadle.codegen.tiles import zero


def emit_attention(
    state: Emission,
    w: FunctionWriter,
    plan: AttentionPlan,
    operands: Sequence[Val],
    scratch: Val,
    tile: Val,
) -> None:
    """One tile: a run of heads, and of each a run of blocks of queries. `operands`: q, k, v,
    perhaps a mask and its fill, then out, top, total."""
    sizes = (plan.heads, plan.blocks)
    bounds = tile_bounds(w, plan.tiling, sizes, tile)
    spans = [bounds.get(n, (0, size)) for n, size in enumerate(sizes)]
    b = Block(state, w, plan, operands[3:-3], scratch)
    given = (*operands[:3], operands[-3])
    (h0, h1), (b0, b1) = spans
    with w.loop(h0, h1, label="head") as head:
        at = b.indices(head)
        q, k, v, out = [b.head(x, lay, at) for x, lay in zip(given, plan.lays, strict=True)]
        b.set_head(at)
        top, total = (b.at(x, head, plan.t) for x in operands[-2:])
        with w.loop(b0, b1, label="block") as block:
            b.set_queries(block)
            b.pack(q, plan.d, "queries")
            low, high = b.keys()
            if plan.single:
                tops, totals = _single(b, k, v, out, low, high)
            else:
                tops, totals = _many(b, k, v, out, low, high)
            b.keep_row(tops, top)
            b.keep_row(totals, total)


def _single(
    b: Block, k: Rows, v: Rows, out: Rows, low: Val, high: Val
) -> tuple[list[Val], list[Val]]:
    """All keys are one block: nothing is corrected."""
    w = b.w
    count = w.sub(high, low)
    tops = _logits(b, k, low, count, [w.const(NEG_INF, b.row)] * b.plan.vectors)
    totals = _weights(b, count, b.finite(tops))
    b.store(b.inverse(totals), b.room["factors"], 0)
    b.from_keys("weights", low, count, v, out, b.plan.e, "scale")
    return tops, totals


def _many(
    b: Block, k: Rows, v: Rows, out: Rows, low: Val, high: Val
) -> tuple[list[Val], list[Val]]:
    w, plan = b.w, b.plan
    n = plan.vectors
    b.clear(out, b.first, b.rows, plan.e)
    start = [w.const(NEG_INF, b.row)] * n + [zero(b.row)] * n
    with w.carry(low, high, plan.keys, start, "keys") as loop:
        count = span(w, loop.index, high, plan.keys)
        old, before = loop.carried[:n], loop.carried[n:]
        tops = _logits(b, k, loop.index, count, old)
        finite = b.finite(tops)
        factors = [b.below(x, m) for x, m in zip(old, finite, strict=True)]
        b.store(factors, b.room["factors"], 0)
        sums = _weights(b, count, finite)
        totals = [w.fadd(w.fmul(x, f), y) for x, f, y in zip(before, factors, sums, strict=True)]
        b.from_keys("weights", loop.index, count, v, out, plan.e, "decay")
        loop.next = (*tops, *totals)
    found = loop.results
    b.store(b.inverse(found[n:]), b.room["factors"], 0)
    _scale(b, out)
    return list(found[:n]), list(found[n:])


def _logits(b: Block, k: Rows, first: Val, count: Val, tops: Sequence[Val]) -> list[Val]:
    """[key][query] in scratch; the largest logit of each query."""
    w, room = b.w, b.room["weights"]
    b.by_queries(k, first, count, b.plan.d, "queries", "weights")
    with w.carry(0, count, 1, tops, "key") as loop:
        found, _ = b.logits(w.add(first, loop.index), b.load(room, loop.index))
        b.store(found, room, loop.index)
        pairs = zip(found, loop.carried, strict=True)
        loop.next = [w.select(w.fcmp("ogt", x, m), x, m) for x, m in pairs]
    return list(loop.results)


def _weights(b: Block, count: Val, tops: Sequence[Val]) -> list[Val]:
    """exp(logit - top) over the logits; the sum of each query's."""
    w, room = b.w, b.room["weights"]
    with w.carry(0, count, 1, [zero(b.row)] * b.plan.vectors, "key") as loop:
        found = [b.below(x, m) for x, m in zip(b.load(room, loop.index), tops, strict=True)]
        b.store(found, room, loop.index)
        loop.next = [w.fadd(x, y) for x, y in zip(loop.carried, found, strict=True)]
    return list(loop.results)


def _scale(b: Block, out: Rows) -> None:
    """Each of the block's rows times its factor."""
    w, plan = b.w, b.plan
    groups = columns(plan.e, plan.lanes, plan.group)
    with w.loop(0, b.rows, label="row") as i:
        factor = w.load(b.elem, b.at(b.room["factors"], i))
        here = b.at(out.base, w.add(b.first, i), out.step)
        for group in groups:  # what overlaps is in one group: loaded before it is stored
            places = [b.at(here, start) for start in group.starts]
            row, by = vec(b.elem, group.lanes), w.splat(factor, group.lanes)
            scaled = [w.fmul(w.load(row, place), by) for place in places]
            for value, place in zip(scaled, places, strict=True):
                w.store(value, place)
