"""Checks of values that only a run knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CheckError, IndexFault, ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import BOOLS, check_count, check_dtype
from treadle.ir.scalar import Index, Kernel
from treadle.ir.types import INTEGERS, TensorType, bool_, int64

# --- check_index -----------------------------------------------------------------------------


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

# --- check -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckAttrs(Attrs):
    """What the error says where the condition is false."""

    message: str


def check_text(message: str, shape: tuple[int, ...], position: int) -> str:
    """The error's text, with the index of the first false element, the `position`-th of all."""
    if not shape:
        return message
    index = tuple(int(i) for i in np.unravel_index(position, shape))
    return f"{message}: false first at index {index[0] if len(index) == 1 else index}"


def _infer_check(a: CheckAttrs, *types: TensorType) -> TensorType:
    check_count("check", types, 1)
    check_dtype("check", types[0], BOOLS)
    return TensorType(bool_)


def _ref_check(a: CheckAttrs, cond: Array) -> Array:
    if not cond.all():
        raise CheckError(check_text(a.message, cond.shape, int(np.argmin(cond))))
    return np.array(True)


def _samples_check(rng: np.random.Generator) -> Iterable[Sample]:
    a = CheckAttrs("it holds")
    for shape in ((), (1,), (7,), (8,), (3, 11), (0, 4)):
        yield Sample((np.ones(shape, bool),), a, False)


CHECK = register(
    OpDef(
        name="check",
        maths="y = true, if every element of the condition is true; a fault otherwise",
        attrs=CheckAttrs,
        infer=_infer_check,
        ref=_ref_check,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("check"),
        traits=frozenset({Trait.CAN_FAULT, Trait.EFFECT}),
        samples=_samples_check,
    )
)
