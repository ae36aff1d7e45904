"""Operands that the accuracy of a function is sampled at: every exponent, and where it varies.

The strata are random bit patterns (huge arguments and all exponents), the range where the function
is neither constant nor overflowing, small numbers, subnormal ones, and the neighbourhood of its
zeros and poles; for pow, bases and exponents that aim at results of every size.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.types import DType, float32, float64

Array = npt.NDArray[Any]

# Where each function is neither constant nor overflowing.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "exp": (-104, 89), "expm1": (-20, 89), "exp2": (-151, 129), "log": (0.2, 5),
    "log1p": (-1, 5), "log2": (0.2, 5), "sin": (-400, 400), "cos": (-400, 400), "tanh": (-10, 10),
    "sigmoid": (-105, 20), "erf": (-4.2, 4.2), "erfc": (-4.2, 10.1), "erfinv": (-1, 1),
    "softplus": (-105, 30),
}  # fmt: skip
_RANGES_DOUBLE: Final[dict[str, tuple[float, float]]] = {
    "exp": (-746, 710), "expm1": (-40, 710), "exp2": (-1076, 1025), "tanh": (-20, 20),
    "sigmoid": (-746, 40), "erf": (-6.2, 6.2), "erfc": (-6.2, 27.3), "softplus": (-746, 40),
}  # fmt: skip


# Zeros and poles other than 0 and the multiples of pi/2.
_EDGES: Final[dict[str, tuple[float, ...]]] = {
    "log": (1.0,), "log2": (1.0, 2.0, 0.5), "log1p": (-1.0,), "erfinv": (-1.0, 1.0),
}  # fmt: skip


def inputs(name: str, dtype: DType, count: int, seed: int = 0) -> tuple[Array, ...]:
    """The operands of `count` calls of `name`, the strata in random order."""
    rng = np.random.default_rng(seed)
    if name == "pow":
        return _powers(rng, dtype, count)
    return (_mixed(rng, name, dtype, count),)


def _mixed(rng: np.random.Generator, name: str, dtype: DType, count: int) -> Array:
    low, high = _RANGES[name]
    if dtype is float64:
        low, high = _RANGES_DOUBLE.get(name, (low, high))
    strata = [
        _patterns(rng, dtype, count),
        rng.uniform(low, high, count).astype(dtype.dtype),
        _sized(rng, -12, 0, count).astype(dtype.dtype),
        _subnormals(rng, dtype, count),
        _near_edges(rng, name, dtype, count),
    ]
    # Subnormal numbers are alike for most functions: one input in twenty.
    kind = rng.choice(5, count, p=[0.3, 0.3, 0.15, 0.05, 0.2])
    return np.ascontiguousarray(np.choose(kind, strata), dtype.dtype)


def _patterns(rng: np.random.Generator, dtype: DType, count: int) -> Array:
    integers = np.uint32 if dtype is float32 else np.uint64
    return rng.integers(0, 2**dtype.bits, count, dtype=integers).view(dtype.dtype)


def _sized(rng: np.random.Generator, low: float, high: float, count: int) -> Array:
    """Numbers of either sign between 2^low and 2^high, each binade as often."""
    return np.asarray(rng.choice([-1.0, 1.0], count) * np.exp2(rng.uniform(low, high, count)))


def _subnormals(rng: np.random.Generator, dtype: DType, count: int) -> Array:
    """Numbers of either sign below the smallest normal one, each length of mantissa as often."""
    mantissa = 23 if dtype is float32 else 52
    integers = np.uint32 if dtype is float32 else np.uint64
    bits = np.exp2(rng.uniform(0, mantissa, count)).astype(integers)
    return np.asarray(bits.view(dtype.dtype) * rng.choice([-1, 1], count).astype(dtype.dtype))


def _near_edges(rng: np.random.Generator, name: str, dtype: DType, count: int) -> Array:
    """At and beside the zeros of the function, from one place off to a tenth."""
    mantissa = 23 if dtype is float32 else 52
    off = _sized(rng, -mantissa, -3, count)
    if name in ("sin", "cos"):
        turns = np.rint(np.exp2(rng.uniform(0, mantissa + 8, count)))
        exact = rng.random(count) < 0.5
        return np.where(exact, turns * (np.pi / 2), turns * (np.pi / 2) + off).astype(dtype.dtype)
    edges = rng.choice(_EDGES.get(name, (0.0,)), count)
    return np.asarray(edges + off, dtype.dtype)


def _powers(rng: np.random.Generator, dtype: DType, count: int) -> tuple[Array, ...]:
    """Bases around 1, tiny, huge, subnormal, negative with whole exponents; exponents that lead to
    results of any size, to subnormal ones, and any exponents at all."""
    single = dtype is float32
    mantissa, limit, lowest = (23, 150.0, -126.0) if single else (52, 1075.0, -1022.0)
    top = np.log2(float(np.finfo(dtype.dtype).max))
    around = 1 + _sized(rng, -mantissa, -2, count)
    tiny = np.exp2(rng.uniform(lowest, -20, count))
    huge = np.exp2(rng.uniform(20, top, count))
    subnormal = np.abs(_subnormals(rng, dtype, count).astype(np.float64))
    plain = np.exp2(rng.uniform(-4, 4, count))
    kind = rng.choice(5, count, p=[0.35, 0.15, 0.15, 0.05, 0.3])
    base = np.choose(kind, [around, tiny, huge, subnormal, plain]).astype(dtype.dtype)
    wanted = np.where(
        rng.random(count) < 0.7,
        rng.uniform(-limit, limit, count),
        rng.uniform(-limit, lowest, count),
    )
    with np.errstate(all="ignore"):
        exponent = wanted / np.log2(base.astype(np.float64))
    exponent = np.where(rng.random(count) < 0.15, rng.uniform(-20, 20, count), exponent)
    whole = rng.random(count) < 0.15
    exponent = np.where(whole, np.rint(exponent), exponent)
    base = np.where(whole & (rng.random(count) < 0.7), -base, base)
    anything = rng.random(count) < 0.1
    base = np.where(anything, _patterns(rng, dtype, count), base)
    with np.errstate(over="ignore"):
        exponent = exponent.astype(dtype.dtype)
    exponent = np.where(anything, _patterns(rng, dtype, count), exponent)
    return np.ascontiguousarray(base), np.ascontiguousarray(exponent)


def defined(name: str, *xs: Array) -> Array:
    """Which inputs have a finite mathematical value that mpmath computes in reasonable time."""
    x = xs[0]
    with np.errstate(all="ignore"):
        good = np.isfinite(x)
        if name in ("log", "log2"):
            good &= x > 0
        if name == "log1p":
            good &= x > -1
        if name == "erfinv":
            good &= np.abs(x) < 1
        if name in ("exp", "expm1", "exp2", "sigmoid", "softplus", "erfc"):
            good &= np.abs(x) < 1e4
        if name == "pow":
            exponent = xs[1].astype(np.float64)
            log = np.log2(np.abs(x.astype(np.float64)))
            whole = np.rint(exponent) == exponent
            good &= np.isfinite(exponent) & ((x > 0) | ((x < 0) & whole))
            good &= np.abs(log * exponent) < 1e4
    return good
