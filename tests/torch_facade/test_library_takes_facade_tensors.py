"""Code of the library that gets a tensor of the facade computes what it computes of its own, and
its results are the facade's: cases of the agreement with PyTorch, a part of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
import treadle.torch

AGREEMENT = Path(__file__).resolve().parents[1] / "torch_agreement"
sys.path.insert(0, str(AGREEMENT))
from agreement import Case, subjects  # noqa: E402  from the folder above

EACH = 14  # cases of a subject


def chosen() -> list[Any]:
    found = []
    for subject in subjects():
        cases = [c for c in subject.cases if c.draws and subject.name != "facade"]
        picked = cases[:: max(1, len(cases) // EACH)]
        found += [pytest.param(case, id=f"{subject.name}-{case.name}") for case in picked]
    return found


def listed(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


@pytest.mark.parametrize("case", chosen())
def test_the_library_takes_the_facades_tensors(case: Case) -> None:
    wanted = listed(case.ours(*map(treadle.tensor, case.arrays())))
    found = listed(case.ours(*map(treadle.torch.tensor, case.arrays())))
    assert len(found) == len(wanted)
    for have, want in zip(found, wanted, strict=True):
        assert type(want) is treadle.Tensor and type(have) is treadle.torch.Tensor
        np.testing.assert_array_equal(have.detach().numpy(), want.detach().numpy())
