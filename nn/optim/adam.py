"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn.optim.group import Group, State
from treadle.nn.optim.optimizer import Optimizer, checked
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class Adam(Optimizer):
    """Kingma and Ba (2015), in PyTorch's form:

    m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g * g
    p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    where g = grad + weight_decay * p. With `amsgrad` the largest v so far takes the place of v.
    """

    _decoupled = False  # whether weight decay acts on the parameter rather than on the gradient

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": checked("lr", lr),
                "betas": tuple(checked(f"betas[{n}]", b, below=1.0) for n, b in enumerate(betas)),
                "eps": checked("eps", eps),
                "weight_decay": checked("weight_decay", weight_decay),
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def new_state(self, param: Tensor, group: Group) -> State:
        state: State = {
            "step": self.shared_count(group),
            "exp_avg": api.zeros_like(param),
            "exp_avg_sq": api.zeros_like(param),
        }
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = api.zeros_like(param)
        return state

    def update(self, param: Tensor, grad: Tensor, group: Group, state: State) -> None:
        numbers = self.shared(group, state, param, lambda: self._numbers(group, state["step"]))
        less1, beta2, less2, correction, eps, rate, *decay = numbers
        if self._decoupled:
            step = -grad if group["maximize"] else grad
            for factor in decay:
                param.mul_(factor)
        else:
            step = self.decayed(param, grad, group)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.add_(less1 * (step - mean))
        square.copy_(beta2 * square + less2 * (step * step))
        largest = square
        if group["amsgrad"]:
            largest = state["max_exp_avg_sq"]
            largest.copy_(api.maximum(largest, square))
        root = api.sqrt(largest) / correction + eps
        param.sub_(rate * (mean / root))

    def _numbers(self, group: Group, count: Tensor) -> tuple[Tensor, ...]:
        """What the update of each parameter takes: 1 - beta1, beta2, 1 - beta2, the correction of
        the square, eps, the rate with the correction of the mean, the factor of decay if any."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        correction, rate = (1 - beta2**count) ** 0.5, lr / (1 - beta1**count)
        decays = self._decoupled and group.nonzero["weight_decay"]
        decay = (1 - lr * group["weight_decay"],) if decays else ()
        return 1 - beta1, beta2, 1 - beta2, correction, group["eps"], rate, *decay


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019):
    p is first multiplied by 1 - lr * weight_decay."""

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
