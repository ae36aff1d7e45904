"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn.optim.group import Group, State
from treadle.nn.optim.optimizer import Optimizer, checked
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class RMSprop(Optimizer):
    """Tieleman and Hinton (2012), in PyTorch's form, where g = grad + weight_decay * p:

    v = alpha * v + (1 - alpha) * g * g;  d = g / (sqrt(v) + eps)
    p -= lr * d, or with momentum  b = momentum * b + d;  p -= lr * b

    `centered` takes v - m * m in place of v, m being the mean of g that is kept likewise.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": checked("lr", lr),
                "momentum": checked("momentum", momentum),
                "alpha": checked("alpha", alpha),
                "eps": checked("eps", eps),
                "centered": centered,
                "weight_decay": checked("weight_decay", weight_decay),
                "maximize": maximize,
            },
        )

    def new_state(self, param: Tensor, group: Group) -> State:
        state: State = {"step": self.shared_count(group), "square_avg": api.zeros_like(param)}
        if group.nonzero["momentum"]:
            state["momentum_buffer"] = api.zeros_like(param)
        if group["centered"]:
            state["grad_avg"] = api.zeros_like(param)
        return state

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        step, alpha = self.decayed(param, grad, group), group["alpha"]
        square = state["square_avg"]
        square.copy_(alpha * square + (1 - alpha) * (step * step))
        variance = square
        if group["centered"]:
            mean = state["grad_avg"]
            mean.add_((1 - alpha) * (step - mean))
            variance = square - mean * mean
        scaled = step / (api.sqrt(variance) + group["eps"])
        if group.nonzero["momentum"]:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = api.zeros_like(param)
            buffer = state["momentum_buffer"]
            buffer.copy_(group["momentum"] * buffer + scaled)
            scaled = buffer
        param.sub_(group["lr"] * scaled)
