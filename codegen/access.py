"""Reads and writes of the elements of a buffer at a lane index.

Lanes that follow each other are one vector load, a uniform index one scalar load. Every other
element is picked out of two vectors, an element for several lanes is spread from a shorter one: a
gather takes as long as a load for each lane. Anything else is one. With a mask (the last, partial
vector of a row) lanes that are off touch no memory; nor do those that a clamp would move, which
read 0: what is loaded there is never used.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.lane_index import Guard, LaneIndex
from treadle.codegen.llvm import I1, I32, I64, Val, lane_const, memory_type, register_type, vec
from treadle.codegen.scalar_llvm import Element, LlvmScalarOps
from treadle.ir.types import DType, bool_


def load(
    ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None = None
) -> Element:
    """The elements at `base[at]`; uniform where the index is."""
    raw = _load_raw(ops, base, at, dtype, mask)
    value = ops.load_bool(raw) if dtype is bool_ else raw
    return ops.element(value, dtype)


def _load_raw(ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None) -> Val:
    w, elem = ops.w, memory_type(dtype)
    if at.is_uniform:
        return w.load(elem, address(ops, base, at, dtype))
    type = vec(elem, ops.lanes)
    free = mask is None and at.guard is None
    whole = free or elem.bits >= 32  # LLVM takes masked loads of less apart
    if at.guard is not None and not (whole and at.guard.scale == 1):
        at = ops.index_settled(at)
    if at.is_vector:
        return w.gather(type, w.gep(base, ops.vector_of(at), elem), mask)
    if at.every > 1:
        if at.step == 1 and whole:
            return _load_spread(ops, base, at, dtype, mask)
    elif at.step == 2 and whole:
        return _load_alternate(ops, base, at, dtype, mask)
    elif at.step == 1:
        return _load_some(ops, base, at, dtype, mask, range(ops.lanes))
    elif at.step == -1 and mask is None:
        here = address(ops, base, ops.index_add(at, 1 - ops.lanes), dtype)
        return w.shuffle(w.load(type, here), None, range(ops.lanes - 1, -1, -1))
    return w.gather(type, w.gep(base, ops.vector_of(at), elem), mask)


def _load_spread(
    ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None
) -> Val:
    """Elements that follow each other, each for `at.every` lanes, the first for `phase` fewer."""
    places = [(lane + at.phase) // at.every for lane in range(ops.lanes)]
    firsts = [places.index(place) for place in range(places[-1] + 1)]
    return ops.w.shuffle(_load_some(ops, base, at, dtype, mask, firsts), None, places)


def _load_alternate(
    ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None
) -> Val:
    """Every other element: the second of two vectors ends with the last lane's, as there need be
    none behind it; an element between two lanes' is read where the later one is."""
    lanes, half = ops.lanes, ops.lanes // 2
    x = _load_some(ops, base, at, dtype, mask, [(k + 1) // 2 for k in range(lanes)])
    owners = [(k + lanes) // 2 for k in range(lanes)]
    y = _load_some(ops, base, at, dtype, mask, owners, lanes - 1)
    picks = [2 * lane if lane < half else 2 * lane + 1 for lane in range(lanes)]
    return ops.w.shuffle(x, y, picks)


def _load_some(
    ops: LlvmScalarOps,
    base: Val,
    at: LaneIndex,
    dtype: DType,
    mask: Val | None,
    owners: Sequence[int],
    start: int = 0,
) -> Val:
    """Elements that follow each other, from `start` behind lane 0's on; `owners`: of each the lane
    in `mask` that says whether it is read. None is read outside of a guard's axis."""
    w, count = ops.w, len(owners)
    here = address(ops, base, ops.index_add(at, start), dtype)
    if mask is not None and tuple(owners) != tuple(range(ops.lanes)):
        mask = w.shuffle(mask, None, owners)
    if at.guard is not None:
        inside = _inside(ops, at.guard, start, count)
        mask = inside if mask is None else w.and_(mask, inside)
    type = vec(memory_type(dtype), count)
    return w.load(type, here) if mask is None else w.masked_load(type, here, mask)


def _inside(ops: LlvmScalarOps, guard: Guard, start: int, count: int) -> Val:
    """Which of `count` elements, from `start` behind lane 0's on, lie on the axis of a guard."""
    raw = guard.index
    known = raw.within(-(2**30), 2**30) and guard.size < 2**30
    first = raw.offset + start
    ramp = lane_const(list(range(first, first + count)), I32 if known else I64)
    if raw.base is None:
        return ops.w.icmp("ult", ramp, guard.size)
    base = ops.w.cast("trunc", raw.base, I32) if known else raw.base
    return ops.w.icmp("ult", ops.w.add(ops.w.splat(base, count), ramp), guard.size)


def address(ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType) -> Val:
    """The address of lane 0."""
    if at.is_constant and at.offset == 0:
        return base
    elem = memory_type(dtype)
    if at.base is None or at.offset == 0:
        return ops.w.gep(base, ops.scalar_of(at), elem)
    return ops.w.gep(ops.w.gep(base, at.base, elem), at.offset, elem)


def store(
    ops: LlvmScalarOps,
    x: Element,
    base: Val,
    at: LaneIndex,
    mask: Val | None = None,
    streamed: bool = False,
) -> None:
    """Write to `base[at]`, an affine index of step 1, or a uniform one (then one element).

    `streamed`: whole vectors go past the caches; their addresses must be aligned.
    """
    w = ops.w
    assert not at.is_vector and at.step in (0, 1), "stores follow the loops"
    here = address(ops, base, at, x.dtype)
    value = x.val if at.step == 0 else ops.wide(x)
    if x.dtype is bool_:
        value = ops.store_bool(value)
    if mask is not None and at.step == 1:
        w.masked_store(value, here, mask)
    elif streamed and value.type.lanes:
        w.store(value, here, value.type.lanes * x.dtype.itemsize, nontemporal=True)
    else:
        w.store(value, here)


def nothing(ops: LlvmScalarOps, dtype: DType) -> Element:
    """What an array without elements gives to lanes that are never used."""
    return ops.const(False if register_type(dtype) is I1 else 0, dtype)
