"""A product of looked-up rows is a look-up in the product.

    %e: f32[2048, 64] = gather(%table, %i, axes=(0,))       %t: f32[65, 1024] = matmul(%table, %w)
    %y: f32[2048, 1024] = matmul(%e, %w)               ->   %y: f32[2048, 1024] = gather(%t, %i)

Where more rows are looked up than the table has, each row of the table is multiplied several times.
Each element is the same sum of the same products. It runs before autodiff: the derivative adds up
the rows' cotangents in the small table first, and multiplies that.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.passes.manager import Pass, PassContext
from treadle.passes.rewrite import RuleSet, made_by, rewrite

RULES = RuleSet()
_TIMES: Final = 2  # as many rows as the table has, before it is worth a second array


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with products of tables in place of products of their rows."""
    if not any(i.op.name == "matmul" for i in fn.instrs):
        return fn
    return rewrite(fn, lambda i: RULES.of(i.op.name), ctx)


@RULES.rule("matmul")
def product_of_rows(b: Builder, i: Instr) -> Value | None:
    """gather(t, i) @ w = gather(t @ w, i), for rows of t; also where the axes of i are permuted"""
    left, right = i.args
    shape = left.type.shape
    if made := made_by(left, "reshape"):
        left = made.args[0]
    order: tuple[int, ...] = ()
    if made := made_by(left, "permute"):
        axes: tuple[int, ...] = getattr(made.attrs, "perm", ())
        if not axes or axes[-1] != len(axes) - 1:
            return None
        left, order = made.args[0], axes[:-1]
    looked_up = made_by(left, "gather")
    if looked_up is None or right.type.rank != 2 or len(shape) < 2:
        return None
    table, indices = looked_up.args[0], looked_up.args[1]
    attrs: Any = looked_up.attrs
    if attrs.axes != (0,) or table.type.rank != 2 or left.type.shape[-1] != shape[-1]:
        return None
    rows, count = table.type.shape[0], indices.type.size
    if not isinstance(rows, int) or not isinstance(count, int) or count < _TIMES * rows:
        return None
    with b.at(looked_up.loc):
        product = b.matmul(table, right)
        if order:
            indices = b.call("permute", indices, perm=order)
        (found,) = b.emit(looked_up.op, (product, indices), attrs)
    return b.reshape(found, i.result.type.shape)


PASS = Pass("lookups", run, requires=Level.TRACED, ensures=Level.TRACED)
