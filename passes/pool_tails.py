"""A max-pool of what a convolution has made becomes its tail: it runs tile by tile.

    %1: f32[64, 64, 24, 24] = contract(..) { .. }
    %2: f32[64, 64, 12, 12] = fused(%1, space=(64, 64, 12, 12)) { .. slices of %1 .. }
      ->
    %1: f32[64, 64, 24, 24], %2: f32[64, 64, 12, 12] = contract(..) { .. } { .. slices .. }

Any loop over windows that do not overlap counts, with whatever it computes of them: maximum, taps,
relu, scale and shift. What else it reads must be there before the convolution is. As for sums
(`channel_sums`) it pays for results beyond a last-level cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.tails import tail_faults
from treadle.passes.channel_sums import CACHED, identity, is_windowed
from treadle.passes.copier import Copier
from treadle.passes.inline import inline
from treadle.passes.manager import PassContext
from treadle.passes.recompute import bytes_of, size_text


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn`, at the level of kernels, with pools behind convolutions as their tails."""
    if not any(is_windowed(i) for i in fn.instrs):
        return fn
    index = {r: n for n, i in enumerate(fn.instrs) for r in i.results}
    tails: dict[Instr, Instr] = {}
    for instr in fn.instrs:
        maker = _maker(instr, index)
        if maker is not None and maker not in tails and _pays(maker, ctx):
            tails[maker] = instr
    if not tails:
        return fn
    done = set(tails.values())
    copier = Copier(fn)
    for instr in fn.instrs:
        if instr in tails:
            _emit(copier, instr, tails[instr], ctx)
        elif instr not in done:
            copier.keep(instr)
    return copier.finish()


def _maker(instr: Instr, index: Mapping[Value, int]) -> Instr | None:
    """The convolution whose windows `instr` is a loop over; None where it is something else."""
    if instr.op.name != "fused" or _attrs(instr).reduced:
        return None
    made = [a.producer for a in instr.args if a.producer is not None and is_windowed(a.producer)]
    if not made:
        return None
    last = max(made, key=lambda i: index[i.results[0]])
    at = index[last.results[0]]
    if any(index.get(a, -1) >= at and a not in last.results for a in instr.args):
        return None
    product = last.results[0].type.shape
    legal = not any(tail_faults(instr.regions[0], len(last.results), product))
    return last if legal and instr.results[0].type.static_shape[3] >= 8 else None


def _pays(contract: Instr, ctx: PassContext) -> bool:
    nbytes = bytes_of(contract.results[0].type)
    if nbytes > CACHED:
        return True
    why = f"a pool: {size_text(nbytes)} are in the caches when it reads them"
    ctx.reason("no tail", contract.loc, why)
    return False


def _emit(copier: Copier, old: Instr, pool: Instr, ctx: PassContext) -> None:
    b = copier.builder
    epilogue = old.regions[0] if old.regions else identity(old)
    others = [a for a in dict.fromkeys(pool.args) if a not in old.results]
    inner = Builder(pool.regions[0].name)
    inside = {r: inner.param(r.type, f"r{n}") for n, r in enumerate(old.results)}
    inside.update({v: inner.param(v.type, f"p{n}") for n, v in enumerate(others)})
    outs = inline(inner, pool.regions[0], [inside[a] for a in pool.args])
    tail = inner.finish([Result(v, f"t{n}") for n, v in enumerate(outs)])
    results = (*old.results, *pool.results)
    with b.at(old.loc):
        made = b.emit_typed(
            old.op, [*(copier.of(a) for a in (*old.args, *others))], old.attrs,
            [r.type for r in results], [epilogue, tail],
        )  # fmt: skip
    for was, now in zip(results, made, strict=True):
        copier.replace(was, now)
    ctx.fired("tail", old.loc, f"a pool: {size_text(bytes_of(old.results[0].type))} less to read")


def _attrs(instr: Instr) -> Any:
    return instr.attrs
