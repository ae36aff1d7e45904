"""Optimisers: PyTorch's update formulas, written out in NumPy and float64, and their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import treadle
from treadle.tracer.explain import set_explain

Array = npt.NDArray[np.float64]


def sgd(
    p: Array,
    grads: list[Array],
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Array:
    """torch.optim.SGD's algorithm, as its documentation gives it."""
    buffer = None
    for grad in grads:
        g = (-grad if maximize else grad) + weight_decay * p
        if momentum:
            buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        p = p - lr * g
    return p


def adam(
    p: Array,
    grads: list[Array],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled: bool = False,
) -> Array:
    """torch.optim.Adam's and AdamW's algorithms, as their documentation gives them."""
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, grad in enumerate(grads, 1):
        g = -grad if maximize else grad
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = np.maximum(largest, v)
        shown = (largest if amsgrad else v) / (1 - betas[1] ** t)
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(shown) + eps)
    return p


def lion(start: Array, grads: list[Array], lr: float = 1e-4,
         betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0,
         maximize: bool = False) -> Array:  # fmt: skip
    """Algorithm 2 of Chen et al. (2023)."""
    p, m = start.copy(), np.zeros_like(start)
    for g in grads:
        g = -g if maximize else g
        update = np.sign(betas[0] * m + (1 - betas[0]) * g)
        p = p - lr * (update + weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


CASES: list[tuple[Any, Callable[..., Array], dict[str, Any]]] = [
    (treadle.optim.SGD, sgd, {"lr": 0.1}),
    (treadle.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (treadle.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (treadle.optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (treadle.optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
    (treadle.optim.Adam, adam, {}),
    (treadle.optim.Adam, adam, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3}),
    (treadle.optim.Adam, adam, {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True}),
    (treadle.optim.Adam, adam, {"lr": 0.1, "maximize": True}),
    (treadle.optim.AdamW, lambda *a, **k: adam(*a, **k, decoupled=True),
     {"lr": 0.1, "weight_decay": 0.1}),
    (treadle.optim.Lion, lion, {}),
    (treadle.optim.Lion, lion, {"lr": 0.1, "betas": (0.5, 0.8), "weight_decay": 0.3}),
    (treadle.optim.Lion, lion, {"lr": 0.1, "maximize": True}),
]  # fmt: skip


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("make", "formula", "options"), CASES)
def test_updates_follow_the_formula(
    make: Any, formula: Callable[..., Array], options: dict[str, Any], jitted: bool
) -> None:
    set_explain(False)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 3))
    grads = [rng.normal(size=(2, 3)) for _ in range(5)]
    param = treadle.tensor(start, requires_grad=True)
    optimizer = make([param], **options)

    def step(grad: Any) -> None:
        optimizer.zero_grad()
        (param * grad).sum().backward()
        optimizer.step()

    run = treadle.jit(step) if jitted else step
    for grad in grads:
        run(treadle.tensor(grad))
    set_explain(True)
    np.testing.assert_allclose(param.numpy(), formula(start, grads, **options), rtol=1e-10)


def quadratic(optimizer: Any, param: Any) -> Any:
    @treadle.jit
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = ((param - x) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("make", [treadle.optim.SGD, treadle.optim.Adam])
def test_a_schedule_never_recompiles(make: Any) -> None:
    param = treadle.tensor([1.0], requires_grad=True)
    optimizer = make([param], lr=0.1)
    step = quadratic(optimizer, param)
    x = treadle.tensor([0.0])
    for n in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 / (n + 1)
        optimizer.param_groups[0]["lr"] *= 0.5
        step(x)
    before = param.item()
    optimizer.param_groups[0]["lr"] = 0.0
    step(x)
    assert param.item() == before
    assert len(step.specializations) == 1
    assert float(optimizer.param_groups[0]["lr"]) == 0.0


def test_the_first_step_of_adam_is_the_same_program_as_the_second() -> None:
    param = treadle.tensor([1.0], requires_grad=True)
    step = quadratic(treadle.optim.Adam([param], lr=0.1), param)
    losses = [step(treadle.tensor([0.0])).item() for _ in range(30)]
    assert len(step.specializations) == 1
    assert losses[-1] < losses[0] / 10


def test_groups_have_options_of_their_own() -> None:
    a, b = (treadle.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = treadle.optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.1)
    (a + b).sum().backward()
    optimizer.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.0, 0.9], rtol=1e-6)
    optimizer.add_param_group({"params": [treadle.tensor([1.0], requires_grad=True)]})
    assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([1.0, 0.1, 0.1])


