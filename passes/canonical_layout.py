"""Canonical forms of movement and reductions; part of `canonicalize`. All exact.

Reductions keep their axes and a reshape (a free view) drops them; elementwise ops do the
broadcasting themselves; layout ops that follow each other become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.graph import Instr, Value
from treadle.ir.types import Shape, Size, broadcast_shapes
from treadle.passes.patterns import attr, constant, is_number, splat
from treadle.passes.rewrite import RuleSet, made_by

RULES = RuleSet()

_REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
_ONE_OPERAND = ("reshape", "permute", "broadcast_to", "flip", "slice")


def _again(b: Builder, i: Instr, args: Sequence[Value]) -> Value:
    return b.emit(i.op, args, i.attrs)[0]


# --- reductions --------------------------------------------------------------------------------


@RULES.rule(*_REDUCTIONS)
def reduction_keeps_axes(b: Builder, i: Instr) -> Value | None:
    """sum(x, axes) = reshape(sum(x, axes, keepdims=True))"""
    attrs: Any = i.attrs
    if attrs.keepdims:
        return None
    (kept,) = b.emit(i.op, i.args, replace(attrs, keepdims=True))
    return b.reshape(kept, i.result.type.shape)


@RULES.rule(*_REDUCTIONS)
def reduction_of_single_elements(b: Builder, i: Instr) -> Value | None:
    """A reduction along axes of size 1 = x; sum starts at 0, which turns -0 into +0"""
    (x,), axes = i.args, attr(i, "axes")
    rest = tuple(a for a in axes if x.type.shape[a] != 1)
    if not attr(i, "keepdims") or (rest and rest == axes):
        return None
    if rest:
        return b.call(i.op.name, x, axes=rest, keepdims=True)
    if i.op.name in ("argmax", "argmin"):
        return b.zeros_like(i.result)
    return b.add(x, 0.0) if i.op.name == "sum" and x.type.dtype.is_float else x


@RULES.rule("sum")
def sum_of_zeros(b: Builder, i: Instr) -> Value | None:
    """sum(0) = 0"""
    return b.zeros_like(i.result) if is_number(i.args[0], 0.0) else None


@RULES.rule("const")
def constant_of_one_number(b: Builder, i: Instr) -> Value | None:
    """A constant array of equal elements = a broadcast number, which needs no memory"""
    one = splat(i.result)
    if one is None or i.result.type.rank == 0:
        return None
    return b.broadcast_to(b.const(one, i.result.type.dtype), i.result.type.shape)


# --- reshape, permute, broadcast ---------------------------------------------------------------


@RULES.rule("reshape", "broadcast_to")
def same_shape(b: Builder, i: Instr) -> Value | None:
    """reshape(x, its shape) = x"""
    return i.args[0] if i.args[0].type == i.result.type else None


@RULES.rule("reshape", "broadcast_to")
def layout_of_same_layout(b: Builder, i: Instr) -> Value | None:
    """reshape(reshape(x)) = reshape(x), broadcast(broadcast(x)) = broadcast(x)"""
    inner = made_by(i.args[0], i.op.name)
    return _again(b, i, inner.args) if inner else None


@RULES.rule(*_ONE_OPERAND)
def layout_of_one_number(b: Builder, i: Instr) -> Value | None:
    """Any layout of a broadcast number is a broadcast of that number"""
    inner = made_by(i.args[0], "broadcast_to")
    one = inner.args[0] if inner else i.args[0]
    if one.type.rank or (inner is None and (i.op.name != "reshape" or constant(one) is None)):
        return None
    return b.broadcast_to(one, i.result.type.shape)


@RULES.rule("broadcast_to")
def broadcast_adds_ones(b: Builder, i: Instr) -> Value | None:
    """A broadcast that only adds axes of size 1 = reshape"""
    (x,), shape = i.args, i.result.type.shape
    if x.type.rank == 0 or not _adds_ones(x.type.shape, shape):
        return None
    return b.reshape(x, shape)


@RULES.rule("broadcast_to")
def broadcast_of_added_ones(b: Builder, i: Instr) -> Value | None:
    """broadcast(reshape(x, (1, *shape of x))) = broadcast(x)"""
    x = _without_added_ones(i.args[0])
    return _again(b, i, (x,)) if x is not i.args[0] else None


def _adds_ones(old: Shape, new: Shape) -> bool:
    extra = len(new) - len(old)
    return extra > 0 and new == (1,) * extra + old


def _without_added_ones(value: Value) -> Value:
    """`value` before a reshape that put axes of size 1 in front of it."""
    made = made_by(value, "reshape")
    if made and _adds_ones(made.args[0].type.shape, value.type.shape):
        return made.args[0]
    return value


@RULES.rule("permute")
def permute_of_permute(b: Builder, i: Instr) -> Value | None:
    """permute(permute(x, p), q) = permute(x, p after q)"""
    inner = made_by(i.args[0], "permute")
    if inner is None:
        return None
    first = attr(inner, "perm")
    return b.permute(inner.args[0], [first[axis] for axis in attr(i, "perm")])


@RULES.rule("permute")
def permute_in_order(b: Builder, i: Instr) -> Value | None:
    """A permutation that leaves the order of all axes longer than 1 = reshape"""
    x = i.args[0]
    moved = [axis for axis in attr(i, "perm") if x.type.shape[axis] != 1]
    return b.reshape(x, i.result.type.shape) if moved == sorted(moved) else None


# --- elementwise ops broadcast by themselves ---------------------------------------------------


def broadcast_inside(b: Builder, i: Instr) -> Value | None:
    """op(broadcast(x), y) = op(x, y) where y has the shape; op(broadcast(x)) = broadcast(op(x))"""
    if all(made_by(a, "broadcast_to", "reshape") is None for a in i.args):
        return None
    shape = i.result.type.shape
    bare = [_without_added_ones(_without_broadcast(a)) for a in i.args]
    if _changed(bare, i.args) and broadcast_shapes(*(a.type.shape for a in bare)) == shape:
        return _again(b, i, bare)
    bare = [_without_broadcast(a) for a in i.args]
    if not _changed(bare, i.args):
        return None
    return b.broadcast_to(_again(b, i, bare), shape)


def _without_broadcast(value: Value) -> Value:
    made = made_by(value, "broadcast_to")
    return made.args[0] if made else value


def _changed(new: Sequence[Value], old: Sequence[Value]) -> bool:
    return any(n is not o for n, o in zip(new, old, strict=True))


# --- flip, slice, pad, concat ------------------------------------------------------------------


@RULES.rule("flip")
def flip_of_nothing(b: Builder, i: Instr) -> Value | None:
    """flip along axes of size 1 changes nothing; flip(flip(x)) = x"""
    x, axes = i.args[0], set(attr(i, "axes"))
    if inner := made_by(x, "flip"):
        x, axes = inner.args[0], axes ^ set(attr(inner, "axes"))
    needed = tuple(sorted(a for a in axes if x.type.shape[a] != 1))
    if x is i.args[0] and needed == attr(i, "axes"):
        return None
    return b.call("flip", x, axes=needed) if needed else x


@RULES.rule("slice")
def slice_of_everything(b: Builder, i: Instr) -> Value | None:
    """x[:] = x"""
    return i.args[0] if _is_whole(i, i.args[0].type.shape, i.result.type.shape) else None


def _is_whole(i: Instr, whole: Shape, part: Shape) -> bool:
    """From 0 in steps of 1: an axis of size 1 has no second element to step to."""
    if whole != part or any(start != 0 for start in attr(i, "starts")):
        return False
    return all(t == 1 or s == 1 for t, s in zip(attr(i, "steps"), whole, strict=True))


@RULES.rule("slice")
def slice_of_slice(b: Builder, i: Instr) -> Value | None:
    """x[s::t][u::v] = x[s + t u :: t v]"""
    inner = made_by(i.args[0], "slice")
    if inner is None or any(size == 0 for size in i.result.type.shape):
        return None
    starts: list[Size] = []
    steps: list[int] = []
    parts = (attr(inner, "starts"), attr(inner, "steps"), attr(i, "starts"), attr(i, "steps"))
    for s, t, u, v in zip(*parts, strict=True):
        starts.append(s + u * t)
        steps.append(t * v)
    shape = i.result.type.shape
    return b.call("slice", inner.args[0], starts=tuple(starts), steps=tuple(steps), shape=shape)


@RULES.rule("slice")
def slice_of_what_was_written(b: Builder, i: Instr) -> Value | None:
    """(x with v written at p)[p] = v"""
    inner = made_by(i.args[0], "slice_update")
    if inner is None or not _same_place(i, inner):
        return None
    written = inner.args[1]
    return written if written.type == i.result.type else None


@RULES.rule("slice_update")
def write_over_write(b: Builder, i: Instr) -> Value | None:
    """(x with v at p) with w at p = x with w at p"""
    inner = made_by(i.args[0], "slice_update")
    if inner is None or not _same_place(i, inner) or inner.args[1].type != i.args[1].type:
        return None
    return _again(b, i, (inner.args[0], i.args[1]))


def _same_place(one: Instr, other: Instr) -> bool:
    return bool(
        attr(one, "starts") == attr(other, "starts") and attr(one, "steps") == attr(other, "steps")
    )


@RULES.rule("slice_update")
def write_of_everything(b: Builder, i: Instr) -> Value | None:
    """x with v written over all of it = v; with nothing written = x"""
    x, v = i.args
    if any(size == 0 for size in v.type.shape):
        return x
    return v if _is_whole(i, x.type.shape, v.type.shape) else None


@RULES.rule("pad")
def pad_by_nothing(b: Builder, i: Instr) -> Value | None:
    """pad by 0 on all sides = x"""
    return i.args[0] if i.args[0].type == i.result.type else None


@RULES.rule("concat")
def concat_of_one(b: Builder, i: Instr) -> Value | None:
    """concat(x) = x; empty parts are left out"""
    axis = attr(i, "axis")
    full = [a for a in i.args if a.type.shape[axis] != 0]
    if len(full) == 1 or len(i.args) == 1:
        return (full or i.args)[0]
    return _again(b, i, full) if 0 < len(full) < len(i.args) else None


# --- matmul ------------------------------------------------------------------------------------


@RULES.rule("matmul")
def matmul_broadcasts_batches(b: Builder, i: Instr) -> Value | None:
    """matmul(broadcast(x), y) = matmul(x, y) where y has the batch axes"""
    for at, other in ((0, 1), (1, 0)):
        made = made_by(i.args[at], "broadcast_to")
        if made is None:
            continue
        x, y = made.args[0], i.args[other]
        matrix = x.type.rank >= 2 and x.type.shape[-2:] == i.args[at].type.shape[-2:]
        batch = broadcast_shapes(x.type.shape[:-2], y.type.shape[:-2])
        if matrix and batch == i.result.type.shape[:-2]:
            return _again(b, i, (x, y) if at == 0 else (y, x))
    return None
