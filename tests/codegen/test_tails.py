"""Tails of convolutions: sums of channels taken while a tile is at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import Native, close, emitted_for

from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Level, Result
from treadle.ir.interpreter import interpret
from treadle.ir.parser import parse_function
from treadle.ir.regions import check_region
from treadle.ir.types import TensorType, float32, float64
from treadle.ir.verifier import verify
from treadle.passes import channel_sums, convolution, expand, fuse, pool_tails
from treadle.passes.manager import run_pipeline
from treadle.runtime.native import load

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]


@pytest.fixture(autouse=True)
def tails_for_small_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_sums, "CACHED", 0)


def statistics(
    x: tuple[int, ...], channels: int, dtype: Any = float32, bias: bool = True
) -> Function:
    """Mean and variance of a 3 x 3 convolution's channels, and the convolution."""
    b = Builder("f")
    data = b.param(TensorType(dtype, x), "x")
    w = b.param(TensorType(dtype, (channels, x[1], 3, 3)), "w")
    windows: Any = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    y = b.call("conv", data, w, **windows, groups=1)
    if bias:
        y = b.add(y, b.reshape(b.param(TensorType(dtype, (channels,)), "b"), (channels, 1, 1)))
    mean = b.call("mean", y, axes=(0, 2, 3), keepdims=True)
    off = b.sub(y, mean)
    var = b.call("mean", b.mul(off, off), axes=(0, 2, 3), keepdims=True)
    return b.finish([Result(v, n) for v, n in ((y, "y"), (mean, "mean"), (var, "var"))])


def native(fn: Function, target: Target) -> Native:
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [], verify="all")
    memory, plan, emitted = emitted_for(kernels, target)
    return Native(kernels, memory, plan, emitted, load(emitted.ir, target))


def operands(fn: Function, offset: float = 0) -> list[Any]:
    rng = np.random.default_rng(1)
    types = [p.value.type for p in fn.params]
    return [rng.standard_normal(t.static_shape).astype(t.dtype.dtype) + offset for t in types]


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize(
    ("x", "channels", "bias"),
    [
        ((3, 5, 16, 40), 9, True),
        ((2, 4, 23, 23), 20, True),  # no line divides the plane's
        ((1, 3, 64, 33), 35, False),  # no epilogue, several tiles an image
        ((5, 2, 32, 8), 1, True),
    ],
)
def test_statistics_are_summed_in_the_tile(
    x: tuple[int, ...], channels: int, bias: bool, dtype: Any, target: Target
) -> None:
    fn = statistics(x, channels, dtype, bias)
    code = native(fn, target)
    contracts = [i for i in code.kernels.instrs if i.op.name == "contract"]
    assert [len(i.regions) for i in contracts] == [2]
    args = operands(fn)
    found = code.results(*args)
    for got, want in zip(found, interpret(fn, args), strict=True):
        assert close(got, want, 4, 4 * (9 * x[1]) ** 0.5, args)
    for other in (2, 3):
        for one, more in zip(found, code.results(*args, threads=other), strict=True):
            assert one.tobytes() == more.tobytes()


def test_the_variance_of_numbers_far_from_zero_keeps_its_digits() -> None:
    """A sum of squares without the mean taken off would have lost all of them."""
    fn = statistics((4, 1, 32, 32), 2)
    x, w, b = operands(fn)
    w[:] = 0
    w[:, :, 1, 1] = 1
    b[:] = 3000
    _, _, var = native(fn, FAMILIES[-1]).results(x, w, b)
    seen = (x + np.float32(3000)).astype(np.float64)
    np.testing.assert_allclose(var.reshape(-1), [seen.var()] * 2, rtol=1e-5)


TAIL = """func @f(%0: f32[4, 3, 3, 3] "w", %1: f32[2, 3, 8, 32] "x") {
  %2: f32[2, 4, 8, 32], %3: f32[2, 4, 4, 1, 1] = contract(%0, %1, spec="ockl,nc[y+k-1][z+l-1]->noyz where y=8, z=32") {
    func @product(%4: f32[2, 4, 8, 32] "product") {
      return %4 "r0"
    }
    func @sums(%5: f32[2, 4, 8, 32] "r0") {
      %6: f32[2, 4, 4, 2, 32] = reshape(%5, shape=(2, 4, 4, 2, 32))
      %7: f32[2, 4, 4, 1, 1] = sum(%6, axes=(3, 4), keepdims=True)
      return %7 "s0"
    }
  }
  return %2 "y", %3 "sums"
}
"""  # noqa: E501  an instruction is one line


def test_a_written_tail_is_legal_and_runs() -> None:
    fn = parse_function(TAIL)
    verify(fn, Level.KERNELS)
    args = operands(fn)
    y, sums = interpret(fn, args)
    np.testing.assert_allclose(
        sums[..., 0, 0], y.reshape(2, 4, 4, 64).sum(-1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("f32[2, 4, 4, 1, 1] = sum(%6, axes=(3, 4)", "f32[2, 4, 1, 2, 1] = sum(%6, axes=(2, 4)",
         "sum in a tail reduces axes 3 and 4, and keeps them"),
        ("4, 4, 2, 32] = reshape(%5, shape=(2, 4, 4, 2, 32))",
         "8, 2, 2, 32] = reshape(%5, shape=(2, 8, 2, 2, 32))", "a tail reduces pieces"),
        ("4, 1, 1] = sum(%6", "4, 1, 1] = prod(%6", None),
        ("%7: f32[2, 4, 4, 1, 1] = sum(%6, axes=(3, 4), keepdims=True)\n      return %7",
         "%7: f32[2, 4, 8, 32] = exp(%5)\n      return %7", "exp in a tail"),
    ],
)  # fmt: skip
def test_an_illegal_tail_is_told(was: str, becomes: str, said: str | None) -> None:
    assert was in TAIL
    contract = parse_function(TAIL.replace(was, becomes)).instrs[0]
    found = check_region(contract)
    assert (said or "") in "; ".join(found) and bool(found) == (said is not None)


def test_small_results_have_no_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_sums, "CACHED", 32 << 20)
    code = native(statistics((2, 3, 16, 32), 4), FAMILIES[-1])
    assert all(len(i.regions) < 2 for i in code.kernels.instrs if i.op.name == "contract")


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("x", [(3, 5, 16, 40), (2, 4, 23, 25), (1, 3, 65, 33)])
def test_a_pool_runs_over_the_tile(
    x: tuple[int, ...], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_tails, "CACHED", 0)
    b = Builder("f")
    data, w = (
        b.param(TensorType(float32, x), "x"),
        b.param(TensorType(float32, (9, x[1], 3, 3)), "w"),
    )
    windows: Any = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    y = b.call("conv", data, w, **windows, groups=1)
    pool: Any = {"axes": (2, 3), "kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0),) * 2}
    best, taps = b.call_multi("max_pool", b.add(y, 0.5), **pool, dilation=(1, 1))
    fn = b.finish([Result(b.call("relu", best), "y"), Result(taps, "taps")])
    code = native(fn, target)
    assert [i.op.name for i in code.kernels.instrs if i.op.name != "reshape"] == ["contract"]
    args = operands(fn)
    found = code.results(*args)
    want = interpret(code.kernels, args)
    assert close(found[0], want[0], 4, 4 * (9 * x[1]) ** 0.5, args)
    assert (found[1] == want[1]).mean() > 0.99
    for one, more in zip(found, code.results(*args, threads=3), strict=True):
        assert one.tobytes() == more.tobytes()
