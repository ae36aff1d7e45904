"""The programs that give NaN elsewhere: masked rows of softmax, and gradients through `where`.

Each is a program that people have reported to PyTorch, MLX or JAX, in Treadle's words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle

INF = math.inf
MASKS = {
    "one row masked": np.array([[True, False, True], [False, False, False]]),
    "all masked": np.zeros((2, 3), bool),
    "nothing masked": np.ones((2, 3), bool),
}
X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def written_by_hand(x: Any, axis: int = -1) -> Any:
    e = treadle.exp(x - treadle.max(x, axis=axis, keepdims=True))
    return e / treadle.sum(e, axis=axis, keepdims=True)


def naive(x: Any, axis: int = -1) -> Any:
    e = treadle.exp(x)
    return e / treadle.sum(e, axis=axis, keepdims=True)


def expected_softmax(mask: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        e = np.where(mask, np.exp(X.astype(np.float64)), 0)
        return np.where(mask.any(1, keepdims=True), e / e.sum(1, keepdims=True), 0)


@pytest.mark.parametrize("name", MASKS)
def test_a_fully_masked_row_of_softmax_is_zero_with_zero_gradient(name: str) -> None:
    mask = MASKS[name]
    keep = treadle.tensor(mask)

    def attend(x: Any) -> Any:
        return treadle.softmax(treadle.where(keep, x, -INF), axis=-1)

    def weighted(x: Any) -> Any:
        return treadle.sum(attend(x) * treadle.tensor([1.0, 2.0, 4.0]))

    x = treadle.tensor(X)
    for call in (attend, treadle.jit(attend)):
        np.testing.assert_allclose(call(x).numpy(), expected_softmax(mask), atol=1e-6)
    y = expected_softmax(mask)
    weights = np.array([1.0, 2.0, 4.0])
    slope = y * (weights - (y * weights).sum(1, keepdims=True))
    for gradient in (treadle.grad(weighted), treadle.jit(treadle.grad(weighted))):
        np.testing.assert_allclose(gradient(x).numpy(), slope, atol=1e-6)
    curvature = treadle.grad(lambda x: treadle.sum(treadle.grad(weighted)(x) ** 2))
    for call in (curvature, treadle.jit(curvature)):
        found = call(x).numpy()
        assert np.isfinite(found).all()
        assert not found[~mask].any()


@pytest.mark.parametrize("softmax", [written_by_hand, naive], ids=["shifted", "naive"])
def test_a_softmax_written_by_hand_is_as_safe_when_it_is_compiled(
    softmax: Callable[..., Any],
) -> None:
    keep = treadle.tensor(MASKS["one row masked"])

    def weighted(x: Any) -> Any:
        rows = softmax(treadle.where(keep, x, -INF))
        return treadle.sum(rows * treadle.tensor([1.0, 2.0, 4.0]))

    x = treadle.tensor(X)
    assert np.isfinite(float(treadle.jit(weighted)(x)))
    found = treadle.jit(treadle.grad(weighted))(x).numpy()
    assert np.isfinite(found).all()
    assert found[1].tolist() == [0, 0, 0]


def test_attention_with_a_masked_query_has_finite_gradients_everywhere() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (treadle.tensor(rng.standard_normal((2, 4, 3)).astype(np.float32)) for _ in "qkv")
    mask = np.tril(np.ones((4, 4), bool))
    mask[2] = False
    keep = treadle.tensor(mask)

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.mT / math.sqrt(3)
        return treadle.softmax(treadle.where(keep, scores, -INF), axis=-1) @ v

    def loss(q: Any, k: Any, v: Any) -> Any:
        return treadle.sum(attention(q, k, v) ** 2)

    gradients = treadle.grad(loss, argnums=(0, 1, 2))
    eager, jitted = gradients(q, k, v), treadle.jit(gradients)(q, k, v)
    for e, j in zip(eager, jitted, strict=True):
        assert np.isfinite(e.numpy()).all()
        np.testing.assert_allclose(j.numpy(), e.numpy(), atol=1e-5)
    assert not treadle.jit(attention)(q, k, v).numpy()[:, 2].any()
    assert not jitted[0].numpy()[:, 2].any()


def test_log_softmax_and_logsumexp_of_a_masked_row_are_minus_inf_with_zero_gradient() -> None:
    x = treadle.tensor(np.array([[1.0, 2.0], [-INF, -INF]], np.float32))

    def finite(rows: Any) -> Any:
        return treadle.sum(treadle.where(treadle.isfinite(rows), rows, 0.0))

    for fn, value in (
        (lambda x: treadle.log_softmax(x, axis=1), [-INF, -INF]),
        (lambda x: treadle.logsumexp(x, axis=1), -INF),
    ):
        for call in (fn, treadle.jit(fn)):
            assert call(x).numpy()[1].tolist() == value
        plain = treadle.grad(lambda x, fn=fn: treadle.sum(fn(x)))
        masked = treadle.grad(lambda x, fn=fn: finite(fn(x)))
        for gradient in (plain, masked, treadle.jit(plain), treadle.jit(masked)):
            found = gradient(x).numpy()
            assert np.isfinite(found).all()
            assert found[1].tolist() == [0, 0]


def test_cross_entropy_with_a_masked_class_has_a_finite_gradient() -> None:
    logits = treadle.tensor(np.array([[1.0, -INF, 2.0], [0.5, 1.0, -INF]], np.float32))
    labels = treadle.tensor([2, 1])

    def loss(x: Any) -> Any:
        return treadle.mean(treadle.cross_entropy(x, labels))

    for gradient in (treadle.grad(loss), treadle.jit(treadle.grad(loss))):
        found = gradient(logits).numpy()
        assert np.isfinite(found).all()
        assert found[0, 1] == found[1, 2] == 0


def test_an_infinite_logit_shares_its_row() -> None:
    x = treadle.tensor(np.array([[INF, 1.0, INF]], np.float32))
    for call in (treadle.softmax, treadle.jit(treadle.softmax)):
        assert call(x).tolist() == [[0.5, 0.0, 0.5]]


def test_nan_in_a_row_stays_in_that_row() -> None:
    x = treadle.tensor(np.array([[math.nan, 1.0], [1.0, 1.0]], np.float32))
    for call in (treadle.softmax, treadle.jit(treadle.softmax)):
        found = call(x).numpy()
        assert np.isnan(found[0]).all()
        assert found[1].tolist() == [0.5, 0.5]


# --- gradients through where, without the trick of a second where -----------------------------


def test_no_second_where_is_needed_for_a_guarded_quotient() -> None:
    def sinc(x: Any) -> Any:
        return treadle.where(x == 0, 1.0, treadle.sin(x) / x)

    x = treadle.tensor(np.array([0.0, 0.5]))
    slope = (0.5 * math.cos(0.5) - math.sin(0.5)) / 0.25
    for gradient in (treadle.grad(lambda x: treadle.sum(sinc(x))),):
        for call in (gradient, treadle.jit(gradient)):
            np.testing.assert_allclose(call(x).numpy(), [0.0, slope])


def test_no_second_where_is_needed_for_the_entropy_of_a_distribution() -> None:
    def entropy(p: Any) -> Any:
        return -treadle.sum(treadle.where(p > 0, p * treadle.log(p), 0.0))

    p = treadle.tensor(np.array([0.0, 0.25, 0.75]))
    expected = [0.0, -math.log(0.25) - 1, -math.log(0.75) - 1]
    for gradient in (treadle.grad(entropy), treadle.jit(treadle.grad(entropy))):
        np.testing.assert_allclose(gradient(p).numpy(), expected)


def test_no_second_where_is_needed_for_an_overflow_that_is_not_chosen() -> None:
    def softplus(x: Any) -> Any:
        return treadle.where(x > 50, x, treadle.log(1 + treadle.exp(x)))

    x = treadle.tensor(np.array([1000.0, 0.0]))
    gradient = treadle.grad(lambda x: treadle.sum(softplus(x)))
    for call in (gradient, treadle.jit(gradient)):
        assert call(x).tolist() == [1.0, 0.5]


def test_the_distance_of_a_point_to_itself_has_zero_gradient() -> None:
    points = treadle.tensor(np.array([[0.0, 0.0], [3.0, 4.0]]))

    def spread(p: Any) -> Any:
        apart = p[:, None, :] - p[None, :, :]
        return treadle.sum(treadle.norm(apart, axis=2))

    def by_root(p: Any) -> Any:
        apart = p[:, None, :] - p[None, :, :]
        return treadle.sum(treadle.sqrt(treadle.sum(apart * apart, axis=2)))

    for fn in (spread, by_root):
        for gradient in (treadle.grad(fn), treadle.jit(treadle.grad(fn))):
            np.testing.assert_allclose(gradient(points).numpy(), [[-1.2, -1.6], [1.2, 1.6]])


def test_a_masked_mean_of_no_elements_has_zero_gradient() -> None:
    keep = treadle.tensor([[True, True], [False, False]])

    def loss(x: Any) -> Any:
        count = treadle.sum(keep, axis=1)
        mean = treadle.sum(treadle.where(keep, x, 0.0), axis=1) / count
        return treadle.sum(treadle.where(count > 0, mean, 0.0))

    x = treadle.tensor(np.array([[1.0, 2.0], [math.nan, INF]]))
    for gradient in (treadle.grad(loss), treadle.jit(treadle.grad(loss))):
        assert gradient(x).tolist() == [[0.5, 0.5], [0.0, 0.0]]
