"""Views alias as in NumPy: random programs over views and writes, eager, jitted and in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from view_programs import Program, laid_out, programs, run

import treadle


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


def by_numpy(program: Program) -> tuple[list[Any], list[Any]]:
    """The arrays after one run, and after a second on what the first left behind."""
    given = program.arrays()
    first = [x.copy() for x in run(program, given, np.transpose, laid_out)]
    return first, [x.copy() for x in run(program, given, np.transpose, laid_out)]


def check(program: Program, step: Callable[[list[Any]], list[Any]]) -> None:
    """Both runs as in NumPy, results and what was given."""
    given = [treadle.tensor(a) for a in program.arrays()]
    for expected in by_numpy(program):
        found = step(given)
        for one, other in zip([*found, *given], [*expected, *expected], strict=False):
            np.testing.assert_array_equal(one.numpy(), other)
        for tensor, other in zip(given, expected, strict=False):
            np.testing.assert_array_equal(tensor.numpy(), other)


def plain(program: Program) -> Callable[[list[Any]], list[Any]]:
    return lambda given: run(program, given, treadle.permute_dims)


def check_arguments(program: Program) -> None:
    step = plain(program)
    check(program, step)
    check(program, treadle.jit(step))


def check_state(program: Program) -> None:
    held: list[Any] = []
    step = treadle.jit(lambda: run(program, held, treadle.permute_dims))

    def on(given: list[Any]) -> list[Any]:
        held[:] = given
        found: list[Any] = step()
        return found

    check(program, on)


def check_gradients(program: Program) -> None:
    """The gradient of a sum of squares of all arrays, through the writes."""

    def loss(*given: Any) -> Any:
        copies = [x * 1.0 for x in given]
        arrays = run(program, copies, treadle.permute_dims)
        total = (arrays[0] * arrays[0]).sum()
        for x in arrays[1:]:
            total = total + (x * x).sum()
        return total

    arrays = program.arrays()
    numbers = tuple(range(len(arrays)))
    expected = treadle.grad(loss, argnums=numbers)(*map(treadle.tensor, arrays))
    for f in (treadle.grad(treadle.jit(loss), numbers), treadle.jit(treadle.grad(loss, numbers))):
        for one, other in zip(f(*map(treadle.tensor, arrays)), expected, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_result_lies_row_by_row_so_that_its_reshape_is_a_view() -> None:
    def f(x: Any) -> Any:
        y = treadle.permute_dims(x, (1, 0)) * 2
        flat = y.reshape(4)
        y += 1
        return flat

    x = treadle.tensor([[1.0, 2.0], [3.0, 4.0]])
    for g in (f, treadle.jit(f)):
        np.testing.assert_array_equal(g(x), [3, 7, 5, 9])


@settings(max_examples=40)
@given(programs())
def test_random_programs_of_views_and_writes_equal_numpy_on_arguments(program: Program) -> None:
    check_arguments(program)


@settings(max_examples=25)
@given(programs())
def test_random_programs_of_views_and_writes_equal_numpy_on_state(program: Program) -> None:
    check_state(program)


@settings(max_examples=20)
@given(programs(statements=5))
def test_gradients_flow_through_random_writes_alike_eager_and_jitted(program: Program) -> None:
    check_gradients(program)
