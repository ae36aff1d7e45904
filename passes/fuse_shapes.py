"""Brings elementwise chains and reductions to one shape before regions grow.

    %2: f32[8] = sum(%1, axes=(1,), keepdims=False)      %2: f32[8, 1] = sum(%1, axes=(1,), keepdims=True)
    %3: f32[8] = log(%2)                            ->   %3: f32[8, 1] = log(%2)
    %4: f32[8, 1] = reshape(%3, shape=(8, 1))            (nothing: %3 is that already)

Reductions keep their axes, and a reshape moves below the elementwise ops and reductions that
follow it, which compute the same elements under another index. What is left of it at the end of
the chain is a free view of a finished buffer. A reshape of something that fusion does not make
(a parameter, a contraction) is such a view already and stays.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from functools import cache
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.op import OpDef, Trait
from treadle.ir.regions import is_reduction
from treadle.ir.scalar import ArgReduce, Index, Numbered, Scalar
from treadle.ir.types import Shape, Size
from treadle.passes.copier import Copier

_HOIST_LIMIT = 16  # instructions that one operand may drag along into its new shape


def is_fusible(instr: Instr | None) -> bool:
    """Can `instr` be part of a region? A reshape is a view instead, unless it is inside one."""
    return instr is not None and _has_fusible_op(instr.op)


@cache
def _has_fusible_op(op: OpDef) -> bool:
    if op.name in ("reshape", "const"):
        return False
    return isinstance(op.lower, (Scalar, Index)) or is_reduction(op)


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the rules share: the Builder, values of a single use, and those computed under another
    shape already."""

    b: Builder
    single: set[Value] = field(default_factory=set)
    moved: dict[tuple[Value, Shape], Value] = field(default_factory=dict)


def run(fn: Function) -> Function:
    """`fn` with every reduction keeping its axes and reshapes below elementwise chains."""
    copier = Copier(fn)
    walk = _Walk(copier.builder)
    users, outputs = uses(fn), set(fn.outputs)
    for instr in fn.instrs:
        current = copier.renewed(instr)
        new = _rewritten(walk, current)
        if new is not None:
            copier.replace(instr.result, new)
        else:
            results = copier.put(instr, current).results
            if not results:  # a loop that does nothing but check
                continue
            new = results[0]
        if len(users.get(instr.results[0], ())) == 1 and instr.results[0] not in outputs:
            walk.single.add(new if instr.op.name == "reshape" else _behind(new))
    return copier.finish()


def _rewritten(walk: _Walk, instr: Instr) -> Value | None:
    with walk.b.at(instr.loc):
        if instr.op.name == "reshape":
            return _reshape(walk.b, instr)
        if is_reduction(instr.op):
            return _reduction(walk.b, instr)
        if isinstance(instr.op.lower, Scalar):
            return _sunk(walk, instr)
        if instr.op.name == "broadcast_to":
            return _broadcast(walk, instr)
    return None


def _reshape(b: Builder, instr: Instr) -> Value | None:
    source, shape = _behind(instr.args[0]), instr.result.type.shape
    if source.type.shape == shape:
        return source
    return b.reshape(source, shape) if source is not instr.args[0] else None


def _behind(value: Value) -> Value:
    """What `value` is a reshape of, or itself."""
    while value.producer is not None and value.producer.op.name == "reshape":
        value = value.producer.args[0]
    return value


def _is_view(value: Value) -> bool:
    return value.producer is not None and value.producer.op.name == "reshape"


def _fused_behind(value: Value) -> Value | None:
    """The value of a region that `value` is a reshape of, if it is one."""
    source = _behind(value)
    return source if source is not value and is_fusible(source.producer) else None


# --- reductions ------------------------------------------------------------------------------


def _reduction(b: Builder, instr: Instr) -> Value | None:
    attrs: Any = instr.attrs
    operand, axes = instr.args[0], attrs.axes
    if not axes:
        return operand if instr.result.type == operand.type else None
    source = _fused_behind(operand)
    moved = _moved_axes(source.type.shape, operand.type.shape, axes) if source else None
    one_axis = isinstance(instr.op.lower, ArgReduce)  # its result counts along that axis
    if source is not None and moved is not None and (len(moved) == 1 or not one_axis):
        operand, axes = source, moved
    elif attrs.keepdims:
        return None
    (new,) = b.emit(instr.op, (operand,), replace(attrs, axes=axes, keepdims=True))
    return b.reshape(new, instr.result.type.shape)


