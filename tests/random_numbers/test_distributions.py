"""Moments, Kolmogorov and Smirnov's test and independence, of compiled draws with fixed seeds.

Bounds are those that one of a hundred thousand fair draws would break: 4.4 standard errors, and
for the largest distance of a distribution function from its own 2.47 / sqrt n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, random

N = 200_000
Z = 4.4
KS = 2.47

erf = np.vectorize(math.erf)


def drawn(make: Callable[[Any], Tensor], seed: int = 1) -> np.ndarray:
    """What a compiled function draws from a generator of that seed, as float64."""
    generator = treadle.Generator(seed)
    return treadle.jit(lambda: make(generator))().numpy().astype(np.float64)


def assert_distributed(x: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """The largest distance between the distribution of `x` and `function` is that of chance."""
    ordered = np.sort(x.reshape(-1))
    n = ordered.size
    at = function(ordered)
    up = np.max(np.arange(1, n + 1) / n - at)
    down = np.max(at - np.arange(n) / n)
    assert max(up, down) < KS / math.sqrt(n)


def assert_moments(x: np.ndarray, mean: float, variance: float, fourth: float) -> None:
    """Mean and variance; `fourth` is the fourth central moment."""
    n = x.size
    assert abs(x.mean() - mean) < Z * math.sqrt(variance / n)
    assert abs(x.var() - variance) < Z * math.sqrt((fourth - variance**2) / n)


def assert_counts(found: np.ndarray, expected: np.ndarray) -> None:
    """Chi squared of counts; its own bound by Wilson and Hilferty."""
    chi = float(np.sum((found - expected) ** 2 / expected))
    k = found.size - 1
    assert chi < k * (1 - 2 / (9 * k) + Z * math.sqrt(2 / (9 * k))) ** 3


def normal_function(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + erf(x / math.sqrt(2))))


DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform(dtype: str) -> None:
    x = drawn(lambda g: random.uniform(g, (N,), dtype=dtype))
    assert x.min() >= 0
    assert x.max() < 1
    assert_moments(x, 1 / 2, 1 / 12, 1 / 80)
    assert_distributed(x, lambda t: t)
    y = drawn(lambda g: random.uniform(g, (N,), -2.0, 5.0, dtype=dtype))
    assert -2 <= y.min() < y.max() < 5
    assert_distributed(y, lambda t: (t + 2) / 7)


def test_uniform_numbers_stay_below_a_near_bound() -> None:
    """Where high is the number behind low there is one value; rounding never gives high."""
    high = float(np.nextafter(np.float32(1), np.float32(2)))
    assert set(drawn(lambda g: random.uniform(g, (4096,), 1.0, high))) == {1.0}


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal(dtype: str) -> None:
    x = drawn(lambda g: random.normal(g, (N,), dtype=dtype))
    assert np.isfinite(x).all()
    assert_moments(x, 0, 1, 3)
    assert abs((x**3).mean()) < Z * math.sqrt(15 / N)
    assert abs((x**4).mean() - 3) < Z * math.sqrt(96 / N)
    assert_distributed(x, normal_function)
    assert_distributed(x[::2], normal_function)
    assert_distributed(x[1::2], normal_function)
    y = drawn(lambda g: random.normal(g, (N,), 3.0, 0.5, dtype=dtype))
    assert_distributed(y, lambda t: normal_function((t - 3) / 0.5))


def test_the_tails_of_normal_numbers() -> None:
    """Of 4 million, beyond 4 and 4.5 deviations."""
    x = np.abs(drawn(lambda g: random.normal(g, (1 << 22,))))
    for bound in (3.0, 4.0, 4.5):
        expected = x.size * math.erfc(bound / math.sqrt(2))
        assert abs((x > bound).sum() - expected) < Z * math.sqrt(expected)


def test_pairs_of_normal_numbers_are_independent() -> None:
    """The two that come of one pair of words, and neighbours of different pairs."""
    x = drawn(lambda g: random.normal(g, (N,)))
    for a, b in ((x[::2], x[1::2]), (x[1:-1:2], x[2::2])):
        n = a.size
        assert abs(np.mean(a * b)) < Z / math.sqrt(n)
        assert abs(np.mean(a**2 * b**2) - 1) < Z * math.sqrt(8 / n)
        quarters = (a > 0) * 2 + (b > 0)
        assert_counts(np.bincount(quarters, minlength=4), np.full(4, n / 4))
    radius = x[::2] ** 2 + x[1::2] ** 2
    assert_distributed(radius, lambda t: 1 - np.exp(-t / 2))


@pytest.mark.parametrize("bounds", [(-1.0, 2.0), (0.5, 0.75), (3.0, 5.0), (-8.0, 8.0)])
def test_truncated_normal(bounds: tuple[float, float]) -> None:
    low, high = bounds
    x = drawn(lambda g: random.truncated_normal(g, low, high, (N,), dtype="float64"))
    assert low <= x.min() < x.max() <= high
    first, last = normal_function(np.array(bounds))
    assert_distributed(x, lambda t: (normal_function(t) - first) / (last - first))


def test_gumbel() -> None:
    x = drawn(lambda g: random.gumbel(g, (N,)))
    assert np.isfinite(x).all()
    variance = math.pi**2 / 6
    assert_moments(x, 0.5772156649015329, variance, 5.4 * variance**2)
    assert_distributed(x, lambda t: np.exp(-np.exp(-t)))


@pytest.mark.parametrize("p", [0.0, 1.0, 0.5, 0.1, 0.999])
def test_bernoulli(p: float) -> None:
    count = drawn(lambda g: random.bernoulli(g, p, (N,))).sum()
    assert abs(count - N * p) <= Z * math.sqrt(N * p * (1 - p))


def test_bernoulli_of_a_probability_each() -> None:
    p = np.linspace(0, 1, 11, dtype=np.float32)
    x = drawn(lambda g: random.bernoulli(g, p, (20_000, 11)))
    deviation = np.sqrt(p * (1 - p) / 20_000)
    assert (np.abs(x.mean(0) - p) <= Z * deviation + 1e-6).all()
    y = treadle.bernoulli(p, generator=treadle.Generator(2))
    assert y.dtype == treadle.float32
    assert set(y.numpy()) <= {0.0, 1.0}


@pytest.mark.parametrize("low, high", [(0, 7), (-3, 13), (0, 256), (0, 1)])
def test_randint(low: int, high: int) -> None:
    x = drawn(lambda g: random.randint(g, (N,), low, high)).astype(int)
    counts = np.bincount(x - low, minlength=high - low)
    assert counts.size == high - low
    if high - low > 1:
        assert_counts(counts, np.full(high - low, N / (high - low)))


@pytest.mark.parametrize("count", [2**32, 2**32 + 1, 3 * 2**61, 2**63, 2**64])
def test_randint_of_wide_ranges(count: int) -> None:
    """Even within the range, against the same in Python's integers."""
    low = -(2**63) if count == 2**64 else -(2**62)
    found = random.randint(random.key(5), (4000,), low, low + count).numpy()
    x = np.array([int(v) - low for v in found], dtype=object)
    assert 0 <= min(x) < max(x) < count
    assert_distributed((x / count).astype(np.float64), lambda t: t)
    assert len(set(x)) > 3990


