"""Derivatives that users write: `custom_vjp` and `Function`, eager and jitted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.ir.parser import parse_function
from treadle.testing import check_grad
from treadle.tracer.pytree import flatten

HERE = Path(__file__).name


def same(fn: Callable[..., Any], *args: Any) -> Any:
    """The result of a call, the same eager and jitted."""
    eager, jitted = fn(*args), treadle.jit(fn)(*args)
    for x, y in zip(flatten(eager)[0], flatten(jitted)[0], strict=True):
        assert x.type == y.type
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-5, atol=1e-6)
    return eager


def gradient(fn: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    return treadle.grad(lambda *args: treadle.sum(fn(*args)), argnums)


class Times(treadle.Function):
    """x * w, with gradients that are told from the true ones: three and five times as large."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        x, w = ctx.saved_tensors
        dx = ct * w * 3 if ctx.needs_input_grad[0] else None
        dw = ct * x * 5 if ctx.needs_input_grad[1] else None
        return dx, dw


@treadle.custom_vjp
def times(x: Any, w: Any) -> Any:
    return x * w


times.defvjp(
    lambda x, w: (times(x, w), (x, w)),
    lambda kept, ct: (ct * kept[1] * 3, ct * kept[0] * 5),
)

BOTH = {"Function": Times.apply, "custom_vjp": times}
both = pytest.mark.parametrize("fn", BOTH.values(), ids=BOTH)


@pytest.fixture
def x() -> Any:
    return treadle.tensor([1.0, 2.0, 3.0])


@pytest.fixture
def w() -> Any:
    return treadle.tensor([4.0, 5.0, 6.0])


# --- what both promise ---------------------------------------------------------------------------


@both
def test_the_users_rule_takes_the_place_of_the_operations_own(fn: Any, x: Any, w: Any) -> None:
    assert same(fn, x, w).tolist() == [4.0, 10.0, 18.0]
    dx, dw = same(gradient(fn, (0, 1)), x, w)
    assert dx.tolist() == [12.0, 15.0, 18.0]
    assert dw.tolist() == [5.0, 10.0, 15.0]
    value, found = same(treadle.value_and_grad(lambda x: treadle.sum(fn(x, w))), x)
    assert (float(value), found.tolist()) == (32.0, dx.tolist())


@both
def test_backward_uses_the_users_rule(fn: Any, x: Any) -> None:
    def step(x: Any) -> Any:
        loss = treadle.sum(fn(x, weight))
        loss.backward()
        return loss

    for run in (step, treadle.jit(step)):
        weight = treadle.tensor([4.0, 5.0, 6.0], requires_grad=True)
        run(x)
        assert weight.grad is not None
        assert weight.grad.tolist() == [5.0, 10.0, 15.0]


@both
def test_an_eager_backward_through_a_jitted_call_uses_the_users_rule(fn: Any, x: Any) -> None:
    weight = treadle.tensor([4.0, 5.0, 6.0], requires_grad=True)
    jitted = treadle.jit(lambda x: treadle.sum(fn(x, weight)))
    for _ in range(2):
        weight.grad = None
        jitted(x).backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [5.0, 10.0, 15.0]


@both
def test_second_derivatives_are_those_of_the_backward_function(fn: Any, x: Any, w: Any) -> None:
    def squared(x: Any, w: Any) -> Any:
        return treadle.sum(gradient(fn)(x, w) ** 2)  # (3 w)^2, by hand

    dx, dw = same(treadle.grad(squared, (0, 1)), x, w)
    assert dx.tolist() == [0.0, 0.0, 0.0]
    assert dw.tolist() == [18 * 4.0, 18 * 5.0, 18 * 6.0]


