"""A large reduction to a few elements becomes partial results, then the reduction of those.

    %1: f32[1, 1] = sum(%0, axes=(0, 1), keepdims=True)      %0: f32[4096, 4096]
      ->
    %1: f32[16, 256, 4096] = reshape(%0, shape=(16, 256, 4096))
    %2: f32[16, 1, 1] = sum(%1, axes=(1, 2), keepdims=True)
    %3: f32[1, 1, 1] = sum(%2, axes=(0,), keepdims=True)
    %4: f32[1, 1] = reshape(%3, shape=(1, 1))

Threads share the elements that a kernel keeps, so a kernel that keeps a few runs on one thread; the
partial results give the others something to do. Their number depends on the shape alone, so the
order of the additions does. An elementwise chain over whole arrays that only the reduction reads
is computed under the new shape; anything else that would have to be stored first is left alone.

A reduction over the first axis and the last ones, of a channel over images and their pixels, goes
plane by plane first, whatever else its loop does:

    %1: f32[1, 32, 1, 1] = sum(%0, axes=(0, 2, 3), keepdims=True)      %0: f32[16, 32, 64, 64]
      ->
    %1: f32[16, 32, 1, 1] = sum(%0, axes=(2, 3), keepdims=True)
    %2: f32[1, 32, 1, 1] = sum(%1, axes=(0,), keepdims=True)

Memory is read in order, and a loop that stores its elements too, after it has summed them, finds
the plane in the nearest cache, where it would not find all planes of a channel.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.scalar import Reduce, Scalar
from treadle.ir.types import Shape
from treadle.passes.copier import Copier
from treadle.passes.fuse_shapes import is_fusible

PARTS: Final = 16  # partial results: threads that can share the work, additions more in a row
LARGE: Final = 1 << 18  # elements that are worth a second kernel
FEW: Final = 64  # elements of the result: with more of them there are tiles enough
PLANE: Final = 256  # elements of a plane that are worth a result of their own
_CHAIN_LIMIT: Final = 16  # instructions


def run(fn: Function) -> Function:
    """`fn`, whose reductions keep their axes, with the large ones to a few elements split."""
    fn = _by_planes(fn)
    large = [i for i in fn.instrs if _is_large(i)]
    if not large:
        return fn
    users, outputs = uses(fn), set(fn.outputs)
    single = {v for i in fn.instrs for v in i.results if len(set(users.get(v, ()))) == 1} - outputs
    copier = Copier(fn)
    for instr in fn.instrs:
        chain = _chain(instr, single) if instr in large else None
        if chain is None:
            copier.keep(instr)
            continue
        with copier.builder.at(instr.loc):
            copier.replace(instr.result, _split(copier, instr, chain))
    return copier.finish()


def _by_planes(fn: Function) -> Function:
    """`fn` with the reductions of channels over images as such of planes, then of these."""
    copier = Copier(fn)
    for instr in fn.instrs:
        inner = _plane_axes(instr)
        if not inner:
            copier.keep(instr)
            continue
        b, name = copier.builder, instr.op.name
        outer = tuple(a for a in _attrs(instr).axes if a not in inner)
        with b.at(instr.loc):
            plane = b.call(name, copier.of(instr.args[0]), axes=inner, keepdims=True)
            copier.replace(instr.result, b.call(name, plane, axes=outer, keepdims=True))
    return copier.finish()


def _plane_axes(instr: Instr) -> tuple[int, ...]:
    """The last axes, where it reduces these and others with a kept one between; none where there
    is little to gain."""
    if not isinstance(instr.op.lower, Reduce) or not instr.args[0].type.is_static:
        return ()
    attrs, shape = _attrs(instr), instr.args[0].type.static_shape
    kept = [a for a, size in enumerate(shape) if a not in attrs.axes and size != 1]
    if not attrs.keepdims or not kept:
        return ()
    inner = tuple(a for a in attrs.axes if a > kept[-1])
    before = prod(shape[a] for a in attrs.axes if a not in inner)
    wide = prod(shape[a] for a in inner)
    return inner if before > 1 and wide >= PLANE and prod(shape) >= LARGE else ()


def _is_large(instr: Instr) -> bool:
    if not isinstance(instr.op.lower, Reduce):
        return False
    attrs: Any = instr.attrs
    operand = instr.args[0].type
    if not operand.is_static or not attrs.keepdims or 0 not in attrs.axes:
        return False
    first = operand.shape[0]
    if not isinstance(first, int) or not 1 < gcd(first, PARTS) < first:
        return False
    return _elements(operand.shape) >= LARGE and _elements(instr.result.type.shape) <= FEW


def _elements(shape: Shape) -> int:
    return prod(s for s in shape if isinstance(s, int))


def _chain(instr: Instr, single: set[Value]) -> list[Instr] | None:
    """The elementwise instructions above a reduction, operands first; None where one of them, or
    an array that they read, is something else than whole arrays that are in memory anyway."""
    shape = instr.args[0].type.shape
    found: dict[Instr, None] = {}
    work = [instr.args[0]]
    while work:
        value = work.pop()
        maker = value.producer
        if value.type.size == 1 or (value.type.shape == shape and not is_fusible(maker)):
            continue
        if maker is None or value.type.shape != shape or value not in single:
            return None
        if not (isinstance(maker.op.lower, Scalar) or _is_filled(maker)):
            return None
        found[maker] = None
        if len(found) > _CHAIN_LIMIT:
            return None
        work.extend(maker.args)
    return list(reversed(found))


def _is_filled(instr: Instr) -> bool:
    return instr.op.name == "broadcast_to" and instr.args[0].type.size == 1


def _split(copier: Copier, instr: Instr, chain: list[Instr]) -> Value:
    b, attrs = copier.builder, _attrs(instr)
    operand = instr.args[0]
    first = operand.type.shape[0]
    assert isinstance(first, int)
    parts = gcd(first, PARTS)
    shape = (parts, first // parts, *operand.type.shape[1:])
    made: dict[Value, Value] = {}

    def moved(value: Value) -> Value:
        return made[value] if value in made else _view(b, copier.of(value), shape)

    for link in chain:
        with b.at(link.loc):
            if _is_filled(link):
                made[link.result] = b.broadcast_to(moved(link.args[0]), shape)
            else:
                args = [moved(a) for a in link.args]
                (made[link.result],) = b.emit(link.op, args, link.attrs)
    over = tuple(a + 1 for a in attrs.axes)
    partial = b.call(instr.op.name, moved(operand), axes=over, keepdims=True)
    total = b.call(instr.op.name, partial, axes=(0,), keepdims=True)
    return b.reshape(total, instr.result.type.shape)


def _attrs(instr: Instr) -> Any:
    return instr.attrs


def _view(b: Builder, value: Value, shape: Shape) -> Value:
    target: Shape = () if value.type.size == 1 else shape
    return value if value.type.shape == target else b.reshape(value, target)
