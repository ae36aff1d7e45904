"""Schedules beyond their rates (which tests/torch_agreement compares): jit, state, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.optim import lr_scheduler

MAKERS: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "step": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [1, 3], gamma=0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "constant": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=3),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, total_iters=4, power=2.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 4, eta_min=0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, T_mult=2),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=7),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.5)], [3]
    ),
}


def made() -> tuple[Any, Any]:
    param = treadle.tensor([1.0, -2.0], requires_grad=True, dtype=treadle.float64)
    return param, treadle.optim.SGD([param], lr=0.1, momentum=0.5)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_schedule_inside_a_jitted_step_follows_eager_and_compiles_once(make: Any) -> None:
    def run(jitted: bool) -> tuple[Any, list[float], int]:
        param, optimizer = made()
        schedule = make(optimizer)

        def step(x: Any) -> None:
            optimizer.zero_grad()
            ((param - x) ** 2).sum().backward()
            optimizer.step()
            schedule.step()

        compiled = treadle.jit(step) if jitted else step
        rates = []
        for n in range(6):
            compiled(treadle.tensor(float(n), dtype=treadle.float64))
            rates += schedule.get_last_lr()
        return param.numpy(), rates, len(compiled.specializations) if jitted else 1

    values, rates, _ = run(False)
    again, same, count = run(True)
    np.testing.assert_allclose(again, values, rtol=1e-12)
    np.testing.assert_allclose(same, rates, rtol=1e-12)
    assert count == 1
    assert len(set(rates)) > 1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_loaded_schedule_goes_on_where_the_saved_one_stood(make: Any) -> None:
    schedule = make(made()[1])
    for _ in range(3):
        schedule.step()
    other = make(made()[1])
    other.load_state_dict(schedule.state_dict())
    assert other.get_last_lr() == schedule.get_last_lr()
    for one in (schedule, other):
        one.step()
    assert other.get_last_lr() == schedule.get_last_lr()


def test_a_loaded_plateau_goes_on_where_the_saved_one_stood() -> None:
    one, other = (lr_scheduler.ReduceLROnPlateau(made()[1], patience=1) for _ in range(2))
    for metric in (1.0, 1.0):
        one.step(metric)
    other.load_state_dict(one.state_dict())
    one.step(treadle.tensor(1.0))
    other.step(1.0)
    assert one.get_last_lr() == other.get_last_lr() == pytest.approx([0.01])


def test_mistakes_of_schedules_are_named() -> None:
    optimizer = made()[1]
    with pytest.raises(treadle.ArgumentError, match="takes an Optimizer, found int"):
        lr_scheduler.StepLR(3, 2)  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match="step_size must be an int above 0, found 0"):
        lr_scheduler.StepLR(optimizer, 0)
    with pytest.raises(treadle.ArgumentError, match="start_factor must be in"):
        lr_scheduler.LinearLR(optimizer, 0.0)
    with pytest.raises(treadle.ArgumentError, match="give total_steps"):
        lr_scheduler.OneCycleLR(optimizer, 0.1)
    with pytest.raises(treadle.ArgumentError, match="needs an optimiser with momentum"):
        lr_scheduler.OneCycleLR(treadle.optim.Adagrad([made()[0]]), 0.1, total_steps=5)
    with pytest.raises(treadle.ArgumentError, match="2 schedules need 1 milestones, found 2"):
        lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.StepLR(optimizer, 1)] * 2, milestones=[1, 2]
        )
    with pytest.raises(treadle.ArgumentError, match="lacks base_lrs"):
        lr_scheduler.StepLR(optimizer, 1).load_state_dict({"last_epoch": 1})
    with pytest.raises(treadle.ArgumentError, match="mode must be one of"):
        lr_scheduler.ReduceLROnPlateau(optimizer, "least")  # type: ignore[arg-type]
