"""Random programs that may fail: what eager execution does, or nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fault_programs import Program, history, plain, programs
from hypothesis import HealthCheck, given, settings

import treadle


def assert_alike(found: Any, expected: Any) -> None:
    """Equal structures; floats within rounding (sums are taken in another order)."""
    if isinstance(expected, list):
        assert type(found) is list
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    else:
        assert found == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs())
def test_random_programs_that_may_fail_do_what_eager_does_or_nothing(
    capsys: pytest.CaptureFixture[str], program: Program
) -> None:
    """The same error with the same words, the same prints, and all state as before the call."""
    capsys.readouterr()

    def shown() -> str:
        return capsys.readouterr().out

    treadle.set_explain(False)
    try:
        expected = history(program, plain, shown)
        for wrap in (treadle.jit, lambda f: treadle.jit(treadle.jit(f))):
            assert_alike(history(program, wrap, shown), expected)
    finally:
        treadle.set_explain(True)
