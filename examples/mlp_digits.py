"""An MLP learns to read digits: one jitted train step, then a short table.

treadle demo                    (or: python -m treadle.examples.mlp_digits)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import treadle
from treadle import Tensor, nn
from treadle.examples.digits import Digits, load_digits

BATCH = 64
TARGET_ACCURACY = 0.97


@dataclass(frozen=True, slots=True)
class Report:
    """What the table shows; times in seconds."""

    accuracy: float
    first_step: float
    step: float
    eager_step: float
    steps: int


def build_model() -> nn.Module:
    """64-128-64-10 with ReLU: 17,226 parameters."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def train(epochs: int = 40, seed: int = 0, show_progress: bool = True) -> Report:
    """Train with Adam, hold out the last fifth of the digits, and time the step."""
    treadle.manual_seed(seed)
    digits = load_digits()
    model = build_model()
    optimizer = treadle.optim.Adam(model.parameters(), lr=2e-3)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = treadle.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    fast_step = treadle.jit(step)
    predict = treadle.jit(lambda x: treadle.argmax(model(x), axis=1))

    times: list[float] = []
    batches = list(_batches(digits, epochs, seed))
    for x, y in _progress(batches, show_progress):
        started = perf_counter()
        fast_step(x, y)
        times.append(perf_counter() - started)
    accuracy = float(np.mean(predict(digits.test_x).numpy() == digits.test_y))
    return Report(accuracy, times[0], median(times[1:]), _time_eager(step, batches), len(times))


def _batches(digits: Digits, epochs: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Shuffled batches of equal size; what is left over waits for the next epoch's shuffle."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(digits.train_x))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield digits.train_x[rows], digits.train_y[rows]


def _progress(batches: list[Any], show: bool) -> Iterable[Any]:
    """A progress bar where tqdm is installed, else a line every tenth of the way."""
    if not show:
        return batches
    try:
        from tqdm import tqdm
    except ImportError:
        return _progress_lines(batches)
    return tqdm(batches, desc="training", unit="step")


def _progress_lines(batches: list[Any]) -> Iterator[Any]:
    tenth = max(1, len(batches) // 10)
    for n, batch in enumerate(batches):
        if n % tenth == 0:
            print(f"training: {100 * n // len(batches)} %", flush=True)
        yield batch


def _time_eager(step: Any, batches: list[Any], repeats: int = 20) -> float:
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
    parser.add_argument("--epochs", type=int, default=40, help="default 40")
    parser.add_argument("--seed", type=int, default=0, help="default 0")


def run(args: argparse.Namespace) -> int:
    report = train(args.epochs, args.seed)
    ratio = report.eager_step / report.step
    rows = (
        ("accuracy on the 360 held-out digits", f"{report.accuracy:.2%}"),
        ("time to first step (trace, compile, run)", f"{report.first_step * 1e3:.0f} ms"),
        (f"time a step (median of {report.steps - 1})", f"{report.step * 1e6:.0f} us"),
        ("the same step eager", f"{report.eager_step * 1e6:.0f} us ({ratio:.1f} times as long)"),
    )
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    if report.accuracy < TARGET_ACCURACY:
        print(f"\n  the accuracy is below {TARGET_ACCURACY:.0%}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
