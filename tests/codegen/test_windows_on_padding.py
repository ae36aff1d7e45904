"""An input that no window meets has a gradient of zeros."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.nn import functional


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("images", [1, 4])
def test_an_input_that_no_window_meets_has_no_gradient(images: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.standard_normal((images, 7, 7, 1)).astype(dtype))
    w = treadle.tensor(rng.standard_normal((12, 7, 4, 2)).astype(dtype))

    def loss(x: treadle.Tensor, w: treadle.Tensor) -> treadle.Tensor:
        # Of the two windows of a line one lies before its only element, one behind it.
        y = functional.conv2d(x, w, stride=(1, 3), padding=((2, 2), (2, 2)))
        return treadle.sum(y + treadle.cos(y))

    found = treadle.jit(lambda x, w: treadle.grad(loss)(x, w))
    for _ in range(3):
        assert not np.asarray(found(x, w)).any()
