"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn.optim.group import Group, State
from treadle.nn.optim.optimizer import Optimizer, checked
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class SGD(Optimizer):
    """p -= lr * d, where g = grad + weight_decay * p and d = g, or with momentum
    b = momentum * b + (1 - dampening) * g (b = g at first) and d = b, or g + momentum * b with
    Nesterov's variant (Sutskever et al., 2013, in PyTorch's form)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")
        super().__init__(
            params,
            {
                "lr": checked("lr", lr),
                "momentum": checked("momentum", momentum),
                "dampening": dampening,
                "weight_decay": checked("weight_decay", weight_decay),
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def new_state(self, param: Tensor, group: Group) -> State:
        # PyTorch starts the buffer at the first gradient, undamped: without dampening that is what
        # a buffer of zeros gives, and a step that never changes its shape compiles once.
        at_zero = group.nonzero["momentum"] and not group.nonzero["dampening"]
        return {"momentum_buffer": api.zeros_like(param) if at_zero else None}

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        step = self.decayed(param, grad, group)
        if group.nonzero["momentum"]:
            step = self._with_momentum(step, group, state)
        param.sub_(group["lr"] * step)

    def _with_momentum(self, step: Tensor, group: Group, state: State) -> Tensor:
        buffer: Tensor | None = state["momentum_buffer"]
        if buffer is None:
            state["momentum_buffer"] = buffer = step.clone()
        else:
            buffer.mul_(group["momentum"])
            buffer.add_((1 - group["dampening"]) * step)
        return step + group["momentum"] * buffer if group["nesterov"] else buffer
