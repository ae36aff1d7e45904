"""erf, its relatives and its inverse on float64 arrays, as references: right to 1 or 2 ULP."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.ir.op import Array


def _each(fn: Callable[[float], float], x: Array) -> Array:
    """`fn` of every element: thrice as fast as NumPy's own ways of calling Python."""
    flat = np.asarray(x, np.float64).reshape(-1)
    return np.fromiter(map(fn, flat.tolist()), np.float64, flat.size).reshape(np.shape(x))


def erf(x: Array) -> Array:
    """The error function of each element."""
    return _each(math.erf, x)


def erfc(x: Array) -> Array:
    """1 - erf(x), without the cancellation for large x."""
    return _each(math.erfc, x)


def normal_cdf(x: Array) -> Array:
    """The normal distribution function, erfc(-x / sqrt 2) / 2.

    Far out, erfc turns a rounding of its operand t into t^2 roundings of its result; so what
    -x / sqrt 2 lost is computed exactly (Dekker's product) and added by the derivative.
    """
    small = np.clip(x, -40, 40)  # 0 or 1 beyond
    t = -small * _SQRT_HALF
    high, low = _split(-small)
    lost = ((high * _HIGH - t) + high * _LOW + low * _HIGH) + low * _LOW
    lost = lost - small * _SQRT_HALF_REST
    correction = 2 / math.sqrt(math.pi) * np.exp(-t * t) * lost
    return np.asarray(0.5 * (erfc(t) - correction))


def _split(x: Any) -> tuple[Any, Any]:
    """Two halves of 26 bits each, whose products are exact (Veltkamp)."""
    shifted = x * 134217729.0  # 2**27 + 1
    high = shifted - (shifted - x)
    return high, x - high


_SQRT_HALF = math.sqrt(0.5)
_SQRT_HALF_REST = -4.833646656726457e-17  # sqrt(1/2) less its float64
_HIGH, _LOW = _split(_SQRT_HALF)


def erfinv(x: Array) -> Array:
    """The w with erf(w) = x; +-inf at +-1, NaN outside of [-1, 1].

    Winitzki's approximation (2 digits), then Halley steps, which triple the digits each. They work
    on erfc(w) = 1 - |x|, exact for |x| >= 0.5, so that the tail keeps its relative accuracy.
    """
    size = np.abs(x)
    inside = size < 1
    p = np.where(inside, size, 0.5)
    q = 1 - p
    w = _winitzki(p, q)
    for _ in range(4):
        tail = p >= 0.5
        off = np.where(tail, q - erfc(np.where(tail, w, 1)), erf(np.where(tail, 0, w)) - p)
        step = off / (2 / math.sqrt(math.pi) * np.exp(-w * w))
        w = w - step / (1 + w * step)
    w = np.where(inside, w, np.where(size == 1, np.inf, np.nan))
    return np.copysign(w, x)


def _winitzki(p: Array, q: Array) -> Array:
    a = 0.147
    tail = np.log(q * (1 + p))  # log(1 - p^2)
    half = 2 / (math.pi * a) + tail / 2
    # sqrt(half^2 - tail/a) - half without cancellation; tail is 0 for tiny p, where w is linear
    squared = (-tail / a) / (np.sqrt(half * half - tail / a) + half)
    small = p * math.sqrt(math.pi) / 2
    return np.where(p < 1e-4, small, np.sqrt(squared))
