"""A transposition and a convolution with channels in the lanes turn blocks, each in its own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import Module
from treadle.codegen.plan_channels import ChannelPlan
from treadle.codegen.target import host
from treadle.nn.functional import conv2d


@pytest.mark.parametrize("target", ["sse2", "avx2", "host"])
def test_a_convolution_of_transposed_images(target: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TREADLE_TARGET", target)
    monkeypatch.setenv("TREADLE_CACHE", "0")
    monkeypatch.setattr(ChannelPlan, "beats", lambda *_: True)

    def f(x: Any, w: Any) -> Any:
        return conv2d(treadle.swapaxes(x, 2, 3), w, padding=1)

    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.standard_normal((2, 10, 27, 11), np.float32))
    w = treadle.tensor(rng.standard_normal((10, 10, 3, 3), np.float32))
    found = treadle.jit(f, winograd=0)(x, w)
    np.testing.assert_allclose(found.numpy(), f(x, w).numpy(), rtol=1e-4, atol=1e-4)


def test_two_functions_of_one_name_are_refused() -> None:
    state = Emission(Module(host()), host())
    assert [state.once("f", lambda name: None) for _ in range(2)] == ["f", "f"]
    with pytest.raises(AssertionError, match="two functions are called f"):
        state.once("f", lambda name: None)
