"""Results and targets that do not belong together, and what a model or a loss ignores.

A loss adds up over samples: exchanging the input of one and the target of another changes it by the
sum of both changes. What changes nothing where it should is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.types import shape_text
from treadle.nn.recipe.losses import Loss
from treadle.nn.recipe.probe import Look, exchanged
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples

Array = npt.NDArray[Any]

_INTERACTION = 0.3  # of a sample's own effect


def misaligned(loss: Loss, found: Look) -> Iterator[Finding]:
    """A loss that compares the result of one sample with the target of another."""
    if getattr(loss, "weight", None) is not None:
        return  # all targets together say what the mean is taken over
    own, *far = (_interaction(found, k) for k in _from(found.middle, len(found.samples)))
    noise = 1e-5 * abs(float(found.given["loss"]))
    if max(far) <= max(_INTERACTION * own, noise):
        return
    shapes = ""
    if found.result is not None:
        shapes = (
            f": results {shape_text(found.result.shape)}, targets "
            f"{shape_text(found.samples.target.shape)}"
        )
    yield Finding(
        "misaligned-targets", "warning",
        "the loss compares the result of one sample with the target of another" + shapes,
        fix="results and targets must have one shape and one order: look for a broadcast of [N, 1] "
        "with [N], and for axes joined in another order",
    )  # fmt: skip


def _from(first: int, count: int) -> list[int]:
    return [first, *(k for k in range(count) if k != first)]


def _interaction(found: Look, place: int) -> float:
    """How much exchanging the middle sample's input and the target at `place` changes the loss
    beyond the sum of both changes; 0 where all targets are equal."""
    rows = [t.tobytes() for t in found.samples.target]
    source = next((n for n, row in enumerate(rows) if row != rows[place]), None)
    if source is None:
        return 0.0
    order = np.arange(len(rows))
    order[place] = source
    samples, moved = found.samples, exchanged(found)
    old, new = samples.target, samples.target[order]

    def loss(inputs: Samples, target: Array) -> float:
        return float(found.program.run({**inputs.named(), "target0": target})["loss"])

    return abs(loss(moved, new) - loss(moved, old) - loss(samples, new) + loss(samples, old))


def ignored(found: Look) -> Iterator[Finding]:
    """A model that ignores its input, a loss that ignores the result or the targets."""
    samples, moved = found.samples, exchanged(found)
    after = found.program.run(moved.named())
    first = float(found.given["loss"])
    if found.outputs and all(_rows_are_equal(found.given[n]) for n in found.outputs):
        if not _inputs_are_equal(samples):
            yield Finding(
                "ignores-input", "error", "the model gives the same for every sample",
                fix="is the input used, and does a layer before the end still tell samples apart? "
                "(the table of layers shows dead ones)",
            )  # fmt: skip
    elif float(after["loss"]) == first and any(
        bool((after[n] != found.given[n]).any()) for n in found.outputs
    ):
        yield Finding(
            "loss-ignores-result", "error", "the loss is the same whatever the model gives",
            fix="compute the loss from the model's result, without argmax() or comparisons between",
        )  # fmt: skip
    turned = samples.rows(np.roll(np.arange(len(samples)), 1)).target
    again = found.program.run({**samples.named(), "target0": turned})
    if float(again["loss"]) == first and turned.tobytes() != samples.target.tobytes():
        yield Finding(
            "loss-ignores-target", "warning", "the loss is the same whatever the targets are",
            fix="right for a model that learns without targets; else use them in the loss",
        )  # fmt: skip


def _rows_are_equal(x: Array) -> bool:
    if len(x) < 2 or x.size == 0:
        return False
    scale = float(np.abs(x).max()) if x.dtype.kind == "f" else 0.0
    wide = x.astype(np.float64)
    return bool(np.abs(wide - wide[:1]).max() <= 1e-7 * scale)


def _inputs_are_equal(samples: Samples) -> bool:
    return all(bool((x == x[:1]).all()) for x in samples.inputs)
