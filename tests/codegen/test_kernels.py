"""Kernel functions: tables, kernels that run in order, and code that is written once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import Array, compiled, function_of

from treadle.codegen.plan import TablePlan
from treadle.codegen.plan_lines import LinesPlan
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.op import get_op
from treadle.ir.types import TensorType, float32


def updates(shapes: list[tuple[int, ...]]) -> Function:
    """p - lr * g for parameters of any shape, with lr an operand of rank 0."""
    b = Builder("f")
    lr = b.param(TensorType(float32, ()), "lr")
    outs = []
    for n, shape in enumerate(shapes):
        p = b.param(TensorType(float32, shape), f"p{n}", "state")
        g = b.param(TensorType(float32, shape), f"g{n}")
        outs.append(b.sub(p, b.mul(lr, g)))
    return b.finish([Result(v, f"p{n}", "state") for n, v in enumerate(outs)])


def test_a_table_updates_every_parameter() -> None:
    shapes = [(3, 5), (1,), (16,), (17,), (100, 7), (0,), (33, 2)]
    native = compiled(updates(shapes))
    assert [type(k.body) for k in native.plan.kernels] == [TablePlan]
    rng = np.random.default_rng(0)
    args: list[Array] = [np.array(0.25, np.float32)]
    wanted = []
    for shape in shapes:
        p, g = (rng.standard_normal(shape).astype(np.float32) for _ in "pg")
        args += [p, g]
        wanted.append(p - np.float32(0.25) * g)
    for got, want in zip(native.results(*args), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_tables_code_does_not_grow_with_its_instances() -> None:
    few, many = (compiled(updates([(n + 2, 3) for n in range(c)])) for c in (3, 30))
    kernel = "define internal void @k"
    assert few.emitted.ir.count(kernel) == many.emitted.ir.count(kernel) == 1


def test_equal_kernels_are_one_function() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (8, 40)), "x")
    for _ in range(3):  # a product between them keeps the layers apart
        x = b.call("softmax", b.matmul(x, b.param(TensorType(float32, (40, 40)), f"w{_}")), axis=1)
    native = compiled(b.finish([Result(x, "y")]))
    softmaxes = [k for k in native.plan.kernels if not k.name.endswith("contract")]
    written = [k for k in softmaxes if f"void @{k.name}(" in _definitions(native.emitted.ir)]
    assert len(softmaxes) == 3
    assert len(written) == 1


def _definitions(ir: str) -> str:
    return "\n".join(line for line in ir.splitlines() if line.startswith("define"))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum_adds_in_order(axis: int, reverse: bool) -> None:
    x = np.random.default_rng(1).standard_normal((4, 5, 6)).astype(np.float32)
    op = get_op("cumsum")
    attrs: Any = op.attrs(axis=axis, reverse=reverse)  # type: ignore[call-arg]
    native = compiled(function_of(op, attrs, (x,)))
    assert isinstance(native.plan.kernels[0].body, LinesPlan)
    view = np.flip(x, axis) if reverse else x
    want = np.cumsum(view, axis, dtype=np.float32)
    want = np.flip(want, axis) if reverse else want
    np.testing.assert_array_equal(native.results(x)[0], want)


def test_the_last_of_several_writes_wins() -> None:
    op = get_op("scatter")
    x = np.zeros((4, 37), np.float32)
    v = np.arange(5 * 37, dtype=np.float32).reshape(5, 37)
    ids = np.array([1, 3, 1, -1, 0])
    native = compiled(function_of(op, op.attrs(axes=(0,)), (x, v, ids)))  # type: ignore[call-arg]
    want = x.copy()
    for k, i in enumerate(ids):
        want[i] = v[k]
    np.testing.assert_array_equal(native.results(x, v, ids)[0], want)


@pytest.mark.parametrize("name", ["scatter", "scatter_add"])
def test_a_write_out_of_range_faults_and_touches_nothing_outside(name: str) -> None:
    op = get_op(name)
    x, v = np.zeros((4, 3), np.float32), np.ones((3, 3), np.float32)
    ids = np.array([0, 9, -17])
    native = compiled(function_of(op, op.attrs(axes=(0,)), (x, v, ids)))  # type: ignore[call-arg]
    for at_end in (False, True):
        returned, _, fault = native(x, v, ids, at_end=at_end)
        assert (returned, fault) == (1, [1, 9])
    assert native.emitted.faults[0].message.startswith(f"{name}: index out of range for axis 0")
