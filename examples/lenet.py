"""LeNet on handwritten digits: two convolutions, a pool, two linear layers.

python -m treadle.examples.lenet --data DIR      MNIST's IDX files (the test images and labels do)
python -m treadle.examples.lenet                 the digits that ship with the package

With MNIST's 10,000 test images it trains on the first 9,000 and tests on the last 1,000.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import treadle
from treadle import Tensor, nn
from treadle.data import DataLoader, TensorDataset, mnist
from treadle.examples.digits import load_digits

Array = npt.NDArray[Any]
HELD_OUT = 1000


@dataclass(frozen=True, slots=True)
class Images:
    """float32 [N, 1, H, W] in [0, 1] with int64 labels, for training and for test."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


@dataclass(frozen=True, slots=True)
class Report:
    """Seconds and the share of test images that are read right."""

    accuracy: float
    first_step: float
    seconds: float
    steps: int


def load(folder: Path | None) -> Images:
    """MNIST's images from `folder`, or the digits that ship with the package, 8 x 8 pixels."""
    if folder is None:
        digits = load_digits()
        train, test = (x.reshape(-1, 1, 8, 8) for x in (digits.train_x, digits.test_x))
        return Images(train, digits.train_y, test, digits.test_y)
    x, y = mnist(folder, "test").arrays
    return Images(x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:])


def build_model() -> nn.Module:
    """Two convolutions of 32 and 64 channels, a pool, dropout, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(None, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def train(images: Images, epochs: int, seed: int = 0, show: bool = True) -> Report:
    """Train with Adam and a one-cycle schedule, all of it in one jitted step."""
    treadle.manual_seed(seed)
    model = build_model()
    sizes = nn.summary(model, (64, *images.train_x.shape[1:]))
    if show:
        print(sizes)
    loader = DataLoader(
        TensorDataset(images.train_x, images.train_y), 64, shuffle=True, seed=seed,
        drop_last=True, prefetch_factor=2,
    )  # fmt: skip
    steps = epochs * len(loader)
    optimizer = treadle.optim.Adam(model.parameters(), lr=2e-3)
    schedule = treadle.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)

    @treadle.jit
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    began, first = perf_counter(), 0.0
    for epoch in range(epochs):
        total = 0.0
        for x, y in loader:
            started = perf_counter()
            total += step(x, y).item()
            first = first or perf_counter() - started
        if show:
            print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}")
    seconds = perf_counter() - began
    found = nn.predict(model, [images.test_x]).argmax(axis=1)
    return Report(float(np.mean(found == images.test_y)), first, seconds, steps)


def main(argv: list[str] | None = None) -> int:
    """Train and print a table."""
    parser = argparse.ArgumentParser(prog="python -m treadle.examples.lenet")
    parser.add_argument("--data", type=Path, help="a folder with MNIST's IDX files")
    parser.add_argument("--epochs", type=int, default=6, help="default 6")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    args = parser.parse_args(argv)
    images = load(args.data)
    report = train(images, args.epochs, args.seed)
    print(f"\naccuracy on {len(images.test_y)} held-out images: {report.accuracy:.2%}")
    print(f"first step (trace, compile, run): {report.first_step * 1e3:.0f} ms")
    each = (report.seconds - report.first_step) / max(1, report.steps - 1)
    print(f"{report.steps} steps in {report.seconds:.1f} s, {each * 1e3:.2f} ms a step")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
