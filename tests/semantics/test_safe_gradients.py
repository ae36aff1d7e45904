"""What was not chosen contributes 0 to a gradient; kinks and poles have documented derivatives.

Each function: first and second derivative, eager and jitted, at the branch not taken or at 0. The
conventions stand in docs/semantics.md, "Gradients where there is none".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import where

INF, NAN = math.inf, math.nan
Fn = Callable[[Any], Any]


def first(fn: Fn) -> Fn:
    """The gradient of the sum of `fn`."""
    return treadle.grad(lambda x: treadle.sum(fn(x)))


def second(fn: Fn) -> Fn:
    """The gradient of the sum of the gradient."""
    return treadle.grad(lambda x: treadle.sum(first(fn)(x)))


def by_backward(fn: Fn) -> Fn:
    def gradient(x: Any) -> Any:
        leaf = x.clone().detach().requires_grad_()
        treadle.sum(fn(leaf)).backward()
        return leaf.grad

    return gradient


def assert_derivatives(fn: Fn, x: Any, once: Any, twice: Any) -> None:
    """First and second derivative of `fn` at `x`, in every way to take them."""
    at = treadle.tensor(np.array(x, np.float64))
    for gradient in (first(fn), treadle.jit(first(fn)), by_backward(fn)):
        np.testing.assert_allclose(gradient(at).numpy(), once, rtol=1e-12, atol=1e-12)
    jitted_inside = treadle.jit(fn)
    np.testing.assert_allclose(first(jitted_inside)(at).numpy(), once, rtol=1e-12, atol=1e-12)
    for gradient in (second(fn), treadle.jit(second(fn))):
        np.testing.assert_allclose(gradient(at).numpy(), twice, rtol=1e-12, atol=1e-12)


# --- the branch not taken --------------------------------------------------------------------

# Functions with a pole, an edge of their domain or an overflow at one of the points.
EDGES: dict[str, tuple[Fn, list[float], Fn, Fn]] = {
    "sqrt": (treadle.sqrt, [0, -1], lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5),
    "rsqrt": (treadle.rsqrt, [0, -1], lambda x: -0.5 * x**-1.5, lambda x: 0.75 * x**-2.5),
    "log": (treadle.log, [0, -1], lambda x: 1 / x, lambda x: -1 / x**2),
    "log1p": (treadle.log1p, [-1, -2], lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2),
    "log2": (
        treadle.log2,
        [0, -1],
        lambda x: 1 / (x * math.log(2)),
        lambda x: -1 / (x * x * math.log(2)),
    ),
    "reciprocal": (lambda x: 1 / x, [0, -0.0], lambda x: -1 / x**2, lambda x: 2 / x**3),
    "quotient": (lambda x: x / (x - 1), [1], lambda x: -1 / (x - 1) ** 2,
                 lambda x: 2 / (x - 1) ** 3),
    "exp": (treadle.exp, [1000], np.exp, np.exp),
    "expm1": (treadle.expm1, [1000], np.exp, np.exp),
    "square of exp": (lambda x: treadle.exp(x) * treadle.exp(x), [1000],
                      lambda x: 2 * np.exp(2 * x), lambda x: 4 * np.exp(2 * x)),
    "x log x": (lambda x: x * treadle.log(x), [0, -1], lambda x: np.log(x) + 1, lambda x: 1 / x),
    "power": (lambda x: x**-1.5, [0, -1], lambda x: -1.5 * x**-2.5, lambda x: 3.75 * x**-3.5),
    "root by power": (lambda x: x**0.5, [0, -1], lambda x: 0.5 * x**-0.5,
                      lambda x: -0.25 * x**-1.5),
    "own power": (lambda x: x**x, [0, -1], lambda x: x**x * (np.log(x) + 1),
                  lambda x: x**x * ((np.log(x) + 1) ** 2 + 1 / x)),
    "erfinv": (treadle.erfinv, [1, -1, 2], None, None),  # type: ignore[dict-item]
    "sin": (treadle.sin, [INF], np.cos, lambda x: -np.sin(x)),
    "cos": (treadle.cos, [-INF], lambda x: -np.sin(x), lambda x: -np.cos(x)),
    "product with itself": (lambda x: x * x * x, [INF, 1e200], lambda x: 3 * x**2,
                            lambda x: 6 * x),
}  # fmt: skip
TAKEN = [0.3, 0.6, 0.8]


@pytest.mark.parametrize("name", EDGES)
def test_the_branch_of_where_that_is_not_taken_contributes_zero(name: str) -> None:
    fn, untaken, once, twice = EDGES[name]
    x = [*untaken, *TAKEN]
    taken = np.array([v in TAKEN for v in x])
    ok = treadle.tensor(taken)
    expected = []
    for derivative in (once, twice):
        inside = np.zeros(len(x))
        if derivative is not None:
            inside[taken] = derivative(np.array(TAKEN))
        expected.append(inside)
    if once is None:
        at = treadle.tensor(np.array(TAKEN))
        expected = [np.zeros(len(x)), np.zeros(len(x))]
        expected[0][taken] = first(fn)(at).numpy()
        expected[1][taken] = second(fn)(at).numpy()
    assert_derivatives(lambda x: where(ok, fn(x), 0.0), x, *expected)
    assert_derivatives(lambda x: where(~ok, -1.0, fn(x)), x, *expected)


NOT_CHOSEN = np.array([0, -0.0, 1, -1, INF, -INF, NAN, 1e-320, 1e308, -1e308, 2, 1e5, -1e5])
PRODUCTS: dict[str, Fn] = {name: fn for name, (fn, *_) in EDGES.items() if name != "quotient"} | {
    name: getattr(treadle, name) for name in ("abs", "erf", "gelu", "silu", "softplus", "tanh")
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_no_order_of_derivative_and_no_product_lets_in_what_was_not_chosen(name: str) -> None:
    """The square and the exponential of `fn`, whose derivatives multiply what is NaN there."""
    fn = PRODUCTS[name]
    x = treadle.tensor(np.concatenate([NOT_CHOSEN, TAKEN]))
    ok = treadle.tensor(np.arange(len(NOT_CHOSEN) + len(TAKEN)) >= len(NOT_CHOSEN))
    taken = treadle.tensor(np.array(TAKEN))
    for used in (lambda y: y, lambda y: y * y, treadle.exp):
        masked: Fn = lambda x, used=used: where(ok, used(fn(x)), 0.0)  # noqa: E731
        for order in (first, second, lambda f: first(second(f))):
            expected = order(lambda x, used=used: used(fn(x)))(taken).numpy()
            for call in (order(masked), treadle.jit(order(masked))):
                found = call(x).numpy()
                assert not found[: len(NOT_CHOSEN)].any()
                np.testing.assert_allclose(found[len(NOT_CHOSEN) :], expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["tanh", "sigmoid", "relu", "gelu", "silu", "softplus", "erf", "abs"]
)
def test_an_element_that_is_nan_and_not_chosen_contributes_zero(name: str) -> None:
    fn = getattr(treadle, name)
    x = treadle.tensor(np.array([NAN, 0.5, INF, -INF]))
    chosen = treadle.tensor([False, True, False, False])
    alone = treadle.tensor(np.array([0.5]))
    for derivative in (first, second):
        masked = derivative(lambda x: where(chosen, fn(x), 0.0))
        for call in (masked, treadle.jit(masked)):
            found = call(x).numpy()
            assert found[[0, 2, 3]].tolist() == [0, 0, 0]
            np.testing.assert_allclose(found[1], derivative(fn)(alone).numpy()[0], rtol=1e-12)


def test_a_sum_over_chosen_elements_ignores_the_others() -> None:
    x = treadle.tensor(np.array([[1.0, 2.0], [NAN, INF]]))
    rows = treadle.tensor([True, False])
    for fn in (
        lambda x: where(rows, treadle.sum(x * x, axis=1), 0.0),
        lambda x: where(rows, treadle.softmax(x, axis=1)[:, 0], 0.0),
        lambda x: where(rows, treadle.logsumexp(x, axis=1), 0.0),
        lambda x: where(rows, treadle.var(x, axis=1), 0.0),
        lambda x: where(rows, treadle.std(x, axis=1), 0.0),
        lambda x: where(rows, treadle.norm(x, axis=1), 0.0),
        lambda x: where(rows, treadle.max(x, axis=1), 0.0),
        lambda x: where(rows, treadle.prod(x, axis=1), 0.0),
    ):
        for gradient in (first(fn), treadle.jit(first(fn))):
            found = gradient(x).numpy()
            assert np.isfinite(found).all()
            assert found[1].tolist() == [0, 0]
            assert found[0].any()


# --- at zero ---------------------------------------------------------------------------------


def test_the_derivative_of_sqrt_at_zero_is_inf_and_never_nan() -> None:
    assert_derivatives(treadle.sqrt, [0.0, 4.0], [INF, 0.25], [-INF, -1 / 32])
    squares = [0.0, 3.0]
    assert_derivatives(lambda x: treadle.sqrt(x * x), squares, [0.0, 1.0], [INF, 0.0])


def test_the_derivatives_of_a_norm_at_zero_are_zero() -> None:
    assert_derivatives(treadle.norm, [0.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3)
    assert_derivatives(lambda x: treadle.norm(x, ord=3), [0.0, 0.0], [0.0] * 2, [0.0] * 2)
    assert_derivatives(lambda x: treadle.norm(x, ord=1), [0.0, -2.0], [0.0, -1.0], [0.0] * 2)
    assert_derivatives(lambda x: treadle.norm(x, ord=INF), [0.0, -2.0], [0.0, -1.0], [0.0] * 2)
    assert_derivatives(treadle.norm, [3.0, 4.0], [0.6, 0.8], [0.032, -0.024])


def test_a_norm_of_one_row_of_zeros_leaves_the_other_rows_alone() -> None:
    x = treadle.tensor(np.array([[0.0, 0.0], [3.0, 4.0]]))
    gradient = first(lambda x: treadle.norm(x, axis=1))
    for call in (gradient, treadle.jit(gradient)):
        np.testing.assert_allclose(call(x).numpy(), [[0, 0], [0.6, 0.8]])


def test_the_derivative_of_abs_at_zero_is_zero() -> None:
    assert_derivatives(treadle.abs, [-2.0, -0.0, 0.0, 2.0], [-1, 0, 0, 1], [0] * 4)


@pytest.mark.parametrize(
    ("power", "once", "twice"),
    [(0, 0, 0), (1, 1, 0), (2, 0, 2), (3, 0, 0), (1.5, 0, INF), (0.5, INF, -INF), (2.5, 0, 0)],
)
def test_the_derivatives_of_a_power_at_zero(power: float, once: float, twice: float) -> None:
    assert_derivatives(lambda x: x**power, [0.0], [once], [twice])
    exponent = treadle.tensor(np.array([float(power)]))
    assert_derivatives(lambda x: treadle.pow(x, exponent), [0.0], [once], [twice])


def test_the_derivative_in_the_exponent_of_a_base_of_zero_is_zero() -> None:
    zero = treadle.tensor(np.array([0.0, 0.0]))
    assert_derivatives(lambda y: treadle.pow(zero, y), [2.0, 0.5], [0, 0], [0, 0])


# --- ties ------------------------------------------------------------------------------------


def test_equal_elements_share_the_gradient_of_a_maximum() -> None:
    assert_derivatives(treadle.max, [1.0, 3.0, 3.0], [0, 0.5, 0.5], [0] * 3)
    assert_derivatives(treadle.min, [1.0, 1.0, 3.0], [0.5, 0.5, 0], [0] * 3)
    assert_derivatives(treadle.max, [0.0, -0.0], [0.5, 0.5], [0] * 2)


def test_two_equal_operands_share_the_gradient_of_maximum() -> None:
    two = treadle.tensor(np.array([2.0, 2.0, 2.0]))
    x = [1.0, 2.0, 3.0]
    assert_derivatives(lambda x: treadle.maximum(x, two), x, [0, 0.5, 1], [0] * 3)
    assert_derivatives(lambda x: treadle.minimum(x, two), x, [1, 0.5, 0], [0] * 3)


def test_the_gradient_passes_a_clip_at_its_limit() -> None:
    x = [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert_derivatives(lambda x: treadle.clip(x, -1, 1), x, [0, 1, 1, 1, 0], [0] * 5)
    assert_derivatives(
        lambda x: treadle.clip(x * x, 0, 1), x, [0, -2.0, 0, 2.0, 0], [0, 2.0, 2.0, 2.0, 0]
    )


# --- constant data ---------------------------------------------------------------------------


def test_the_derivatives_of_var_and_std_of_equal_elements_are_finite() -> None:
    same = [2.0, 2.0, 2.0, 2.0]
    assert_derivatives(treadle.var, same, [0] * 4, [0] * 4)
    assert_derivatives(treadle.std, same, [0] * 4, [0] * 4)


def test_layer_norm_of_equal_elements_has_a_finite_gradient() -> None:
    x = treadle.tensor(np.array([[2.0, 2.0, 2.0]]))
    gradient = first(lambda x: treadle.layer_norm(x, 3)[:, 0])
    for call in (gradient, treadle.jit(gradient)):
        assert np.isfinite(call(x).numpy()).all()


# --- the product of the chain rule -----------------------------------------------------------


def test_a_cotangent_that_is_zero_by_chance_keeps_its_second_derivative() -> None:
    """(log x)^2 at 1: the cotangent 2 log x is 0 there, its own derivative is not."""
    assert_derivatives(lambda x: treadle.log(x) ** 2, [1.0], [0.0], [2.0])
    assert_derivatives(lambda x: treadle.sin(x) * treadle.sin(x), [0.0], [0.0], [2.0])


def test_nan_and_inf_that_were_chosen_are_not_hidden() -> None:
    x = treadle.tensor(np.array([NAN, 0.0, -1.0, INF]))
    for gradient in (first(treadle.log), treadle.jit(first(treadle.log))):
        np.testing.assert_array_equal(gradient(x).numpy(), [NAN, INF, -1.0, 0.0])
    for gradient in (first(lambda x: x * x), treadle.jit(first(lambda x: x * x))):
        np.testing.assert_array_equal(gradient(x).numpy(), [NAN, 0.0, -2.0, INF])