def _moved_axes(old: Shape, new: Shape, axes: Sequence[int]) -> tuple[int, ...] | None:
    """The axes of `old` that hold what `axes` hold in `new`; None where they share an axis."""
    moved: list[int] = []
    for old_axes, new_axes in groups(old, new) or []:
        wide = [a in axes for a in new_axes if new[a] != 1]
        if any(wide) and not all(wide):
            return None
        if any(wide):
            moved.extend(old_axes)
    return tuple(moved) if moved else None


# --- elementwise -----------------------------------------------------------------------------


def _sunk(walk: _Walk, instr: Instr) -> Value | None:
    """`op(reshape(x), y)` = `reshape(op(x, reshape(y)))`."""
    if not any(_is_view(a) for a in instr.args):
        return None
    shape = instr.result.type.shape
    for operand in instr.args:
        source = _fused_behind(operand)
        if source is None or operand.type.shape != shape:
            continue
        new = _operands_under(walk, instr.args, shape, source.type.shape)
        if new is not None:
            (result,) = walk.b.emit(instr.op, new, instr.attrs)
            return walk.b.reshape(result, shape)
    return _with_operands(walk, instr)


def _operands_under(
    walk: _Walk, args: Sequence[Value], shape: Shape, target: Shape
) -> list[Value] | None:
    """`args`, which broadcast to `shape`, as they broadcast to `target`; None if they cannot."""
    shapes = [
        target if a.type.shape == shape else regrouped(shape, target, a.type.shape) for a in args
    ]
    if any(s is None for s in shapes) or groups(shape, target) is None:
        return None
    return [_hoisted(walk, a, s) for a, s in zip(args, shapes, strict=True) if s is not None]


def _with_operands(walk: _Walk, instr: Instr) -> Value | None:
    """`instr` on operands that are values of regions where they were views of such."""
    shape = instr.result.type.shape
    new = [_operand(walk, a, shape) for a in instr.args]
    if new == list(instr.args):
        return None
    types = instr.op.infer_types(instr.attrs, [v.type for v in new])
    if types != (instr.result.type,):
        return None  # the view's leading 1s made the result's rank
    return walk.b.emit_typed(instr.op, new, instr.attrs, types)[0]


def _operand(walk: _Walk, value: Value, shape: Shape) -> Value:
    """The value behind the view `value` where it broadcasts to `shape` likewise: it has lost or
    got axes of size 1 in front, or can be computed under the view's shape."""
    source = _fused_behind(value)
    if source is None:
        return value
    extra = source.type.rank - value.type.rank
    if 0 < extra <= len(shape) - value.type.rank:
        same = source.type.shape == (1,) * extra + value.type.shape
        return source if same else value
    if value.type.shape == (1,) * -extra + source.type.shape and value.type.shape != shape:
        return source
    return _hoisted(walk, source, value.type.shape, view=value)


def _broadcast(walk: _Walk, instr: Instr) -> Value | None:
    shape = instr.result.type.shape
    source = _operand(walk, instr.args[0], shape)
    return None if source is instr.args[0] else walk.b.broadcast_to(source, shape)


# --- taking operands along -------------------------------------------------------------------


def _hoisted(walk: _Walk, value: Value, shape: Shape, view: Value | None = None) -> Value:
    """`value` under `shape`: computed there where it is a short elementwise chain, else a view
    (`view`, where there is one already)."""
    if value.type.shape == shape:
        return value
    source = _behind(value)
    if source.type.shape == shape:
        return source
    if (source, shape) in walk.moved:
        return walk.moved[source, shape]
    made: dict[Value, Value] = {}
    for link in _chain(walk, value):
        moved = _moved_operands(link)
        with walk.b.at(link.loc):
            args = [
                a if n not in moved else made[a] if a in made else _view(walk, a, shape)
                for n, a in enumerate(link.args)
            ]
            attrs: Any = link.attrs
            if link.op.name == "broadcast_to" or isinstance(link.op.lower, Numbered):
                attrs = replace(attrs, shape=shape)
            (made[link.result],) = walk.b.emit(link.op, args, attrs)
    if value in made:
        walk.moved[source, shape] = made[value]
        return made[value]
    return view if view is not None else walk.b.reshape(source, shape)


