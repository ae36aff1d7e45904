"""The gradient of a depthwise convolution's weight: any windows, any target, any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import Native, function_of
from test_convolution_kernels import FAMILIES, Shape, check, native, three, windows

from treadle.codegen.plan_depthwise import DepthwisePlan
from treadle.codegen.plan_taps import TapPlan
from treadle.codegen.target import Target
from treadle.ir.op import get_op
from treadle.ir.ops.convolution import ConvAttrs


def gradient(x: Shape, w: Shape, a: ConvAttrs, target: Target, *args: Any) -> Native:
    """Of the weight, compared with the reference."""
    return check(x, w, a, target, *args)[2]


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    size=st.tuples(st.integers(1, 12), st.sampled_from([1, 3, 7, 16, 17, 33, 70])),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    groups=st.integers(2, 5),
    images=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    target=st.sampled_from(FAMILIES),
)
def test_any_windows_of_single_channels(
    data: st.DataObject, size: Shape, taps: Shape, stride: Any, dilation: Any, groups: int,
    images: int, dtype: Any, target: Target,
) -> None:  # fmt: skip
    pads = []
    for n, k, d in zip(size, taps, dilation, strict=True):
        low, high = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
        pads.append((low, high + max(d * (k - 1) + 1 - n - low - high, 0)))
    a = ConvAttrs(stride, tuple(pads), dilation, groups)
    check((images, groups, *size), (groups, 1, *taps), a, target, dtype)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_depthwise_weight_has_its_gradient_without_gathering(stride: int, target: Target) -> None:
    """The same bits for any number of threads; no memory of its own."""
    x, w, a = (6, 70, 21, 67), (70, 1, 3, 3), windows(stride, 1, groups=70)
    gradient(x, w, a, target)
    name, attrs, left, right = three(x, w, a)[2]
    rng = np.random.default_rng(1)
    args = [rng.standard_normal(s).astype(np.float32) for s in (left, right)]
    code = native(function_of(get_op(name), attrs, args), target)
    (kernel,) = code.plan.kernels
    assert isinstance(kernel.body, DepthwisePlan)
    assert kernel.parallel
    assert code.emitted.workspace == code.emitted.scratch == 0
    (one,) = code.results(*args, threads=1)
    for threads in (2, 3):
        (more,) = code.results(*args, threads=threads)
        np.testing.assert_array_equal(one, more)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_many_taps_are_summed_some_lines_at_a_time(target: Target) -> None:
    code = gradient((2, 4, 12, 40), (4, 1, 7, 7), windows(1, 3, groups=4), target)
    body = code.plan.kernels[0].body
    assert isinstance(body, DepthwisePlan)
    assert body.lines < 7


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_what_lies_beside_a_tap_is_not_multiplied(target: Target) -> None:
    """An infinite element changes the gradient of the taps that meet it and no other, though
    vectors of lines are not full."""
    x, w, a = (1, 2, 5, 19), (2, 1, 1, 3), windows(groups=2)
    name, attrs, left, right = three(x, w, a)[2]
    args = [np.ones(left, np.float32), np.ones(right, np.float32)]
    args[0][0, 0, 2, 0] = np.inf
    code = native(function_of(get_op(name), attrs, args), target)
    (got,) = code.results(*args)
    np.testing.assert_array_equal(np.isfinite(got[:, 0, 0]), [[False, True, True], [True] * 3])


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_two_rows_a_channel_are_products(target: Target) -> None:
    code = gradient((2, 4, 9, 20), (8, 1, 3, 3), windows(1, 1, groups=4), target)
    assert isinstance(code.plan.kernels[0].body, TapPlan)
