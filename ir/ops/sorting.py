"""Sorting along the last axis: sort, topk.

One order for all: NaN counts as greater than every number (so it comes last ascending, first
descending), -0.0 equals 0.0, and equal elements keep the order that they have in the operand,
descending as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.sampling import special_values
from treadle.ir.scalar import Kernel
from treadle.ir.types import DTYPES, Size, TensorType, int64


@dataclass(frozen=True, slots=True)
class SortAttrs(Attrs):
    """Which end comes first."""

    descending: bool = False


@dataclass(frozen=True, slots=True)
class TopkAttrs(Attrs):
    """How many of the `largest` (else smallest) elements."""

    k: int
    largest: bool = True


def _row(name: str, x: TensorType) -> Size:
    if x.rank == 0:
        raise ShapeError(f"{name} needs an operand of rank 1 or more, found {x}")
    return x.shape[-1]


def _sort_infer(a: SortAttrs, x: TensorType) -> tuple[TensorType, ...]:
    _row("sort", x)
    return x, x.with_dtype(int64)


def _topk_infer(a: TopkAttrs, x: TensorType) -> tuple[TensorType, ...]:
    size = _row("topk", x)
    if a.k < 0 or (isinstance(size, int) and a.k > size):
        raise ShapeError(f"topk of {x} needs 0 <= k <= {size}, found k={a.k}")
    found = x.with_shape((*x.shape[:-1], a.k))
    return found, found.with_dtype(int64)


def stable_order(x: Array, descending: bool) -> Array:
    """The indices that sort the last axis. Descending is ascending from the end, reversed, so that
    equal elements keep their order."""
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    back = np.argsort(x[..., ::-1], axis=-1, kind="stable")
    return np.ascontiguousarray((x.shape[-1] - 1 - back)[..., ::-1])


def _sort_ref(a: SortAttrs, x: Array) -> tuple[Array, Array]:
    order = stable_order(x, a.descending)
    return np.take_along_axis(x, order, -1), order.astype(np.int64)


def _topk_ref(a: TopkAttrs, x: Array) -> tuple[Array, Array]:
    order = stable_order(x, a.largest)[..., : a.k]
    return np.take_along_axis(x, order, -1), order.astype(np.int64)


def _picked_vjp(o: Any, a: Attrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """Each cotangent of a value goes to the element that it is; nothing comes by the indices."""
    (x,), (_, order), (ct, _) = args, outs, cts
    if ct is None:
        return (None,)
    last = o.type_of(x).rank - 1
    return (o.call("add_along", o.zeros_like(x), ct, order, axis=last, checked=False),)


# --- samples ---------------------------------------------------------------------------------

_SIZES = (0, 1, 2, 3, 5, 8, 16, 17, 31, 33, 65, 130, 300)


def _rows(rng: np.random.Generator) -> Iterable[Array]:
    """Rows of all dtypes, with ties and special values."""
    for size in _SIZES:
        yield rng.standard_normal((3, size)).astype(np.float32)
    for size in (7, 40, 90):
        yield rng.integers(0, 4, (9, size)).astype(np.float32)
    for dtype in DTYPES:
        special = special_values(dtype)
        yield special[rng.integers(0, len(special), 24)]
        yield special[rng.integers(0, len(special), (2, 100))]
    yield rng.integers(-(2**62), 2**62, (2, 70))
    yield np.zeros((0, 4), np.float32)
    yield np.zeros((2, 0, 3), np.float64)


def _distinct(rng: np.random.Generator) -> Iterable[Array]:
    """Floats far enough from each other to be moved a little."""
    for shape in ((6,), (2, 3, 4)):
        yield rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float64)


def _sort_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for descending in (False, True):
        for x in _distinct(rng):
            yield Sample((x,), SortAttrs(descending))
        for x in _rows(rng):
            yield Sample((x,), SortAttrs(descending), differentiable=False)


def _topk_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for largest in (False, True):
        for x in _distinct(rng):
            yield Sample((x,), TopkAttrs(3, largest))
        for x in _rows(rng):
            size = x.shape[-1]
            k = min(size, (0, 1, 5, TOPK_LIMIT)[rng.integers(4)])
            yield Sample((x,), TopkAttrs(k, largest), differentiable=False)


TOPK_LIMIT = 64  # beyond it a row is better sorted as a whole; treadle.topk sees to that

EXPENSIVE = frozenset({Trait.EXPENSIVE})

SORT = register(
    OpDef(
        name="sort",
        maths="y, i = the last axis in order, and where each element was; NaN greatest, stable",
        attrs=SortAttrs,
        infer=_sort_infer,
        ref=_sort_ref,
        vjp=_picked_vjp,
        lower=Kernel("sort"),
        traits=EXPENSIVE,
        samples=_sort_samples,
    )
)

TOPK = register(
    OpDef(
        name="topk",
        maths="y, i = the first k of the last axis sorted (descending if largest); stable",
        attrs=TopkAttrs,
        infer=_topk_infer,
        ref=_topk_ref,
        vjp=_picked_vjp,
        lower=Kernel("topk"),
        traits=EXPENSIVE,
        samples=_topk_samples,
    )
)
