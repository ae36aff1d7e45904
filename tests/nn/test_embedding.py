"""embedding: rows by number, and their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.nn import functional

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((50, 96)).astype(np.float32)
NUMBERS = RNG.integers(0, 50, (40, 64))


def gradient(numbers: Any, table: Any, ct: Any, padding: int | None = None) -> Any:
    def loss(table: Any) -> Any:
        return treadle.sum(functional.embedding(numbers, table, padding) * ct)

    return treadle.grad(loss)(table)


def test_the_gradient_is_the_same_bits_for_any_number_of_threads() -> None:
    ct = RNG.standard_normal((40, 64, 96)).astype(np.float32)
    run = treadle.jit(gradient)
    operands = [treadle.tensor(a) for a in (NUMBERS, TABLE, ct)]
    found = []
    for threads in (1, 2, 3):
        with treadle.num_threads(threads):
            found.append(run(*operands).numpy().tobytes())
    assert len(set(found)) == 1
    wanted = np.zeros_like(TABLE)
    for number, row in zip(NUMBERS.reshape(-1), ct.reshape(-1, 96), strict=True):
        wanted[number] += row
    np.testing.assert_array_equal(np.frombuffer(found[0], np.float32).reshape(50, 96), wanted)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("padding", [3, -47])
def test_the_padding_row_gets_no_gradient(jitted: bool, padding: int) -> None:
    ct = RNG.standard_normal((40, 64, 96)).astype(np.float32)
    numbers = np.where(NUMBERS == 3, NUMBERS - 50, NUMBERS)  # the row from the end as well
    run = treadle.jit(gradient) if jitted else gradient
    given = [treadle.tensor(a) for a in (numbers, TABLE, ct)]
    without, with_all = run(*given, padding).numpy(), run(*given).numpy()
    np.testing.assert_array_equal(without[3], 0)
    np.testing.assert_array_equal(np.delete(without, 3, 0), np.delete(with_all, 3, 0))


def test_a_number_out_of_range_changes_nothing() -> None:
    table = treadle.tensor(TABLE)
    count = treadle.zeros((1,))

    @treadle.jit
    def step(numbers: Any) -> Any:
        count[...] = count + 1
        with treadle.no_grad():
            table.copy_(table * 2)
        return functional.embedding(numbers, table)

    with pytest.raises(treadle.IndexFault, match="axis 0 of size 50, found 50"):
        step(treadle.tensor([1, 50]))
    np.testing.assert_array_equal(table.numpy(), TABLE)
    np.testing.assert_array_equal(count.numpy(), 0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: functional.embedding(treadle.ones((2,)), TABLE), DTypeError, "input of embedding"),
        (lambda: functional.embedding(NUMBERS, TABLE[0]), ShapeError, r"\[rows, features\]"),
        (lambda: functional.embedding(NUMBERS, TABLE, 50), ArgumentError, "from -50 to 49"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_table_that_is_there_becomes_a_layer() -> None:
    table = treadle.tensor(np.arange(6.0).reshape(3, 2))
    state = treadle.nn.init.generator_state()
    layer = treadle.nn.Embedding.from_pretrained(table, padding_idx=1)
    assert treadle.nn.init.generator_state() == state
    assert layer(treadle.tensor([2, 0])).tolist() == [[4, 5], [0, 1]]
    assert layer.padding_idx == 1 and not layer.weight.requires_grad
    assert layer.weight.dtype == treadle.float64
    table[0] = 7.0
    assert layer.weight.tolist()[0] == [7, 7]
    assert treadle.nn.Embedding.from_pretrained(table.numpy(), freeze=False).weight.requires_grad
    with pytest.raises(treadle.ShapeError, match="takes a table"):
        treadle.nn.Embedding.from_pretrained(treadle.zeros(3))
