"""Convolutions with the result's channels in the vector lanes: any windows, any target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import emitted_for, function_of
from test_convolution_kernels import FAMILIES, Shape, check, native, three, windows

from treadle.codegen import plan
from treadle.codegen.plan_channels import ChannelPlan, runs_of
from treadle.codegen.plan_pixels import PixelPlan
from treadle.codegen.target import Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Result
from treadle.ir.interpreter import interpret
from treadle.ir.op import get_op
from treadle.ir.ops.convolution import ConvAttrs
from treadle.ir.types import TensorType, float32, type_of_array


@contextmanager
def channels_in_lanes() -> Iterator[None]:
    """Chosen wherever they can be, whatever the other kernel would take."""
    pixels = plan.plan_pixels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "plan_pixels", lambda *a: replace(pixels(*a), cycles=inf))
        yield


def bodies(x: Shape, w: Shape, a: ConvAttrs, target: Target) -> list[Any]:
    """The kernels' plans of a convolution and of its input's gradient."""
    found = []
    for name, attrs, left, right in three(x, w, a)[:2]:
        args = [np.zeros(s, np.float32) for s in (left, right)]
        code = native(function_of(get_op(name), attrs, args), target)
        found.append(code.plan.kernels[0].body)
    return found


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    size=st.tuples(st.integers(1, 20), st.sampled_from([1, 3, 5, 7, 14, 15, 29])),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    channels=st.tuples(st.sampled_from([1, 2, 5]), st.sampled_from([1, 5, 17, 40])),
    images=st.integers(1, 3),
    groups=st.sampled_from([1, 1, 2]),
    dtype=st.sampled_from([np.float32, np.float64]),
    target=st.sampled_from(FAMILIES),
)
def test_any_windows_with_channels_in_the_lanes(
    data: st.DataObject, size: Shape, taps: Shape, stride: Any, dilation: Any, channels: Shape,
    images: int, groups: int, dtype: Any, target: Target,
) -> None:  # fmt: skip
    pads = []
    for n, k, d in zip(size, taps, dilation, strict=True):
        low, high = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        pads.append((low, high + max(d * (k - 1) + 1 - n - low - high, 0)))
    a = ConvAttrs(stride, tuple(pads), dilation, groups)
    inputs, outputs = (n * groups for n in channels)
    with channels_in_lanes():
        found = check((images, inputs, *size), (outputs, channels[0], *taps), a, target, dtype)
    assert not any(isinstance(c.plan.kernels[0].body, PixelPlan) for c in found[:2])


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_blocks_of_channels_tiles_and_panels_meet(stride: int, target: Target) -> None:
    """Several of each, none of them even; the same bits for any number of threads."""
    x, w, a = (5, 150, 9, 13), (70, 150, 3, 3), windows(stride, 1)
    rng = np.random.default_rng(0)
    with channels_in_lanes():
        check(x, w, a, target)
        for name, attrs, left, right in three(x, w, a)[:2]:
            args = [rng.standard_normal(s).astype(np.float32) for s in (left, right)]
            code = native(function_of(get_op(name), attrs, args), target)
            (kernel,) = code.plan.kernels
            assert isinstance(kernel.body, ChannelPlan)
            assert kernel.parallel
            assert kernel.body.packs > 1
            (one,) = code.results(*args, threads=1)
            for threads in (2, 3):
                (more,) = code.results(*args, threads=threads)
                np.testing.assert_array_equal(one, more)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("size", [(9, 10), (6, 6), (30, 1), (33, 40)])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_epilogue_finishes_channels_in_the_lanes(
    size: Shape, stride: int, target: Target
) -> None:
    """Bias by channel, a factor by column, a residual, an activation."""
    rng = np.random.default_rng(0)
    x_shape, w_shape = (2, 5, *size), (37, 5, 3, 3)
    op, a = get_op("conv"), windows(stride, 1)
    (type,) = op.infer_types(a, [TensorType(float32, s) for s in (x_shape, w_shape)])
    out = type.static_shape
    shapes = (x_shape, w_shape, (37, 1, 1), out, (out[3],))
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
        with channels_in_lanes():
            code = native(fn, target)
        (kernel,) = code.plan.kernels
        assert isinstance(kernel.body, ChannelPlan)
        for threads in (1, 2):
            got = code.results(*arrays[:count], threads=threads)
            for g, want in zip(got, interpret(fn, arrays[:count]), strict=True):
                np.testing.assert_allclose(g, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_small_maps_have_their_channels_in_the_lanes(name: str) -> None:
    """Padding is a fifth of their products, and their lines fill no vectors."""
    target = named(name)
    for x, w in (((8, 64, 7, 7), (64, 64, 3, 3)), ((8, 64, 14, 14), (64, 64, 3, 3))):
        for body in bodies(x, w, windows(padding=1), target):
            assert isinstance(body, ChannelPlan)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_few_channels_of_the_result_do_not_fill_lanes(target: Target) -> None:
    for body in bodies((2, 64, 16, 64), (1, 64, 3, 3), windows(padding=1), target)[:1]:
        assert isinstance(body, PixelPlan)


def test_a_very_long_line_is_cut() -> None:
    """Its sums would take a thread's memory."""
    for body in bodies((1, 64, 40000), (64, 64, 3), windows(padding=1, rank=1), named("avx512")):
        assert isinstance(body, PixelPlan)


def test_a_line_is_cut_into_equal_tiles_and_its_ends_apart() -> None:
    """What the text of the plan's runs says: where they meet padding."""
    target = named("avx512")
    body, _ = bodies((8, 64, 8, 56), (64, 64, 3, 3), windows(padding=1), target)
    assert isinstance(body, ChannelPlan)
    runs = runs_of(body.what, body.phases[0].wide, body.pixels)
    assert sum(r.count * r.pixels for r in runs) == 56
    assert [r.count for r in runs] == [1, runs[1].count, 1]
    assert [(t.first, t.last) for t in runs[0].taps] == [(1, 14), (0, 14), (0, 14)]
    assert [(t.first, t.last) for t in runs[-1].taps] == [(0, 14), (0, 14), (0, 13)]


def test_a_convolution_with_channels_in_the_lanes_keeps_no_unfolded_input() -> None:
    """Its memory: the weights once more, and each thread's sums."""
    x, w = (8, 64, 56, 56), (64, 64, 3, 3)
    for name, attrs, left, right in three(x, w, windows(padding=1))[:2]:
        args = [np.zeros(s, np.float32) for s in (left, right)]
        code = native(function_of(get_op(name), attrs, args), named("avx512"))
        body = code.plan.kernels[0].body
        assert isinstance(body, ChannelPlan)
        assert body.shared == np.prod(w) * 4
        assert body.own <= 64 << 10
        _, _, emitted = emitted_for(code.kernels, named("avx512"))
        assert emitted.workspace + 2 * emitted.scratch < np.prod(w) * 4 + (160 << 10)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_no_product_with_padding_is_computed(target: Target) -> None:
    """0 times infinity would be NaN."""
    x, w, a = (1, 2, 5, 7), (40, 2, 3, 3), windows(padding=1)
    name, attrs, left, right = three(x, w, a)[0]
    args = [np.ones(left, np.float32), np.ones(right, np.float32)]
    args[1][:, :, 0, 0] = np.inf
    with channels_in_lanes():
        code = native(function_of(get_op(name), attrs, args), target)
    (got,) = code.results(*args)
    assert not np.isnan(got).any()
    np.testing.assert_array_equal(np.isinf(got[0, 0, 1:, 1:]), True)
    np.testing.assert_array_equal(got[0, 0, :, 0], [8, 12, 12, 12, 8])
