"""What `jit(winograd=..)` promises: who chooses, what it may change, what it may not."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

import treadle as t
from treadle.nn import functional

Squares = Literal[0, 2, 4]
CHOICES: tuple[Squares, ...] = (0, 2, 4)


def _data(channels: int = 32, size: int = 28) -> tuple[t.Tensor, t.Tensor]:
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((4, channels, size, size), dtype=np.float32)
    w = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32) / (3 * channels**0.5)
    return t.tensor(x), t.tensor(w.astype(np.float32))


def _layer(x: t.Tensor, w: t.Tensor) -> t.Tensor:
    return functional.conv2d(x, w, padding=1)


def _plan(jitted: Any) -> str:
    return str(jitted.specializations[-1].executable.stage("plan"))


def test_squares_of_two_are_the_rule_and_of_four_are_asked_for() -> None:
    args = _data()
    for winograd, word in ((0, "winograd F"), (2, "F(2x2, 3x3)"), (4, "F(4x4, 3x3)")):
        jitted = t.jit(_layer, winograd=winograd)  # type: ignore[arg-type]
        jitted(*args)
        assert (word in _plan(jitted)) == (winograd > 0)
    usual = t.jit(_layer)
    usual(*args)
    assert "F(2x2, 3x3)" in _plan(usual)


def test_the_choice_is_part_of_what_is_compiled() -> None:
    """Not taken from the cache of another one: results differ in their last bits."""
    args = _data()
    found = [t.jit(_layer, winograd=m)(*args).numpy() for m in CHOICES]
    again = [t.jit(_layer, winograd=m)(*args).numpy() for m in CHOICES]
    for n in range(3):
        np.testing.assert_array_equal(found[n], again[n])
        assert not np.array_equal(found[n], found[n - 1])


@pytest.mark.parametrize("winograd", CHOICES)
def test_eager_and_compiled_agree_with_gradients(winograd: Squares) -> None:
    x, w = _data()

    def loss(x: t.Tensor, w: t.Tensor) -> t.Tensor:
        return (functional.relu(_layer(functional.relu(_layer(x, w)), w)) ** 2).mean()

    derivative = t.value_and_grad(loss, argnums=(0, 1))
    value, grads = t.jit(derivative, winograd=winograd)(x, w)
    want, others = derivative(x, w)
    assert abs(float(value) - float(want)) <= 1e-5 * float(want)
    for got, other in zip(grads, others, strict=True):
        most = np.abs(other.numpy()).max()
        np.testing.assert_allclose(got.numpy(), other.numpy(), rtol=0, atol=1e-5 * most)


def test_a_function_in_another_follows_the_outer_one() -> None:
    args = _data()
    inner = t.jit(_layer, winograd=4)
    outer = t.jit(lambda x, w: inner(x, w) * 1.0, winograd=0)
    outer(*args)
    assert "winograd F" not in _plan(outer)


def test_few_channels_and_small_images_stay_direct() -> None:
    for channels, size in ((1, 28), (3, 64), (16, 4)):
        jitted = t.jit(_layer, winograd=4)
        jitted(*_data(channels, size))
        assert "winograd F" not in _plan(jitted)


@pytest.mark.parametrize("bad", [1, 3, 6, "2", None])
def test_other_sizes_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="winograd must be 0, 2 or 4"):
        t.jit(_layer, winograd=bad)
