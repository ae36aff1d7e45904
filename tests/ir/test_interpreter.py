"""The reference interpreter: what it runs, what it refuses, and how long it keeps values."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import DTypeError, GradientError, IndexFault, ShapeError
from treadle.ir.graph import Function, Level, Loc, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.op import Array, Attrs, OpDef, get_op
from treadle.ir.regions import FLAT_LENGTH
from treadle.ir.types import Dim, TensorType, float32, float64, int64
from treadle.ir.verifier import verify

N = Dim.of("n")


def f32(*shape: Any) -> TensorType:
    return TensorType(float32, shape)


def function(
    types: Sequence[TensorType], body: Callable[..., Value | Sequence[Value]], name: str = "f"
) -> Function:
    """A Function with parameters x0, x1, .. whose results `body(builder, *values)` gives."""
    b = Builder(name)
    found = body(b, *(b.param(t, f"x{i}") for i, t in enumerate(types)))
    results = (found,) if isinstance(found, Value) else found
    return b.finish([Result(v, f"out{i}") for i, v in enumerate(results)])


def region_op(b: Builder, name: str, args: Sequence[Value], region: Function, **attrs: Any) -> Any:
    op = get_op(name)
    types = [v.type for v in region.outputs]
    return b.emit_typed(op, args, op.attrs(**attrs), types, [region])


# --- what it runs ----------------------------------------------------------------------------


def test_results_are_those_of_the_references_in_the_functions_order() -> None:
    fn = function([f32(3), f32(3)], lambda b, x, y: (b.mul(b.add(x, y), 2.0), b.exp(x)))
    x, y = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    product, power = interpret(fn, [x, y])
    np.testing.assert_array_equal(product, (x + y) * 2)
    np.testing.assert_array_equal(power, np.exp(x.astype(np.float64)).astype(np.float32))


def test_identities_of_differentiation_pass_values_through() -> None:
    fn = function([f32(2)], lambda b, x: b.call("stop_gradient", b.call("variable", x)))
    (found,) = interpret(fn, [np.float32([1, 2])])
    assert found.tolist() == [1, 2]


def test_a_composite_runs_by_its_own_reference() -> None:
    fn = function([f32(2, 3)], lambda b, x: b.call("softmax", x, axis=1))
    (found,) = interpret(fn, [np.zeros((2, 3), np.float32)])
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)


def test_a_fused_region_means_its_instructions_one_by_one() -> None:
    def rows(b: Builder, x: Value) -> Value:
        return b.div(x, b.sum(x, (1,), keepdims=True))

    region = function([f32(2, 3)], rows, "rows")
    fn = function(
        [f32(2, 3)],
        lambda b, x: region_op(b, "fused", (x,), region, space=(2, 3), reduced=(1,)),
    )
    verify(fn, Level.KERNELS)
    x = np.float32([[1, 2, 1], [0, 5, 5]])
    np.testing.assert_array_equal(interpret(fn, [x])[0], x / x.sum(1, keepdims=True))


def test_a_table_runs_its_region_once_for_each_instance_with_its_own_length() -> None:
    flat = TensorType(float32, (FLAT_LENGTH,))

    def step(b: Builder, p: Value, g: Value, rate: Value) -> tuple[Value, Value]:
        moved = b.sub(p, b.mul(g, rate))
        return moved, b.mul(moved, 10.0)

    region = function([flat, flat, f32()], step, "step")
    b = Builder("f")
    rate = b.param(f32(), "rate")
    pairs = [(b.param(f32(n), f"p{n}"), b.param(f32(n), f"g{n}")) for n in (3, 1, 0)]
    op = get_op("fused_table")
    outs = b.emit_typed(
        op,
        [v for p, g in pairs for v in (p, g, rate)],
        op.attrs(count=3),
        [f32(n) for n in (3, 3, 1, 1, 0, 0)],
        [region],
    )
    fn = b.finish([Result(v, f"out{i}") for i, v in enumerate(outs)])
    verify(fn, Level.KERNELS)
    arrays = [np.float32(0.5)]
    for n in (3, 1, 0):
        arrays += [np.arange(n, dtype=np.float32), np.ones(n, np.float32)]
    found = interpret(fn, arrays)
    for i, n in enumerate((3, 1, 0)):
        expected = np.arange(n, dtype=np.float32) - np.float32(0.5)
        np.testing.assert_array_equal(found[2 * i], expected)
        np.testing.assert_array_equal(found[2 * i + 1], expected * 10)


def test_symbolic_dimensions_take_their_sizes_from_the_arrays() -> None:
    def body(b: Builder, x: Value, y: Value) -> Value:
        wide = b.broadcast_to(b.sum(x, (0,), keepdims=True), (N, 2))
        joined = b.call("concat", b.add(wide, x), y, axis=0)
        return b.reshape(joined, (N * 6 + 2,))

    fn = function([f32(N, 2), f32(N * 2 + 1, 2)], body)
    for n in (1, 4):
        x, y = np.ones((n, 2), np.float32), np.zeros((2 * n + 1, 2), np.float32)
        (found,) = interpret(fn, [x, y])
        assert found.tolist() == [n + 1.0] * (2 * n) + [0.0] * (4 * n + 2)


def test_a_long_chain_runs() -> None:
    def chain(b: Builder, x: Value) -> Value:
        for _ in range(5000):
            x = b.add(x, 1.0)
        return x

    assert interpret(function([f32()], chain), [np.float32(0)])[0] == 5000


# --- memory ----------------------------------------------------------------------------------


def test_results_share_no_memory_with_arguments_or_each_other() -> None:
    fn = function([f32(2)], lambda b, x: (x, x, b.neg(x)))
    x = np.float32([1, 2])
    first, second, negative = interpret(fn, [x])
    first[0] = second[1] = 9
    assert x.tolist() == [1, 2]
    assert second.tolist() == [1, 9]
    assert negative.tolist() == [-1, -2]


class _Traceable(np.ndarray[Any, Any]):
    """An array that a weak reference can follow."""


def test_a_value_is_freed_after_its_last_use() -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def counting(a: Attrs, x: Array) -> Array:
        nonlocal most
        out = np.array(x).view(_Traceable)
        alive.append(weakref.ref(out))
        most = max(most, sum(ref() is not None for ref in alive))
        return out

    op: OpDef = replace(get_op("neg"), name="counting", ref=counting)

    def chain(b: Builder, x: Value) -> Value:
        for _ in range(10):
            b.emit(op, (x,))  # its result is never used
            (x,) = b.emit(op, (x,))
        return x

    interpret(function([f32(2)], chain), [np.float32([1, 2])])
    assert len(alive) == 20
    assert most <= 3


# --- what it refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([np.zeros((2, 3), np.float32)], ShapeError, r"takes 2 arrays \(x0, x1\), found 1"),
        ([np.zeros((2, 3)), np.zeros(2, np.float32)], DTypeError, r"'x0' is f32\[n, 3\], found"),
        (
            [np.zeros(6, np.float32), np.zeros(2, np.float32)],
            ShapeError,
            r"found an array f32\[6\]",
        ),
        (
            [np.zeros((2, 4), np.float32), np.zeros(2, np.float32)],
            ShapeError,
            "found a size 4 where 3 is expected",
        ),
        (
            [np.zeros((2, 3), np.float32), np.zeros(5, np.float32)],
            ShapeError,
            r"'x1' is f32\[n\], found a size 5 where n is expected \(with n=2\)",
        ),
    ],
)
def test_arrays_that_do_not_fit_their_parameters_are_refused(
    arrays: list[Array], error: type[Exception], message: str
) -> None:
    fn = function([f32(N, 3), f32(N)], lambda b, x, y: b.neg(x))
    with pytest.raises(error, match=message):
        interpret(fn, arrays)


def test_a_size_that_no_parameter_tells_is_refused() -> None:
    fn = function([f32(N * 2)], lambda b, x: b.neg(x))
    with pytest.raises(ShapeError, match=r"size of 2\*n of parameter 'x0'"):
        interpret(fn, [np.zeros(4, np.float32)])


def test_gradient_says_to_run_autodiff_first() -> None:
    def body(b: Builder, x: Value) -> Value:
        v = b.call("variable", x)
        y = b.mul(v, v)
        return b.call("gradient", y, b.ones_like(y), v, outputs=1)

    with pytest.raises(GradientError, match="run the autodiff pass first"):
        interpret(function([f32()], body), [np.float32(3)])


def test_a_fault_names_the_instructions_line() -> None:
    def body(b: Builder, x: Value, i: Value) -> Value:
        with b.at(Loc("model.py", 12)):
            return b.call("gather", x, i, axes=(0,))

    fn = function([f32(3), TensorType(int64, (2,))], body)
    with pytest.raises(IndexFault, match=r"axis 0 of size 3, found 7 \(at model.py:12\)"):
        interpret(fn, [np.zeros(3, np.float32), np.array([0, 7])])


def test_a_wrong_type_given_by_a_pass_is_noticed() -> None:
    b = Builder()
    x = b.param(f32(3), "x")
    wrong = b.emit_typed(get_op("neg"), (x,), Attrs(), [TensorType(float64, (3,))])
    fn = b.finish([Result(wrong[0], "out")])
    with pytest.raises(ShapeError, match=r"neg computed f32\[3\], the instruction says f64\[3\]"):
        interpret(fn, [np.zeros(3, np.float32)])
