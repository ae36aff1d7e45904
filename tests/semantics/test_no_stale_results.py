"""Nothing that shaped a trace changes in silence: jitted code follows what plain Python does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from stale_cases import CASES, Case, restore_globals

import treadle
from treadle import Tensor


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)
    restore_globals()


def x3() -> Tensor:
    return treadle.tensor(np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_change_of_anything_that_shaped_a_trace_is_followed(make: Callable[[], Case]) -> None:
    f, change = make()
    jitted = treadle.jit(f)
    before = f(x3()).numpy().copy()
    for _ in range(2):
        np.testing.assert_array_equal(jitted(x3()), before)
    assert len(jitted.specializations) == 1
    change()
    after = f(x3()).numpy().copy()
    assert not np.array_equal(before, after), "a case must change the result"
    for _ in range(2):
        np.testing.assert_array_equal(jitted(x3()), after)
    assert len(jitted.specializations) <= 2
