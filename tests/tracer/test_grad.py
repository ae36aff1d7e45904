"""`grad` and `value_and_grad`: any order, trees, eager and traced alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from treadle.ir.errors import DTypeError, GradientError
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.passes import autodiff
from treadle.passes.manager import PassContext
from treadle.tracer import pytree
from treadle.tracer.create import tensor
from treadle.tracer.grad import grad, value_and_grad
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace


def traced(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)` through a trace, the autodiff pass and the interpreter; floats are inputs."""
    leaves, tree = pytree.flatten(args)
    arrays = [np.asarray(x, np.float64 if isinstance(x, float) else None) for x in leaves]
    trace = Trace("f", lambda x: None)
    with trace:
        given = [
            trace.arg(tensor(a).type, f"x{i}", weak=isinstance(x, float))
            for i, (x, a) in enumerate(zip(leaves, arrays, strict=True))
        ]
        outs, structure = pytree.flatten(fn(*pytree.unflatten(tree, given)))
        results = [Result(trace.value_of(x), f"out{i}") for i, x in enumerate(outs)]
    found = interpret(_differentiated(trace.finish(results)), arrays)
    return pytree.unflatten(structure, found)


def _differentiated(fn: Function) -> Function:
    return autodiff.run(fn, PassContext())


def eager(fn: Callable[..., Any], *args: Any) -> Any:
    return pytree.tree_map(np.asarray, fn(*args))


both = pytest.mark.parametrize("run", [eager, traced])


@both
def test_the_gradient_of_a_function(run: Any) -> None:
    a = np.array([0.3, -1.2, 2.0])
    found = run(grad(lambda x: (x.sin() * x).sum()), a)
    np.testing.assert_allclose(found, np.cos(a) * a + np.sin(a))


@both
def test_an_inner_derivative_is_not_confused_with_an_outer_one(run: Any) -> None:
    def nested(x: Any) -> Any:
        return x * grad(lambda y: x * y)(1.0)

    assert float(run(grad(nested), 2.0)) == 4.0

    def doubly(x: Any) -> Any:  # d/dx x * (d/dy y * x * x) = 3 x^2
        return x * grad(lambda y: y * x * x)(x)

    assert float(run(grad(doubly), 2.0)) == 12.0


@both
def test_any_order(run: Any) -> None:
    def cube(x: Any) -> Any:
        return x * x * x * x

    assert float(run(grad(cube), 2.0)) == 32
    assert float(run(grad(grad(cube)), 2.0)) == 48
    assert float(run(grad(grad(grad(cube))), 2.0)) == 48
    assert float(run(grad(grad(grad(grad(grad(cube))))), 2.0)) == 0


@both
def test_a_second_order_product_of_vectors(run: Any) -> None:
    a, v = np.array([0.5, 1.0, -0.3]), np.array([1.0, 2.0, 3.0])

    def hessian_vector(x: Tensor, d: Tensor) -> Tensor:
        found: Tensor = grad(lambda y: (grad(lambda z: (z * z * z).sum())(y) * d).sum())(x)
        return found

    np.testing.assert_allclose(run(hessian_vector, a, v), 6 * a * v)


@both
def test_argnums_and_trees(run: Any) -> None:
    def loss(params: Any, x: Any, scale: Any) -> Any:
        return ((x @ params["w"] + params["b"][0]) * scale).sum()

    w, b, x = np.ones((2, 2)), np.array([1.0, 2.0]), np.array([[3.0, 4.0]])
    params = {"w": w, "b": [b, None]}
    value, found = run(value_and_grad(loss), params, x, 2.0)
    assert float(value) == 2 * float((x @ w + b).sum())
    assert np.array_equal(found["w"], 2 * x.T @ np.ones((1, 2)))
    assert np.array_equal(found["b"][0], [2, 2])
    assert found["b"][1] is None
    by_scale, by_x = run(grad(loss, argnums=(-1, 1)), params, x, 2.0)
    assert float(by_scale) == float((x @ w + b).sum())
    assert np.array_equal(by_x, [[4, 4]])


