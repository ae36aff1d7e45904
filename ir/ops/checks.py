"""Checks of values that only a run knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.ir.errors import IndexFault, ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import check_count, check_dtype
from treadle.ir.scalar import Index
from treadle.ir.types import INTEGERS, TensorType, int64


@dataclass(frozen=True, slots=True)
class CheckIndexAttrs(Attrs):
    """Legal are 0 to `size` - 1; `what` begins the message: `what out of range for size 10`."""

    size: int
    what: str


def _message(a: CheckIndexAttrs) -> str:
    return f"{a.what} out of range for size {a.size}"


def _infer(a: CheckIndexAttrs, *types: TensorType) -> TensorType:
    check_count("check_index", types, 1)
    check_dtype("check_index", types[0], INTEGERS)
    if not isinstance(a.size, int) or a.size < 1:
        raise ShapeError(f"check_index needs a fixed size of at least 1, found {a.size}")
    return types[0].with_dtype(int64)


def _ref(a: CheckIndexAttrs, x: Array) -> Array:
    index = x.astype(np.int64)
    wrong = index[(index < 0) | (index >= a.size)]
    if wrong.size:
        raise IndexFault(f"{_message(a)}, found {wrong[0]}")
    return index


def _lower(s: Any, a: CheckIndexAttrs, types: Any, index: Any, load: Any) -> Any:
    found = s.index_of(load(0, index), a.size, wrap=False, fault=_message(a))
    return s.from_index(found, int64)


def _samples(rng: np.random.Generator) -> Iterable[Sample]:
    a = CheckIndexAttrs(9, "label")
    for dtype in (np.int64, np.int32, np.uint8):
        yield Sample((rng.integers(0, 9, (3, 5)).astype(dtype),), a, False)
    yield Sample((np.array(8),), a, False)
    yield Sample((np.zeros((0, 2), np.int64),), a, False)


CHECK_INDEX = register(
    OpDef(
        name="check_index",
        maths="y = x as int64, if 0 <= x < size; a fault otherwise, negative numbers too",
        attrs=CheckIndexAttrs,
        infer=_infer,
        ref=_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Index(_lower),
        traits=frozenset({Trait.CAN_FAULT}),
        samples=_samples,
    )
)