@both
def test_rules_work_in_loops_branches_and_remat(fn: Any, x: Any, w: Any) -> None:
    def scanned(x: Any, w: Any) -> Any:
        return treadle.scan(lambda c, r: (fn(c, r), c + r), treadle.tensor(1.0), x * w)[0]

    def looped(x: Any, w: Any) -> Any:
        def step(c: Any) -> Any:
            return c[0] + 1, fn(c[1], w)

        return treadle.while_loop(lambda c: c[0] < 3, step, (treadle.tensor(0), x), max_steps=5)[1]

    def rematted(x: Any, w: Any) -> Any:
        return treadle.remat(lambda x: fn(x, w) * x)(x)

    def chosen(x: Any, w: Any) -> Any:
        return treadle.cond(x[0] > 0, lambda: fn(x, w), lambda: x)

    def mapped(x: Any, w: Any) -> Any:
        return treadle.map(lambda row: fn(row[0], row[1]), (x, w))

    for f in (scanned, looped, rematted, chosen, mapped):
        same(gradient(f, (0, 1)), x, w)
    assert same(gradient(looped), x, w).tolist() == (27 * w**3).tolist()
    assert same(gradient(mapped), x, w).tolist() == (3 * w).tolist()


@both
def test_rules_nest(fn: Any, x: Any, w: Any) -> None:
    @treadle.custom_vjp
    def outer(x: Any) -> Any:
        return fn(x, w)

    def backward(kept: Any, ct: Any) -> Any:
        return (gradient(lambda x: fn(x, w))(kept) * ct,)

    outer.defvjp(lambda x: (outer(x), x), backward)
    assert same(gradient(outer), x).tolist() == [12.0, 15.0, 18.0]
    assert same(gradient(lambda x: fn(outer(x), w)), x).tolist() == (9 * w**2).tolist()


@both
def test_what_no_gradient_needs_is_not_in_the_step(fn: Any, x: Any, w: Any) -> None:
    step = treadle.jit(gradient(fn))
    assert "attach_vjp" in step.ir("traced", x, w)
    assert step.ir("dce", x, w).count(" mul(") == 1  # 3 w; no product with the cotangent of ones
    plain = treadle.jit(fn)
    assert "attach_vjp" not in plain.ir("traced", x, w)


@both
def test_a_traced_rule_is_a_text_that_parses(fn: Any, x: Any, w: Any) -> None:
    text = treadle.jit(gradient(fn)).ir("traced", x, w)
    assert str(parse_function(text)) == text


@both
def test_a_parameter_that_is_no_argument_is_an_error(fn: Any, x: Any) -> None:
    hidden = treadle.tensor([1.0, 1.0, 1.0], requires_grad=True)

    @treadle.custom_vjp
    def f(x: Any) -> Any:
        return fn(x, hidden)

    f.defvjp(lambda x: (f(x), ()), lambda kept, ct: (ct,))
    for run in (gradient(f), treadle.jit(gradient(f))):
        with pytest.raises(treadle.GradientError, match=rf"f computes with .*argument.*{HERE}"):
            run(x)
    f.defvjp(lambda x: (fn(x, hidden.detach()), ()), lambda kept, ct: (ct,))
    assert same(gradient(f), x).tolist() == [1.0, 1.0, 1.0]


@both
def test_threads_differentiate_by_the_same_rule(fn: Any, x: Any, w: Any) -> None:
    jitted = treadle.jit(gradient(fn))
    found: list[list[float]] = []

    def work() -> None:
        for _ in range(20):
            for run in (jitted, gradient(fn)):
                found.append(run(x, w).tolist())  # noqa: PERF401

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[12.0, 15.0, 18.0]] * (4 * 20 * 2)


# --- what goes in and out ------------------------------------------------------------------------


@dataclass
class Pair:
    left: Any
    right: Any


def test_trees_go_in_and_out_and_none_is_zero() -> None:
    @treadle.custom_vjp
    def f(given: Pair, factor: int, mode: str) -> Any:
        return {"a": given.left * factor, "b": (given.right["b"], treadle.argmax(given.left))}

    def backward(kept: Any, ct: Any) -> Any:
        assert ct["b"][1] is None  # of an integer
        return Pair(ct["a"] * kept * 10, None), None, None

    f.defvjp(lambda given, factor, mode: (f(given, factor, mode), factor), backward)
    given = Pair(treadle.tensor([1.0, 2.0]), {"b": treadle.tensor(1.0)})

    def loss(given: Pair) -> Any:
        out = f(given, 3, mode="x")
        return treadle.sum(out["a"]) + out["b"][0]

    found = same(treadle.grad(loss), given)
    assert found.left.tolist() == [30.0, 30.0]
    assert found.right["b"].tolist() == 0.0


