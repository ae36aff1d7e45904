"""Sweeps over columns: any rows, columns and blocks, and the order of sums that tiles have."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import Native, close, compiled
from test_fused import FAMILIES, draw, f32, fused_plans, program

from treadle.codegen import plan_fused, plan_sweep
from treadle.codegen.target import Target
from treadle.ir.builder import Builder
from treadle.ir.graph import Value


def everything(b: Builder, x: Value, axes: tuple[int, ...]) -> tuple[Value, ...]:
    """One pass of sums, maxima and conjunctions, a second one of squares, and a full result."""
    total = b.sum(x, axes, keepdims=True)
    centred = b.sub(x, total)
    squares = b.sum(b.mul(centred, centred), axes, keepdims=True)
    positive = b.call("any", b.gt(x, 2.5), axes=axes, keepdims=True)
    return total, b.max(x, axes, keepdims=True), squares, positive, b.div(centred, squares)


def with_sweeps(shape: tuple[int, ...], axes: tuple[int, ...], target: Target, room: int) -> Native:
    """`everything`, swept even where it is small, in blocks that have that much room."""
    with (
        mock.patch.object(plan_fused, "SMALL", 0),
        mock.patch.object(plan_sweep, "_ROOM", room),
    ):
        return compiled(program(lambda b, x: everything(b, x, axes), f32(*shape)), target)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from([2, 3, 7, 8, 9, 31, 32, 33, 40, 63, 65, 130]),
    columns=st.sampled_from([257, 300, 512, 1000]),
    target=st.sampled_from(FAMILIES),
    room=st.sampled_from([1 << 12, 1 << 18]),
)
def test_sweeps_equal_tiles_bit_for_bit(rows: int, columns: int, target: Target, room: int) -> None:
    swept = with_sweeps((rows, columns), (0,), target, room)
    with mock.patch.object(plan_fused, "SMALL", 1 << 40):
        tiled = compiled(program(lambda b, x: everything(b, x, (0,)), f32(rows, columns)), target)
    assert [p.scheme for p in fused_plans(tiled)] == ["columns"]
    assert "sweeps" in [p.scheme for p in fused_plans(swept)]
    x = draw(rows, rows, columns)
    for got, want in zip(swept.results(x), tiled.results(x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("axes", [(1,), (0, 2)])
def test_loops_around_the_rows_are_swept_in_order(axes: tuple[int, ...], target: Target) -> None:
    shape = (3, 35, 400) if axes == (1,) else (4, 3, 35, 400)
    swept = with_sweeps(shape, axes, target, 1 << 18)
    assert fused_plans(swept)[0].scheme == "sweeps"
    x = draw(1, *shape)
    got = swept.results(x)
    wide = x.astype(np.float64)
    total = wide.sum(axes, keepdims=True)
    assert close(got[0], total.astype(np.float32), 0, 8, (x,))
    np.testing.assert_array_equal(got[1], x.max(axes, keepdims=True))
    np.testing.assert_array_equal(got[3], (x > 2.5).any(axes, keepdims=True))


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_argmax_over_swept_columns_is_the_first_best(target: Target) -> None:
    shape = (70, 300)
    with mock.patch.object(plan_fused, "SMALL", 0):
        fn = program(lambda b, v: b.call("argmax", v, axes=(0,), keepdims=False), f32(*shape))
        native = compiled(fn, target)
    assert fused_plans(native)[0].scheme == "sweeps"
    x = np.round(draw(2, *shape))
    x[50, 7] = np.nan
    (got,) = native.results(x)
    np.testing.assert_array_equal(got, x.argmax(0))


def test_a_large_sum_over_the_first_axis_takes_whole_rows() -> None:
    (plan,) = fused_plans(compiled(program(lambda b, x: b.sum(x, 0), f32(600, 4096))))
    assert plan.scheme == "sweeps"
    assert plan.sweep is not None
    assert plan.sweep.width == 4096
    assert "sweeps of 8 rows over 4096 columns" in str(plan)
