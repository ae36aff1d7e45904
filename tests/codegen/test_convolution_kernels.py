"""Convolutions and their gradients as machine code: any windows, any target, any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import Native, close, emitted_for, function_of

from treadle.codegen.plan_channels import ChannelPlan
from treadle.codegen.plan_pixels import PixelPlan
from treadle.codegen.plan_taps import TapPlan
from treadle.codegen.plan_window_loops import WindowLoopsPlan
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.ir.op import Attrs, get_op
from treadle.ir.ops.convolution import ConvAttrs, ConvGradAttrs
from treadle.ir.ops.kernels import ContractAttrs
from treadle.ir.ops.windows import window_counts
from treadle.ir.types import TensorType, float32, type_of_array
from treadle.passes import convolution, expand, fuse
from treadle.passes.manager import run_pipeline
from treadle.runtime.native import load

FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]
Shape = tuple[int, ...]


def native(fn: Function, target: Target) -> Native:
    kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [], verify="all")
    memory, plan, emitted = emitted_for(kernels, target)
    return Native(kernels, memory, plan, emitted, load(emitted.ir, target))


def three(x: Shape, w: Shape, a: ConvAttrs) -> list[tuple[str, Attrs, Shape, Shape]]:
    """The convolution and both gradients: op, attributes, shapes of the operands."""
    counts = window_counts("conv", x[2:], w[2:], a.stride, a.padding, a.dilation)
    g = (x[0], w[0], *(int(n) for n in counts if isinstance(n, int)))
    windows = (a.stride, a.padding, a.dilation, a.groups)
    return [
        ("conv", a, x, w),
        ("conv_input_grad", ConvGradAttrs(x[2:], *windows), g, w),
        ("conv_weight_grad", ConvGradAttrs(w[2:], *windows), x, g),
    ]


def check(
    x: Shape, w: Shape, a: ConvAttrs, target: Target, dtype: Any = np.float32, threads: int = 1
) -> list[Native]:
    """All three against their references, between forbidden pages."""
    rng = np.random.default_rng(sum(x) + sum(w))
    found = []
    for name, attrs, left, right in three(x, w, a):
        op = get_op(name)
        args = [rng.standard_normal(s).astype(dtype) for s in (left, right)]
        code = native(function_of(op, attrs, args), target)
        (got,) = code.results(*args, threads=threads)
        (want,) = op.run_ref(attrs, args)
        terms = args[0].size * args[1].size / max(want.size, 1)
        assert close(got, want, 4, 2 * terms**0.5, args), (name, str(code.plan))
        found.append(code)
    return found


def windows(
    stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1, rank: int = 2
) -> ConvAttrs:
    return ConvAttrs((stride,) * rank, ((padding,) * 2,) * rank, (dilation,) * rank, groups)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("x", "w", "a"),
    [
        ((2, 9, 10, 37), (21, 9, 3, 3), windows(padding=1)),
        ((3, 5, 7, 7), (11, 5, 3, 3), windows(padding=1)),  # images smaller than a panel
        ((2, 3, 23, 29), (8, 3, 7, 7), windows(stride=2, padding=3)),
        ((2, 40, 9, 11), (5, 40, 3, 3), windows(stride=2, padding=1)),  # blocks of channels
        ((1, 4, 9, 40), (6, 4, 1, 1), windows(stride=2)),  # phases without taps
        ((1, 2, 6, 300), (3, 2, 1, 5), windows(padding=0)),  # a line of many vectors
        ((2, 3, 20, 20), (4, 3, 3, 3), windows(stride=3, padding=2, dilation=2)),
        ((1, 6, 8, 9), (8, 3, 2, 3), windows(padding=2, groups=2)),
        ((2, 5, 40), (7, 5, 4), windows(stride=2, padding=1, rank=1)),
    ],
    ids=str,
)
def test_real_layers_in_small(x: Shape, w: Shape, a: ConvAttrs, target: Target) -> None:
    pixels = (PixelPlan, ChannelPlan)
    for code, kind in zip(check(x, w, a, target), (pixels, pixels, TapPlan), strict=True):
        (kernel,) = code.plan.kernels
        assert isinstance(kernel.body, kind)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    size=st.tuples(st.integers(1, 20), st.sampled_from([1, 5, 7, 8, 15, 16, 17, 33])),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    channels=st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([1, 3, 9])),
    images=st.integers(1, 3),
    groups=st.sampled_from([1, 1, 2]),
    dtype=st.sampled_from([np.float32, np.float64]),
    target=st.sampled_from(FAMILIES),
)
def test_any_windows(
    data: st.DataObject, size: Shape, taps: Shape, stride: Any, dilation: Any, channels: Shape,
    images: int, groups: int, dtype: Any, target: Target,
) -> None:  # fmt: skip
    pads = []
    for n, k, d in zip(size, taps, dilation, strict=True):
        low, high = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        pads.append((low, high + max(d * (k - 1) + 1 - n - low - high, 0)))
    a = ConvAttrs(stride, tuple(pads), dilation, groups)
    inputs, outputs = (n * groups for n in channels)
    check((images, inputs, *size), (outputs, channels[0], *taps), a, target, dtype)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_any_number_of_threads_gives_the_same_bits(stride: int, target: Target) -> None:
    """Large enough for tiles, parts and bands."""
    a, x, w = windows(stride, 1), (5, 24, 40, 33), (40, 24, 3, 3)
    rng = np.random.default_rng(0)
    for name, attrs, left, right in three(x, w, a):
        args = [rng.standard_normal(s).astype(np.float32) for s in (left, right)]
        code = native(function_of(get_op(name), attrs, args), target)
        assert code.plan.kernels[0].parallel
        (one,) = code.results(*args, threads=1)
        for threads in (2, 3):
            (more,) = code.results(*args, threads=threads)
            np.testing.assert_array_equal(one, more)


def test_a_large_weight_has_its_gradient_unit_by_unit() -> None:
    """Sums for each of several parts would take too much memory."""
    target = FAMILIES[0]
    _, _, code = check((2, 230, 12, 12), (260, 230, 3, 3), windows(padding=1), target, threads=2)
    (kernel,) = code.plan.kernels
    assert isinstance(kernel.body, TapPlan)
    assert kernel.body.parts == 1


def test_a_convolution_keeps_no_unfolded_input() -> None:
    """Its memory is a part of what all windows' elements would take."""
    x, w = (8, 64, 56, 56), (64, 64, 3, 3)
    for name, attrs, left, right in three(x, w, windows(padding=1)):
        b = Builder("f")
        args = [b.param(TensorType(float32, s), f"x{n}") for n, s in enumerate((left, right))]
        (out,) = b.emit(get_op(name), args, attrs)
        fn = b.finish([Result(out, "y")])
        kernels = run_pipeline(fn, (convolution.PASS, expand.PASS, fuse.PASS), [])
        _, _, emitted = emitted_for(kernels, named("avx512"))
        assert emitted.workspace + 2 * emitted.scratch < 9 * np.prod(x) * 4 / 4


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    "x_shape", [(2, 5, 9, 10), (3, 5, 6, 6), (1, 5, 30, 1), (1, 5, 41, 29), (2, 5, 33, 40)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_an_epilogue_finishes_the_convolution(x_shape: Shape, stride: int, target: Target) -> None:
    """Bias by channel, a factor by column, a residual, an activation."""
    rng = np.random.default_rng(0)
    op, a, w_shape = get_op("conv"), windows(stride, 1), (7, 5, 3, 3)
    (type,) = op.infer_types(a, [TensorType(float32, s) for s in (x_shape, w_shape)])
    out = type.static_shape
    shapes = (x_shape, w_shape, (7, 1, 1), out, (out[3],))
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for count in (4, 5):
        b = Builder("f")
        x, w, bias, more, *factor = (
            b.param(type_of_array(v), f"p{n}") for n, v in enumerate(arrays[:count])
        )
        (y,) = b.emit(op, [x, w], a)
        y = b.call("add", y, b.broadcast_to(bias, out))
        for f in factor:
            y = b.mul(y, b.broadcast_to(f, out))
        z = b.call("relu", b.call("add", y, more))
        fn = b.finish([Result(z, "z"), Result(y, "y")])
        code = native(fn, target)
        assert len(code.plan.kernels) == 1
        for threads in (1, 2):
            got = code.results(*arrays[:count], threads=threads)
            for g, want in zip(got, interpret(fn, arrays[:count]), strict=True):
                np.testing.assert_allclose(g, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_windows_without_a_kernel_run_in_loops(dtype: Any, target: Target) -> None:
    rng = np.random.default_rng(0)
    for left, right, spec in (
        ((3, 4), (5, 2, 6), "kl,ab[z+k-1]->lzab where z=6"),
        ((3,), (7,), "k,[(2z+k-1)/2]->z where z=5"),
        ((2, 3), (5, 2), "ok,[z+k]o->oz where z=4"),
    ):
        args = [rng.integers(0, 9, s).astype(dtype) for s in (left, right)]
        op, attrs = get_op("contract"), ContractAttrs(spec)
        code = native(function_of(op, attrs, args), target)
        assert isinstance(code.plan.kernels[0].body, WindowLoopsPlan)
        (got,) = code.results(*args)
        np.testing.assert_array_equal(got, op.run_ref(attrs, args)[0])
