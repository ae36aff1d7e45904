"""Loops over regions: every scheme, shape and tail gives what the region's references give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from native_call import Array, Native, close, compiled, silent

from treadle.codegen.plan_fused import RUN, FusedPlan
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result, Value
from treadle.ir.types import DType, TensorType, float32, int32, int64

Body = Callable[..., "Value | tuple[Value, ...]"]


def program(body: Body, *types: TensorType) -> Function:
    """A function whose results are what `body(builder, *params)` gives."""
    b = Builder("f")
    found = body(b, *(b.param(t, f"x{n}") for n, t in enumerate(types)))
    outs = found if isinstance(found, tuple) else (found,)
    return b.finish([Result(v, f"y{n}") for n, v in enumerate(outs)])


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def fused_plans(native: Native) -> list[FusedPlan]:
    return [k.body for k in native.plan.kernels if isinstance(k.body, FusedPlan)]


def softmax(b: Builder, x: Value, axis: int = 1) -> Value:
    e = b.exp(b.sub(x, b.max(x, axis, keepdims=True)))
    return b.div(e, b.sum(e, axis, keepdims=True))


def numpy_softmax(x: Array, axis: int = 1) -> Array:
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(np.float32)


FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("columns", [1, 2, 3, 10, 16, 17, 33, 100, 257])
def test_a_softmax_is_one_kernel_for_any_row_length(columns: int, target: Target) -> None:
    native = compiled(program(softmax, f32(5, columns)), target)
    assert len(native.plan.kernels) == 1
    x = draw(columns, 5, columns)
    (got,) = native.results(x)
    assert close(got, numpy_softmax(x), 16, 0, (x,))


def test_an_exponential_that_two_passes_need_is_computed_once() -> None:
    (plan,) = fused_plans(compiled(program(softmax, f32(64, 1000))))
    assert plan.scheme == "rows"
    assert len(plan.stored) == 1
    assert plan.scratch == 4032  # one row


def test_a_softmax_over_the_first_axis_runs_in_columns() -> None:
    native = compiled(program(lambda b, x: softmax(b, x, 0), f32(70, 37)))
    (plan,) = fused_plans(native)
    assert plan.scheme == "columns"
    x = draw(0, 70, 37)
    assert close(native.results(x)[0], numpy_softmax(x, 0), 16, 0, (x,))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40]), min_size=1, max_size=4),
    data=st.data(),
)
def test_sum_and_maximum_over_any_axes(shape: list[int], data: st.DataObject) -> None:
    axes = data.draw(st.sets(st.sampled_from(range(len(shape))), min_size=1))
    target = data.draw(st.sampled_from(FAMILIES))

    def body(b: Builder, x: Value) -> tuple[Value, ...]:
        total = b.sum(x, sorted(axes), keepdims=True)
        return total, b.max(b.mul(x, x), sorted(axes)), b.sub(x, total)

    x = draw(len(shape), *shape)
    total, largest, rest = compiled(program(body, f32(*shape)), target).results(x)
    wide = x.astype(np.float64).sum(tuple(axes), keepdims=True)
    room = 4e-7 * np.abs(x).sum(tuple(axes), keepdims=True) + 1e-7
    assert (np.abs(total - wide) <= room).all()
    np.testing.assert_array_equal(largest, (x * x).max(tuple(axes)))
    np.testing.assert_array_equal(rest, x - total)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    ones=st.lists(st.booleans(), min_size=3, max_size=3),
    target=st.sampled_from(FAMILIES),
)
def test_maps_broadcast_their_operands(shape: list[int], ones: list[bool], target: Target) -> None:
    other = [1 if one else s for s, one in zip(shape, ones, strict=False)]
    x, y = draw(1, *shape), draw(2, *other)

    def body(b: Builder, p: Value, q: Value) -> tuple[Value, ...]:
        return b.add(b.mul(p, q), q), b.lt(p, q)

    total, less = compiled(program(body, f32(*shape), f32(*other)), target).results(x, y)
    np.testing.assert_array_equal(total, x * y + y)
    np.testing.assert_array_equal(less, x < y)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("shape,axis", [((1 << 20,), 0), ((300_000, 3), 0), ((7, 100_003), 1)])
def test_long_sums_err_no_more_than_pairwise_summation(
    shape: tuple[int, ...], axis: int, target: Target
) -> None:
    """Rounding errors of additions of like sign: a running sum is off by thousands."""
    x = np.random.default_rng(5).random(shape).astype(np.float32)
    native = compiled(program(lambda b, v: b.sum(v, axis), f32(*shape)), target)
    plan = fused_plans(native)[0]
    assert plan.levels > 0
    (got,) = native.results(x)
    want = x.astype(np.float64).sum(axis)
    runs = shape[axis] / RUN
    bound = (RUN + np.ceil(np.log2(runs)) + 8) * 2.0**-24
    assert (np.abs(got - want) <= bound * want).all()
    assert (np.abs(got - want) <= 2e-6 * want).all()


def test_the_order_of_a_sum_depends_on_shapes_alone() -> None:
    x = draw(9, 50_000)
    fn = program(lambda b, v: b.sum(v, 0), f32(50_000))
    first, second = compiled(fn), compiled(fn)
    assert first.results(x)[0].tobytes() == second.results(x)[0].tobytes()


def test_products_and_sums_are_not_contracted() -> None:
    """a * b - a * b is 0; with a fused multiply-add it is the rounding error of a * b."""

    def body(b: Builder, p: Value, q: Value) -> Value:
        return b.sub(b.mul(p, q), b.mul(q, p))

    x, y = draw(1, 1000), draw(2, 1000)
    (got,) = compiled(program(body, f32(1000), f32(1000))).results(x, y)
    assert not got.any()


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_arg_reductions_take_the_first_of_equals_and_nan(
    op: str, axis: int, target: Target
) -> None:
    x = np.random.default_rng(6).integers(-3, 4, (37, 45)).astype(np.float32)
    x[5, 7] = x[20, 30] = np.nan
    fn = program(lambda b, v: b.call(op, v, axes=(axis,), keepdims=False), f32(37, 45))
    (got,) = compiled(fn, target).results(x)
    np.testing.assert_array_equal(got, getattr(np, op)(x, axis))


def test_a_row_that_feeds_mean_and_variance_is_one_kernel() -> None:
    def body(b: Builder, x: Value) -> Value:
        return b.call("layer_norm", x, axes=(1,), eps=1e-5)

    native = compiled(program(body, f32(33, 250)))
    assert len(native.plan.kernels) == 1
    x = draw(3, 33, 250) * 3 + 7
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(native.results(x)[0], want, atol=3e-6)


def test_pulled_operands_are_read_at_their_own_index() -> None:
    """Gather, flip, slice, concat and a transposition inside one map."""

    def body(b: Builder, table: Value, ids: Value, y: Value) -> Value:
        rows = b.call("gather", table, ids, axes=(0,))
        flipped = b.call("flip", rows, axes=(1,))
        part = b.call("slice", y, starts=(0, 1), steps=(1, 2), shape=(19, 6))
        return b.add(b.mul(flipped, b.permute(part, (1, 0))), 1.0)

    fn = program(body, f32(11, 19), TensorType(int32, (6,)), f32(19, 12))
    table, y = draw(1, 11, 19), draw(2, 19, 12)
    ids = np.array([3, -1, 0, 10, -11, 3], np.int32)
    (got,) = compiled(fn).results(table, ids, y)
    np.testing.assert_array_equal(got, table[ids][:, ::-1] * y[:, 1:12:2].T + 1)


def test_a_fault_names_the_first_index_out_of_range() -> None:
    fn = program(
        lambda b, t, i: b.exp(b.call("gather", t, i, axes=(0,))), f32(10), TensorType(int64, (40,))
    )
    native = compiled(fn)
    ids = np.zeros(40, np.int64)
    assert native(draw(0, 10), ids)[0] == 0
    ids[[21, 37]] = 77, -99
    returned, _, fault = native(draw(0, 10), ids)
    assert returned == fault[0] == 1
    assert fault[1] == 77
    assert "gather" in native.emitted.faults[0].message


def test_infinities_and_nan_pass_through_masked_tails() -> None:
    x = draw(4, 3, 21)
    x[0, 20], x[1, 3], x[2, 20] = np.inf, -np.inf, np.nan
    fn = program(lambda b, v: (b.max(v, 1), b.sum(v, 1)), f32(3, 21))
    largest, total = compiled(fn).results(x)
    with silent():
        np.testing.assert_array_equal(largest, x.max(1))
        np.testing.assert_allclose(total, x.sum(1, dtype=np.float64), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.sampled_from([1, 2, 15, 16, 17, 33, 64, 70, 130])] * 2),
    batch=st.sampled_from([1, 3]),
    dtype=st.sampled_from([float32, int64]),
    target=st.sampled_from(FAMILIES),
)
def test_transposed_operands_are_read_in_blocks(
    shape: tuple[int, int], batch: int, dtype: DType, target: Target
) -> None:
    rows, columns = shape

    def body(b: Builder, p: Value, q: Value) -> Value:
        return b.add(b.mul(b.permute(p, (0, 2, 1)), q), q)

    x = np.random.default_rng(1).integers(-9, 9, (batch, rows, columns)).astype(dtype.dtype)
    y = np.random.default_rng(2).integers(-9, 9, (batch, columns, rows)).astype(dtype.dtype)
    native = compiled(program(body, TensorType(dtype, x.shape), TensorType(dtype, y.shape)), target)
    np.testing.assert_array_equal(native.results(x, y)[0], x.transpose(0, 2, 1) * y + y)


def test_a_transposition_is_planned_in_blocks() -> None:
    def body(b: Builder, p: Value) -> Value:
        return b.add(b.permute(p, (1, 0)), 1.0)

    (plan,) = fused_plans(compiled(program(body, f32(100, 200))))
    assert [(t.param, t.offset, t.steps) for t in plan.turned] == [(0, 0, (1, 200))]


def test_scratch_is_used_in_long_rows_with_tails() -> None:
    """Several runs, a rest and a tail, all of which store and load a value that is kept."""

    def body(b: Builder, x: Value) -> Value:
        e = b.exp(x)
        return b.div(e, b.sum(e, 1, keepdims=True))

    for target in FAMILIES:
        native = compiled(program(body, f32(3, 5003)), target)
        x = draw(7, 3, 5003)
        e = np.exp(x.astype(np.float64))
        want = (e / e.sum(1, keepdims=True)).astype(np.float32)
        assert close(native.results(x)[0], want, 8, 0, (x,))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    dtype=st.sampled_from([float32, int64]),
    target=st.sampled_from(FAMILIES),
)
def test_transposes_of_any_size_turn_every_element(
    rows: int, columns: int, dtype: DType, target: Target
) -> None:
    def body(b: Builder, x: Value, y: Value) -> Value:
        return b.sub(b.transpose(x), y)

    types = (TensorType(dtype, (rows, columns)), TensorType(dtype, (columns, rows)))
    x = np.arange(rows * columns).reshape(rows, columns).astype(dtype.dtype)
    y = x.reshape(columns, rows) % 7
    (got,) = compiled(program(body, *types), target).results(x, y)
    np.testing.assert_array_equal(got, x.T - y)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("start", [0, 1, 5, 15])
@pytest.mark.parametrize("width", [16, 96, 640])
def test_blocks_of_a_transpose_may_begin_inside_of_a_cache_line(
    start: int, width: int, target: Target
) -> None:
    """Rows a whole number of lines apart: blocks begin where lines do, the first one is short."""
    native = compiled(program(lambda b, x: b.add(b.transpose(x), 1.0), f32(35, width)), target)
    assert fused_plans(native)[0].turned
    x = draw(width, 35, width)
    _, (got,), _ = native(x, at_end=False, shift=4 * start)
    np.testing.assert_array_equal(got, x.T + 1)
