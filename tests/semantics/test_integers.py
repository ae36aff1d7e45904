"""Integer division, remainders, shifts and casts have a result for every operand, the same eager
and jitted; what the results are is written down in docs/semantics.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import float32, float64, int32, int64, uint8, uint32

INTEGERS = (uint8, uint32, int32, int64)
EDGES = (0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 127, 128, 255)


def values(dtype: treadle.DType) -> list[int]:
    """All of uint8; the extremes and edges of the wider ones, of both signs."""
    info = np.iinfo(dtype.name)
    if dtype == uint8:
        return list(range(256))
    found = {*EDGES, *(-e for e in EDGES), info.max, info.max - 1, info.min, info.min + 1}
    return sorted(v for v in found if info.min <= v <= info.max)


def pairs(dtype: treadle.DType) -> tuple[Any, Any]:
    listed = np.array(values(dtype), dtype.name)
    x, y = np.meshgrid(listed, listed)
    return treadle.tensor(x.ravel()), treadle.tensor(y.ravel())


def wrapped(value: int, dtype: treadle.DType) -> int:
    info = np.iinfo(dtype.name)
    return (value - int(info.min)) % (1 << info.bits) + int(info.min)


def agree(fn: Callable[..., Any], meaning: Callable[[int, int], int], dtype: treadle.DType) -> None:
    """`fn` eager and jitted gives what `meaning` says of every pair."""
    x, y = pairs(dtype)
    listed = zip(x.tolist(), y.tolist(), strict=True)
    expected = np.array([wrapped(meaning(a, b), dtype) for a, b in listed], dtype.name)
    for call in (fn, treadle.jit(fn)):
        found = call(x, y)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_division_by_zero_is_zero_and_min_by_minus_one_wraps(dtype: treadle.DType) -> None:
    agree(lambda x, y: x // y, lambda a, b: a // b if b else 0, dtype)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_remainder_has_the_divisors_sign_and_is_zero_for_zero(dtype: treadle.DType) -> None:
    agree(lambda x, y: x % y, lambda a, b: a % b if b else 0, dtype)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_division_and_remainder_fit_together(dtype: treadle.DType) -> None:
    x, y = pairs(dtype)
    whole = treadle.jit(lambda x, y: (x // y) * y + x % y)(x, y)
    divisible = y.numpy() != 0
    np.testing.assert_array_equal(whole.numpy()[divisible], x.numpy()[divisible])


def shifted_left(a: int, b: int, bits: int) -> int:
    return a << b if 0 <= b < bits else 0


def shifted_right(a: int, b: int, bits: int) -> int:
    return a >> b if 0 <= b < bits else -1 if a < 0 else 0


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_shift_out_of_range_is_as_an_endless_shift(dtype: treadle.DType) -> None:
    bits = dtype.bits
    agree(lambda x, y: x << y, lambda a, b: shifted_left(a, b, bits), dtype)
    agree(lambda x, y: x >> y, lambda a, b: shifted_right(a, b, bits), dtype)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_sums_products_and_negation_wrap(dtype: treadle.DType) -> None:
    agree(lambda x, y: x + y, lambda a, b: a + b, dtype)
    agree(lambda x, y: x * y, lambda a, b: a * b, dtype)
    agree(lambda x, y: x - y, lambda a, b: a - b, dtype)
    agree(lambda x, y: -x, lambda a, b: -a, dtype)
    agree(lambda x, y: treadle.abs(x), lambda a, b: abs(a), dtype)


@pytest.mark.parametrize("dtype", (uint8, int32, int64), ids=str)
def test_an_integer_power_wraps_and_a_negative_one_drops_its_fraction(
    dtype: treadle.DType,
) -> None:
    def meaning(a: int, b: int) -> int:
        if b >= 0:
            return pow(a, b, 1 << dtype.bits)
        return a ** (b & 1) if abs(a) == 1 else 0

    agree(lambda x, y: x**y, meaning, dtype)


def cast_of(value: float, dtype: treadle.DType) -> int:
    info = np.iinfo(dtype.name)
    if math.isnan(value):
        return 0
    if math.isinf(value):
        return int(info.max if value > 0 else info.min)
    return min(max(math.trunc(value), int(info.min)), int(info.max))


@pytest.mark.parametrize("source", (float32, float64), ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_a_cast_of_floats_saturates_and_nan_is_zero(
    source: treadle.DType, target: treadle.DType
) -> None:
    powers = [2.0**n for n in (0, 7, 8, 23, 24, 31, 32, 52, 53, 62, 63, 64, 100)]
    near = [p * f for p in powers for f in (1 - 2**-24, 1, 1 + 2**-23, 1.5)]
    some = [0.0, 0.5, 0.99, 254.5, 255.5, math.inf, math.nan, 3e38]
    x = np.array([*some, *near, *(-v for v in (*some, *near))]).astype(source.name)
    expected = np.array([cast_of(float(v), target) for v in x], target.name)
    for call in (lambda x: x.astype(target), treadle.jit(lambda x: x.astype(target))):
        np.testing.assert_array_equal(call(treadle.tensor(x)).numpy(), expected)


@pytest.mark.parametrize("source", INTEGERS, ids=str)
@pytest.mark.parametrize("target", INTEGERS, ids=str)
def test_a_cast_of_integers_wraps(source: treadle.DType, target: treadle.DType) -> None:
    listed = values(source)
    x = treadle.tensor(np.array(listed, source.name))
    expected = np.array([wrapped(v, target) for v in listed], target.name)
    for call in (lambda x: x.astype(target), treadle.jit(lambda x: x.astype(target))):
        np.testing.assert_array_equal(call(x).numpy(), expected)


@pytest.mark.parametrize("dtype", (float32, float64), ids=str)
def test_float_division_by_zero_is_ieee(dtype: treadle.DType) -> None:
    x = treadle.tensor(np.array([1, -1, 0, np.inf, np.nan], dtype.name))
    zeros = treadle.tensor(np.array([0, 0, 0, 0, 0], dtype.name))
    expected = np.array([np.inf, -np.inf, np.nan, np.inf, np.nan], dtype.name)
    for call in (lambda x, y: x / y, treadle.jit(lambda x, y: x / y)):
        np.testing.assert_array_equal(call(x, zeros).numpy(), expected)
        np.testing.assert_array_equal(call(x, -zeros).numpy(), -expected)


def test_integer_faults_are_no_faults() -> None:
    """No trap of the processor, whatever the operands: the process is still there."""
    low = np.iinfo(np.int64).min
    x, y = treadle.tensor(np.array([low, 5, low])), treadle.tensor(np.array([-1, 0, 0]))
    both = treadle.jit(lambda x, y: (x // y, x % y))
    assert [t.tolist() for t in both(x, y)] == [[low, 0, 0], [0, 0, 0]]
