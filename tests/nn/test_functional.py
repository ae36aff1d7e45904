"""treadle.nn.functional: PyTorch's meaning, eager and jitted, with derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import treadle
from treadle.nn.functional import scaled_dot_product_attention as attention

Array = npt.NDArray[Any]


def plain(
    q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool = False,
    scale: float | None = None,
) -> Array:  # fmt: skip
    """By its definition, in float64; a row that sees nothing gives 0."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    s = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
    top = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    return np.asarray(e / np.where(total == 0, 1, total) @ v)


def drawn(t: int, s: int, batch: tuple[int, ...] = (2, 3), dtype: Any = np.float32) -> list[Array]:
    rng = np.random.default_rng(t + s)
    return [rng.standard_normal((*batch, n, d)).astype(dtype) for n, d in ((t, 6), (s, 6), (s, 5))]


def masks(t: int, s: int) -> list[Array | None]:
    rng = np.random.default_rng(1)
    keep = rng.uniform(size=(t, s)) > 0.4
    keep[0] = False
    bias = rng.standard_normal((3, t, s)).astype(np.float32)
    return [None, keep, keep[None, None], bias, rng.uniform(size=(2, 1, 1, s)) > 0.3]


@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (8, 9), (33, 20), (40, 70)])
def test_attention_is_its_definition_eagerly_and_jitted(sizes: tuple[int, int]) -> None:
    q, k, v = drawn(*sizes)
    given = [treadle.tensor(x) for x in (q, k, v)]
    for mask in masks(*sizes):
        wanted = plain(q, k, v, mask)
        more = () if mask is None else (treadle.tensor(mask),)
        for fn in (attention, treadle.jit(attention)):
            np.testing.assert_allclose(np.asarray(fn(*given, *more)), wanted, rtol=0, atol=2e-6)
    for fn in (attention, treadle.jit(attention)):
        found = np.asarray(fn(*given, is_causal=True))
        np.testing.assert_allclose(found, plain(q, k, v, causal=True), rtol=0, atol=2e-6)
        found = np.asarray(fn(*given, scale=0.1))
        np.testing.assert_allclose(found, plain(q, k, v, scale=0.1), rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch", [(), (0,), (1, 4), (2, 0, 3)])
def test_any_batch_axes_also_none(batch: tuple[int, ...]) -> None:
    q, k, v = drawn(12, 9, batch)
    found = treadle.jit(attention)(*(treadle.tensor(x) for x in (q, k, v)))
    np.testing.assert_allclose(np.asarray(found), plain(q, k, v), rtol=0, atol=2e-6)


def test_batch_axes_broadcast() -> None:
    """Keys and values that several heads share."""
    (q, _, _), (_, k, v) = drawn(12, 9), drawn(12, 9, (2, 1))
    given = [treadle.tensor(x) for x in (q, k, v)]
    for fn in (attention, treadle.jit(attention)):
        np.testing.assert_allclose(np.asarray(fn(*given)), plain(q, k, v), rtol=0, atol=2e-6)
    loss = treadle.jit(treadle.grad(lambda k: treadle.sum(attention(given[0], k, given[2]) ** 2)))
    assert loss(given[1]).shape == (2, 1, 9, 6)


def weighed(mask: Any, causal: bool) -> Any:
    def loss(q: Any, k: Any, v: Any, *more: Any) -> Any:
        out = attention(q, k, v, *(more or mask), is_causal=causal)
        return treadle.sum(treadle.sin(out) * out)

    return loss


@pytest.mark.parametrize("form", ["plain", "causal", "keep", "bias"])
def test_gradients_are_finite_differences_of_float64(form: str) -> None:
    q, k, v = drawn(9, 11, (2,), np.float64)
    rng = np.random.default_rng(2)
    mask: tuple[Any, ...] = ()
    if form == "keep":
        mask = (treadle.tensor(rng.uniform(size=(9, 11)) > 0.3),)
    operands = [q, k, v]
    if form == "bias":
        operands.append(rng.standard_normal((9, 11)))
    loss = weighed(mask, form == "causal")
    which = tuple(range(len(operands)))
    given = [treadle.tensor(x) for x in operands]
    found = treadle.jit(treadle.grad(loss, argnums=which))(*given)
    run = treadle.jit(loss)
    for n, grad in enumerate(found):
        step = rng.standard_normal(operands[n].shape)
        ends = []
        for h in (1e-5, -1e-5):
            moved = [treadle.tensor(x + h * step if m == n else x) for m, x in enumerate(operands)]
            ends.append(float(run(*moved)))
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(float(np.sum(np.asarray(grad) * step)) - slope) < 1e-7 * max(1, abs(slope))


def test_second_derivatives_are_slopes_of_the_first() -> None:
    q, k, v = (treadle.tensor(x) for x in drawn(9, 10, (2,), np.float64))
    loss = weighed((), True)

    def squared(q: Any) -> Any:
        return treadle.sum(treadle.grad(loss)(q, k, v) ** 2)

    found = np.asarray(treadle.jit(treadle.grad(squared))(q))
    step = np.random.default_rng(0).standard_normal(q.shape)
    run = treadle.jit(squared)
    ends = [float(run(treadle.tensor(np.asarray(q) + h * step))) for h in (1e-5, -1e-5)]
    slope = (ends[0] - ends[1]) / 2e-5
    assert abs(float(np.sum(found * step)) - slope) < 1e-6 * max(1, abs(slope))


def test_backward_fills_grad_eagerly_as_under_jit() -> None:
    q, k, v = (treadle.tensor(x) for x in drawn(10, 10))
    grads = treadle.grad(weighed((), True), argnums=(0, 1, 2))
    for x, y in zip(grads(q, k, v), treadle.jit(grads)(q, k, v), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=2e-5)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("causal", [False, True])
def test_dropout_leaves_out_weights_of_attention_and_scales_the_others(
    causal: bool, jitted: bool
) -> None:
    """With values that are the identity the result is the matrix of weights."""
    q, k, _ = drawn(40, 40)
    eye = np.eye(40, dtype=np.float32)
    mask = None if causal else masks(40, 40)[1]

    def run(q: Any, k: Any) -> Any:
        return attention(q, k, eye, mask, dropout_p=0.25, is_causal=causal)

    treadle.manual_seed(3)
    step = treadle.jit(run) if jitted else run
    found, again = (np.asarray(step(treadle.tensor(q), treadle.tensor(k))) for _ in range(2))
    whole = plain(q, k, np.broadcast_to(eye, (2, 3, 40, 40)), mask, causal)
    kept = found != 0
    np.testing.assert_allclose(found[kept], whole[kept] / 0.75, rtol=1e-4)
    share = kept.sum() / (whole != 0).sum()
    assert abs(share - 0.75) < 0.03 and not np.array_equal(found, again)


def test_the_key_of_attentions_dropout_says_what_is_left_out() -> None:
    q, k, v = (treadle.tensor(x) for x in drawn(8, 8))
    one, same, other = (
        np.asarray(attention(q, k, v, dropout_p=0.5, dropout_key=treadle.random.key(n)))
        for n in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_gradients_of_attention_with_dropout_are_finite_differences() -> None:
    q, k, v = drawn(3, 4, (), np.float64)

    def run(q: Any, k: Any, v: Any) -> Any:
        keep = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
        return attention(q, k, v, keep, 0.4, dropout_key=treadle.random.key(5))

    treadle.testing.check_grad(run, q, k, v)


def test_mistakes_are_named() -> None:
    q, k, v = (treadle.tensor(x) for x in drawn(4, 5))
    with pytest.raises(treadle.ArgumentError, match=r"found 1\.5"):
        attention(q, k, v, dropout_p=1.5)
    with pytest.raises(treadle.ShapeError, match="enable_gqa needs heads on axis -3"):
        attention(q, k[:, :2], v[:, :2], enable_gqa=True)
    with pytest.raises(treadle.ArgumentError, match="must be None where is_causal"):
        attention(q, k, v, treadle.ones((4, 5)), is_causal=True)
    with pytest.raises(treadle.DTypeError, match="attn_mask must be bool or float"):
        attention(q, k, v, treadle.ones((4, 5), dtype=treadle.int32))
    with pytest.raises(treadle.ShapeError, match="must have one last size"):
        attention(q, v, v)
    with pytest.raises(treadle.ShapeError, match="as many rows"):
        attention(q, k, q)
    with pytest.raises(treadle.ShapeError, match="do not broadcast"):
        attention(q, k, v, treadle.ones((4, 4)))
    with pytest.raises(treadle.ShapeError, match="two axes or more"):
        attention(q[0, 0, 0], k, v)
