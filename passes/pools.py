"""Max-pools: a relu behind them in place of before them, and sums of their gradients over windows.

    %1: f32[64, 64, 24, 24] = relu(%0)                  %1, %2 = max_pool(%0)
    %2, %3 = max_pool(%1)                           ->  %3: f32[64, 64, 12, 12] = relu(%1)

relu keeps the order of numbers, so the maximum of what it gives is what it gives for the maximum,
NaNs and zeros included: the same bits, for a quarter of the elements. Its mask, which the backward
pass needs, is a quarter too, and lies where the gradient does. In windows without a positive
element another tap may win, which is why nobody may ask for the taps; the gradient there is 0
either way. This runs before autodiff.

Behind autodiff, what is summed over all of a max-pool's gradient is summed over its windows: the
gradient has one element for each window, and zeros. These are the sums for a bias or a batch norm.

    sum(max_pool_grad(g, taps))            ->  sum(g)
    sum(chain(max_pool_grad(g, taps), y))  ->  sum(chain(g, max_pool_at(y, taps)))
"""

from __future__ import annotations

from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Value, uses
from treadle.ir.ops.sliding import windows_attrs
from treadle.passes.copier import Copier
from treadle.passes.manager import Pass, PassContext
from treadle.passes.rewrite import RuleSet, made_by, rewrite

RULES = RuleSet()


# --- before autodiff -------------------------------------------------------------------------


def run_early(fn: Function, ctx: PassContext) -> Function:
    """`fn` with relu behind the max-pools that read nothing else."""
    if not any(i.op.name == "max_pool" for i in fn.instrs):
        return fn
    users, outputs = uses(fn), set(fn.outputs)
    copier = Copier(fn)
    for instr in fn.instrs:
        before = made_by(instr.args[0], "relu") if instr.op.name == "max_pool" else None
        if before is None or not _may_swap(instr, before, users, outputs):
            copier.keep(instr)
            continue
        b = copier.builder
        with b.at(instr.loc):
            best, taps = b.emit(instr.op, [copier.of(before.args[0])], instr.attrs)
        with b.at(before.loc):
            (found,) = b.emit(before.op, [best], before.attrs)
        copier.replace(instr.results[0], found)
        copier.replace(instr.results[1], taps)
        ctx.fired("relu_behind_pool", instr.loc, "max_pool(relu(x)) = relu(max_pool(x))")
    return copier.finish()


def _may_swap(
    pool: Instr, before: Instr, users: dict[Value, list[Instr]], outputs: set[Value]
) -> bool:
    """Does only this pool read what relu gives, nobody its taps, and has each window an element?"""
    taps = pool.results[1]
    if users.get(taps) or taps in outputs or before.result in outputs:
        return False
    return all(u is pool for u in users[before.result]) and _holds_elements(pool.attrs)


def _holds_elements(attrs: Any) -> bool:
    """A window under padding alone has a maximum of -inf, of which relu makes 0."""
    sides = zip(attrs.kernel, attrs.padding, attrs.dilation, strict=True)
    return all(
        (low, high) == (0, 0) or (d == 1 and max(low, high) < k) for k, (low, high), d in sides
    )


# --- behind autodiff -------------------------------------------------------------------------


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with sums over max-pools' gradients as sums over their windows."""
    if not any(i.op.name == "max_pool_grad" for i in fn.instrs):
        return fn
    return rewrite(fn, lambda i: RULES.of(i.op.name), ctx)


@RULES.rule("sum")
def sum_of_pool_gradient(b: Builder, i: Instr) -> Value | None:
    """sum(max_pool_grad(g, taps)) = sum(g), over the pooled axes and others"""
    back = made_by(i.args[0], "max_pool_grad")
    if back is None or not _is_over_windows(i, back):
        return None
    (found,) = b.emit(i.op, [back.args[0]], i.attrs)
    return found


@RULES.rule("sum")
def sum_of_scaled_pool_gradient(b: Builder, i: Instr) -> Value | None:
    """sum(chain(max_pool_grad(g, taps), y)) = sum(chain(g, max_pool_at(y, taps)))"""
    product = made_by(i.args[0], "chain")
    back = made_by(product.args[0], "max_pool_grad") if product else None
    if product is None or back is None or not _is_over_windows(i, back):
        return None
    g, taps = back.args
    y = product.args[1]
    if y.type.shape != back.result.type.shape or not _is_apart(back.attrs):
        return None
    there = b.call("max_pool_at", y, taps, **windows_attrs(back.attrs))
    (found,) = b.emit(i.op, [b.call("chain", g, there)], i.attrs)
    return found


def _is_over_windows(total: Instr, back: Instr) -> bool:
    """Does the sum take all of each pooled plane, in which each tap lies?"""
    axes, attrs = getattr(total.attrs, "axes", ()), _attrs(back)
    inside = not any(map(any, attrs.padding))
    return inside and set(attrs.axes) <= set(axes)


def _is_apart(attrs: Any) -> bool:
    """Is no element in two windows? Then none of the gradient's is a sum."""
    steps = zip(attrs.kernel, attrs.stride, attrs.dilation, strict=True)
    return all(d == 1 and k <= s for k, s, d in steps)


def _attrs(instr: Instr) -> Any:
    return instr.attrs


EARLY = Pass("early_pools", run_early, requires=Level.TRACED, ensures=Level.TRACED)
PASS = Pass("pools", run, requires=Level.TRACED, ensures=Level.TRACED)
