"""Pieces that are put side by side along the last axis get an axis of pieces of their own.

    %2: f32[32, 1024] = concat(%0, %1, axis=1)      %0, %1: f32[32, 512]
      ->
    %2: f32[32, 2, 512] = concat(reshape(%0), reshape(%1), axis=1);  %3: f32[32, 1024] = reshape(%2)

A vector of the result would have to be gathered from the pieces lane by lane; with an axis of
pieces around it each vector lies in one of them. The same holds for a `pad` by whole pieces, which
the gradient of a slice is: those of all slices of a product are added up.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.types import Shape
from treadle.passes.manager import PassContext
from treadle.passes.rewrite import RuleSet, rewrite

RULES = RuleSet()
_LEAST: Final = 8  # elements of a piece: less than a vector is gathered anyway
_MOST: Final = 64  # pieces


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with axes of pieces."""
    if not any(i.op.name in ("pad", "concat") for i in fn.instrs):
        return fn
    return rewrite(fn, _rules, ctx)


def _rules(instr: Instr) -> Any:
    return RULES.of(instr.op.name)


def _last_wide(shape: Shape) -> int | None:
    """The last axis that is longer than 1."""
    wide = [n for n, size in enumerate(shape) if size != 1]
    return wide[-1] if wide else None


@RULES.rule("concat")
def concat_of_pieces(b: Builder, i: Instr) -> Value | None:
    """concat(x, y) along the last axis = reshape(concat(reshape(x), reshape(y)) of whole pieces)"""
    attrs: Any = i.attrs
    shape = i.args[0].type.shape
    axis = attrs.axis
    piece = shape[axis]
    if _last_wide(shape) != axis or len(i.args) > _MOST or not isinstance(piece, int):
        return None
    if piece < _LEAST or any(a.type.shape != shape for a in i.args):
        return None
    split = (*shape[:axis], 1, *shape[axis:])
    whole = b.call("concat", *(b.reshape(a, split) for a in i.args), axis=axis)
    return b.reshape(whole, i.result.type.shape)


@RULES.rule("pad")
def pad_by_pieces(b: Builder, i: Instr) -> Value | None:
    """pad(x) by whole lengths of x along its last axis = reshape(pad(reshape(x)) by pieces)"""
    attrs: Any = i.attrs
    shape = i.args[0].type.shape
    axis = _last_wide(shape)
    if axis is None:
        return None
    low, high = list(attrs.low), list(attrs.high)
    piece = shape[axis]
    if not isinstance(piece, int) or piece < _LEAST or not (low[axis] or high[axis]):
        return None
    if low[axis] % piece or high[axis] % piece or (low[axis] + high[axis]) // piece >= _MOST:
        return None
    split = (*shape[:axis], 1, *shape[axis:])
    before = (*low[:axis], low[axis] // piece, 0, *low[axis + 1 :])
    behind = (*high[:axis], high[axis] // piece, 0, *high[axis + 1 :])
    padded = b.call("pad", b.reshape(i.args[0], split), low=before, high=behind, value=attrs.value)
    return b.reshape(padded, i.result.type.shape)
