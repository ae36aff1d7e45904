"""What a loop or a branch reads and writes outside of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bodies import arrays, assert_same

import treadle
from treadle import nn


class Statistics:
    """A running mean, changed in place, and a count."""

    def __init__(self) -> None:
        self.mean = treadle.zeros((3,))
        self.count = treadle.tensor(0)

    def __call__(self, x: Any) -> Any:
        with treadle.no_grad():
            self.mean.copy_(self.mean * 0.9 + x.mean(axis=0) * 0.1)
            self.count += 1
        return x - self.mean


def run_scan(statistics: Statistics, xs: Any) -> Any:
    return treadle.scan(lambda c, x: (c + statistics(x).sum(), statistics.count * 1), 0.0, xs)


def run_while(statistics: Statistics, xs: Any) -> Any:
    return treadle.while_loop(
        lambda c: (c < 3) & (statistics.count < 100),
        lambda c: c + (statistics(xs[0]) * 0 + 1).max(),
        0.0,
    )


def run_cond(statistics: Statistics, xs: Any) -> Any:
    return [
        treadle.cond(x.sum() > 0, lambda x=x: statistics(x).sum(), lambda x=x: x.sum()) for x in xs
    ]


def run_remat(statistics: Statistics, xs: Any) -> Any:
    return treadle.remat(statistics)(xs[0])


@pytest.mark.parametrize("run", [run_scan, run_while, run_cond, run_remat])
def test_state_written_inside_is_carried(run: Any) -> None:
    (xs,) = arrays((5, 4, 3), dtype=np.float32)
    eager, compiled = Statistics(), Statistics()
    jitted = treadle.jit(run)
    for _ in range(2):
        assert_same(jitted(compiled, xs), run(eager, xs), 1e-5)
        assert_same((compiled.mean, compiled.count), (eager.mean, eager.count), 1e-5)


def test_state_of_a_loop_inside_a_loop() -> None:
    (xs,) = arrays((3, 2, 4, 3), dtype=np.float32)

    def run(statistics: Statistics, xs: Any) -> Any:
        return treadle.scan(lambda c, rows: (run_scan(statistics, rows)[0] + c, c), 0.0, xs)

    eager, compiled = Statistics(), Statistics()
    assert_same(treadle.jit(run)(compiled, xs), run(eager, xs), 1e-5)
    assert_same((compiled.mean, compiled.count), (eager.mean, eager.count), 1e-5)


def test_a_part_of_a_tensor_from_outside_is_written() -> None:
    def run(log: Any, xs: Any) -> Any:
        def body(n: Any, x: Any) -> Any:
            log[1] = x
            log[0] += x
            return n + 1, None

        return treadle.scan(body, 0, xs)[0]

    (xs,) = arrays((4, 3))
    eager, compiled = treadle.zeros((2, 3), dtype=xs.dtype), treadle.zeros((2, 3), dtype=xs.dtype)
    run(eager, xs)
    treadle.jit(run)(compiled, xs)
    assert_same(compiled, eager)


def test_random_numbers_of_a_loop_are_those_of_plain_python() -> None:
    def run(generator: Any, x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            noise = treadle.randn(2, generator=generator)
            return c + noise, noise

        return treadle.scan(body, x, None, length=4)

    x = treadle.zeros((2,))
    eager, compiled = treadle.Generator(3), treadle.Generator(3)
    jitted = treadle.jit(run)
    first = jitted(compiled, x)
    assert_same(first, run(eager, x), 1e-6)
    again = jitted(compiled, x)
    assert_same(again, run(eager, x), 1e-6)
    rows = np.concatenate([first[1].numpy(), again[1].numpy()])
    assert len(np.unique(rows)) == rows.size


def test_training_steps_in_a_loop() -> None:
    """Parameters that the body changes are carries: as many steps of SGD as in plain Python."""

    def train(model: Any, xs: Any, ys: Any) -> Any:
        def body(total: Any, batch: Any) -> Any:
            x, y = batch
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            with treadle.no_grad():
                for p in model.parameters():
                    p -= p.grad * 0.1
                    p.grad = None
            return total + loss.detach(), loss.detach()

        return treadle.scan(body, 0.0, (xs, ys))

    xs, ys = arrays((6, 8, 4), (6, 8, 2), dtype=np.float32)
    models = [nn.Linear(4, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    eager = train(models[0], xs, ys)
    assert_same(treadle.jit(train)(models[1], xs, ys), eager, 1e-5)
    assert_same(list(models[1].parameters()), list(models[0].parameters()), 1e-5)


def test_gradients_reach_what_the_body_reads_from_outside() -> None:
    w, xs = arrays((3, 3), (4, 3))
    w.requires_grad_()

    def loss(xs: Any) -> Any:
        return treadle.scan(lambda h, x: (treadle.tanh(h @ w + x), h.sum()), xs[0], xs)[1].sum()

    loss(xs).backward()
    eager, w.grad = w.grad, None

    @treadle.jit
    def step(xs: Any) -> Any:
        value = loss(xs)
        value.backward()
        return value

    step(xs)
    assert_same(w.grad, eager)


def test_a_gradient_inside_a_body() -> None:
    def run(xs: Any) -> Any:
        inner = treadle.grad(lambda x, w: (treadle.sin(x) * w).sum())
        return treadle.scan(lambda w, x: (w - 0.1 * inner(x, w), inner(x, w)), xs[0], xs)

    (xs,) = arrays((4, 3))
    assert_same(treadle.jit(run)(xs), run(xs))
    outer = treadle.grad(lambda xs: run(xs)[0].sum())
    assert_same(treadle.jit(outer)(xs), outer(xs))


def test_detached_values_pass_no_gradient() -> None:
    def loss(x: Any, xs: Any) -> Any:
        return treadle.scan(lambda c, row: (c * row + c.detach(), c), x, xs)[0].sum()

    x, xs = arrays((3,), (4, 3))
    gradient = treadle.grad(loss)
    assert_same(treadle.jit(gradient)(x, xs), gradient(x, xs))


def test_what_requires_grad_is_known_outside() -> None:
    found: list[tuple[bool, bool]] = []

    def run(w: Any, xs: Any) -> Any:
        with_w = treadle.scan(lambda h, x: (h * w + x, x), xs[0], xs)
        found.append((with_w[0].requires_grad, with_w[1].requires_grad))
        return with_w[0].sum()

    w, xs = arrays((3,), (4, 3))
    treadle.jit(treadle.grad(run))(w, xs)
    assert found == [(True, False)]
