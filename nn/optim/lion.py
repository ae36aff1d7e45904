"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn.optim.group import Group, State
from treadle.nn.optim.optimizer import Optimizer, checked
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class Lion(Optimizer):
    """Chen et al. (2023), algorithm 2:

    p *= 1 - lr * weight_decay;  p -= lr * sign(beta1 * m + (1 - beta1) * g)
    m = beta2 * m + (1 - beta2) * g
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": checked("lr", lr),
                "betas": tuple(checked(f"betas[{n}]", b, below=1.0) for n, b in enumerate(betas)),
                "weight_decay": checked("weight_decay", weight_decay),
                "maximize": maximize,
            },
        )

    def new_state(self, param: Tensor, group: Group) -> State:
        return {"exp_avg": api.zeros_like(param)}

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        lr, (beta1, beta2), mean = group["lr"], group["betas"], state["exp_avg"]
        step = -grad if group["maximize"] else grad
        if group.nonzero["weight_decay"]:
            param.mul_(1 - lr * group["weight_decay"])
        param.sub_(lr * api.sign(beta1 * mean + (1 - beta1) * step))
        mean.copy_(beta2 * mean + (1 - beta2) * step)
