"""A tail over windows has all windows of a convolution's lines: a crop of them is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import Native, emitted_for

from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.ir.types import TensorType, float32
from treadle.passes import convolution, expand, fuse, pool_tails
from treadle.passes.manager import run_pipeline
from treadle.runtime.native import load

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]


def _sliced(stops: int, step: int) -> Function:
    """A convolution of 13 lines, and each `step`-th one of the first `stops` of them, doubled."""
    b = Builder("f")
    data = b.param(TensorType(float32, (2, 3, 13, 32)), "x")
    w = b.param(TensorType(float32, (5, 3, 3, 3)), "w")
    windows: Any = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    y = b.call("conv", data, w, **windows, groups=1)
    shape = (2, 5, -(-stops // step), -(-32 // step))
    part = b.call("slice", y, starts=(0,) * 4, steps=(1, 1, step, step), shape=shape)
    return b.finish([Result(y, "y"), Result(b.mul(part, 2.0), "part")])


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("stops", "step", "joins"),
    [(5, 1, False), (13, 1, True), (13, 2, False), (12, 2, True), (6, 2, False), (12, 3, True)],
)
def test_a_crop_of_lines_is_no_tail(
    stops: int, step: int, joins: bool, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_tails, "CACHED", 0)
    fn = _sliced(stops, step)
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [], verify="all")
    assert any(len(i.regions) == 2 for i in kernels.instrs) == joins
    memory, plan, emitted = emitted_for(kernels, target)
    code = Native(kernels, memory, plan, emitted, load(emitted.ir, target))
    rng = np.random.default_rng(1)
    types = [p.value.type for p in fn.params]
    args = [rng.standard_normal(t.static_shape).astype(t.dtype.dtype) for t in types]
    for got, want in zip(code.results(*args), interpret(fn, args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
