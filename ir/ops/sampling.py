"""Sample makers that op files share: small legal inputs, drawn from a generator.

Each maker gives a handful of calls: float64 values for the derivative test, odd sizes, rank 0,
size 0, broadcasting, and the values where arithmetic goes wrong (NaN, infinities, signed zeros,
subnormals, the extremes of integers), the last marked not differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from treadle.ir.op import NO_ATTRS, Array, Attrs, Sample
from treadle.ir.types import DType, bool_, float32, float64, int32, int64, uint8, uint32

Sampler = Callable[[np.random.Generator], Iterable[Sample]]

NO_SAMPLES: Sampler = lambda rng: ()  # noqa: E731  for ops that have no meaning on values


def special_floats(dtype: DType) -> Array:
    """NaN, infinities, signed zeros, subnormals, the extremes, and values around 1."""
    info = np.finfo(dtype.dtype)
    values = [
        *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 1e-3, -87.5, 88.9),
        *(info.max, info.min, info.tiny, -info.tiny),
        *(info.smallest_subnormal, -info.smallest_subnormal, 1.0 + info.eps, 1.0 - info.epsneg),
    ]
    with np.errstate(over="ignore"):
        return np.array(values).astype(dtype.dtype)


def special_integers(dtype: DType) -> Array:
    """The extremes, and values around zero (cast to unsigned they wrap)."""
    info = np.iinfo(dtype.dtype)
    values = [0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1]
    if info.min < 0:
        values += [-1, -2, -7]
    return np.array(values, dtype.dtype)


def special_values(dtype: DType) -> Array:
    """Values of any dtype where an op may go wrong."""
    if dtype == bool_:
        return np.array([False, True])
    return special_floats(dtype) if dtype.is_float else special_integers(dtype)


def crossed(x: Array, y: Array) -> tuple[Array, Array]:
    """All pairs, as two vectors."""
    return np.repeat(x, y.size), np.tile(y, x.size)


def uniform(
    rng: np.random.Generator, shape: Sequence[int], dtype: DType, low: float, high: float
) -> Array:
    """Values drawn evenly from [low, high)."""
    return rng.uniform(low, high, tuple(shape)).astype(dtype.dtype)


def float_unary(
    low: float, high: float, *, ulps: float, attrs: Attrs = NO_ATTRS, kinks: bool = False
) -> Sampler:
    """Samples of a float function that is smooth on (low, high); `kinks` says that it is not."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        smooth = uniform(rng, (3, 5), float64, low, high)
        yield Sample((smooth,), attrs, not kinks, ulps)
        yield Sample((uniform(rng, (33,), float32, low, high),), attrs, False, ulps)
        yield Sample((uniform(rng, (), float32, low, high),), attrs, False, ulps)
        yield Sample((np.zeros((0, 3), np.float32),), attrs, False, ulps)
        for dtype in (float32, float64):
            yield Sample((special_floats(dtype),), attrs, False, ulps)

    return samples


def any_unary(dtypes: Sequence[DType], *, ulps: float = 0.0) -> Sampler:
    """Special values of each dtype, and an empty one of the first."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for dtype in dtypes:
            values = special_values(dtype)
            yield Sample((values,), NO_ATTRS, False, ulps)
        yield Sample((np.zeros((0,), dtypes[0].dtype),), NO_ATTRS, False, ulps)

    return samples


def joined(*samplers: Sampler) -> Sampler:
    """The samples of several makers, one after the other."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for sampler in samplers:
            yield from sampler(rng)

    return samples


def float_binary(
    low: float, high: float, *, ulps: float, kinks: bool = False, low_y: float | None = None
) -> Sampler:
    """Samples of a float function of two operands, broadcast, odd and special."""
    first = low if low_y is None else low_y

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        x = uniform(rng, (4, 1, 3), float64, low, high)
        y = uniform(rng, (5, 1), float64, first, high)
        yield Sample((x, y), NO_ATTRS, not kinks, ulps)
        a, b = uniform(rng, (7, 5), float32, low, high), uniform(rng, (), float32, first, high)
        yield Sample((a, b), NO_ATTRS, False, ulps)
        yield Sample((np.zeros((0, 3), np.float32), np.ones(3, np.float32)), NO_ATTRS, False, ulps)
        for dtype in (float32, float64):
            special = special_floats(dtype)
            yield Sample(crossed(special, special), NO_ATTRS, False, ulps)

    return samples


def any_binary(dtypes: Sequence[DType], *, ulps: float = 0.0) -> Sampler:
    """All pairs of special values of each dtype, and a broadcast of the first."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for dtype in dtypes:
            values = special_values(dtype)
            yield Sample(crossed(values, values), NO_ATTRS, False, ulps)
        column = special_values(dtypes[0])[:2, None]
        yield Sample((column, special_values(dtypes[0])[:2]), NO_ATTRS, False, ulps)
        empty = np.zeros((0, 1), dtypes[0].dtype)
        yield Sample((empty, special_values(dtypes[0])[:2]), NO_ATTRS, False, ulps)

    return samples


INTEGER_SAMPLES: tuple[DType, ...] = (int32, int64, uint8, uint32)
