"""Results and gradients are PyTorch's to 1e-10 in float64, eager and jitted: against stored values
always, against PyTorch itself where it is installed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from agreement import (
    Array,
    Case,
    Subject,
    assert_agree,
    fingerprint,
    read_records,
    run_ours,
    run_theirs,
    subjects,
    torch_or_reason,
)

SUBJECTS = {s.name: s for s in subjects()}


def chosen(recorded: bool) -> list[Any]:
    """(subject, case, jitted)"""
    return [
        pytest.param(subject, case, jitted, id=f"{subject.name}-{case.name}-{how}")
        for subject in SUBJECTS.values()
        for case in (subject.recorded if recorded else subject.cases)
        for jitted, how in ((False, "eager"), (True, "jitted"))
        if case.whole or not jitted
    ]


@cache
def records(name: str) -> dict[str, dict[str, Array]]:
    return read_records(SUBJECTS[name])


@pytest.mark.parametrize(("subject", "case", "jitted"), chosen(recorded=True))
def test_results_and_gradients_are_those_recorded_of_torch(
    subject: Subject, case: Case, jitted: bool
) -> None:
    wanted = dict(records(subject.name)[case.name])
    again = f"its operands changed: python tests/torch_agreement/record.py {subject.name}"
    assert wanted.pop("operands", None) == fingerprint(case), again
    assert_agree(run_ours(case, jitted), wanted, case)


@pytest.mark.parametrize(("subject", "case", "jitted"), chosen(recorded=False))
def test_results_and_gradients_are_those_of_torch(
    subject: Subject, case: Case, jitted: bool
) -> None:
    torch, reason = torch_or_reason()
    if torch is None:
        pytest.skip(reason)
    assert_agree(run_ours(case, jitted), run_theirs(case, torch), case)


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_nothing_is_recorded_that_is_no_case(subject: Subject) -> None:
    assert set(records(subject.name)) == {case.name for case in subject.recorded}


def test_a_difference_beyond_the_bound_is_found() -> None:
    case = next(c for s in SUBJECTS.values() for c in s.cases)
    right = run_ours(case, jitted=False)
    largest = max(float(np.abs(right["out0"]).max()), 1.0)
    with pytest.raises(AssertionError, match="out0"):
        assert_agree(right, {**right, "out0": right["out0"] + 3e-10 * largest}, case)
