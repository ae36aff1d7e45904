"""What a training loop keeps and shows: numbers of each epoch, means over batches, a bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from treadle.nn.module import Module
from treadle.nn.optim.optimizer import Optimizer
from treadle.tracer.tensor import Tensor


class Progress:
    """What callbacks see, and `fit` returns: one dict of numbers an epoch, the best epoch (from 0)
    and what made it the best."""

    def __init__(self, model: Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.epochs: list[dict[str, float]] = []
        self.best_epoch, self.best = -1, math.inf

    def __repr__(self) -> str:
        last = self.epochs[-1] if self.epochs else {}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        return f"Progress of {len(self.epochs)} epochs" + (f", the last: {shown}" if shown else "")

    def column(self, name: str) -> list[float]:
        """One number of every epoch."""
        return [epoch[name] for epoch in self.epochs]


class Mean:
    """Means of named numbers over batches, weighted by their sizes."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, numbers: Mapping[str, Tensor], size: int) -> None:
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * size
        self.count += size

    def result(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


class Bar:
    """A progress bar over an epoch of `data`: items done of all, items a second, the mean loss so
    far. Where none is wanted, or tqdm is not installed, nothing is shown."""

    def __init__(self, data: Iterable[Any], title: str, verbose: bool) -> None:
        self._bar: Any = None
        if not verbose:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._bar = tqdm(total=items(data), desc=title, unit="item", unit_scale=True, leave=False)

    def __enter__(self) -> Bar:
        return self

    def add(self, size: int, totals: Mean) -> None:
        """A batch of so many items is done."""
        if self._bar is None:
            return
        if "loss" in totals.sums:
            mean = totals.sums["loss"] / max(totals.count, 1)
            self._bar.set_postfix_str(f"loss {mean:.4g}", refresh=False)
        self._bar.update(size)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def items(data: Iterable[Any]) -> int | None:
    """How many samples the batches of `data` have in all; None where that is not known."""
    dataset, size = getattr(data, "dataset", None), getattr(data, "batch_size", None)
    if dataset is None or not isinstance(size, int) or not isinstance(data, Sized):
        return None
    if getattr(data, "drop_last", False):
        return len(data) * size
    return None if getattr(data, "sampler", None) is not None else len(dataset)
