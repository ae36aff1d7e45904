"""Conversion between dtypes, total: it has a result for every input.

Float to integer drops the fraction and saturates, NaN gives 0; integer to integer wraps; to bool
is `x != 0`; float64 to float32 rounds to nearest even.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import Values, check_count
from treadle.ir.ops.sampling import special_values, uniform
from treadle.ir.scalar import Scalar
from treadle.ir.types import (
    DTYPES,
    DType,
    TensorType,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)


@dataclass(frozen=True, slots=True)
class CastAttrs(Attrs):
    """The dtype of the result."""

    dtype: DType


def cast_array(x: Array, dtype: DType) -> Array:
    """`x` converted by the rules at the head of this file."""
    if x.dtype.kind != "f" or not dtype.is_integer:
        return x.astype(dtype.dtype)
    info = np.iinfo(dtype.dtype)
    # Both bounds are powers of two (or 0), so exact in any float; C leaves out of range undefined.
    upper = 2.0 ** (dtype.bits - (info.min < 0))
    inside = (x > info.min - 1.0) & (x < upper)
    whole = np.where(inside, x, 0).astype(dtype.dtype)
    clipped = np.where(x >= upper, info.max, np.where(x <= info.min, info.min, whole))
    return clipped.astype(dtype.dtype)


def _infer(a: CastAttrs, *types: TensorType) -> TensorType:
    check_count("cast", types, 1)
    return types[0].with_dtype(a.dtype)


def _vjp(o: Ops[Any], a: CastAttrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    dtype = o.type_of(args[0]).dtype
    return (o.cast(cts[0], dtype) if dtype.is_float and a.dtype.is_float else None,)


_OTHER_PAIRS = (
    (int64, int32), (int64, uint8), (int64, float32), (int64, float64), (int64, bool_),
    (int32, int64), (int32, float32), (uint32, int32), (uint32, int64), (uint32, float32),
    (uint8, float32), (bool_, float32), (bool_, int64), (bool_, uint8),
)  # fmt: skip


def _samples(rng: np.random.Generator) -> Iterable[Sample]:
    yield Sample((uniform(rng, (3, 5), float64, -9, 9),), CastAttrs(float64))
    near = np.array([2.0**31, 2.0**32, 2.0**63, 2.0**64, 255.5, 256, 254.5, -0.7, -1.0, 16777217])
    edge32 = np.concatenate([special_values(float32), near.astype(np.float32)])
    for target in DTYPES:
        yield Sample((np.concatenate([edge32, -edge32]),), CastAttrs(target), False)
    edge64 = np.concatenate([special_values(float64), near])
    for target in (uint8, int32, int64, float32):
        yield Sample((np.concatenate([edge64, -edge64]),), CastAttrs(target), False)
    for source, target in _OTHER_PAIRS:
        yield Sample((special_values(source),), CastAttrs(target), False)
    yield Sample((np.zeros((0, 2), np.float32),), CastAttrs(int32), False)


CAST = register(
    OpDef(
        name="cast",
        maths="y = x as dtype: floats to integers saturate, NaN gives 0, integers wrap",
        attrs=CastAttrs,
        infer=_infer,
        ref=lambda a, x: cast_array(x, a.dtype),
        vjp=_vjp,
        lower=Scalar(lambda s, a, x: s.cast(x, a.dtype)),
        traits=frozenset({Trait.ELEMENTWISE}),
        samples=_samples,
    )
)
