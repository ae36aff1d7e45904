"""Draws inside of loops and branches: the generator is a carry, eager and compiled alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, random
from treadle.nn.functional import dropout

X = treadle.tensor(np.random.default_rng(0).standard_normal((5, 4, 8)).astype(np.float32))


def scanned(x: Tensor) -> Tensor:
    def body(carry: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        carry = dropout(treadle.tanh(carry + row), 0.3)
        return carry, carry * treadle.rand(8)

    return treadle.scan(body, treadle.zeros((4, 8)), x)[1]


def branched(x: Tensor) -> Tensor:
    """One branch draws once, the other twice."""

    def once(y: Tensor) -> Tensor:
        return dropout(y, 0.5)

    def twice(y: Tensor) -> Tensor:
        return y * treadle.rand_like(y) * treadle.rand_like(y)

    first = treadle.cond(x[0, 0, 0] > 0, once, twice, x)
    second = treadle.cond(x[0, 0, 0] > 100, once, twice, x)
    return first + second * treadle.rand(8)


def repeated(x: Tensor) -> Tensor:
    def go_on(carry: tuple[Tensor, Tensor]) -> Tensor:
        return carry[0] < 4

    def body(carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        n, y = carry
        return n + 1, y + treadle.rand_like(y)

    return treadle.while_loop(go_on, body, (treadle.tensor(0), x), max_steps=10)[1]


def remembered(x: Tensor) -> Tensor:
    """Computed again for the gradient, with the same mask."""
    inner = treadle.remat(lambda y: dropout(treadle.exp(y) * treadle.sin(y), 0.5))
    return inner(x) * treadle.rand_like(x)


def keyed(x: Tensor) -> Tensor:
    def body(key: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        key, now = random.split(key)
        return key, row * random.uniform(now, row.shape)

    return treadle.scan(body, random.key(3), x)[1]


PROGRAMS = [scanned, branched, repeated, remembered, keyed]


def both(fn: Callable[[Tensor], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Two calls and a draw behind them, compiled and eagerly."""
    found = []
    for run in (treadle.jit(fn), fn):
        treadle.manual_seed(7)
        parts = [run(X), run(X), treadle.rand(3)]
        found.append(np.concatenate([p.numpy().reshape(-1) for p in parts]))
    return found[0], found[1]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_regions_draw_what_plain_python_draws(program: Callable[[Tensor], Tensor]) -> None:
    compiled, eager = both(program)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "program", [p for p in PROGRAMS if p is not repeated], ids=lambda p: p.__name__
)
def test_their_gradients_are_those_of_the_numbers_drawn(
    program: Callable[[Tensor], Tensor],
) -> None:
    compiled, eager = both(treadle.grad(lambda x: (program(x) ** 2).sum()))
    np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-5)


def test_a_loop_keeps_the_number_of_each_draw_instead_of_its_mask() -> None:
    def body(carry: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        carry = dropout(treadle.tanh(carry + row), 0.3)
        return carry, carry

    start = treadle.zeros((4, 8))
    slope = treadle.jit(treadle.grad(lambda x: (treadle.scan(body, start, x)[1] ** 2).sum()))
    text = slope.ir("fuse", X)
    forth, back = (line for line in text.splitlines() if "= scan(" in line)
    assert "bool[" not in forth
    assert "bool[" not in back
    assert text.count("random_uniform(") == 2
