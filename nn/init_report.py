"""`init_report`: how a signal's size changes from layer to layer, before any training.

A layer of n inputs whose weights have variance v multiplies the mean square of its input by n v,
and ReLU halves it: 2/n keeps it (He et al., 2015), 1/n loses half in every layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.nn.module import Module
from treadle.nn.table import text_table
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

_LOST, _GROWN = 1e-3, 1e3


@dataclass(frozen=True, slots=True)
class Row:
    """What one layer gave: the mean and the mean square of its result, the latter as a share of the
    model's first input's, and the share of exact zeros."""

    path: str
    layer: str
    mean: float
    square: float
    share: float
    zeros: float


@dataclass(frozen=True, slots=True)
class InitReport:
    """The layers without layers inside, in the order in which they are called."""

    rows: tuple[Row, ...]

    @property
    def share(self) -> float:
        """The mean square of the last layer's result as a share of the input's."""
        return self.rows[-1].share if self.rows else 1.0

    def __str__(self) -> str:
        cells = [
            (
                r.path,
                r.layer,
                f"{r.mean:.2e}",
                f"{r.square:.2e}",
                f"{r.share:.2e}",
                f"{r.zeros:.0%}",
            )
            for r in self.rows
        ]
        titles = ("layer", "kind", "mean", "mean square", "of the input's", "zeros")
        return f"{text_table(titles, cells)}\n\n{self._verdict()}"

    def _verdict(self) -> str:
        found = f"the signal's mean square ends at {self.share:.2g} of the input's"
        if not np.isfinite(self.share) or self.share > _GROWN:
            return f"{found}: it explodes; give the layers smaller weights"
        if self.share < _LOST:
            return f"{found}: it is lost; for ReLU draw weights of variance 2 / fan_in"
        return f"{found}: it keeps its size"


def init_report(model: Module, *inputs: Any) -> InitReport:
    """Run `model` once on `inputs`, without training anything, and say what each layer gave.

    Running statistics and generators change as in any forward pass: use it before training. Raises
    what the model raises.
    """
    rows: list[Row] = []
    first = as_tensor(inputs[0])
    size = _square(np.asarray(first, np.float64)) or 1.0

    def look(path: str, module: Module, result: Any) -> None:
        if not isinstance(result, Tensor) or not result.dtype.is_float:
            return
        values = np.asarray(result.detach(), np.float64)
        square = _square(values)
        mean = float(values.mean()) if values.size else 0.0
        zeros = float((values == 0).mean()) if values.size else 0.0
        rows.append(Row(path, type(module).__name__, mean, square, square / size, zeros))

    def hook(path: str) -> Any:
        return lambda module, args, result: look(path, module, result)

    handles = [
        module.register_forward_hook(hook(path))
        for path, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return InitReport(tuple(rows))


def _square(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.mean(values * values)) if values.size else 0.0
