"""Operands from a table: the same results as straight code, for kernels and for tables of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.codegen import module


def _training(x: np.ndarray[Any, Any]) -> list[Any]:
    """Two steps of Adam on weights of several sizes: contractions, sums, and one table."""
    rng = np.random.default_rng(0)
    sizes = ((5, 7), (7,), (7, 3), (3,))
    weights = [treadle.nn.Parameter(treadle.tensor(rng.standard_normal(s))) for s in sizes]
    optimizer = treadle.optim.Adam(weights, lr=0.1)

    @treadle.jit
    def step(x):
        a, b, c, d = weights
        loss = treadle.mean((treadle.tanh(x @ a + b) @ c + d) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss, x, treadle.zeros((3,))

    outs = []
    for _ in range(2):
        outs += [np.asarray(o) for o in step(treadle.tensor(x))]
    return outs + [np.asarray(w.detach()) for w in weights]


def _faulting(x: np.ndarray[Any, Any]) -> list[Any]:
    fn = treadle.jit(lambda x, i: treadle.take(treadle.exp(x), i, axis=0))
    with pytest.raises(treadle.IndexFault, match="9"):
        fn(treadle.tensor(x), treadle.tensor(np.array([9])))
    return [np.asarray(fn(treadle.tensor(x), treadle.tensor(np.array([2]))))]


@pytest.mark.parametrize("program", [_training, _faulting])
def test_a_table_of_operands_gives_what_straight_code_gives(
    program: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(1).standard_normal((4, 5))
    monkeypatch.setattr(module, "FEW", 1 << 30)
    straight = program(x)
    monkeypatch.setattr(module, "FEW", 0)
    for a, b in zip(straight, program(x), strict=True):
        assert np.array_equal(a, b)


def test_the_entry_does_not_grow_with_the_operands_of_a_long_program() -> None:
    """What it has for each kernel is two calls: LLVM's time for one long block is not linear."""

    def entry(layers: int) -> int:
        @treadle.jit
        def fn(x):
            for n in range(layers):
                x = treadle.sum(x * (n + 2), axis=1, keepdims=True) + x
            return x

        text = str(fn.ir("llvm", treadle.TensorType(treadle.float32, (40, 70))))
        body = text[text.index("@treadle_entry(") :]
        return body[: body.index("\n}")].count("\n")

    few, many = entry(200), entry(400)
    assert many - few <= 200 * 6
