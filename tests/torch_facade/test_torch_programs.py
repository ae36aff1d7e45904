"""PyTorch programs move over: those of bench/ and examples/ run with nothing but their import lines
changed, and compute what PyTorch computes.

What PyTorch gave is in recorded.json; write it anew, with PyTorch installed, after a change:

    python tests/torch_facade/test_torch_programs.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch_programs as programs

RECORDED = Path(__file__).resolve().parent / "recorded.json"
CASES = [(name, False) for name in programs.PROGRAMS] + [(n, True) for n in programs.COMPILED]


@pytest.mark.parametrize(
    ("name", "compiled"), CASES, ids=[f"{n}-{'compiled' if c else 'eager'}" for n, c in CASES]
)
def test_a_torch_program_runs_with_its_import_lines_changed(name: str, compiled: bool) -> None:
    wanted = json.loads(RECORDED.read_text())[name]
    found = programs.PROGRAMS[name](True, compiled)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["uniform-4m", "normal-4m", "dropout"])
def test_a_torch_program_that_draws_runs(name: str) -> None:
    found = programs.draws(name)
    if name != "dropout":
        assert found.shape == (50,) and 0 < float(found.std()) < 2
        return
    y, (gradient,) = found
    assert y.shape == gradient.shape == (20, 30)
    assert 0 < int((y == 0).sum()) < 200


@pytest.mark.parametrize("name", ["lenet", "cats_dogs", "fractalnet"])
def test_an_example_that_draws_runs(name: str) -> None:
    losses, shape = programs.draw_example(name)
    assert np.isfinite(losses).all() and shape[0] == 4


def test_only_import_lines_are_changed() -> None:
    source = (
        "import torch\n    from torch.nn import functional\nx = 'import torch'\nimport torchy\n"
    )
    assert programs.with_facade(source) == (
        "import treadle.torch as torch\n    from treadle.torch.nn import functional\n"
        "x = 'import torch'\nimport torchy\n"
    )


def record() -> None:
    found = {name: run(False, False) for name, run in programs.PROGRAMS.items()}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record()
