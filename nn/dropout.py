"""Dropout as a module."""

from __future__ import annotations

from treadle.nn.functional.dropout import dropout
from treadle.nn.module import Module
from treadle.tracer.random_draws import checked_probability
from treadle.tracer.tensor import Tensor


class Dropout(Module):
    """Leaves out elements with probability `p` and scales the others by 1 / (1 - p), in training
    mode; see `treadle.nn.functional.dropout`. Raises ArgumentError unless 0 <= p <= 1."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        checked_probability(p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
