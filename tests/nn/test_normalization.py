"""batch_norm and its relatives: statistics as state, the backward pass, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.ir.errors import ArgumentError, ShapeError
from treadle.nn import functional


def _state(channels: int) -> tuple[Any, Any]:
    return treadle.zeros((channels,)), treadle.ones((channels,))


@pytest.mark.parametrize("jitted", [False, True])
def test_running_statistics_are_written_in_place(jitted: bool) -> None:
    x = np.random.default_rng(0).normal(3, 2, (16, 4, 5)).astype(np.float32)
    mean, var = _state(4)
    shown = mean.numpy()  # a view of the storage that is written

    def step(x: Any) -> Any:
        return functional.batch_norm(x, mean, var, training=True, momentum=0.25)

    run = treadle.jit(step) if jitted else step
    for _ in range(2):
        run(treadle.tensor(x))
    batch, spread = x.mean((0, 2)), x.var((0, 2), ddof=1)
    np.testing.assert_allclose(mean.numpy(), (0.25 + 0.75 * 0.25) * batch, rtol=1e-5)
    np.testing.assert_allclose(var.numpy(), 0.75**2 + (0.25 + 0.75 * 0.25) * spread, rtol=1e-5)
    if jitted:
        np.testing.assert_array_equal(mean.numpy(), np.asarray(mean))
    else:
        assert shown is not None


def test_a_jitted_training_step_writes_state_and_evaluation_does_not() -> None:
    mean, var = _state(3)
    weight, bias = treadle.ones((3,)), treadle.zeros((3,))

    @treadle.jit
    def run(x: Any, training: bool) -> Any:
        return functional.batch_norm(x, mean, var, weight, bias, training)

    x = treadle.tensor(np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32))
    trained = run(x, True)
    kept = np.array(mean.numpy()), np.array(var.numpy())
    evaluated = run(x, False)
    np.testing.assert_array_equal(mean.numpy(), kept[0])
    np.testing.assert_array_equal(var.numpy(), kept[1])
    wanted = (x.numpy() - kept[0]) / np.sqrt(kept[1] + 1e-5)
    np.testing.assert_allclose(evaluated.numpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained.numpy().mean(0), 0, atol=1e-6)


def test_no_gradient_flows_through_running_statistics() -> None:
    mean, var = _state(3)

    def loss(x: Any) -> Any:
        functional.batch_norm(x, mean, var, training=True)
        return treadle.sum(mean) + treadle.sum(var) + treadle.sum(x * 0)

    x = treadle.tensor(np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32))
    for run in (treadle.grad(loss), treadle.jit(treadle.grad(loss))):
        np.testing.assert_array_equal(run(x).numpy(), 0)


def test_the_backward_pass_has_two_sums_besides_the_statistics() -> None:
    def loss(x: Any, w: Any, b: Any, ct: Any) -> Any:
        return treadle.sum(functional.batch_norm(x, None, None, w, b, training=True) * ct)

    step = treadle.jit(treadle.grad(loss, argnums=(0, 1, 2)))
    rng = np.random.default_rng(0)
    x, ct = (treadle.tensor(rng.standard_normal((8, 3, 4, 4)).astype(np.float32)) for _ in "ab")
    text = step.ir("dce", x, treadle.ones((3,)), treadle.zeros((3,)), ct)
    assert text.count("= sum(") == 4, text  # mean, variance, and the two


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_statistics_keep_their_digits_far_from_zero(scale: float) -> None:
    """A variance as mean(x^2) - mean(x)^2 would have none left."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((64, 3))).astype(np.float32) * np.float32(scale)
    found = functional.batch_norm(treadle.tensor(x), None, None, training=True, eps=0.0).numpy()
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(0)) / wide.std(0)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f, x: f.batch_norm(x, None, None), ArgumentError, "running statistics"),
        (lambda f, x: f.batch_norm(x, treadle.zeros(3), None), ArgumentError, "or neither"),
        (lambda f, x: f.batch_norm(x, treadle.zeros(4), treadle.zeros(4)), ShapeError,
         r"running_mean of batch_norm must have shape \(3,\), found \(4,\)"),
        (lambda f, x: f.batch_norm(x, None, None, treadle.ones((2,)), None, True), ShapeError,
         r"weight of batch_norm must have shape \(3,\)"),
        (lambda f, x: f.batch_norm(x[:1], None, None, training=True), ShapeError, "more than one"),
        (lambda f, x: f.batch_norm(x[0], None, None, training=True), ShapeError, "batch, channels"),
        (lambda f, x: f.group_norm(x, 2), ShapeError, "divide the 3 channels, found 2"),
        (lambda f, x: f.instance_norm(x), ShapeError, "batch, channels"),
        (lambda f, x: f.rms_norm(x, 4), ShapeError, r"rms_norm over \(4,\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("jitted", [False, True])
def test_what_does_not_fit_is_named(call: Any, error: Any, text: str, jitted: bool) -> None:
    def run(x: Any) -> Any:
        return call(functional, x)

    with pytest.raises(error, match=text) as caught:
        (treadle.jit(run) if jitted else run)(treadle.ones((5, 3)))
    assert "test_normalization.py" in str(caught.value)
