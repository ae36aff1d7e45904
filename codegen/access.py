"""Reads and writes of the elements of a buffer at a lane index.

Lanes that follow each other are one vector load, a uniform index one scalar load. Every other
element is picked out of two vectors, an element for several lanes is spread from a shorter one: a
gather takes as long as a load for each lane. Anything else is one. With a mask (the last, partial
vector of a row) lanes that are off touch no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import I1, Val, memory_type, register_type, vec
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
    if at.is_vector:
        return w.gather(type, w.gep(base, ops.vector_of(at), elem), mask)
    whole = mask is None or elem.bits >= 32  # LLVM takes masked loads of less apart
    if at.every > 1:
        if at.step == 1 and whole:
            return _load_spread(ops, base, at, dtype, mask)
    elif at.step == 2 and whole:
        return _load_alternate(ops, base, at, dtype, mask)
    elif at.step == 1:
        here = address(ops, base, at, dtype)
        return w.load(type, here) if mask is None else w.masked_load(type, here, mask)
    elif at.step == -1 and mask is None:
        here = address(ops, base, ops.index_add(at, 1 - ops.lanes), dtype)
        return w.shuffle(w.load(type, here), None, range(ops.lanes - 1, -1, -1))
    return w.gather(type, w.gep(base, ops.vector_of(at), elem), mask)


def _load_spread(
    ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None
) -> Val:
    """Elements that follow each other, each for `at.every` lanes."""
    firsts = range(0, ops.lanes, at.every)
    found = _load_some(ops, address(ops, base, at, dtype), dtype, mask, firsts)
    return ops.w.shuffle(found, None, [lane // at.every for lane in range(ops.lanes)])


def _load_alternate(
    ops: LlvmScalarOps, base: Val, at: LaneIndex, dtype: DType, mask: Val | None
) -> Val:
    """Every other element: the second of two vectors ends with the last lane's, as there need be
    none behind it; an element between two lanes' is read where the later one is."""
    lanes, half = ops.lanes, ops.lanes // 2
    low = address(ops, base, at, dtype)
    high = address(ops, base, ops.index_add(at, lanes - 1), dtype)
    x = _load_some(ops, low, dtype, mask, [(k + 1) // 2 for k in range(lanes)])
    y = _load_some(ops, high, dtype, mask, [(k + lanes) // 2 for k in range(lanes)])
    picks = [2 * lane if lane < half else 2 * lane + 1 for lane in range(lanes)]
    return ops.w.shuffle(x, y, picks)


def _load_some(
    ops: LlvmScalarOps, here: Val, dtype: DType, mask: Val | None, owners: Sequence[int]
) -> Val:
    """Elements from an address on; of each the lane in `mask` that says whether it is read."""
    type = vec(memory_type(dtype), len(owners))
    if mask is None:
        return ops.w.load(type, here)
    return ops.w.masked_load(type, here, ops.w.shuffle(mask, None, owners))


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
