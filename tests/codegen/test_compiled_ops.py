"""Compiled code against the references, for every op of the table, at every target that runs here.

All buffers lie against forbidden pages on both sides: an access outside of one ends the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import close, compiled, function_of

from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.op import NO_ATTRS, OpDef, Trait, all_ops, get_op
from treadle.ir.scalar import ArgReduce, Kernel, Reduce

_SKIPPED = {"gradient", "fused", "fused_table", "contract"}
OPS = [op for op in all_ops() if op.name not in _SKIPPED and Trait.BARRIER not in op.traits]
TARGETS = ["host", *NAMES]


def the_target(name: str) -> Target:
    target = host() if name == "host" else named(name)
    if not target.runs_here():
        pytest.skip(f"this machine lacks instructions of {name}")
    return target


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_compiled_equals_reference_on_samples(op: OpDef) -> None:
    for sample in op.samples(np.random.default_rng(1)):
        native = compiled(function_of(op, sample.attrs, sample.args))
        found = native.results(*sample.args)
        wanted = op.run_ref(sample.attrs, sample.args)
        for got, want in zip(found, wanted, strict=True):
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            assert close(got, want, sample.ulps, sample.scale, sample.args), (
                f"{op.name} {sample.attrs}: {got} is not {want}\n{native.plan}"
            )


@pytest.mark.parametrize("name", TARGETS[1:])
def test_every_family_agrees_with_references(name: str) -> None:
    """One sample an op, so that the whole table is compiled for each family."""
    target = the_target(name)
    for op in OPS:
        samples = list(op.samples(np.random.default_rng(2)))
        sample = max(samples, key=lambda s: sum(a.size for a in s.args), default=None)
        if sample is None:
            continue
        native = compiled(function_of(op, sample.attrs, sample.args), target)
        found = native.results(*sample.args)
        for got, want in zip(found, op.run_ref(sample.attrs, sample.args), strict=True):
            assert close(got, want, sample.ulps, sample.scale, sample.args), (
                f"{op.name} {sample.attrs} on {name}: {got} is not {want}"
            )


def boundary_sizes(target: Target) -> list[int]:
    width = target.vector_bytes // 4
    return sorted({0, 1, width - 1, width, width + 1, 2 * width + 1, 9 * width + 3})


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("op_name", ["add", "mul", "where", "logical_not", "cast"])
def test_elementwise_at_boundary_sizes(op_name: str, name: str) -> None:
    target, op = the_target(name), get_op(op_name)
    rng = np.random.default_rng(3)
    for size in boundary_sizes(target):
        args: tuple[Any, ...] = tuple(
            rng.standard_normal((3, size)).astype(np.float32) for _ in "ab"
        )
        attrs = NO_ATTRS
        if op_name == "where":
            args = (rng.integers(0, 2, (3, size)).astype(bool), *args)
        elif op_name == "logical_not":
            args = (args[0] > 0,)
        elif op_name == "cast":
            from treadle.ir.types import int64

            args, attrs = (args[0] * 100,), op.attrs(dtype=int64)  # type: ignore[call-arg]
        (got,) = compiled(function_of(op, attrs, args), target).results(*args)
        np.testing.assert_array_equal(got, op.run_ref(attrs, args)[0])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("op_name", ["sum", "max", "any", "argmax"])
def test_reductions_at_boundary_sizes(op_name: str, name: str) -> None:
    target, op = the_target(name), get_op(op_name)
    rng = np.random.default_rng(4)
    is_arg = isinstance(op.lower, ArgReduce)
    for size in boundary_sizes(target):
        x = rng.integers(-9, 9, (3, size)).astype(np.float32)
        if op_name == "any":
            x = x > 8  # type: ignore[assignment]
        for axis in (0, 1):
            if x.shape[axis] == 0 and (is_arg or op_name == "max"):
                continue  # the type rule refuses them
            attrs = op.attrs(axes=(axis,), keepdims=False)  # type: ignore[call-arg]
            (got,) = compiled(function_of(op, attrs, (x,)), target).results(x)
            np.testing.assert_array_equal(got, op.run_ref(attrs, (x,))[0])


@pytest.mark.parametrize("op_name", ["sum", "prod", "any", "all"])
def test_a_reduction_of_an_empty_axis_is_the_identity(op_name: str) -> None:
    op = get_op(op_name)
    assert isinstance(op.lower, Reduce)
    x = np.zeros((2, 0), bool if op_name in ("any", "all") else np.float32)
    attrs = op.attrs(axes=(1,), keepdims=False)  # type: ignore[call-arg]
    (got,) = compiled(function_of(op, attrs, (x,))).results(x)
    from treadle.ir.types import dtype_of

    assert (got == op.lower.identity(dtype_of(x.dtype))).all()


def test_every_op_of_the_table_is_compiled_or_claimed() -> None:
    claimed = {op.lower.name for op in OPS if isinstance(op.lower, Kernel)}
    by_passes = {"matmul", "debug_print", "callback", "watch", "remat", "update"}
    regions = {"scan", "switch"}  # whose insides have kernels of their own
    kernels = {"running", "scatter", "scatter_add", "check", "attention", "attention_grad"}
    kernels |= {"sort", "topk", "add_along"}
    assert claimed <= kernels | by_passes | regions


@pytest.mark.parametrize("name", TARGETS)
def test_sums_around_whole_numbers_of_runs_hold_every_element(name: str) -> None:
    """A row is summed in runs of at most 32 steps, and what is left over of a step may be one run
    more: the cascade has room for it. Ones are summed exactly, so that a lost run shows."""
    target, op = the_target(name), get_op("sum")
    attrs = op.attrs(axes=(0,), keepdims=False)  # type: ignore[call-arg]
    for dtype in (np.float32, np.float64):
        step = 4 * target.vector_bytes // np.dtype(dtype).itemsize
        for runs in (1, 2, 3, 4, 7):
            whole = runs * 32 * step
            for size in (whole - step, whole - 1, whole, whole + 1, whole + step + 3):
                x = np.ones(size, dtype)
                (got,) = compiled(function_of(op, attrs, (x,)), target).results(x)
                assert got == size


@pytest.mark.parametrize("name", TARGETS[1:])
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_keeps_its_digits_in_the_negative_tail(name: str, approximate: bool) -> None:
    """The formula with 1 + erf, or 1 + tanh, is 0 from -5.5 on. What is left is the rounding of
    the exponent, which the exponential turns into as many roundings as its size."""
    op = get_op("gelu")
    attrs = op.attrs(approximate=approximate)  # type: ignore[call-arg]
    x = np.linspace(-9, -2, 64, dtype=np.float32)
    native = compiled(function_of(op, attrs, (x,)), the_target(name))
    (found,) = native.results(x)
    (wanted,) = op.run_ref(attrs, (x.astype(np.float64),))
    exponent = np.abs(np.log(np.abs(wanted)))
    off = np.abs(found / wanted - 1)
    assert (off <= (4 + 2 * exponent) * np.finfo(np.float32).eps).all()
