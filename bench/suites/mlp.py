"""Multilayer perceptrons: from a handful of weights to a batch of 1,024."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.suites.training import BETA1, BETA2, EPSILON, RATE, Arrays, Model, add_training
from treadle.bench.workload import Program, Step


def classifier(sizes: tuple[int, ...], batch: int) -> Model:
    """ReLU layers of the given widths and cross entropy over the last."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n, (inputs, outputs) in enumerate(pairwise(sizes)):
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


def classifier_by_hand(model: Model) -> Program:
    """The same step in NumPy, its backward pass written out."""

    def program() -> Step:
        weights = model.weights()
        batch = model.batch(np.random.default_rng(1))
        moments = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in weights.items()}
        count = [0]

        def step() -> Any:
            loss, gradients = _by_hand(weights, batch["x"], batch["y"])
            count[0] += 1
            rate = RATE * (1 - BETA2 ** count[0]) ** 0.5 / (1 - BETA1 ** count[0])
            for name, g in gradients.items():
                m, v = moments[name]
                m += (1 - BETA1) * (g - m)
                v += (1 - BETA2) * (g * g - v)
                weights[name] -= np.float32(rate) * m / (np.sqrt(v) + np.float32(EPSILON))
            return loss

        return step

    return program


def _by_hand(weights: dict[str, Any], x: Any, y: Any) -> tuple[Any, dict[str, Any]]:
    layers = len(weights) // 2
    inputs = [x]
    for n in range(layers - 1):
        inputs.append(np.maximum(inputs[-1] @ weights[f"w{n}"] + weights[f"b{n}"], 0))
    logits = inputs[-1] @ weights[f"w{layers - 1}"] + weights[f"b{layers - 1}"]
    exps = np.exp(logits - logits.max(1, keepdims=True))
    shares = exps / exps.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(shares[rows, y]).mean()
    shares[rows, y] -= 1
    ct = shares / np.float32(len(y))
    gradients = {}
    for n in reversed(range(layers)):
        gradients[f"w{n}"] = inputs[n].T @ ct
        gradients[f"b{n}"] = ct.sum(0)
        if n:
            ct = (ct @ weights[f"w{n}"].T) * (inputs[n] > 0)
    return loss, gradients


def _flops(sizes: tuple[int, ...], batch: int) -> float:
    """Forward, weight gradients, and input gradients but for the first layer's."""
    layers = [2.0 * batch * a * b for a, b in pairwise(sizes)]
    return 3 * sum(layers) - layers[0]


add_training("mlp-tiny", "MLP 2-16-1, batch 4: step", regressor())
add_training(
    "mlp-digits",
    "MLP 64-128-64-10, batch 64: the demo's step",
    classifier((64, 128, 64, 10), 64),
    by_hand=classifier_by_hand,
)
for size in (32, 128, 1024):
    add_training(
        f"mlp-{size}",
        f"MLP 784-512-256-10, batch {size}: step",
        classifier((784, 512, 256, 10), size),
        by_hand=classifier_by_hand,
    )