def test_a_function_class_takes_what_is_no_tensor_and_gives_several_results(x: Any) -> None:
    class Split(treadle.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, power: int, names: Any) -> Any:
            ctx.power = power
            index = treadle.argmax(x)
            sign = treadle.sign(x)
            ctx.mark_non_differentiable(sign)
            ctx.save_for_backward(x, None)
            return x**power, index, sign

        @staticmethod
        def backward(ctx: Any, ct: Any, no_index: Any, no_sign: Any) -> Any:
            x, nothing = ctx.saved_tensors
            assert nothing is None
            assert ctx.needs_input_grad == (True, False, False)
            assert no_index.type.dtype is treadle.int64
            return ct * ctx.power * x ** (ctx.power - 1) + no_sign, None, None

    power, index, sign = same(lambda x: Split.apply(x, 3, {"a": None}), x)
    assert (power.tolist(), int(index), sign.tolist()) == ([1.0, 8.0, 27.0], 2, [1.0, 1.0, 1.0])
    found = same(gradient(lambda x: Split.apply(x, 3, {})[0] + Split.apply(x, 2, {})[2]), x)
    assert found.tolist() == [3.0, 12.0, 27.0]


def test_a_setup_of_its_own_leaves_forward_a_plain_function(x: Any) -> None:
    class Square(treadle.Function):
        @staticmethod
        def forward(x: Any) -> Any:  # type: ignore[override]
            return x * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ctx.saved_tensors[0] * ct * 2

    assert same(gradient(Square.apply), x).tolist() == [2.0, 4.0, 6.0]


def test_arguments_without_a_derivative_stand_before_the_residuals(x: Any) -> None:
    def apply(fn: Any, x: Any) -> Any:
        return fn(x)

    applied = treadle.custom_vjp(apply, nondiff_argnums=(0,))
    applied.defvjp(lambda fn, x: (fn(x), x), lambda fn, kept, ct: (ct * fn(kept),))
    found = same(gradient(lambda x: applied(treadle.cos, x)), x)
    np.testing.assert_allclose(found.numpy(), np.cos(x.numpy()), rtol=1e-6)