def test_scaled_integers_are_floors_of_exact_products() -> None:
    from treadle.tracer.random_draws import _scaled, _scaled_wide

    rng = np.random.default_rng(0)
    x, y = rng.integers(-(2**63), 2**63, (2, 500), np.int64)
    wide = [int(v) % 2**64 for v in x]
    rest = [int(v) % 2**64 for v in y]
    tx, ty = treadle.tensor(x), treadle.tensor(y)
    for count in (1, 2, 3, 1000, 2**31 + 7, 2**32 - 1, 2**32):
        expected = [count * v >> 64 for v in wide]
        assert _scaled(tx, count).numpy().tolist() == expected
    for count in (2**32 + 1, 2**40 + 12345, 3 * 2**61 + 1, 2**63 + 5, 2**64 - 1, 2**64):
        expected = [count * (v << 64 | r) >> 128 for v, r in zip(wide, rest, strict=True)]
        found = [int(v) % 2**64 for v in _scaled_wide(tx, ty, count).numpy()]
        assert found == expected


def test_permutations_are_even() -> None:
    """All 24 orders of 4 numbers, and where each of 50 comes to."""
    g = treadle.Generator(3)
    four = treadle.jit(lambda: random.permutation(g, 4))
    codes = [int("".join(map(str, four().numpy()))) for _ in range(4800)]
    _, counts = np.unique(codes, return_counts=True)
    assert counts.size == 24
    assert_counts(counts, np.full(24, 200))
    places = np.array([treadle.randperm(50, generator=g).numpy() for _ in range(500)])
    np.testing.assert_array_equal(np.sort(places, axis=1), np.tile(np.arange(50), (500, 1)))
    assert_counts(np.bincount(places[:, 0], minlength=50), np.full(50, 10.0))


