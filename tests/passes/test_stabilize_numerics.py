"""A softmax written by hand is finite and right for logits of any size, forward and backward.

Each form is traced with a scale inside, taken through the passes down to primitive ops and
interpreted in float32. The truth is computed in float64 from the scaled logits, which are rounded
to float32 once, as the program's own product is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Level, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.types import TensorType, bool_, float32
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import PIPELINE

Array = npt.NDArray[Any]
Form = Callable[[Builder, Value], Value]
TO_CORE = [p for p in PIPELINE if p.ensures < Level.KERNELS]

# --- forms ------------------------------------------------------------------------------------


def plain(b: Builder, z: Value) -> Value:
    e = b.exp(z)
    return b.div(e, b.sum(e, 1, keepdims=True))


def twice(b: Builder, z: Value) -> Value:
    return b.div(b.exp(z), b.sum(b.exp(z), 1, keepdims=True))


def without_keepdims(b: Builder, z: Value) -> Value:
    e = b.exp(z)
    rows = b.sum(e, 1)
    return b.div(e, b.reshape(rows, (*rows.type.shape, 1)))


def by_reciprocal(b: Builder, z: Value) -> Value:
    e = b.exp(z)
    return b.mul(e, b.div(1.0, b.sum(e, 1, keepdims=True)))


def by_power(b: Builder, z: Value) -> Value:
    e = b.exp(z)
    return b.mul(e, b.pow(b.sum(e, 1, keepdims=True), -1.0))


def shifted(b: Builder, z: Value) -> Value:
    return plain(b, b.sub(z, b.max(z, 1, keepdims=True)))


def shifted_and_stopped(b: Builder, z: Value) -> Value:
    return plain(b, b.sub(z, b.call("stop_gradient", b.max(z, 1, keepdims=True))))


def log_of_plain(b: Builder, z: Value) -> Value:
    return b.log(plain(b, z))


def minus_log_sum(b: Builder, z: Value) -> Value:
    return b.sub(z, b.log(b.sum(b.exp(z), 1, keepdims=True)))


def minus_log_sum_shifted(b: Builder, z: Value) -> Value:
    return minus_log_sum(b, b.sub(z, b.max(z, 1, keepdims=True)))


def log_sum(b: Builder, z: Value) -> Value:
    return b.log(b.sum(b.exp(z), 1, keepdims=True))


def log_sum_shifted(b: Builder, z: Value) -> Value:
    m = b.max(z, 1, keepdims=True)
    return b.add(log_sum(b, b.sub(z, m)), m)


SOFTMAX = (plain, twice, without_keepdims, by_reciprocal, by_power, shifted, shifted_and_stopped)
LOG_SOFTMAX = (log_of_plain, minus_log_sum, minus_log_sum_shifted)
LOGSUMEXP = (log_sum, log_sum_shifted)
ALL = (*SOFTMAX, *LOG_SOFTMAX, *LOGSUMEXP)


def traced(form: Form, shape: tuple[int, int], scale: float, masked: bool) -> Function:
    """`form` of scale * x, masked, and its gradient by x for a cotangent that is given."""
    b = Builder("f")
    x = b.param(TensorType(float32, shape), "x")
    mask = b.param(TensorType(bool_, shape), "mask")
    out = TensorType(float32, (shape[0], 1) if form in LOGSUMEXP else shape)
    ct = b.param(out, "ct")
    v = b.call("variable", x)
    z = b.mul(v, scale)
    y = form(b, b.where(mask, z, float("-inf")) if masked else z)
    (g,) = b.call_multi("gradient", y, ct, v, outputs=1)
    return b.finish([Result(y, "y"), Result(g, "g")])


def run(form: Form, x: Array, scale: float, mask: Array | None = None) -> tuple[Array, Array]:
    """The form and its gradient in float32, for a cotangent with different elements."""
    fn = run_pipeline(traced(form, x.shape, scale, mask is not None), TO_CORE, verify="all")
    everywhere = np.ones(x.shape, bool) if mask is None else mask
    y, g = interpret(fn, [x, everywhere, cotangent(form, x)])
    return y, g


def cotangent(form: Form, x: Array) -> Array:
    shape = (x.shape[0], 1) if form in LOGSUMEXP else x.shape
    return np.cos(np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


# --- the truth --------------------------------------------------------------------------------


def truth(form: Form, x: Array, scale: float, mask: Array | None) -> tuple[Array, Array]:
    """The value and the gradient in float64, by the conventions for infinite rows."""
    z = (x * np.float32(scale)).astype(np.float64)
    if mask is not None:
        z = np.where(mask, z, -np.inf)
    ct = cotangent(form, x).astype(np.float64)
    with np.errstate(all="ignore"):
        m = z.max(1, keepdims=True)
        dead = m == -np.inf
        e = np.where(dead, 0, np.exp(np.where(z == m, 0, z - m)))
        p = e / np.where(dead, 1, e.sum(1, keepdims=True))
        lse = np.where(dead, -np.inf, m + np.log(e.sum(1, keepdims=True)))
        logs = np.where(dead, -np.inf, np.where(z == m, 0, z - m) - np.log(e.sum(1, keepdims=True)))
        if form in SOFTMAX:
            y, g = p, p * (ct - (ct * p).sum(1, keepdims=True))
        elif form in LOG_SOFTMAX:
            y, g = logs, np.where(dead, 0, ct - p * ct.sum(1, keepdims=True))
        else:
            y, g = lse, p * ct
    if mask is not None:
        g = np.where(mask, g, 0)
    return y, g * np.float64(np.float32(scale))


def check(form: Form, x: Array, scale: float, mask: Array | None = None) -> None:
    y, g = run(form, x, scale, mask)
    expected_y, expected_g = truth(form, x, scale, mask)
    # |z - m| <= 110 wherever exp is not 0, and z - m is off by half a ULP: 110 / 2 ULP of e
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(g, expected_g, rtol=1e-5, atol=1e-6)


# --- tests ------------------------------------------------------------------------------------

SCALES = (1.0, 1 / 3, 0.7)


@pytest.mark.parametrize("form", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [1.0, 30.0, 89.0, 1e4, 1e38])
def test_logits_of_any_size_give_finite_values_and_gradients(
    form: Form, scale: float, size: float
) -> None:
    x = (np.random.default_rng(7).uniform(-1, 1, (6, 9)) * size).astype(np.float32)
    y, g = run(form, x, scale)
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(g))
    check(form, x, scale)


@pytest.mark.parametrize("form", ALL, ids=lambda f: f.__name__)
def test_rows_that_are_equal_and_huge_share_evenly(form: Form) -> None:
    check(form, np.full((2, 8), 3e38, np.float32), 1 / 3)
    check(form, np.full((2, 8), -3e38, np.float32), 0.7)


@pytest.mark.parametrize("form", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("scale", SCALES)
def test_masked_logits_get_nothing_and_a_wholly_masked_row_is_zero(
    form: Form, scale: float
) -> None:
    rng = np.random.default_rng(3)
    x = (rng.uniform(-1, 1, (6, 9)) * 1e4).astype(np.float32)
    mask = rng.uniform(size=x.shape) < 0.5
    mask[2] = False
    mask[3] = True
    check(form, x, scale, mask)
    _, g = run(form, x, scale, mask)
    assert np.all(np.isfinite(g))
    assert not np.any(g[2])


@pytest.mark.parametrize("form", ALL, ids=lambda f: f.__name__)
def test_infinite_logits_follow_the_conventions(form: Form) -> None:
    inf = np.inf
    rows = [[inf, 0, inf, 1], [inf, -inf, 3, 2], [-inf, 1, 2, -inf], [-inf, -inf, -inf, -inf]]
    check(form, np.array(rows, np.float32), 0.7)


@pytest.mark.parametrize("form", ALL, ids=lambda f: f.__name__)
def test_a_nan_makes_its_row_nan_and_no_other(form: Form) -> None:
    x = np.array([[np.nan, 1, 2], [1, 2, 3]], np.float32)
    y, g = run(form, x, 1.0)
    assert np.all(np.isnan(y[0]))
    assert np.all(np.isnan(g[0]))
    assert np.all(np.isfinite(y[1]))
    assert np.all(np.isfinite(g[1]))


def test_logarithms_of_vanishing_probabilities_are_finite() -> None:
    x = np.array([[0, -200, -3e38]], np.float32)
    y, _ = run(log_of_plain, x, 1.0)
    np.testing.assert_array_equal(y, x)


def test_the_exponent_at_the_maximum_is_exactly_zero_for_scaled_logits() -> None:
    """Rounded once: were the product recomputed in an FMA, the row's maximum would miss 1."""
    x = np.array([[1e7 / 3, -1e30], [16777217.0, -1e30]], np.float32)
    for scale in SCALES:
        y, _ = run(plain, x, scale)
        np.testing.assert_array_equal(y, [[1, 0], [1, 0]])
