"""Layers beyond their values (which tests/torch_agreement compares): sizes from the first input,
dtypes, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


def test_a_layer_takes_its_input_size_from_its_first_input() -> None:
    treadle.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(None, 4, 3), nn.BatchNorm2d(None), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    )
    with pytest.raises(treadle.TreadleError, match=r"Conv2d at '0' has no parameters before its"):
        list(model.parameters())
    with pytest.raises(treadle.TreadleError, match="has no input size yet"):
        treadle.jit(lambda x: model(x))(treadle.zeros((2, 3, 8, 8)))
    assert model(treadle.zeros((2, 3, 8, 8))).shape == (2, 5)
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    assert shapes["0.weight"] == (4, 3, 3, 3) and shapes["4.weight"] == (5, 144)
    assert shapes["1.running_mean"] == (4,)
    with pytest.raises(treadle.ShapeError, match=r"Conv2d takes \[N, 3, H, W\]"):
        model(treadle.zeros((2, 4, 8, 8)))


def test_a_module_changes_its_dtype_and_keeps_what_is_shared() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model.double()
    assert model[2].weight is model[0].weight
    kinds = {k: v.dtype for k, v in model.state_dict().items()}
    assert kinds.pop("1.num_batches_tracked") == treadle.int64
    assert set(kinds.values()) == {treadle.float64}
    assert model(treadle.zeros((2, 3), dtype=treadle.float64)).dtype == treadle.float64
    assert model.float()[0].weight.dtype == treadle.float32
    with pytest.raises(treadle.DTypeError, match="dtype is a float, found int32"):
        model.to(treadle.int32)


def test_running_statistics_follow_inside_a_jitted_step_and_rest_in_evaluation() -> None:
    eager, jitted = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    step = treadle.jit(lambda x: jitted(x))
    rng = np.random.default_rng(0)
    for training in (True, True, False):
        x = treadle.tensor(rng.normal(size=(8, 3)).astype(np.float32))
        wanted, found = eager.train(training)(x), None
        jitted.train(training)
        found = step(x)
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-5, atol=1e-6)
    for name, buffer in eager.named_buffers():
        np.testing.assert_allclose(
            np.asarray(dict(jitted.named_buffers())[name]), np.asarray(buffer), rtol=1e-6
        )
    assert int(eager.num_batches_tracked.item()) == 2  # type: ignore[union-attr]  # it is there


MISTAKES: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), treadle.ArgumentError, "in_channels must be a multiple"),
    (lambda: nn.Conv2d(4, 3, 3, groups=2), treadle.ArgumentError, "out_channels must be a multi"),
    (lambda: nn.Conv2d(3, 4, 0), treadle.ArgumentError, "kernel_size must be at least 1, found 0"),
    (lambda: nn.Conv1d(3, 4, 3)(treadle.zeros((2, 5))), treadle.ShapeError, r"\[N, 3, W\]"),
    (lambda: nn.Conv2d(3, 4, 3)(treadle.zeros((1, 3, 2, 2))), treadle.ShapeError, "conv2d"),
    (lambda: nn.BatchNorm2d(3)(treadle.zeros((2, 4, 1, 1))), treadle.ShapeError, r"\[N, 3, \.\.\]"),
    (lambda: nn.GroupNorm(2, 3), treadle.ArgumentError, "multiple of num_groups"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), treadle.ArgumentError, "is no row of 3"),
    (lambda: nn.Embedding(3, 2)(treadle.tensor([3])), treadle.IndexFault, "3"),
    (lambda: nn.Linear(3, -1), treadle.ShapeError, "out_features must be a size"),
    (lambda: nn.GLU()(treadle.zeros((2, 3))), treadle.ShapeError, "whose size is 3"),
    (lambda: nn.Flatten(2, 1)(treadle.zeros((2, 3, 4))), treadle.ShapeError, "does not fit"),
]


@pytest.mark.parametrize(("make", "kind", "message"), MISTAKES)
def test_a_layer_names_what_does_not_fit(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_layers_show_their_options() -> None:
    assert repr(nn.Conv2d(3, 4, 3, padding=1)) == (
        "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=1)"
    )
    assert repr(nn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(nn.MaxPool2d(2)).startswith("MaxPool2d(kernel_size=2, padding=0")
