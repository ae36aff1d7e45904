"""Weights that every step multiplies with lie in panels, made once before the loop.

    z = matmul(h, w)          ->       %p: f32[32, 256, 32] = permute(reshape(w))     before the loop
                                       z = reshape(contract(h, %p, spec="mk,jkn->mjn"))

A product reads its right operand in columns as wide as its register tile. Where the rows of the
operand are long these lie far apart: a page each, and all in a few sets of the cache. Panels
`[columns / 32][rows][32]` are read from one end to the other, by every step from the cache.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from math import prod
from typing import Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Instr, Value
from treadle.passes.loop_draft import Draft

_ROW: Final = 128  # bytes of one row of a panel
_LEAST: Final = 32 << 10  # bytes of an operand that is worth it
_STEPS: Final = 4
_ROWS: Final = 4  # of the left operand: a product of fewer is bound by reading, in any order


def use_panels(draft: Draft, b: Builder) -> int:
    """Give products with consts panels; how many."""
    if draft.a.length is not None and draft.a.length < _STEPS:
        return 0
    consts = {t.param: t.operand for t in draft.consts}
    count = 0
    instrs: list[Instr] = []
    for instr in draft.instrs:
        args = [draft.of(a) for a in instr.args]
        if instr.op.name != "matmul" or args[1] not in consts or not _fits(args[0], args[1]):
            instrs.append(instr)
            continue
        left, right = args
        with b.at(instr.loc):
            panels = _panels(b, consts[right])
        inner = Builder(loc=instr.loc)
        param = draft.const(panels, "panels")
        instrs += _product(inner, left, param, instr)
        draft.replace(instr.result, inner.instrs[-1].result)
        count += 1
    draft.instrs = instrs
    if count:
        draft.sweep()
    return count


def _width(value: Value) -> int:
    return _ROW // value.type.dtype.itemsize


def _fits(left: Value, right: Value) -> bool:
    if not right.type.dtype.is_float or right.type.rank != 2 or left.type.rank < 2:
        return False
    columns = right.type.static_shape[1]
    rows = prod(left.type.static_shape[:-1])
    whole = columns % _width(right) == 0 and columns > _width(right)
    return whole and rows >= _ROWS and right.type.nbytes >= _LEAST


def _panels(b: Builder, weights: Value) -> Value:
    rows, columns = weights.type.static_shape
    width = _width(weights)
    return b.permute(b.reshape(weights, (rows, columns // width, width)), (1, 0, 2))


def _product(b: Builder, left: Value, panels: Value, instr: Instr) -> list[Instr]:
    *around, k = left.type.static_shape
    flat = b.reshape(left, (prod(around), k))
    made = b.call("contract", flat, panels, spec="mk,jkn->mjn")
    b.reshape(made, instr.result.type.shape)
    return list(b.instrs)