def test_an_identity_reverses_its_gradient_in_storage_of_its_own(x: Any) -> None:
    class Reverse(treadle.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return -ct

    def changed(x: Any) -> Any:
        y = Reverse.apply(x)
        y += 1
        return x + y

    assert same(gradient(Reverse.apply), x).tolist() == [-1.0, -1.0, -1.0]
    assert same(changed, x).tolist() == [3.0, 5.0, 7.0]
    assert x.tolist() == [1.0, 2.0, 3.0]


def test_python_floats_are_differentiated() -> None:
    @treadle.custom_vjp
    def square(x: Any) -> Any:
        return x * x

    square.defvjp(lambda x: (square(x), x), lambda x, ct: (ct * x * 7.0,))
    for run in (treadle.grad(square), treadle.jit(treadle.grad(square))):
        assert float(run(3.0)) == 21.0


# --- what is needed ------------------------------------------------------------------------------


def test_needs_input_grad_tells_what_a_pass_asks_for(x: Any) -> None:
    asked: list[tuple[bool, ...]] = []

    class Spy(Times):
        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            asked.append(ctx.needs_input_grad)
            return Times.backward(ctx, ct)

    weight = treadle.tensor([1.0, 1.0, 1.0], requires_grad=True)
    gradient(lambda x: Spy.apply(x, weight))(x)
    treadle.sum(Spy.apply(x, weight)).backward()
    gradient(lambda x: Spy.apply(x, weight.detach()))(x)
    assert asked == [(True, False), (False, True), (True, False)]
    asked.clear()
    treadle.jit(gradient(lambda x, w: Spy.apply(x, w), 1))(x, x)
    assert asked == [(False, True)]


def test_backward_does_not_run_where_no_gradient_is_asked_for(x: Any, w: Any) -> None:
    class Never(Times):
        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            raise AssertionError("it was asked for")

    frozen = treadle.tensor([1.0, 1.0, 1.0], requires_grad=True)
    same(Never.apply, x, w)
    with treadle.no_grad():
        same(Never.apply, x, frozen)
    gradient(lambda x: treadle.sum(Never.apply(frozen.detach(), w)) * x)(x)


def test_a_module_with_a_rule_trains_as_one_without() -> None:
    class Affine(treadle.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, b: Any) -> Any:
            ctx.save_for_backward(x, w)
            return x @ w + b

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            x, w = ctx.saved_tensors
            needs = ctx.needs_input_grad
            return (
                ct @ w.T if needs[0] else None,
                x.T @ ct if needs[1] else None,
                treadle.sum(ct, axis=0) if needs[2] else None,
            )

    class Layer(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.own = own
            self.weight = nn.Parameter(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
            self.bias = nn.Parameter(treadle.zeros(3))

        def forward(self, x: Any) -> Any:
            if self.own:
                return Affine.apply(x, self.weight, self.bias)
            return x @ self.weight + self.bias

    def losses(own: bool, jit: bool) -> list[float]:
        layer = Layer(own)
        optimizer = treadle.optim.Adam(layer.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            loss = treadle.mean(layer(x) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = treadle.jit(step) if jit else step
        found = [float(run(x)) for _ in range(5)]
        if jit and own:
            assert run.ir("dce").count(" matmul(") == 2  # type: ignore[union-attr]
        return found

    x = treadle.tensor(np.cos(np.arange(32, dtype=np.float32)).reshape(8, 4))
    expected = losses(own=False, jit=False)
    for jit in (False, True):
        np.testing.assert_allclose(losses(True, jit), expected, rtol=1e-5)


def test_a_kept_result_is_the_function_itself() -> None:
    class Exp(treadle.Function):
        """By a callback, which has no derivative: the second one comes through the rule."""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = treadle.callback(np.exp, x, result=x, pure=True)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct * ctx.saved_tensors[0]

    x = treadle.tensor([0.5, -1.0])
    fn: Callable[[Any], Any] = Exp.apply
    for _ in range(4):
        np.testing.assert_allclose(same(fn, x).numpy(), np.exp(x.numpy()), rtol=1e-6)
        fn = gradient(fn)
    check_grad(lambda x: treadle.sum(Exp.apply(x)), treadle.tensor([0.5, -1.0], treadle.float64))


def test_rules_that_call_each_other_are_differentiated_to_a_bound_under_jit() -> None:
    @treadle.custom_vjp
    def sine(x: Any) -> Any:
        return treadle.sin(x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, ct: (ct * sine(x + np.float32(np.pi / 2)),))
    fn: Callable[[Any], Any] = sine
    x = treadle.tensor(0.3)
    for n in range(4):
        found = same(fn, x)
        np.testing.assert_allclose(found.numpy(), np.sin(0.3 + n * np.pi / 2), atol=1e-5)
        fn = treadle.grad(fn)
    np.testing.assert_allclose(fn(x).numpy(), np.sin(0.3), atol=1e-5)
    with pytest.raises(treadle.GradientError, match=rf"sine calls sine itself.*{HERE}"):
        treadle.jit(fn)(x)


def test_callbacks_that_are_not_pure_run_once_forwards_and_once_backwards(x: Any) -> None:
    ran: list[str] = []

    def forwards(array: Any) -> Any:
        ran.append("forwards")
        return np.sin(array)

    def backwards(array: Any, ct: Any) -> Any:
        ran.append("backwards")
        return np.cos(array) * ct

    class Sine(treadle.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return treadle.callback(forwards, x, result=x)

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return treadle.callback(backwards, ctx.saved_tensors[0], ct, result=ct)

    def eager_backward(x: Any) -> Any:
        leaf = treadle.tensor(x.numpy(), requires_grad=True)
        jitted(leaf).backward()
        return leaf.grad

    jitted = treadle.jit(lambda x: treadle.sum(Sine.apply(x)))
    for run in (gradient(Sine.apply), treadle.jit(gradient(Sine.apply)), eager_backward):
        ran.clear()
        np.testing.assert_allclose(run(x).numpy(), np.cos(x.numpy()), rtol=1e-6)
        assert ran == ["forwards", "backwards"]


# --- what is wrong -------------------------------------------------------------------------------


def rule(backward: Callable[[Any, Any], Any]) -> Any:
    """A function of one tensor and an int."""

    @treadle.custom_vjp
    def f(x: Any, n: int) -> Any:
        return x * n

    f.defvjp(lambda x, n: (f(x, n), x), backward)
    return f


WRONG: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "count": (lambda x, ct: (ct,), "gave 1 gradients, expected a tuple of 2"),
    "no tuple": (lambda x, ct: ct, "gave one value, expected a tuple of 2"),
    "shape": (lambda x, ct: (ct[:2], None), r"gradient of argument 0 f32\[2\], expected f32\[3\]"),
    "not summed": (lambda x, ct: (treadle.stack([ct, ct]), None), "sum it over the axes"),
    "dtype": (lambda x, ct: (ct.astype(treadle.float64), None), r"f64\[3\], expected f32\[3\]"),
    "kind": (lambda x, ct: ("ct", None), "gradient of argument 0 a str 'ct', expected"),
    "structure": (lambda x, ct: ((ct, ct), None), "gradient of argument 0"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_wrong_gradient_is_named_with_the_line_of_the_call(x: Any, what: str, jit: bool) -> None:
    backward, message = WRONG[what]
    fn = gradient(lambda x: rule(backward)(x, 2))
    with pytest.raises(treadle.TreadleError, match=rf"backward function of f .*{message}.*{HERE}"):
        (treadle.jit(fn) if jit else fn)(x)


def test_a_wrong_number_of_gradients_of_a_class_is_named(x: Any) -> None:
    class Short(Times):
        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct

    fn = gradient(lambda x: Short.apply(x, x))
    for run in (fn, treadle.jit(fn)):
        with pytest.raises(treadle.GradientError, match=r"Short.backward returned 1 .*expected 2"):
            run(x)


def test_a_function_without_a_derivative_says_how_to_give_it_one(x: Any) -> None:
    @treadle.custom_vjp
    def f(x: Any) -> Any:
        return x

    with pytest.raises(treadle.GradientError, match=r"f\.defvjp\(forward, backward\)"):
        f(x)
    f.defvjp(lambda x: f(x), lambda kept, ct: (ct,))
    with pytest.raises(treadle.GradientError, match=r"must return \(result, residuals\)"):
        gradient(f)(x)
    with pytest.raises(TypeError, match="Times is not instantiated"):
        Times()


def test_what_was_kept_may_not_change_before_an_eager_backward(x: Any) -> None:
    y = treadle.tensor(x.numpy(), requires_grad=True) * 1
    z = Times.apply(y, x)
    y += 1
    with pytest.raises(treadle.GradientError, match=r"derivative of `Times`.*changed in place"):
        treadle.sum(z).backward()


def test_a_second_pass_without_retain_graph_is_refused_as_elsewhere(x: Any) -> None:
    leaf = treadle.tensor(x.numpy(), requires_grad=True)
    loss = treadle.sum(Times.apply(leaf, x))
    loss.backward(retain_graph=True)
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == (6 * x).tolist()
    with pytest.raises(treadle.GradientError, match="a second time"):
        loss.backward()


def test_a_backward_function_that_changes_a_tensor_from_outside_is_refused_under_jit(
    x: Any,
) -> None:
    count = treadle.tensor(0.0)

    def backward(kept: Any, ct: Any) -> Any:
        count.copy_(count + 1)
        return ct, None

    fn = gradient(lambda x: rule(backward)(x, 2))
    fn(x)
    assert float(count) == 1
    with pytest.raises(treadle.GradientError, match="changes a tensor from outside"):
        treadle.jit(fn)(x)
    assert float(count) == 1


def test_what_a_backward_function_reads_is_guarded(x: Any) -> None:
    factors = {"scale": 2}

    def backward(kept: Any, ct: Any) -> Any:
        return ct * factors["scale"], None

    f = rule(backward)
    fn = treadle.jit(gradient(lambda x: f(x, 2)))
    assert fn(x).tolist() == [2.0, 2.0, 2.0]
    factors["scale"] = 3
    assert fn(x).tolist() == [3.0, 3.0, 3.0]


SCALE = {"factor": 2}


class ByGlobals(treadle.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        return ct * SCALE["factor"]


def test_what_the_methods_of_a_class_read_is_guarded(
    x: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = treadle.jit(lambda x: gradient(lambda x: ByGlobals.apply(x))(x))
    assert fn(x).tolist() == [2.0, 2.0, 2.0]
    monkeypatch.setitem(SCALE, "factor", 3)
    assert fn(x).tolist() == [3.0, 3.0, 3.0]