def _view(walk: _Walk, value: Value, shape: Shape) -> Value:
    return walk.b.reshape(_behind(value), () if value.type.size == 1 else shape)


def _chain(walk: _Walk, value: Value) -> list[Instr]:
    """The instructions above `value` that can be computed under another shape too, operands
    first; none where they are many."""
    found: list[Instr] = []
    seen: set[Instr] = set()
    work = [value]
    while work:
        instr = work.pop().producer
        if instr is None or instr in seen or not _can_reshape(walk, instr):
            continue
        seen.add(instr)
        found.append(instr)
        if len(found) > _HOIST_LIMIT:
            return []
        work.extend(instr.args[n] for n in _moved_operands(instr))
    return _operands_first(found)


def _can_reshape(walk: _Walk, instr: Instr) -> bool:
    """Is reshape(instr) the same op on reshaped operands, and is it needed in one shape only?"""
    op = instr.op
    if len(instr.results) != 1 or instr.result.type.size == 1:
        return False
    if instr.result not in walk.single or op.has(Trait.EXPENSIVE):
        return False
    shape = instr.result.type.shape
    if op.name == "broadcast_to":
        return instr.args[0].type.size == 1
    if op.name == "gather":  # of scalars: the result has the shape of the indices
        same = all(a.type.shape == shape for a in instr.args[1:])
        return same and instr.args[0].type.rank == len(instr.args) - 1
    if isinstance(op.lower, Numbered):
        return True
    if not isinstance(op.lower, Scalar):
        return False
    return all(a.type.size == 1 or a.type.shape == shape for a in instr.args)


def _moved_operands(instr: Instr) -> range:
    """Which operands of such an instruction take the new shape; gather's array stays, and so do
    the scalars that elements are computed from by their number."""
    if isinstance(instr.op.lower, Numbered):
        return range(0)
    return range(1 if instr.op.name == "gather" else 0, len(instr.args))


def _operands_first(instrs: list[Instr]) -> list[Instr]:
    """A topological order of a few instructions."""
    left = list(instrs)
    done: list[Instr] = []
    made = {i.result for i in instrs}
    while left:
        ready = [i for i in left if not any(a in made for a in i.args)]
        done.extend(ready)
        made.difference_update(i.result for i in ready)
        left = [i for i in left if i.result in made]
    return done


# --- groups of axes --------------------------------------------------------------------------


def groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]] | None:
    """Runs of axes of `old` and of `new` that hold the same elements, as fine as can be.

    (6, 1, 4) and (2, 3, 4): axes 0, 1 and 0, 1 are one group, axes 2 and 2 another. None where a
    size is 0 or the sizes are symbolic and differ.
    """
    if 0 in old or 0 in new:
        return None
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [i] if i < len(old) else [], [j] if j < len(new) else []
        size_l: Size = old[i] if left else 1
        size_r: Size = new[j] if right else 1
        i, j = i + len(left), j + len(right)
        while size_l != size_r:
            grow_left = _smaller(size_l, size_r)
            if grow_left is None:
                return None
            if grow_left and i < len(old):
                left.append(i)
                size_l, i = size_l * old[i], i + 1
            elif j < len(new):
                right.append(j)
                size_r, j = size_r * new[j], j + 1
            else:
                return None
        found.append((left, right))
    return found


def _smaller(a: Size, b: Size) -> bool | None:
    """a < b, taking 1 to be below any symbolic size; None where that is unknown."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    if a == 1 or b == 1:
        return a == 1
    return None


def regrouped(shape: Shape, target: Shape, operand: Shape) -> Shape | None:
    """The shape, without leading 1s, under which an operand that broadcasts to `shape` broadcasts
    to `target`, a view of it; None where there is none."""
    full = (1,) * (len(shape) - len(operand)) + operand
    result: list[Size] = [1] * len(target)
    found = groups(shape, target)
    if found is None or len(operand) > len(shape):
        return None
    for axes, target_axes in found:
        if all(full[a] == 1 for a in axes):
            continue
        if any(full[a] != shape[a] for a in axes):
            return None
        for axis in target_axes:
            result[axis] = target[axis]
    while result and result[0] == 1:
        result.pop(0)
    return tuple(result)
