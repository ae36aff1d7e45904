"""References against arbitrary precision: the truth must itself be true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from treadle.ir.op import NO_ATTRS, get_op
from treadle.ir.ops import special

mpmath.mp.prec = 240

Exact = Callable[[Any], Any]

FUNCTIONS: dict[str, tuple[Exact, float, float]] = {
    "exp": (mpmath.exp, -100, 88),
    "expm1": (mpmath.expm1, -20, 88),
    "exp2": (lambda x: mpmath.power(2, x), -140, 127),
    "log": (mpmath.log, 1e-30, 1e30),
    "log1p": (mpmath.log1p, -0.99, 1e10),
    "log2": (lambda x: mpmath.log(x) / mpmath.log(2), 1e-30, 1e30),
    "sin": (mpmath.sin, -1e4, 1e4),
    "cos": (mpmath.cos, -1e4, 1e4),
    "tanh": (mpmath.tanh, -10, 10),
    "sigmoid": (lambda x: 1 / (1 + mpmath.exp(-x)), -90, 40),
    "softplus": (lambda x: mpmath.log1p(mpmath.exp(x)), -90, 40),
    "erf": (mpmath.erf, -4, 4),
    "erfc": (mpmath.erfc, -4, 26),
    "erfinv": (mpmath.erfinv, -1, 1),
    "sqrt": (mpmath.sqrt, 0, 1e30),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), 1e-30, 1e30),
    "gelu": (lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2, -10, 5),
    "silu": (lambda x: x / (1 + mpmath.exp(-x)), -80, 40),
}


def points(low: float, high: float, dtype: Any) -> np.ndarray:
    """Spread evenly, and evenly in magnitude down to subnormals."""
    even = np.linspace(low, high, 60)[1:-1]
    tiny = np.geomspace(np.finfo(dtype).smallest_subnormal, min(high, 1e3), 60)[:-1]
    signs = (1,) if low >= 0 else (1, -1)
    small = np.concatenate([s * tiny for s in signs])
    found: np.ndarray = np.concatenate([even, small[(small > low) & (small < high)]]).astype(dtype)
    return found


def worst_ulps(name: str, x: np.ndarray) -> float:
    """The largest error of the reference at `x`, in units of the last place of the result."""
    exact, _, _ = FUNCTIONS[name]
    op = get_op(name)
    (y,) = op.run_ref(op.attrs() if op.attrs is not type(NO_ATTRS) else NO_ATTRS, (x,))
    worst = 0.0
    for at, found in zip(x, y, strict=True):
        wanted = exact(mpmath.mpf(float(at)))
        unit = float(np.spacing(np.abs(x.dtype.type(float(wanted)))))
        worst = max(worst, float(abs(mpmath.mpf(float(found)) - wanted) / unit))
    return worst


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_float32_reference_is_rounded_once(name: str) -> None:
    _, low, high = FUNCTIONS[name]
    assert worst_ulps(name, points(low, high, np.float32)) <= 0.5001


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_float64_reference_is_within_a_few_ulps(name: str) -> None:
    _, low, high = FUNCTIONS[name]
    assert worst_ulps(name, points(low, high, np.float64)) <= 2.5


def test_erfinv_keeps_its_digits_next_to_one() -> None:
    p = 1 - np.geomspace(2.0**-53, 0.4, 60)
    for x, w in zip(p, special.erfinv(p), strict=True):
        # mpmath's own erfinv starts from a double; the defining equation is checked instead
        slope = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(mpmath.mpf(w) ** 2))
        off = (mpmath.erf(mpmath.mpf(w)) - mpmath.mpf(x)) / slope
        assert abs(off) <= 2 * np.spacing(w)


def test_edges_of_erfinv() -> None:
    found = special.erfinv(np.array([1.0, -1.0, 0.0, -0.0, 1.5, np.nan, np.inf]))
    np.testing.assert_array_equal(found, [np.inf, -np.inf, 0, 0, np.nan, np.nan, np.nan])
    assert list(np.signbit(found[2:4])) == [False, True]
