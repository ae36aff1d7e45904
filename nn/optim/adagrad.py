"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn.optim.group import Group, State
from treadle.nn.optim.optimizer import Optimizer, checked
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class Adagrad(Optimizer):
    """Duchi, Hazan and Singer (2011), in PyTorch's form, where g = grad + weight_decay * p:

    s += g * g;  p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    in step t = 1, 2, ..; s starts at `initial_accumulator_value`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": checked("lr", lr),
                "lr_decay": checked("lr_decay", lr_decay),
                "eps": checked("eps", eps),
                "weight_decay": checked("weight_decay", weight_decay),
                "initial_accumulator_value": checked(
                    "initial_accumulator_value", initial_accumulator_value
                ),
                "maximize": maximize,
            },
        )

    def new_state(self, param: Tensor, group: Group) -> State:
        start = group["initial_accumulator_value"]
        return {
            "step": self.shared_count(group),
            "sum": api.zeros_like(param) + start.astype(param.dtype),
        }

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        step, total = self.decayed(param, grad, group), state["sum"]
        total.add_(step * step)
        rate = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        param.sub_(rate * (step / (api.sqrt(total) + group["eps"])))
