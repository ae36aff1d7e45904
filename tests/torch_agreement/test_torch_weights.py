"""Weights that PyTorch saved load into the same architecture, which then gives the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import Array, torch_or_reason
from torch_weights import VALUES, WEIGHTS, inputs, network, written

import treadle

pytest.importorskip("safetensors", reason="safetensors is not installed")


def check(path: Path, wanted: Array) -> None:
    treadle.manual_seed(1)
    model: Any = network(treadle.nn)
    treadle.load_checkpoint(path, model=model)
    model.eval()
    xs = [treadle.tensor(x) for x in inputs()]
    for run in (model, treadle.jit(lambda *xs: model(*xs))):
        np.testing.assert_allclose(np.asarray(run(*xs)), wanted, rtol=1e-4, atol=1e-5)
    assert int(model.body[1].num_batches_tracked) == 1


def test_recorded_weights_of_torch_load_and_give_what_they_gave_there() -> None:
    with np.load(VALUES) as values:
        check(WEIGHTS, values["result"])


def test_weights_that_torch_saves_now_load_and_give_the_same(tmp_path: Path) -> None:
    torch, reason = torch_or_reason()
    if torch is None:
        pytest.skip(reason)
    path = tmp_path / "weights.safetensors"
    check(path, written(torch, path))


def test_weights_go_back_to_torch(tmp_path: Path) -> None:
    torch, reason = torch_or_reason()
    if torch is None:
        pytest.skip(reason)
    ours: Any = network(treadle.nn)
    theirs = network(torch.nn)
    state = {k: torch.tensor(np.asarray(v)) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    images, tokens = inputs()
    with torch.no_grad():
        wanted = theirs.eval()(torch.tensor(images), torch.tensor(tokens)).numpy()
    found = ours.eval()(treadle.tensor(images), treadle.tensor(tokens))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-4, atol=1e-5)
