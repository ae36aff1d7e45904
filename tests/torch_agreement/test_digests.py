"""Every case of the large grids, eagerly, against the numbers that stand for PyTorch's values."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from agreement import Array, Case, fingerprint, run_ours
from digests import bounds, digest, digested, read_digests

SUBJECTS = digested()


@cache
def stored(number: int) -> dict[str, tuple[float, Array]]:
    return read_digests(SUBJECTS[number])


def all_cases() -> list[Any]:
    return [
        pytest.param(number, case, id=f"{subject.name}-{case.name}")
        for number, subject in enumerate(SUBJECTS)
        for case in subject.cases
    ]


@pytest.mark.parametrize(("number", "case"), all_cases())
def test_all_cases_have_the_numbers_of_torch(number: int, case: Case) -> None:
    operands, wanted = stored(number)[case.name]
    again = "its operands changed: python tests/torch_agreement/digests.py"
    assert operands == float(fingerprint(case)), again
    values = run_ours(case, jitted=False)
    found = digest(values)
    assert found.shape == wanted.shape
    assert np.all(np.abs(found - wanted) <= bounds(values, case)), (found, wanted)


def test_one_wrong_element_changes_a_digest() -> None:
    (convolution,) = (s for s in SUBJECTS if s.name == "convolution")
    case = next(c for c in convolution.cases if c.name.startswith("conv2d-2"))
    values = run_ours(case, jitted=False)
    right, allowed = digest(values), bounds(values, case)
    for name in values:
        wrong = {k: v.copy() for k, v in values.items()}
        wrong[name].flat[0] += 1e-5
        assert (np.abs(digest(wrong) - right) > allowed).any(), name


def test_convolutions_are_compared_over_five_hundred_configurations() -> None:
    (convolution,) = (s for s in SUBJECTS if s.name == "convolution")
    assert len(convolution.cases) >= 500
