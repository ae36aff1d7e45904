"""An MLP learns to read digits: one jitted train step, a short table, some digits that it read.

treadle demo                    (or: python -m treadle.examples.mlp_digits)

`--peer torch` trains the same network in PyTorch as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.examples import running
from treadle.examples.digits import Digits, load_digits

Array = npt.NDArray[Any]
BATCH = 64
RATE = 2e-3
TARGET_ACCURACY = 0.97
_SHADES = " .:-=+*#%@"


@dataclass(frozen=True, slots=True)
class Report:
    """How the training went, what was read, the median seconds of a step without jit."""

    run: running.Run
    found: Array
    eager_step: float


def build_model() -> nn.Module:
    """64-128-64-10 with ReLU: 17,226 parameters."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def train(
    model: nn.Module, digits: Digits, batches: list[tuple[Array, Array]], show: bool = True
) -> Report:
    """Train with Adam, read the held-out digits, and time the step."""
    optimizer = treadle.optim.Adam(model.parameters(), lr=RATE)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = treadle.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    predict = treadle.jit(lambda x: treadle.argmax(model(x), axis=1))

    run = running.train("training", treadle.jit(step), batches, 1, show)
    found = predict(digits.test_x).numpy()
    return Report(run, found, _time_eager(step, batches))


def shuffled_batches(digits: Digits, epochs: int, seed: int) -> list[tuple[Array, Array]]:
    """Batches of equal size; what is left over waits for the next epoch's shuffle."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(epochs):
        order = rng.permutation(len(digits.train_x))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            found.append((digits.train_x[rows], digits.train_y[rows]))
    return found


def _time_eager(step: Callable[..., Any], batches: list[Any], repeats: int = 20) -> float:
    """The median time of the same step without jit. It goes on training: call it last."""
    times = []
    for x, y in batches[:repeats]:
        started = perf_counter()
        step(treadle.tensor(x), treadle.tensor(y))
        times.append(perf_counter() - started)
    return median(times)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; exit code 1 where the accuracy is not reached."""
    parser = argparse.ArgumentParser(prog="treadle demo")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=running.count, default=40, help="default 40")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    running.add_peer(parser)


def run(args: argparse.Namespace) -> int:
    treadle.manual_seed(args.seed)
    digits, model = load_digits(), build_model()
    batches = shuffled_batches(digits, args.epochs, args.seed)
    start = running.weights(model)
    report = train(model, digits, batches)
    accuracy = float(np.mean(report.found == digits.test_y))
    columns = {"Treadle": {
        **report.run.costs(),
        "the same step eager, ms": f"{report.eager_step * 1e3:.3g}",
        "accuracy on the 360 held-out digits": f"{accuracy:.2%}",
    }}  # fmt: skip
    if args.peer:
        step, predict = running.torch_program("mlp_digits").program(start, RATE)
        other = running.train("training PyTorch's", step, batches, 1)
        reached = np.mean(predict(digits.test_x).argmax(axis=1) == digits.test_y)
        columns["PyTorch"] = {
            **other.costs(), "accuracy on the 360 held-out digits": f"{reached:.2%}"
        }  # fmt: skip
    print(f"\n{running.side_by_side(columns)}\n")
    print(drawn(digits.test_x[:5], digits.test_y[:5], report.found[:5]))
    if accuracy < TARGET_ACCURACY:
        print(f"\nthe accuracy is below {TARGET_ACCURACY:.0%}")
        return 1
    return 0


def drawn(images: Array, labels: Array, found: Array) -> str:
    """Images [N, 64] in [0, 1] in characters, side by side, over what they are read as."""
    shades = (images * (len(_SHADES) - 1) + 0.5).astype(int).reshape(-1, 8, 8)
    lines = [
        "  ".join("".join(2 * _SHADES[shade] for shade in image[row]) for image in shades)
        for row in range(8)
    ]
    texts = (
        f"read as {read}" + ("" if read == label else f", is {label}")
        for label, read in zip(labels, found, strict=True)
    )
    return "\n".join([*lines, "  ".join(f"{text:^16}" for text in texts).rstrip()])


if __name__ == "__main__":
    raise SystemExit(main())
