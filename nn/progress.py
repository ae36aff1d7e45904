"""What a training loop keeps and shows: numbers of each epoch, means over batches, a bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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


def shown(data: Iterable[Any], title: str, verbose: bool) -> Iterable[Any]:
    """`data` behind a progress bar, where one is wanted and tqdm is installed."""
    if not verbose:
        return data
    try:
        from tqdm import tqdm
    except ImportError:
        return data
    return tqdm(data, desc=title, unit="batch", leave=False)
