"""A parameter group: its parameters, and the numbers of an optimiser as tensors of rank 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.tracer.cell import Cell
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor

State = dict[str, Any]
_TERMS = ("momentum", "dampening", "weight_decay")  # a step leaves these out where they are zero


def number(value: float) -> Tensor:
    """`value` as a tensor of rank 0 in float64 that takes the dtype of the tensor beside it."""
    return Tensor(Cell.of(np.array(value, np.float64)), weak=True)


class Group(dict[str, Any]):
    """A parameter group: `params`, and options by name. Floats are kept as rank-0 tensors, which
    an assignment changes in place."""

    __slots__ = ("nonzero",)

    def __init__(self, params: list[Tensor], options: dict[str, Any]) -> None:
        super().__init__()
        self.nonzero: dict[str, bool] = {}
        super().__setitem__("params", params)
        for name, value in options.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        old = self.get(name)
        if isinstance(old, Tensor):
            if value is not old:
                with no_grad():
                    old.copy_(value)
        elif _is_number(value):
            super().__setitem__(name, number(float(value)))
        elif isinstance(value, tuple) and value and all(map(_is_number, value)):
            value = tuple(number(float(v)) for v in value) if not _same_size(old, value) else old
            super().__setitem__(name, value)
        else:
            super().__setitem__(name, value)
        if name in _TERMS:
            self.nonzero[name] = not (_is_number(value) and value == 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same_size(old: Any, new: tuple[Any, ...]) -> bool:
    return isinstance(old, tuple) and len(old) == len(new)
