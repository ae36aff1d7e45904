"""What an eager history holds on to, and when one that keeps growing is told of."""

from __future__ import annotations

import gc
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import treadle
from treadle.tracer import growth


@pytest.fixture(autouse=True)
def _forget_what_was_told() -> Iterator[None]:
    growth._told.clear()
    yield
    growth._told.clear()


def told(fn: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fn()
    return [w for w in caught if issubclass(w.category, treadle.HistoryWarning)]


def test_ten_thousand_updates_of_a_detached_tensor_use_flat_memory() -> None:
    w = treadle.ones(100).requires_grad_()

    def update(times: int) -> int:
        nonlocal w
        for _ in range(times):
            w = (w - 0.001 * w).detach().requires_grad_()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        start = update(500)
        end = update(10_000)
    finally:
        tracemalloc.stop()
    assert end - start < 2_000  # bytes; one array more a step would be 4,000,000


def test_backward_frees_the_history_of_a_step() -> None:
    w = treadle.ones(100).requires_grad_()

    def train(times: int) -> int:
        for _ in range(times):
            loss = treadle.sum((w * w - 1) ** 2)
            loss.backward()
            with treadle.no_grad():
                w.copy_(w - 0.001 * w.grad)
            w.grad = None
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        start = train(50)
        end = train(500)
    finally:
        tracemalloc.stop()
    assert end - start < 5_000


def losses(times: int) -> Iterator[Any]:
    w = treadle.ones(3).requires_grad_()
    for _ in range(times):
        yield treadle.sum(w * w)


def test_a_loss_added_up_over_steps_is_told_of_once_with_its_line() -> None:
    def train() -> None:
        total: Any = 0.0
        for loss in losses(350):
            loss.backward()
            total = total + loss

    (warning,) = told(train)
    assert warning.filename == __file__
    assert warning.lineno == train.__code__.co_firstlineno + 4
    assert "loss.detach()" in str(warning.message)
    assert told(train) == []


def test_a_loss_added_up_in_place_before_backward_is_told_of() -> None:
    def train() -> None:
        total = treadle.tensor(0.0)
        for loss in losses(350):
            total += loss
            loss.backward()

    assert len(told(train)) == 1


def test_a_loss_of_compiled_calls_is_told_of() -> None:
    w = treadle.ones(3).requires_grad_()
    step = treadle.jit(lambda: treadle.sum(w * w))

    def train() -> None:
        total: Any = 0.0
        for _ in range(350):
            loss = step()
            loss.backward()
            total = total + loss

    assert len(told(train)) == 1


def test_parameters_replaced_by_tracked_ones_are_told_of() -> None:
    def train() -> None:
        w: Any = treadle.ones(1).requires_grad_()
        for _ in range(growth.LONG + 10):
            w = w - 0.1

    assert len(told(train)) == 1


def test_sums_of_detached_losses_and_long_recurrences_are_not_told_of() -> None:
    def train() -> None:
        total: Any = 0.0
        for loss in losses(350):
            loss.backward()
            total = total + loss.detach()

    def recurrence() -> None:
        w = treadle.ones(1).requires_grad_()
        state: Any = w
        for _ in range(1200):
            state = treadle.tanh(state * w)
        state.backward()

    assert told(train) == []
    assert told(recurrence) == []
