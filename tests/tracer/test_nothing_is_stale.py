"""What a jitted function reads or makes outside of tensors is never that of an earlier call."""

from __future__ import annotations

import argparse
import copy
import pickle
import random
from collections import ChainMap, UserDict, deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


@pytest.mark.parametrize("make", [SimpleNamespace, argparse.Namespace])
def test_the_values_of_a_namespace_are_guarded_and_its_tensors_are_state(
    make: Callable[..., Any],
) -> None:
    options = make(rate=0.5, count=2, weight=treadle.ones(2))

    def scaled(x: Tensor) -> Tensor:
        options.weight = options.weight + 1
        return x * options.rate * options.count + options.weight

    jitted = treadle.jit(scaled)
    x = treadle.ones(2)
    np.testing.assert_array_equal(jitted(x), [3.0, 3.0])
    np.testing.assert_array_equal(jitted(x), [4.0, 4.0])
    options.rate = 1.0
    np.testing.assert_array_equal(jitted(x), [6.0, 6.0])
    options.weight = treadle.zeros(2)
    np.testing.assert_array_equal(jitted(x), [3.0, 3.0])
    np.testing.assert_array_equal(options.weight, [1.0, 1.0])


@pytest.mark.parametrize("make", [UserDict, ChainMap])
def test_the_mappings_of_the_standard_library_are_guarded(make: Callable[..., Any]) -> None:
    options = make({"rate": 0.5})
    jitted = treadle.jit(lambda x: x * options["rate"])
    np.testing.assert_array_equal(jitted(treadle.ones(2)), [0.5, 0.5])
    options["rate"] = 2.0
    np.testing.assert_array_equal(jitted(treadle.ones(2)), [2.0, 2.0])


def test_floats_of_a_deque_among_the_arguments_are_guarded() -> None:
    jitted = treadle.jit(lambda x, history: x * history[0])
    for value in (2.0, 3.0):
        np.testing.assert_array_equal(jitted(treadle.ones(2), deque([value])), [value] * 2)


def test_functions_made_by_exec_are_followed() -> None:
    names: dict[str, Any] = {}
    exec("K = 2\ndef helper(x): return x * K\ndef f(x): return helper(x)", names)
    jitted = treadle.jit(names["f"])
    np.testing.assert_array_equal(jitted(treadle.ones(2)), [2.0, 2.0])
    names["K"] = 5
    np.testing.assert_array_equal(jitted(treadle.ones(2)), [5.0, 5.0])


@pytest.mark.parametrize(
    "made",
    [
        lambda x: lambda: x,
        lambda x: (y for y in (x, x)),
        lambda x: map(abs, [x]),
        lambda x: iter([x]),
        lambda x: {x + 1},
        lambda x: x.sum,
    ],
)
def test_a_result_that_would_keep_the_first_calls_tensors_is_refused(
    made: Callable[[Tensor], Any],
) -> None:
    with pytest.raises(treadle.TraceError, match="return") as raised:
        treadle.jit(lambda x: made(x))(treadle.ones(2))
    assert __file__ in str(raised.value)


def test_a_closure_over_an_argument_cannot_be_stored() -> None:
    stored: list[Any] = []

    def keep(x: Tensor) -> Tensor:
        stored.append(lambda: x)
        return x

    with pytest.raises(treadle.TraceError, match=r"inside stored\[0\]"):
        treadle.jit(keep)(treadle.ones(2))
    assert stored == []


class Note:
    """An object that is no container."""

    def __init__(self, shared: list[int]) -> None:
        self.marks = [1]
        self.shared = shared


def test_an_object_that_the_function_makes_is_another_one_at_each_call() -> None:
    shared, other = [7], [7]
    jitted = treadle.jit(lambda x, shared: (Note(shared), {1, 2}))
    note, numbers = jitted(treadle.ones(1), shared)
    note.marks.append(2)
    numbers.clear()
    again, afresh = jitted(treadle.ones(1), other)
    assert again is not note
    assert again.marks == [1]
    assert afresh == {1, 2}
    assert note.shared is shared
    assert again.shared is other


@pytest.mark.parametrize(
    "draw", [random.Random(1).random, np.random.RandomState(0).normal], ids=["python", "numpy"]
)
def test_draws_from_a_generator_of_ones_own_are_refused(draw: Callable[[], float]) -> None:
    generator = draw.__self__  # type: ignore[attr-defined]
    name = draw.__name__
    before = draw()
    with pytest.raises(treadle.TraceError, match="draws random numbers"):
        treadle.jit(lambda x: x * getattr(generator, name)())(treadle.ones(1))
    assert draw() != before


def test_a_numpy_array_that_the_function_changes_is_an_error_and_is_put_back() -> None:
    counts = np.zeros(3, np.float32)

    def count(x: Tensor) -> Tensor:
        counts[0] += 1
        return x + counts

    with pytest.raises(treadle.TraceError, match="changes the NumPy array counts in place"):
        treadle.jit(count)(treadle.ones(3))
    np.testing.assert_array_equal(counts, [0, 0, 0])


@treadle.jit
def doubled(x: Tensor) -> Tensor:
    return x * 2


class Scaler:
    """Has a jitted method as an attribute."""

    def __init__(self) -> None:
        self.factor = treadle.tensor(2.0)
        self.run = treadle.jit(self.scale)

    def scale(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_a_jitted_function_is_copied_and_pickled_as_a_function_is() -> None:
    assert copy.deepcopy(doubled) is doubled
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    scaler = Scaler()
    other = copy.deepcopy(scaler)
    other.factor.fill_(5.0)
    np.testing.assert_array_equal(scaler.run(treadle.ones(1)), [2.0])
    np.testing.assert_array_equal(other.run(treadle.ones(1)), [5.0])
