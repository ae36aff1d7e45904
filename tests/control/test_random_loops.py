"""Random loops and branches, one in the other, do what plain Python does, derivatives included."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bodies import assert_same, scalar

import treadle

ROWS, WIDTH = 3, 4
Values = list[Any]


class Maker:
    """Draws programs: functions from a list of `ROWS` x `WIDTH` tensors to one."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def of(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def pick(self, count: int) -> int:
        return int(self.rng.integers(count))

    def program(self, inputs: int, depth: int) -> Callable[[Values], Any]:
        """Some instructions, each of earlier values; the last one's value."""
        steps: list[tuple[Callable[[Values], Any], None]] = []
        for n in range(self.rng.integers(2, 5)):
            kinds = [self.unary, self.binary, self.product, self.row_sum, self.pieces]
            if depth > 0:
                kinds += [self.loop, self.loop, self.branch, self.turns, self.again]
            steps.append((self.of(*kinds)(inputs + n, depth - 1), None))

        def run(values: Values) -> Any:
            known = list(values)
            for step, _ in steps:
                known.append(step(known))
            return known[-1]

        return run

    def unary(self, count: int, depth: int) -> Callable[[Values], Any]:
        op, a = self.of(treadle.tanh, treadle.sin, treadle.sigmoid), self.pick(count)
        return lambda v: op(v[a])

    def binary(self, count: int, depth: int) -> Callable[[Values], Any]:
        op = self.of(
            lambda x, y: x + y, lambda x, y: x * y * 0.5, lambda x, y: x - y, treadle.maximum
        )
        a, b = self.pick(count), self.pick(count)
        return lambda v: op(v[a], v[b])

    def product(self, count: int, depth: int) -> Callable[[Values], Any]:
        a, b = self.pick(count), self.pick(count)
        return lambda v: treadle.tanh(v[a] @ v[b].mT @ v[b])

    def row_sum(self, count: int, depth: int) -> Callable[[Values], Any]:
        a, b = self.pick(count), self.pick(count)
        return lambda v: v[a] * 0.3 + v[b].sum(axis=1, keepdims=True) * 0.1

    def pieces(self, count: int, depth: int) -> Callable[[Values], Any]:
        a = self.pick(count)
        return lambda v: treadle.concat([v[a][:, 2:], v[a][:, :2] * 0.5], axis=1)

    def loop(self, count: int, depth: int) -> Callable[[Values], Any]:
        """A scan whose body is a program of the carry, the row, and values from outside."""
        inner, row = self.program(count + 2, depth), self.program(count + 2, 0)
        start, rows = self.pick(count), [self.pick(count) for _ in range(self.rng.integers(1, 5))]
        how = {"reverse": bool(self.of(True, False)), "remat": bool(self.of(True, False, False))}
        last = self.of(True, False)

        def run(v: Values) -> Any:
            def body(c: Any, x: Any) -> Any:
                return inner([*v, c, x]), row([*v, c, x])

            carry, ys = treadle.scan(body, v[start], treadle.stack([v[r] for r in rows]), **how)
            return carry if last else ys.mean(axis=0)

        return run

    def branch(self, count: int, depth: int) -> Callable[[Values], Any]:
        yes, no, a = self.program(count, depth), self.program(count, depth), self.pick(count)
        return lambda v: treadle.cond(v[a].sum() > 0.1, lambda: yes(v), lambda: no(v))

    def turns(self, count: int, depth: int) -> Callable[[Values], Any]:
        """A while_loop that ends by a count that the data give."""
        inner, a, b = self.program(count + 1, depth), self.pick(count), self.pick(count)

        def run(v: Values) -> Any:
            limit = (v[b].sum() > 0.0).astype(treadle.int64) * 2 + 1

            def body(c: Any) -> Any:
                return inner([*v, c[0]]), c[1] + 1

            return treadle.while_loop(lambda c: c[1] < limit, body, (v[a], 0), max_steps=4)[0]

        return run

    def again(self, count: int, depth: int) -> Callable[[Values], Any]:
        inner = treadle.remat(self.program(count, depth))
        return lambda v: inner(v)


@pytest.mark.parametrize("seed", range(40))
def test_random_loops_do_what_plain_python_does(seed: int) -> None:
    maker = Maker(seed)
    run = maker.program(2, depth=2)
    values = [treadle.tensor(0.7 * maker.rng.standard_normal((ROWS, WIDTH))) for _ in range(2)]

    def f(x: Any, y: Any) -> Any:
        return run([x, y])

    assert_same(treadle.jit(f)(*values), f(*values), 1e-9)
    gradient = treadle.grad(scalar(f), (0, 1))
    assert_same(treadle.jit(gradient)(*values), gradient(*values), 1e-7)


@pytest.mark.parametrize("seed", range(100, 108))
def test_random_loops_have_second_derivatives(seed: int) -> None:
    maker = Maker(seed)
    run = maker.program(2, depth=1)
    values = [treadle.tensor(0.7 * maker.rng.standard_normal((ROWS, WIDTH))) for _ in range(2)]
    first = treadle.grad(scalar(lambda x, y: run([x, y])), (0, 1))
    second = treadle.grad(scalar(lambda x, y: first(x, y)), (0, 1))
    assert_same(treadle.jit(second)(*values), second(*values), 1e-6)
