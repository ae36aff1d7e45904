"""Running sums: `cumsum`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.movement import LENGTHS
from treadle.ir.ops.rules import NUMBERS, check_axis, check_dtype, widened
from treadle.ir.scalar import Kernel
from treadle.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class CumsumAttrs(Attrs):
    """The `axis` that is summed along; `reverse` sums from its end."""

    axis: int
    reverse: bool = False


def _cumsum_infer(a: CumsumAttrs, x: TensorType) -> TensorType:
    check_dtype("cumsum", x, NUMBERS)
    check_axis("cumsum", a.axis, x.rank)
    return x


def _cumsum_ref(a: CumsumAttrs, x: Array) -> Array:
    """Floats are summed in the next wider dtype and each sum rounded once; integers wrap."""
    wide = widened(x) if x.dtype.kind == "f" else x
    ordered = np.flip(wide, a.axis) if a.reverse else wide
    sums = np.cumsum(ordered, axis=a.axis, dtype=wide.dtype)
    back = np.flip(sums, a.axis) if a.reverse else sums
    return back.astype(x.dtype, order="C")


def _cumsum_vjp(o: Any, a: CumsumAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """x[j] is part of every y[i] with i >= j, so its cotangent is their sum from j to the end."""
    return (o.call("cumsum", cts[0], axis=a.axis, reverse=not a.reverse),)


def _cumsum_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(shape: tuple[int, ...], axis: int, reverse: bool, dtype: Any) -> Sample:
        x = rng.standard_normal(shape).astype(dtype)
        attrs = CumsumAttrs(axis, reverse)
        return Sample((x,), attrs, dtype is np.float64, ulps=2, scale=16)

    for reverse in (False, True):
        for size in LENGTHS:
            yield sample((size,), 0, reverse, np.float32)
            yield sample((3, size), 0, reverse, np.float32)
            yield sample((3, size), 1, reverse, np.float32)
        for axis in range(3):
            yield sample((2, 3, 4), axis, reverse, np.float64)
        for dtype in (np.int32, np.int64, np.uint8, np.uint32):
            x = rng.integers(0, 200, (2, 9)).astype(dtype)
            yield Sample((x,), CumsumAttrs(1, reverse), differentiable=False)


CUMSUM = register(
    OpDef(
        name="cumsum",
        maths="y[.., i, ..] = sum of x[.., j, ..] for j <= i (reverse: j >= i)",
        attrs=CumsumAttrs,
        infer=_cumsum_infer,
        ref=_cumsum_ref,
        vjp=_cumsum_vjp,
        lower=Kernel("running"),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=_cumsum_samples,
    )
)
