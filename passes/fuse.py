"""Fusion: CORE -> KERNELS. Every instruction becomes part of a loop nest, or is a view or kernel.

    %1: f32[8, 1] = max(%0, axes=(1,), keepdims=True)
    %2: f32[8, 64] = sub(%0, %1)                         %5: f32[8, 64] = fused(%0, space=(8, 64),
    %3: f32[8, 64] = exp(%2)                                      reduced=(1,)) { .. all of it .. }
    %4: f32[8, 1] = sum(%3, axes=(1,), keepdims=True)  ->
    %5: f32[8, 64] = div(%3, %4)

What a legal region is, which code generation relies on, stands in `treadle.ir.regions`. The steps:

  fuse_blocks   pieces side by side along the last axis get an axis of pieces
  fuse_draws    the numbers of many draws of random numbers are counted in memory
  attention_views  the layout around attention kernels becomes part of them
  contract      matmul -> contract, with permutes and broadcasts absorbed into its spec
  updates       updates of parameters become regions, or instructions again
  fuse_shapes   reductions keep their axes; reshapes move below elementwise chains
  channel_sums  sums of channels over a convolution's result become its tail
  fuse_split    large reductions to a few elements get partial results
  early_views   small operands of epilogues move up, in front of their contractions
  epilogue      elementwise consumers move into contractions
  fuse_regions  clusters grow (on `fuse_graph`, which keeps them acyclic)
  fuse_build    what each region stores and what it computes again; the new Function
  recompute     what both weigh: bytes of traffic and of memory against operations
  pool_tails    pools of convolutions become their tails
  fuse_table    equal flat maps that differ only in their length become one fused_table

Pairs of neighbours that stayed apart are noted with the reason, and so is what became of each value
that a later kernel needs: stored, or computed again there.
"""

from __future__ import annotations

from treadle.ir.control import has_control, is_control
from treadle.ir.graph import Function, Level
from treadle.passes import (
    attention_views,
    channel_sums,
    contract,
    epilogue,
    fuse_blocks,
    fuse_build,
    fuse_draws,
    fuse_shapes,
    fuse_split,
    fuse_table,
    pool_tails,
    updates,
)
from treadle.passes.copier import Copier
from treadle.passes.fuse_regions import Growth
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` at level KERNELS; as it is where it is there already."""
    if any(i.regions and not (is_control(i) or i.op.name == "update") for i in fn.instrs):
        return fn
    fn = _regions(fn, ctx)
    fn = attention_views.run(fuse_blocks.run(fuse_draws.run(fn), ctx))
    fn = updates.settle(contract.run(fn, ctx))
    fn = epilogue.run(fuse_shapes.run(fn), ctx)
    fn = fuse_split.run(channel_sums.run(fn, ctx))
    growth = Growth(fn)
    growth.grow()
    fused = pool_tails.run(fuse_build.build(growth, ctx), ctx)
    return fuse_table.run(fused, ctx)


def _regions(fn: Function, ctx: PassContext) -> Function:
    """`fn` with the bodies of loops and branches fused, each by itself."""
    if not has_control(fn):
        return fn
    copier = Copier(fn)
    for instr in fn.instrs:
        inner = instr.regions if is_control(instr) else ()
        copier.keep(instr, [run(region, ctx) for region in inner])
    return copier.finish()


PASS = Pass("fuse", run, requires=Level.CORE, ensures=Level.KERNELS)
