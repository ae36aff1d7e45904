"""Multilayer perceptrons: from a handful of weights to a batch of 1,024."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.suites.training import Arrays, Model, add_training


def classifier(sizes: tuple[int, ...], batch: int) -> Model:
    """ReLU layers of the given widths and cross entropy over the last."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        shapes[f"w{n}"] = (inputs, outputs)
        shapes[f"b{n}"] = (outputs,)
    last = len(sizes) - 2

    def data(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "x": rng.standard_normal((batch, sizes[0]), dtype=np.float32),
            "y": rng.integers(0, sizes[-1], batch),
        }

    def loss(f: Namespace, w: Arrays, batch: Arrays) -> Any:
        h = batch["x"]
        for n in range(last):
            h = f.relu(h @ w[f"w{n}"] + w[f"b{n}"])
        return f.cross_entropy(h @ w[f"w{last}"] + w[f"b{last}"], batch["y"])

    return Model(shapes, data, loss, _flops(sizes, batch))


def regressor() -> Model:
    """2-16-1 with tanh and a squared error, batch 4: nothing but overhead."""

    def data(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "x": rng.standard_normal((4, 2), dtype=np.float32),
            "y": rng.standard_normal((4, 1), dtype=np.float32),
        }

    def loss(f: Namespace, w: Arrays, batch: Arrays) -> Any:
        h = f.tanh(batch["x"] @ w["w0"] + w["b0"])
        difference = h @ w["w1"] + w["b1"] - batch["y"]
        return f.mean(difference * difference)

    shapes = {"w0": (2, 16), "b0": (16,), "w1": (16, 1), "b1": (1,)}
    return Model(shapes, data, loss, _flops((2, 16, 1), 4))


def _flops(sizes: tuple[int, ...], batch: int) -> float:
    """Forward, weight gradients, and input gradients but for the first layer's."""
    layers = [2.0 * batch * a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    return 3 * sum(layers) - layers[0]


add_training("mlp-tiny", "MLP 2-16-1, batch 4: step", regressor())
for size in (32, 128, 1024):
    add_training(
        f"mlp-{size}",
        f"MLP 784-512-256-10, batch {size}: step",
        classifier((784, 512, 256, 10), size),
    )
