"""Learning-rate schedules, with PyTorch's names, arguments and defaults.

A schedule gives the learning rate of each step as a function of the group's initial rate and of
the number of steps: `value(base, epoch)`. Both are tensors of rank 0 in float64, and so is what the
optimiser reads: a schedule never makes a jitted step compile again, and `scheduler.step()` may
itself stand inside one.

Unlike PyTorch's, most of which multiply whatever rate is there, a schedule of this module forgets a
rate that was set by hand; PyTorch's rates and these agree where nobody sets one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from treadle.ir.errors import ArgumentError
from treadle.ir.types import float64
from treadle.nn.optim.group import number
from treadle.nn.optim.optimizer import Optimizer
from treadle.nn.optim.plateau import ReduceLROnPlateau
from treadle.tracer import api
from treadle.tracer.errors import located, located_errors
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import open_constructor

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


class LRScheduler:
    """Base of all schedules: a subclass defines `value`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        open_constructor(cls)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        given: object = optimizer
        if not isinstance(given, Optimizer):
            found = type(given).__name__
            raise located(ArgumentError(f"a schedule takes an Optimizer, found {found}"))
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            if "initial_lr" not in group:
                group["initial_lr"] = group["lr"].item()
        self.base_lrs = [group["initial_lr"].item() for group in optimizer.param_groups]
        self.last_epoch = number(float(last_epoch))
        self.step()

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        """The learning rate after `epoch` steps of a group that began at `base`; all of them
        float64 of rank 0."""
        raise NotImplementedError

    def step(self) -> None:
        """Count a step, and set the learning rate of every group."""
        with no_grad():
            self.last_epoch.add_(1.0)
            self._set()

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"].item() for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        return {"last_epoch": self.last_epoch.item(), "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another schedule of this kind stood.

        Raises ArgumentError where keys are missing or the number of groups differs.
        """
        with located_errors():
            own = self.state_dict()
            missing = [key for key in own if key not in state_dict]
            if missing:
                raise ArgumentError(f"the schedule's state lacks {', '.join(missing)}")
            rates = list(state_dict["base_lrs"])
            if len(rates) != len(self.base_lrs):
                raise ArgumentError(
                    f"the optimiser has {len(self.base_lrs)} groups, the state {len(rates)}"
                )
        self._load(state_dict)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.base_lrs = list(state["base_lrs"])
        for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["initial_lr"] = rate
        with no_grad():
            self.last_epoch.copy_(float(state["last_epoch"]))
            self._set()

    def _set(self) -> None:
        epoch = self.last_epoch.astype(float64)
        for group in self.optimizer.param_groups:
            group["lr"] = self.value(group["initial_lr"].astype(float64), epoch)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise located(ArgumentError(f"{name} must be an int above 0, found {value!r:.60}"))
    return value


class LambdaLR(LRScheduler):
    """base * lr_lambda(epoch), or one function for each group.

    The function gets the epoch as an int, inside a jitted step as a tensor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[Any], Any] | Sequence[Callable[[Any], Any]],
        last_epoch: int = -1,
    ) -> None:
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise located(
                ArgumentError(
                    f"expected {count} functions, one a group, found {len(self.lr_lambdas)}"
                )
            )
        super().__init__(optimizer, last_epoch)

    def _set(self) -> None:
        epoch: Any = self.last_epoch.astype(float64)
        if not epoch.is_traced:
            epoch = int(epoch.item())
        for group, fn in zip(self.optimizer.param_groups, self.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * fn(epoch)


class StepLR(LRScheduler):
    """base * gamma ^ floor(epoch / step_size)"""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = _positive("step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """base * gamma ^ (how many of the milestones are at most epoch)"""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones, self.gamma = tuple(sorted(milestones)), gamma
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        passed = epoch * 0.0
        for milestone in self.milestones:
            passed = passed + (epoch >= milestone).astype(float64)
        return base * self.gamma**passed


class ExponentialLR(LRScheduler):
    """base * gamma ^ epoch"""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        return base * self.gamma**epoch


class ConstantLR(LRScheduler):
    """base * factor for the first `total_iters` steps, then base"""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        return api.where(epoch < self.total_iters, base * self.factor, base)


class LinearLR(LRScheduler):
    """base times a factor that goes evenly from `start_factor` to `end_factor` in `total_iters`
    steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise located(
                ArgumentError(
                    f"start_factor must be in (0, 1] and end_factor in [0, 1], found "
                    f"{start_factor} and {end_factor}"
                )
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _positive("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        done = api.minimum(epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class PolynomialLR(LRScheduler):
    """base * (1 - min(epoch, total_iters) / total_iters) ^ power"""

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters, self.power = _positive("total_iters", total_iters), power
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        return base * (1 - api.minimum(epoch, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min) * (1 + cos(pi * epoch / T_max)) / 2
    (Loshchilov and Hutter, 2017)"""

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = _positive("T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        return _cosine(base, self.eta_min, epoch / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """As CosineAnnealingLR over `T_0` steps, then anew over `T_0 * T_mult` steps, and so on
    (Loshchilov and Hutter, 2017)"""

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_0, self.T_mult = _positive("T_0", T_0), _positive("T_mult", T_mult)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        if self.T_mult == 1:
            return _cosine(base, self.eta_min, epoch % self.T_0 / self.T_0)
        # Period n begins at T_0 (T_mult^n - 1) / (T_mult - 1). The half keeps the logarithm of a
        # period's first step from falling short of n by a rounding.
        grown = (epoch + 0.5) * (self.T_mult - 1) / self.T_0 + 1
        n = api.floor(api.log(grown) / math.log(self.T_mult))
        start = self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
        return _cosine(base, self.eta_min, (epoch - start) / (self.T_0 * self.T_mult**n))


class OneCycleLR(LRScheduler):
    """The one-cycle policy (Smith and Topin, 2018): from max_lr / div_factor up to max_lr in the
    first `pct_start` of the steps, then down to that / final_div_factor; the momentum (or beta1)
    goes the other way.

    With `three_phase` it comes back to where it began as slowly as it rose, and falls to the end in
    a phase of its own. Steps after the last are an error in PyTorch; here they stay at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise located(
                    ArgumentError("give total_steps, or epochs and steps_per_epoch; found neither")
                )
            total_steps = _positive("epochs", epochs) * _positive(
                "steps_per_epoch", steps_per_epoch
            )
        self.total_steps = _positive("total_steps", total_steps)
        if not 0 <= pct_start <= 1:
            raise located(ArgumentError(f"pct_start must be in [0, 1], found {pct_start}"))
        if anneal_strategy not in ("cos", "linear"):
            raise located(
                ArgumentError(f"anneal_strategy must be 'cos' or 'linear', found {anneal_strategy}")
            )
        self.anneal_strategy = anneal_strategy
        top = float(pct_start * self.total_steps) - 1
        self.phases: tuple[tuple[float, str, str], ...]
        if three_phase:
            self.phases = ((top, "low", "top"), (2 * top, "top", "low"))
        else:
            self.phases = ((top, "low", "top"),)
        last = "low" if three_phase else "top"
        self.phases = (*self.phases, (self.total_steps - 1.0, last, "end"))
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.momenta = {"low": max_momentum, "top": base_momentum, "end": max_momentum}
        self.cycle_momentum = cycle_momentum
        alone = isinstance(max_lr, (float, int))
        peaks: Any = [max_lr] * len(optimizer.param_groups) if alone else max_lr
        if len(peaks) != len(optimizer.param_groups):
            raise located(
                ArgumentError(f"expected {len(optimizer.param_groups)} rates, found {len(peaks)}")
            )
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            if cycle_momentum and "momentum" not in group and "betas" not in group:
                raise located(
                    ArgumentError("cycle_momentum needs an optimiser with momentum or betas")
                )
            group["initial_lr"] = peak / div_factor
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        rates = {"low": base, "top": base * self.div_factor, "end": base / self.final_div_factor}
        return self._through(rates, epoch)

    def _set(self) -> None:
        super()._set()
        if not self.cycle_momentum:
            return
        epoch = self.last_epoch.astype(float64)
        momentum = self._through({k: v + epoch * 0.0 for k, v in self.momenta.items()}, epoch)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"][0].copy_(momentum)
            else:
                group["momentum"] = momentum

    def _through(self, values: Mapping[str, Tensor], epoch: Tensor) -> Tensor:
        """The value at `epoch`, which goes from one of the named `values` to another a phase."""
        result = values["end"]
        starts = [0.0, *(end for end, _, _ in self.phases)]
        for start, (end, first, last) in reversed(list(zip(starts, self.phases, strict=False))):
            done = api.clip((epoch - start) / max(end - start, 1e-12), 0.0, 1.0)
            if self.anneal_strategy == "cos":
                here = _cosine(values[first], values[last], done)
            else:
                here = values[first] + (values[last] - values[first]) * done
            result = api.where(epoch <= end, here, result)
        return result


class SequentialLR(LRScheduler):
    """Each of `schedulers` in turn, from one milestone to the next; each counts its own steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise located(
                ArgumentError(
                    f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, found "
                    f"{len(milestones)}"
                )
            )
        self.schedulers, self.milestones = tuple(schedulers), tuple(milestones)
        super().__init__(optimizer, last_epoch)

    def value(self, base: Tensor, epoch: Tensor) -> Tensor:
        rate = self.schedulers[0].value(base, epoch)
        for milestone, schedule in zip(self.milestones, self.schedulers[1:], strict=True):
            rate = api.where(epoch >= milestone, schedule.value(base, epoch - milestone), rate)
        return rate


def _cosine(first: Any, last: Any, done: Tensor) -> Tensor:
    """From `first` to `last` along half a cosine, for `done` from 0 to 1."""
    half: Tensor = (1 + api.cos(math.pi * done)) / 2
    value: Tensor = last + (first - last) * half
    return value
