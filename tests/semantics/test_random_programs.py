"""Random programs with state, aliases, guards, composition: jitted as eager, after any change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from world_programs import GRADIENTS, READS, STATE, Program, history, plainly, programs

import treadle


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


def assert_alike(found: Any, expected: Any) -> None:
    """Equal structures; floats within rounding (sums are taken in another order)."""
    if isinstance(expected, list):
        assert type(found) is list and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    else:
        assert found == expected


def check(program: Program) -> None:
    expected = history(program, plainly)
    for wrap in (treadle.jit, lambda f: treadle.jit(treadle.jit(f))):
        assert_alike(history(program, wrap), expected)


@settings(max_examples=40)
@given(programs(STATE + READS))
def test_random_programs_over_state_and_guards_do_what_eager_does(program: Program) -> None:
    check(program)


@settings(max_examples=40)
@given(programs(READS + GRADIENTS))
def test_random_programs_over_guards_and_gradients_do_what_eager_does(program: Program) -> None:
    check(program)


@settings(max_examples=40)
@given(programs())
def test_random_programs_over_everything_do_what_eager_does(program: Program) -> None:
    check(program)
