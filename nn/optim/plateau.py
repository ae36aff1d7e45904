"""A learning rate that falls when a metric no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from treadle.ir.errors import ArgumentError
from treadle.nn.optim.optimizer import Optimizer
from treadle.tracer.errors import located


class ReduceLROnPlateau:
    """Multiplies the rate by `factor` after `patience` steps without a better metric.

    `step(metric)` takes a Python number or a tensor of rank 0. Better is less (`mode="min"`) or
    more (`"max"`) than the best so far by `threshold`, a share of it (`"rel"`) or a difference
    (`"abs"`). After a reduction `cooldown` steps are not counted; no rate falls below `min_lr`, and
    a change of less than `eps` is not made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        for name, found, known in (
            ("mode", mode, ("min", "max")),
            ("threshold_mode", threshold_mode, ("rel", "abs")),
        ):
            if found not in known:
                raise located(ArgumentError(f"{name} must be one of {known}, found {found!r}"))
        if factor >= 1:
            raise located(ArgumentError(f"factor must be below 1, found {factor}"))
        self.optimizer = optimizer
        self.mode, self.threshold_mode, self.threshold = mode, threshold_mode, threshold
        self.factor, self.patience, self.cooldown = factor, patience, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Look at a metric, and reduce the rates where it is time."""
        metric = float(metrics)
        self.last_epoch += 1
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"].item() for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        return {name: getattr(self, name) for name in _PLATEAU_STATE}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another schedule stood. Raises ArgumentError where keys are missing."""
        missing = [name for name in _PLATEAU_STATE if name not in state_dict]
        if missing:
            raise located(ArgumentError(f"the schedule's state lacks {', '.join(missing)}"))
        for name in _PLATEAU_STATE:
            setattr(self, name, state_dict[name])

    def _is_better(self, metric: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "abs":
            return sign * metric > sign * self.best + self.threshold
        return sign * metric > sign * (self.best * (1 + sign * self.threshold))

    def _reduce(self) -> None:
        for group in self.optimizer.param_groups:
            old = group["lr"].item()
            new = max(old * self.factor, self.min_lr)
            if old - new > self.eps:
                group["lr"] = new


_PLATEAU_STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
