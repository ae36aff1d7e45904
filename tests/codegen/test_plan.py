"""The kernel plan: what is decided, and that it is data that prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
from native_call import lowered

from treadle.codegen.plan import Plan, TablePlan, plan_function
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.target import named
from treadle.ir.builder import Builder
from treadle.ir.errors import CompileError
from treadle.ir.graph import Result, Value
from treadle.ir.types import TensorType, float32, float64, uint8
from treadle.passes.memory import plan_memory

Body = Callable[..., Value]


def plan_of(body: Body, *shapes: tuple[int, ...], target: str = "avx512", dtype=float32) -> Plan:  # type: ignore[no-untyped-def]
    b = Builder("f")
    params = [b.param(TensorType(dtype, s), f"x{n}") for n, s in enumerate(shapes)]
    fn = lowered(b.finish([Result(body(b, *params), "y")]))
    return plan_function(fn, plan_memory(fn), named(target))


def fused(plan: Plan) -> FusedPlan:
    (kernel,) = plan.kernels
    assert isinstance(kernel.body, FusedPlan)
    return kernel.body


def test_contiguous_maps_run_as_one_flat_loop() -> None:
    body = fused(plan_of(lambda b, x, y: b.add(x, y), (8, 3, 5), (8, 3, 5)))
    assert [d.size for d in body.dims] == [120]


def test_broadcast_axes_stay_loops_of_their_own() -> None:
    body = fused(plan_of(lambda b, x, y: b.add(x, y), (8, 3, 5), (3, 5)))
    assert [d.size for d in body.dims] == [8, 15]


@pytest.mark.parametrize(
    "axes,scheme", [((1,), "rows"), ((0,), "columns"), ((0, 1), "rows"), ((), "map")]
)
def test_the_scheme_follows_the_reduced_axes(axes: tuple[int, ...], scheme: str) -> None:
    body = fused(plan_of(lambda b, x: b.sum(b.mul(x, x), axes) if axes else b.mul(x, x), (40, 70)))
    assert body.scheme == scheme


@pytest.mark.parametrize(
    "target,dtype,lanes",
    [("avx512", float32, 16), ("avx2", float32, 8), ("sse2", float32, 4), ("neon", float32, 4),
     ("avx512", float64, 8), ("sse2", float64, 2)],
)  # fmt: skip
def test_vectors_are_as_wide_as_the_target(target: str, dtype: object, lanes: int) -> None:
    body = plan_of(lambda b, x: b.mul(x, x), (1000,), target=target, dtype=dtype)
    assert fused(body).lanes == lanes


def test_tails_are_masked_where_masks_are_cheap() -> None:
    assert fused(plan_of(lambda b, x: b.mul(x, x), (103,), target="avx512")).tail == "mask"
    assert fused(plan_of(lambda b, x: b.mul(x, x), (103,), target="avx2")).tail == "peel"
    assert fused(plan_of(lambda b, x: b.mul(x, x), (128,), target="avx2")).tail == "none"


def test_short_rows_use_short_vectors() -> None:
    assert fused(plan_of(lambda b, x: b.sum(x, 1), (100, 3))).lanes == 4


def test_cheap_values_are_computed_again_and_expensive_ones_kept() -> None:
    def cheap(b: Builder, x: Value) -> Value:
        y = b.mul(x, 2.0)
        return b.sub(y, b.max(y, 1, keepdims=True))

    def dear(b: Builder, x: Value) -> Value:
        y = b.exp(x)
        return b.sub(y, b.max(y, 1, keepdims=True))

    assert fused(plan_of(cheap, (9, 50))).stored == ()
    assert len(fused(plan_of(dear, (9, 50))).stored) == 1


def test_a_row_too_long_for_the_cache_is_not_kept() -> None:
    def dear(b: Builder, x: Value) -> Value:
        y = b.exp(x)
        return b.sub(y, b.max(y, 0, keepdims=True))

    assert plan_of(dear, (4 << 20,)).scratch == 0


def test_one_run_needs_no_cascade() -> None:
    assert fused(plan_of(lambda b, x: b.sum(x, 1), (9, 1024))).levels == 0
    assert fused(plan_of(lambda b, x: b.sum(x, 1), (9, 100_000))).levels > 0
    assert fused(plan_of(lambda b, x: b.max(x, 1), (9, 100_000))).levels == 0


def test_equal_maps_of_different_sizes_are_one_table() -> None:
    b = Builder("f")
    shapes = ((30, 7), (11,), (5, 5, 5))
    outs = []
    for n, shape in enumerate(shapes):
        x = b.param(TensorType(float32, shape), f"x{n}")
        outs.append(b.add(b.mul(x, 0.9), 0.1))
    fn = lowered(b.finish([Result(v, f"y{n}") for n, v in enumerate(outs)]))
    (kernel,) = plan_function(fn, plan_memory(fn), named("avx512")).kernels
    assert isinstance(kernel.body, TablePlan)
    assert sorted(kernel.body.lengths) == [11, 125, 210]


def test_a_plan_is_frozen_and_prints_its_loops() -> None:
    plan = plan_of(lambda b, x: b.sum(b.exp(x), 1), (64, 1000))
    text = str(plan)
    for part in ("avx512", "rows", "16 lanes", "for axis 0: 64", "reduce axis 1: 1000", "pass 1"):
        assert part in text
    with pytest.raises(FrozenInstanceError):
        plan.scratch = 1  # type: ignore[misc]


def test_an_instruction_without_a_kernel_is_refused() -> None:
    b = Builder("f")
    x = b.param(TensorType(uint8, (3,)), "x")
    fn = b.finish([Result(b.call("bitwise_not", x), "y")])
    with pytest.raises(CompileError, match="bitwise_not"):
        plan_function(fn, plan_memory(fn), named("sse2"))
