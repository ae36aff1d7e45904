"""Streaming stores: chosen where a large result is not read soon, and never felt."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from native_call import Native, close, compiled, emitted_for, lowered
from test_fused import FAMILIES, Body, draw, f32, fused_plans, numpy_softmax, program, softmax

from treadle.codegen import plan_stream
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.target import Target, host
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Value
from treadle.ir.types import TensorType


def streaming(body: Body, target: Target, *types: TensorType) -> Native:
    """A program whose results count as large."""
    with mock.patch.object(plan_stream, "LARGE", 0):
        native = compiled(program(body, *types), target)
    assert any(p.streamed for p in fused_plans(native))
    assert "!nontemporal" in native.emitted.ir
    return native


def plans(fn: Function) -> list[FusedPlan]:
    """How the kernels of a function would run here."""
    _, plan, _ = emitted_for(lowered(fn), host())
    return [k.body for k in plan.kernels if isinstance(k.body, FusedPlan)]


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("shape", [(1000,), (64,), (5, 48), (3, 7, 64), (1029,)])
def test_streamed_maps_are_right_wherever_a_result_begins(
    shape: tuple[int, ...], target: Target
) -> None:
    native = streaming(lambda b, x: b.add(b.mul(x, x), 1.0), target, f32(*shape))
    x = draw(1, *shape)
    np.testing.assert_array_equal(native.results(x)[0], x * x + 1)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_streamed_rows_and_transposes_are_right(target: Target) -> None:
    x = draw(2, 48, 160)
    rows = streaming(softmax, target, f32(48, 160))
    assert close(rows.results(x)[0], numpy_softmax(x), 16, 0, (x,))
    turned = streaming(lambda b, v: b.add(b.transpose(v), 1.0), target, f32(48, 160))
    np.testing.assert_array_equal(turned.results(x)[0], x.T + 1)


def test_rows_that_are_no_whole_vectors_are_not_streamed() -> None:
    with mock.patch.object(plan_stream, "LARGE", 0):
        native = compiled(program(lambda b, x, y: b.add(x, y), f32(9, 33), f32(33)))
    assert [p.streamed for p in fused_plans(native)] == [()]


def test_what_the_next_kernel_reads_stays_in_the_cache() -> None:
    def two_kernels(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        return (b.matmul(b.exp(x), w),)

    (plan,) = plans(program(two_kernels, f32(1024, 1024), f32(1024, 8)))
    assert plan.streamed == ()


def test_a_large_result_is_streamed_and_a_small_one_is_not() -> None:
    (large,) = plans(program(lambda b, x: b.add(x, 1.0), f32(4096, 4096)))
    (small,) = plans(program(lambda b, x: b.add(x, 1.0), f32(1024, 1024)))
    assert large.streamed == (0,)
    assert "streaming stores: results 0" in str(large)
    assert small.streamed == ()