def test_parameters_without_a_gradient_stay_and_count_for_themselves() -> None:
    a, b = (treadle.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = treadle.optim.Adam([a, b], lr=0.1)
    (a * 1.0).sum().backward()
    optimizer.step()
    assert b.item() == 1 and float(optimizer.state[a]["step"]) == 1
    assert float(optimizer.state[b]["step"]) == 0


@pytest.mark.parametrize("how", ["eager", "one function", "two functions"])
def test_gradients_of_several_batches_make_the_step_of_one_large_batch(how: str) -> None:
    rng = np.random.default_rng(0)
    start, xs = rng.normal(size=(3, 2)), rng.normal(size=(3, 4, 5, 3))  # steps, batches, rows
    large, small = (treadle.tensor(start, requires_grad=True) for _ in range(2))
    optimizers = [treadle.optim.Adam([p], lr=0.1) for p in (large, small)]

    def loss(param: Any, x: Any) -> Any:
        return treadle.mean((x @ param - 1) ** 2)

    def gather(x: Any) -> None:
        (loss(small, x) / 4).backward()

    def apply() -> None:
        optimizers[1].step()
        optimizers[1].zero_grad()

    def whole(parts: list[Any]) -> None:
        for part in parts:
            gather(part)
        apply()

    if how == "two functions":
        gather, apply = treadle.jit(gather), treadle.jit(apply)
    run = treadle.jit(whole) if how == "one function" else whole
    for batches in xs:
        optimizers[0].zero_grad()
        loss(large, treadle.tensor(batches.reshape(20, 3))).backward()
        optimizers[0].step()
        run([treadle.tensor(b) for b in batches])
    np.testing.assert_allclose(small.numpy(), large.numpy(), rtol=1e-10)


def test_in_a_jitted_step_the_numbers_are_inputs_with_readable_paths() -> None:
    param = treadle.tensor([1.0], requires_grad=True)
    optimizer = treadle.optim.Adam([param], lr=0.1)
    fn = quadratic(optimizer, param).trace(treadle.tensor([0.0]))
    paths = [p.path for p in fn.params]
    assert "optimizer.param_groups[0]['lr']" in paths
    assert "optimizer.state[param]['exp_avg']" in paths


def test_mistakes_are_named() -> None:
    leaf = treadle.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"lr must be at least 0.0, found -1"):
        treadle.optim.SGD([leaf], lr=-1.0)
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        treadle.optim.SGD([leaf], nesterov=True)
    with pytest.raises(ValueError, match=r"betas\[1\]"):
        treadle.optim.Adam([leaf], betas=(0.9, 1.0))
    with pytest.raises(treadle.TreadleError, match="got no parameters"):
        treadle.optim.SGD([])
    with pytest.raises(treadle.DTypeError, match="must be a tensor, found int"):
        treadle.optim.SGD([3])
    with pytest.raises(treadle.DTypeError, match="must be a leaf"):
        treadle.optim.SGD([leaf * 2])
    with pytest.raises(treadle.TreadleError, match="in two places"):
        treadle.optim.SGD([leaf, leaf])
    with pytest.raises(TypeError, match="unknown option rate"):
        treadle.optim.SGD([{"params": leaf, "rate": 1}])
