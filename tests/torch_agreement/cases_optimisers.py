"""Twenty steps of each optimiser on a loss of two parameters, and schedules over thirty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from agreement import Case

import treadle

STEPS = 20
SCHEDULED = 30

OPTIMISERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "weight_decay": 0.2, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3}),
    ("Adam", {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"lr": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.5, "eps": 1e-3}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("RMSprop", {"centered": True, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
]

Make = Callable[[Any, Any], Any]  # the module of schedules and an optimiser to a schedule
SCHEDULES: dict[str, Make] = {
    "lambda": lambda m, o: m.LambdaLR(o, lambda epoch: 0.9**epoch),
    "step": lambda m, o: m.StepLR(o, 7, gamma=0.5),
    "multistep": lambda m, o: m.MultiStepLR(o, [4, 11, 12], gamma=0.3),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.8),
    "constant": lambda m, o: m.ConstantLR(o, factor=0.4, total_iters=6),
    "linear": lambda m, o: m.LinearLR(o, start_factor=0.1, total_iters=9),
    "linear-down": lambda m, o: m.LinearLR(o, 1.0, 0.2, total_iters=40),
    "polynomial": lambda m, o: m.PolynomialLR(o, total_iters=20, power=1.5),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 12, eta_min=0.01),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 7, eta_min=0.01),
    "restarts-growing": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    "one-cycle": lambda m, o: m.OneCycleLR(o, max_lr=0.5, total_steps=SCHEDULED + 1),
    "one-cycle-linear": lambda m, o: m.OneCycleLR(
        o, max_lr=[0.5, 0.2], epochs=7, steps_per_epoch=5, anneal_strategy="linear", pct_start=0.4
    ),
    "one-cycle-three": lambda m, o: m.OneCycleLR(
        o, max_lr=0.5, total_steps=40, three_phase=True, base_momentum=0.7
    ),
    "one-cycle-no-momentum": lambda m, o: m.OneCycleLR(
        o, max_lr=0.5, total_steps=SCHEDULED + 1, cycle_momentum=False
    ),
    "warm-up-then-cosine": lambda m, o: m.SequentialLR(
        o,
        [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 20)],
        milestones=[5],
    ),
}


def _start() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(STEPS, 4, 3))


def _loss(x: Any, w: Any, b: Any) -> Any:
    return (((x @ w + b) ** 2 - 1) ** 2).mean()


def _optimiser(name: str, options: dict[str, Any], jitted: bool) -> Case:
    def ours() -> Any:
        w, b, xs = _start()
        params = [treadle.tensor(a, requires_grad=True) for a in (w, b)]
        optimizer = getattr(treadle.optim, name)(params, **options)

        def step(x: Any) -> None:
            optimizer.zero_grad()
            _loss(x, *params).backward()
            optimizer.step()

        run = treadle.jit(step) if jitted else step
        for x in xs:
            run(treadle.tensor(x))
        return [p.detach() for p in params]

    def theirs(torch: Any) -> Any:
        w, b, xs = _start()
        params = [torch.tensor(a, requires_grad=True) for a in (w, b)]
        optimizer = getattr(torch.optim, name)(params, **options)
        for x in xs:
            optimizer.zero_grad()
            _loss(torch.tensor(x), *params).backward()
            optimizer.step()
        return [p.detach() for p in params]

    listed = "-".join(f"{k}={v}" for k, v in options.items())
    return Case(f"{name}-{listed}-{'jit' if jitted else 'eager'}", ours, theirs, (), whole=False)


def _schedule(name: str, make: Make) -> Case:
    """The learning rates and momenta of two groups, 30 steps long."""

    def followed(params: list[Any], optim: Any) -> list[list[float]]:
        groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.05}]
        optimizer = optim.SGD(groups, lr=0.1, momentum=0.9)
        schedule = make(optim.lr_scheduler, optimizer)
        rows = []
        for _ in range(SCHEDULED):
            rows.append([float(g[k]) for g in optimizer.param_groups for k in ("lr", "momentum")])
            optimizer.step()
            schedule.step()
        return rows

    def ours() -> Any:
        params = [treadle.tensor([1.0], requires_grad=True) for _ in range(2)]
        return treadle.tensor(followed(params, treadle.optim), dtype=treadle.float64)

    def theirs(torch: Any) -> Any:
        params = [torch.tensor([1.0], requires_grad=True) for _ in range(2)]
        return torch.tensor(followed(params, torch.optim), dtype=torch.float64)

    return Case(f"schedule-{name}", ours, theirs, (), whole=False)


def _plateau(options: dict[str, Any]) -> Case:
    metrics = [1.0, 0.9, 0.95, 0.91, 0.9, 0.89999, 0.92, 0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.9, 0.9]

    def followed(params: list[Any], optim: Any) -> list[float]:
        optimizer = optim.SGD(params, lr=0.1)
        schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        rates = []
        for metric in metrics * 2:
            schedule.step(metric)
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    def ours() -> Any:
        rates = followed([treadle.tensor([1.0], requires_grad=True)], treadle.optim)
        return treadle.tensor(rates, dtype=treadle.float64)

    def theirs(torch: Any) -> Any:
        rates = followed([torch.tensor([1.0], requires_grad=True)], torch.optim)
        return torch.tensor(rates, dtype=torch.float64)

    listed = "-".join(f"{k}={v}" for k, v in options.items())
    return Case(f"plateau-{listed}", ours, theirs, (), whole=False)


def _clipped(name: str, *options: Any) -> Case:
    """The gradients behind `nn.utils`, and what that returns."""

    def on(library: Any, params: list[Any]) -> list[Any]:
        (params[0] ** 2).sum().backward()
        (params[1] ** 3).sum().backward()
        found = getattr(library.nn.utils, name)(params, *options)
        return [p.grad for p in params] + ([] if found is None else [found])

    def ours() -> list[Any]:
        return on(treadle, [treadle.tensor(a, requires_grad=True) for a in _start()[:2]])

    def theirs(torch: Any) -> list[Any]:
        return on(torch, [torch.tensor(a, requires_grad=True) for a in _start()[:2]])

    listed = "-".join(map(str, options))
    return Case(f"{name}-{listed}", ours, theirs, (), whole=False)


CASES = [
    _clipped("clip_grad_norm_", 0.5),
    _clipped("clip_grad_norm_", 100.0),
    _clipped("clip_grad_norm_", 0.5, 1.0),
    _clipped("clip_grad_norm_", 0.5, float("inf")),
    _clipped("clip_grad_value_", 0.3),
    *(_optimiser(*case, jitted) for case in OPTIMISERS for jitted in (False, True)),
    *(_schedule(*item) for item in SCHEDULES.items()),
    _plateau({"patience": 2}),
    _plateau({"mode": "max", "patience": 1, "factor": 0.5, "cooldown": 2}),
    _plateau({"threshold": 0.05, "threshold_mode": "abs", "patience": 0, "min_lr": 1e-4}),
]
RECORDED = len(CASES)
