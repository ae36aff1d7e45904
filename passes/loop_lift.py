"""What one step computes, for all steps at once: an instruction with an axis of steps in front.

    %1: f32[32, 256] = matmul(x, w)        ->      %1: f32[64, 32, 256] = matmul(xs, w)

A value of the loop has a lifted form where it is a row of an array, or is computed from such and
from consts by ops that are known here. What depends on consts alone stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.graph import Instr, Value
from treadle.ir.op import Trait
from treadle.ir.types import Shape

Rule = Callable[[Builder, Instr, list[Value], list[bool], int], Value]
_RULES: dict[str, Rule] = {}


class Lift:
    """Lifted forms of values of one loop, emitted into `b`. `rows`: those with an axis of steps,
    `consts`: those that are the same in every step, by the value inside."""

    def __init__(self, b: Builder, length: int) -> None:
        self.b, self.length = b, length
        self.rows: dict[Value, Value] = {}
        self.consts: dict[Value, Value] = {}

    def knows(self, value: Value) -> bool:
        return value in self.rows or value in self.consts

    def lift(self, instr: Instr, args: list[Value]) -> Value:
        """The lifted form of an instruction that `can_lift`; `args`: what it reads inside."""
        given = [self.rows.get(a) for a in args]
        stacked = [g is not None for g in given]
        values = [self.consts[a] if g is None else g for a, g in zip(args, given, strict=True)]
        rule = _elementwise if instr.op.elementwise else _RULES[instr.op.name]
        with self.b.at(instr.loc):
            found = rule(self.b, instr, values, stacked, self.length)
        self.rows[instr.result] = found
        return found


def can_lift(instr: Instr, stacked: list[bool]) -> bool:
    """Is there a rule, where these operands have an axis of steps?"""
    if len(instr.results) != 1 or instr.regions or instr.op.has(Trait.BARRIER):
        return False
    if instr.op.name == "matmul":
        return _can_matmul(instr, stacked)
    return instr.op.elementwise or instr.op.name in _RULES


def _attrs(instr: Instr) -> Any:
    return instr.attrs


def _padded(b: Builder, value: Value, rank: int) -> Value:
    """`value`, stacked, with axes of size 1 behind the first: as many axes as `rank`."""
    missing = rank - value.type.rank
    if missing <= 0:
        return value
    shape = value.type.shape
    return b.reshape(value, (shape[0], *(1,) * missing, *shape[1:]))


def _elementwise(
    b: Builder, instr: Instr, args: list[Value], stacked: list[bool], length: int
) -> Value:
    rank = instr.result.type.rank + 1
    given = [_padded(b, x, rank) if s else x for x, s in zip(args, stacked, strict=True)]
    (out,) = b.emit(instr.op, given, instr.attrs)
    return out


def _permute(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    return b.permute(args[0], (0, *(p + 1 for p in _attrs(i).perm)))


def _reshape(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    return b.reshape(args[0], (length, *i.result.type.shape))


def _broadcast(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    shape: Shape = (length, *i.result.type.shape)
    return b.broadcast_to(_padded(b, args[0], len(shape)), shape)


def _reduction(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    attrs = _attrs(i)
    axes = tuple(a + 1 for a in attrs.axes)
    (out,) = b.emit(i.op, (args[0],), replace(attrs, axes=axes))
    return out


def _slice(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    a = _attrs(i)
    return b.call(
        "slice", args[0], starts=(0, *a.starts), steps=(1, *a.steps), shape=(length, *a.shape)
    )


def _can_matmul(instr: Instr, stacked: list[bool]) -> bool:
    """Both of rank 2, or more axes on the left of a const of rank 2."""
    left, right = (a.type.rank for a in instr.args)
    if left < 2 or right < 2:
        return False
    if all(stacked):
        return left == right
    return right == 2 and stacked[0]


def _matmul(b: Builder, i: Instr, args: list[Value], stacked: list[bool], length: int) -> Value:
    return b.matmul(args[0], args[1])


_RULES.update(
    permute=_permute, reshape=_reshape, broadcast_to=_broadcast, sum=_reduction, max=_reduction,
    slice=_slice, matmul=_matmul,
)  # fmt: skip