@both
def test_aux_comes_back_as_it_is(run: Any) -> None:
    def loss(x: Any) -> Any:
        y = x * x
        return y.sum(), {"y": y}

    (value, aux), found = run(value_and_grad(loss, has_aux=True), np.array([1.0, 2.0]))
    assert float(value) == 5
    assert np.array_equal(aux["y"], [1, 4])
    assert np.array_equal(found, [2, 4])
    found, aux = run(grad(loss, has_aux=True), np.array([1.0, 2.0]))
    assert np.array_equal(found, [2, 4])


@both
def test_what_the_result_does_not_depend_on_has_gradient_zero(run: Any) -> None:
    by_x, by_y = run(
        grad(lambda x, y: (x.detach() * y).sum(), argnums=(0, 1)), np.ones(2), np.full(2, 3.0)
    )
    assert np.array_equal(by_x, [0, 0])
    assert np.array_equal(by_y, [1, 1])
    assert float(run(grad(lambda x: x * 0 + 1.0), 5.0)) == 0


@both
def test_a_hand_written_update_of_an_argument_counts(run: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 1
        y[0] = y[1] * 10
        y += x
        return (y * y).sum()

    a = np.array([1.0, 2.0])
    # y = (10 b + a, 2 b)
    expected = [2 * (10 * 2 + 1), 20 * (10 * 2 + 1) + 8 * 2]
    np.testing.assert_allclose(run(grad(f), a), expected)


def test_dataclasses_of_tensors() -> None:
    @dataclass
    class Params:
        w: Any
        b: Any

    found = grad(lambda p: (p.w * p.b).sum())(Params(tensor([1.0, 2.0]), np.float32(3.0) * 1.0))
    assert found.w.tolist() == [3, 3]
    assert float(found.b) == 3


def test_an_eager_result_is_tracked_exactly_where_somebody_can_still_ask() -> None:
    x = tensor(2.0)
    value, found = value_and_grad(lambda y: y * y)(x)
    assert not value.requires_grad
    assert not found.requires_grad

    w = tensor(3.0, requires_grad=True)
    value, found = value_and_grad(lambda y: y * y * w)(x)
    assert value.requires_grad
    assert found.requires_grad
    (value + found * found).backward()  # d/dw (4 w + (4 w)^2) = 4 + 32 w
    assert w.grad is not None and w.grad.item() == 4 + 32 * 3

    with no_grad():
        assert not grad(lambda y: y * y * w)(x).requires_grad


def test_grad_reaches_through_to_the_callers_own_leaf() -> None:
    x = tensor(2.0, requires_grad=True)
    grad(lambda y: y * y * y)(x).backward()
    assert x.grad is not None and x.grad.item() == 12


def test_grad_does_not_touch_the_grad_attribute() -> None:
    x = tensor([1.0], requires_grad=True)
    w = tensor([2.0], requires_grad=True)
    grad(lambda y: (y * w).sum())(x)
    assert x.grad is None
    assert w.grad is None


def test_keyword_arguments_pass_through() -> None:
    def f(x: Any, *, power: int) -> Any:
        return x**power

    assert float(grad(f)(3.0, power=2)) == 6


@pytest.mark.parametrize(
    ("fn", "args", "error", "message"),
    [
        (lambda x: x * 2, (np.ones(2),), GradientError, r"scalar, found shape \(2,\)"),
        (lambda x: (x > 1).sum(), (np.ones(2),), GradientError, "must return a float scalar"),
        (lambda x: "text", (1.0,), GradientError, "found str 'text'"),
        (lambda x: x, (3,), DTypeError, "argument 0: it is the int 3"),
        (lambda x: x, ({"a": [1]},), DTypeError, r"argument 0\['a'\]\[0\]"),
        (lambda x: x, ("text",), DTypeError, "found|it is str 'text'"),
        (lambda x: x, (np.ones(2, np.int64),), DTypeError, r"i64\[2\]"),
        (lambda x: x, (), GradientError, "positional argument 0"),
    ],
)
def test_misuse_is_explained(fn: Any, args: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        grad(fn)(*args)
    assert "test_grad.py" in str(caught.value)


def test_has_aux_and_argnums_are_checked() -> None:
    with pytest.raises(GradientError, match=r"expects \(value, aux\)"):
        grad(lambda x: x, has_aux=True)(1.0)
    with pytest.raises(DTypeError, match="argnums"):
        grad(lambda x: x, argnums="x")(1.0)  # type: ignore[arg-type]
