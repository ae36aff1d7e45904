"""What `treadle.testing` accepts and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.testing import assert_close, check_grad, check_jit
from treadle.tracer.modes import active_trace


def test_right_derivatives_of_functions_and_layers_pass() -> None:
    rng = np.random.default_rng(0)
    check_grad(lambda x, y: treadle.tanh(x) * y, rng.normal(size=3), rng.normal(size=(2, 3)))
    layer = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4))
    before = {k: np.array(v.numpy()) for k, v in layer.state_dict().items()}
    check_grad(layer, rng.normal(size=(2, 3)).astype(np.float32))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
        assert value.dtype == treadle.float32
    check_grad(nn.Embedding(5, 2), np.array([1, 3, 1]))


def test_a_wrong_derivative_is_found() -> None:
    def stopped(x: Any) -> Any:
        return x * x.detach()

    with pytest.raises(AssertionError, match="with respect to input 0"):
        check_grad(stopped, np.array([1.0, 2.0]))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.inner(x) + self.inner.bias.detach() * x  # type: ignore[union-attr]  # it is there

    with pytest.raises(AssertionError, match=r"with respect to parameter inner\.bias"):
        check_grad(Layer(), np.ones((3, 2)))


def test_compiled_and_plain_python_are_compared_call_by_call() -> None:
    norm = nn.BatchNorm1d(3)
    check_jit(norm, treadle.tensor(np.random.default_rng(0).normal(size=(4, 3))), calls=3)
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 3

    def uneven(x: Any) -> Any:
        return x if active_trace() is None else x + 1

    with pytest.raises(treadle.TraceError):
        check_jit(uneven, treadle.zeros(2))


def test_closeness_says_where_and_how_far() -> None:
    assert_close({"a": [treadle.ones(2), 1.0]}, {"a": [np.ones(2, np.float32), 1.0]})
    assert_close(np.array([1.0, np.nan]), np.array([1.0 + 1e-9, np.nan]))
    with pytest.raises(AssertionError, match=r"\['a'\]\[1\]"):
        assert_close({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]})
    with pytest.raises(AssertionError, match=r"expected shape \(3,\), found \(2,\)"):
        assert_close(treadle.ones(2), treadle.ones(3))
    with pytest.raises(AssertionError, match="expected dtype float64, found float32"):
        assert_close(treadle.ones(2), np.ones(2))
    with pytest.raises(AssertionError, match="expected keys"):
        assert_close({}, {"a": 1})