def test_rows_are_permuted_together() -> None:
    x = treadle.tensor(np.arange(40).reshape(10, 4))
    y = random.permutation(random.key(2), x).numpy()
    np.testing.assert_array_equal(np.sort(y[:, 0]), np.arange(0, 40, 4))
    np.testing.assert_array_equal(y - y[:, :1], np.tile(np.arange(4), (10, 1)))
    z = random.permutation(random.key(2), x, axis=1).numpy()
    np.testing.assert_array_equal(np.sort(z, axis=1), x.numpy())


def test_categorical_and_multinomial() -> None:
    p = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    with np.errstate(divide="ignore"):
        logits = np.log(p).astype(np.float32)
    found = [
        drawn(lambda g: random.categorical(g, logits, shape=(N,))),
        drawn(lambda g: treadle.multinomial(p, N, replacement=True, generator=g)),
    ]
    for x in found:
        counts = np.bincount(x.astype(int), minlength=5)
        assert counts[4] == 0
        assert_counts(counts[:4], N * p[:4])
    rows = random.categorical(random.key(1), np.eye(6, dtype=np.float32) * 1e9, axis=0)
    assert rows.numpy().tolist() == list(range(6))


def test_multinomial_without_replacement_draws_one_by_one() -> None:
    p = np.array([0.5, 0.3, 0.2], np.float32)
    x = drawn(lambda g: treadle.multinomial(np.tile(p, (20_000, 1)), 2, generator=g)).astype(int)
    assert (x[:, 0] != x[:, 1]).all()
    expected = {(i, j): p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if i != j}
    counts = [np.sum((x == pair).all(1)) for pair in expected]
    assert_counts(np.array(counts), 20_000 * np.array(list(expected.values()), np.float64))


# --- streams -----------------------------------------------------------------------------------


def streams() -> dict[str, np.ndarray]:
    """Draws that have nothing in common but a part of what they come from."""
    key = random.key(0)
    left, right = random.split(key)
    generator = treadle.Generator(0)
    sources: dict[str, Any] = {
        "key": key,
        "left": left,
        "right": right,
        "left of left": random.split(left)[0],
        "folded with 0": random.fold_in(key, 0),
        "folded with 1": random.fold_in(key, 1),
        "folded with 2^40": random.fold_in(key, 2**40),
        "folded in the other order": random.fold_in(random.fold_in(key, 1), 0),
        "another key": random.key(1),
        "generator": generator,
        "its second draw": generator,
        "another generator": treadle.Generator(1),
        "generator of the upper word": treadle.Generator(2**32),
    }
    return {n: random.uniform(s, (50_000,)).numpy() for n, s in sources.items()}


def test_streams_are_independent() -> None:
    """Every two of them, also shifted by an element."""
    found = [x.astype(np.float64) - 0.5 for x in streams().values()]
    n = found[0].size
    for i, x in enumerate(found):
        for y in found[:i]:
            for a, b in ((x, y), (x[1:], y[:-1]), (x[:-1], y[1:])):
                assert abs(np.mean(a * b)) < Z / 12 / math.sqrt(n - 1)


def test_streams_share_no_run_of_numbers() -> None:
    runs = [{tuple(x[i : i + 3]) for i in range(0, 49_998, 3)} for x in streams().values()]
    for i, x in enumerate(runs):
        assert all(x.isdisjoint(y) for y in runs[:i])


def test_neighbouring_elements_rows_and_draws_are_independent() -> None:
    x = drawn(lambda g: random.uniform(g, (500, 401))) - 0.5
    for a, b in ((x[:, :-1], x[:, 1:]), (x[:-1], x[1:]), (x[:, :-4], x[:, 4:])):
        assert abs(np.mean(a * b)) < Z / 12 / math.sqrt(a.size)
    g = treadle.Generator(9)
    draws = [random.uniform(g, (20_000,)).numpy() - 0.5 for _ in range(6)]
    for a, b in pairwise(draws):
        assert abs(np.mean(a * b)) < Z / 12 / math.sqrt(20_000)


def test_every_bit_of_a_word_is_even() -> None:
    words = random.randint(random.key(4), (N,), -(2**63), 2**63).numpy().view(np.uint64)
    for bit in range(64):
        ones = int((words >> np.uint64(bit) & np.uint64(1)).sum())
        assert abs(ones - N / 2) < Z * math.sqrt(N) / 2
