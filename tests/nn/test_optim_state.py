"""Optimisers' saved state, clipping, averages, and where a penalty can stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.nn.utils import clip_grad_norm_, clip_grad_value_

MAKERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: treadle.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: treadle.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: treadle.optim.AdamW(p, lr=0.1),
    "rmsprop": lambda p: treadle.optim.RMSprop(p, momentum=0.5, centered=True),
    "adagrad": lambda p: treadle.optim.Adagrad(p, lr=0.1, lr_decay=0.1),
    "lion": lambda p: treadle.optim.Lion(p, lr=0.1, weight_decay=0.1),
}


def params(count: int = 2) -> list[Any]:
    rng = np.random.default_rng(0)
    return [treadle.tensor(rng.normal(size=(3, n + 1)), requires_grad=True) for n in range(count)]


def descend(ps: list[Any], optimizer: Any, steps: int) -> None:
    @treadle.jit
    def step() -> None:
        optimizer.zero_grad()
        sum((((p - 1) ** 2).sum() for p in ps[1:]), ((ps[0] - 1) ** 2).sum()).backward()
        optimizer.step()

    for _ in range(steps):
        step()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_resumed_run_is_bitwise_the_one_that_went_on(make: Any) -> None:
    ps = params()
    optimizer = make(ps)
    descend(ps, optimizer, 3)
    saved = optimizer.state_dict()
    copied = {
        "state": {
            n: {k: None if v is None else np.array(v) for k, v in s.items()}
            for n, s in saved["state"].items()
        },
        "param_groups": saved["param_groups"],
    }
    others = [treadle.tensor(np.array(p.detach()), requires_grad=True) for p in ps]
    resumed = make(others)
    resumed.load_state_dict(copied)
    descend(ps, optimizer, 3)
    descend(others, resumed, 3)
    for p, other in zip(ps, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), other.numpy())


def test_a_state_dict_is_laid_out_as_in_pytorch() -> None:
    a, b = params()
    optimizer = treadle.optim.Adam([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.25)
    saved = optimizer.state_dict()
    assert [g["params"] for g in saved["param_groups"]] == [[0], [1]]
    assert [g["lr"] for g in saved["param_groups"]] == [0.25, 0.5]
    assert saved["param_groups"][0]["betas"] == (0.9, 0.999)
    assert set(saved["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    optimizer = treadle.optim.Adam(params(), lr=0.1)
    other = treadle.optim.Adam(params(), lr=0.2)
    saved = other.state_dict()
    saved["state"][1]["exp_avg"] = np.zeros(5)
    with pytest.raises(treadle.ShapeError, match="exp_avg of parameter 1 has shape"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"].item() == 0.1
    with pytest.raises(treadle.ArgumentError, match=r"groups of \[2\] parameters.*of \[1\]"):
        optimizer.load_state_dict(treadle.optim.Adam(params(1)).state_dict())
    with pytest.raises(treadle.ArgumentError, match="lacks betas"):
        optimizer.load_state_dict(treadle.optim.SGD(params()).state_dict())
    with pytest.raises(treadle.ArgumentError, match="lacks"):
        optimizer.load_state_dict({})


@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_the_norm_of_all_gradients_together_is_clipped(order: float, jitted: bool) -> None:
    ps = params()

    def clip(limit: Any) -> Any:
        for p in ps:
            p.grad = None
        ((ps[0] ** 2).sum() + (3 * ps[1]).sum()).backward()
        return clip_grad_norm_(ps, limit, order)

    run = treadle.jit(clip) if jitted else clip
    flat = np.concatenate([2 * np.array(ps[0].detach()).ravel(), np.full(6, 3.0)])
    norm = np.linalg.norm(flat, order)
    for limit in (0.5, 100.0):
        np.testing.assert_allclose(run(limit).item(), norm, rtol=1e-12)
        got = np.concatenate([np.array(p.grad).ravel() for p in ps])
        np.testing.assert_allclose(got, flat * min(1.0, limit / (norm + 1e-6)), rtol=1e-12)


def test_a_norm_that_is_not_finite_can_be_refused_and_changes_nothing() -> None:
    (p,) = params(1)
    (p * float("inf")).sum().backward()
    with pytest.raises(treadle.CheckError, match="norm of the gradients"):
        clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert np.isinf(np.array(p.grad)).all()


def test_a_bound_below_0_is_refused_and_changes_nothing() -> None:
    (p,) = params(1)
    p.sum().backward()
    with pytest.raises(treadle.ArgumentError, match=r"max_norm must be at least 0, found -1\.0"):
        clip_grad_norm_(p, -1.0)
    with pytest.raises(treadle.ArgumentError, match=r"clip_value must be at least 0, found -1\.0"):
        clip_grad_value_(p, -1.0)
    assert (np.array(p.grad) == 1).all()


def test_values_of_gradients_are_clipped_in_place() -> None:
    (p,) = params(1)
    (p * treadle.tensor([[3.0], [-4.0], [0.5]], dtype=treadle.float64)).sum().backward()
    held = p.grad
    clip_grad_value_(p, 1.0)
    np.testing.assert_array_equal(np.array(held).ravel(), [1.0, -1.0, 0.5])


def test_an_average_follows_its_formula_inside_a_jitted_step() -> None:
    ps = params()
    ema = treadle.optim.ExponentialMovingAverage(ps, decay=0.75)
    wanted = [np.array(p.detach()) for p in ps]

    @treadle.jit
    def step() -> None:
        for p in ps:
            with treadle.no_grad():
                p.mul_(0.5)
        ema.update()

    for _ in range(4):
        step()
        wanted = [0.75 * w + 0.25 * np.array(p.detach()) for w, p in zip(wanted, ps, strict=True)]
    for average, want in zip(ema.averages, wanted, strict=True):
        np.testing.assert_allclose(np.array(average), want, rtol=1e-12)
    own = np.array(ps[0].detach())
    with pytest.raises(KeyError), ema.applied():
        np.testing.assert_array_equal(np.array(ps[0].detach()), np.array(ema.averages[0]))
        raise KeyError
    np.testing.assert_array_equal(np.array(ps[0].detach()), own)


def test_a_number_changed_by_a_method_is_changed() -> None:
    optimizer = treadle.optim.SGD(params(), lr=0.5)
    optimizer.param_groups[0]["lr"].mul_(0.5)
    assert optimizer.param_groups[0]["lr"].item() == 0.25


def twenty_steps(make: Callable[[Any], Any], penalty: float) -> Any:
    ps = params()
    optimizer = make(ps)

    @treadle.jit
    def step() -> None:
        optimizer.zero_grad()
        loss = sum((((p - 1) ** 4).sum() for p in ps[1:]), ((ps[0] - 1) ** 4).sum())
        loss = loss + penalty / 2 * sum(((p * p).sum() for p in ps[1:]), (ps[0] * ps[0]).sum())
        loss.backward()
        optimizer.step()

    for _ in range(20):
        step()
    return np.concatenate([np.array(p.detach()).ravel() for p in ps])


def test_the_decay_of_sgd_is_the_squared_norm_in_the_loss_and_that_of_adamw_is_not() -> None:
    sgd, adam, adamw = treadle.optim.SGD, treadle.optim.Adam, treadle.optim.AdamW
    in_loss = twenty_steps(lambda p: sgd(p, lr=0.01), 0.1)
    in_optimiser = twenty_steps(lambda p: sgd(p, lr=0.01, weight_decay=0.1), 0.0)
    np.testing.assert_allclose(in_loss, in_optimiser, rtol=1e-12)
    in_loss = twenty_steps(lambda p: adam(p, lr=0.01), 0.1)
    np.testing.assert_allclose(
        in_loss, twenty_steps(lambda p: adam(p, lr=0.01, weight_decay=0.1), 0.0), rtol=1e-10
    )
    decoupled = twenty_steps(lambda p: adamw(p, lr=0.01, weight_decay=0.1), 0.0)
    assert np.abs(in_loss - decoupled).max() > 1e-3
