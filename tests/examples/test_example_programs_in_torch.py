"""The examples' PyTorch programs are the same networks: from the same weights, the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.examples import cats_dogs, fractalnet, lenet, mlp_digits, running, vae

pytest.importorskip("torch")
NEAR: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}


def started(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """The model's initial weights, with statistics and biases that are not 0 and 1."""
    nn.summary(model, shape)
    rng = np.random.default_rng(0)
    values = {
        name: value + rng.uniform(0.1, 0.3, value.shape).astype(value.dtype)
        if "running" in name or "bias" in name else value
        for name, value in running.weights(model).items()
    }  # fmt: skip
    model.load_state_dict(values)
    return values


def images(*shape: int) -> Any:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def test_of_the_mlp_also_each_step() -> None:
    treadle.manual_seed(0)
    model = mlp_digits.build_model()
    step, predict = running.torch_program("mlp_digits").program(running.weights(model), 2e-3)
    digits = mlp_digits.load_digits()
    batches = mlp_digits.shuffled_batches(digits, 1, 0)
    ours = mlp_digits.train(model, digits, batches, show=False)
    theirs = running.train("PyTorch", step, batches, 1, show=False)
    np.testing.assert_allclose(ours.run.losses, theirs.losses, rtol=1e-4)
    np.testing.assert_array_equal(ours.found, predict(digits.test_x).argmax(axis=1))


def test_of_the_lenet() -> None:
    model = lenet.build_model()
    start, x = started(model, (4, 1, 8, 8)), images(4, 1, 8, 8)
    step, predict = running.torch_program("lenet").program(start, 2e-3, 4, 0)
    np.testing.assert_allclose(predict(x), nn.predict(model, [x]), **NEAR)
    assert np.isfinite(step(x, np.arange(4)))


def test_of_the_network_on_images() -> None:
    model = cats_dogs.build_model(2)
    start, x = started(model, (4, 3, 32, 32)), images(4, 3, 32, 32)
    step, predict = running.torch_program("cats_dogs").program(start, 2, 32, 1e-3, 0.01, 4, 0)
    np.testing.assert_allclose(predict(x), nn.predict(model, [x]), **NEAR)
    assert np.isfinite(step(x, np.array([0, 1, 1, 0])))


def test_of_the_autoencoder() -> None:
    model = vae.VAE(64, 400, 2)
    start, x = running.weights(model), (images(64, 64) > 0.5).astype(np.float32)
    step, bound = running.torch_program("vae").program(start, (64, 400, 2), 1e-3, 0)
    ours = float(treadle.no_grad()(model.bound)(treadle.tensor(x)).mean())
    assert abs(bound(x) / ours - 1) < 0.02  # the draws are others
    assert abs(step(images(64, 64)) / -ours - 1) < 0.05


@pytest.mark.parametrize("k", (fractalnet.WHOLE, *range(fractalnet.COLUMNS)))
def test_of_the_fractalnet_each_architecture(k: int) -> None:
    net = fractalnet.FractalNet()
    program, sizes = running.torch_program("fractalnet"), (1, *fractalnet.WIDTHS)
    start, x = running.weights(net), images(4, 1, 8, 8)
    step, predict = program.program(start, sizes, fractalnet.COLUMNS, 0.85, 1e-3, 0)
    chosen: Any = fractalnet.whole if k == fractalnet.WHOLE else fractalnet.column
    more = {} if k == fractalnet.WHOLE else {"k": k}
    np.testing.assert_allclose(predict(x, k), fractalnet.logits(chosen, net, x, **more), **NEAR)
    assert np.isfinite(step(x, np.arange(4), k))
