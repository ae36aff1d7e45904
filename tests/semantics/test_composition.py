"""jit, grad, backward(), no_grad, detach and disable_jit in any order are as plain Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, nn
from treadle.tracer.jit import Jitted

Step = Callable[..., Any]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


def values(*numbers: float) -> Tensor:
    return treadle.tensor(np.array(numbers, np.float64))


def leaf(*numbers: float) -> Tensor:
    return treadle.tensor(np.array(numbers, np.float64), requires_grad=True)


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12, atol=1e-14)


def curve(x: Any) -> Any:
    """A function whose derivatives of any order differ."""
    return (treadle.sin(x) * x * x + treadle.exp(x * 0.5)).sum()


def plain(f: Step) -> Step:
    return f


WRAPPERS = [plain, treadle.jit]


# --- jit and grad in any order -----------------------------------------------------------------


@pytest.mark.parametrize("a", WRAPPERS)
@pytest.mark.parametrize("b", WRAPPERS)
@pytest.mark.parametrize("c", WRAPPERS)
@pytest.mark.parametrize("d", WRAPPERS)
def test_any_nesting_of_jit_and_grad_to_the_third_order(a: Any, b: Any, c: Any, d: Any) -> None:
    x = np.array([0.3, -1.2, 2.0])

    def order(f: Step, *wrappers: Any) -> Step:
        f = wrappers[0](f)
        for wrapper in wrappers[1:]:
            f = wrapper(summed_gradient(f))
        return f

    def summed_gradient(f: Step) -> Step:
        derivative = treadle.grad(f)
        return lambda x: derivative(x).sum()

    nested = order(curve, a, b, c, d)
    expected = order(curve, plain, plain, plain, plain)
    at = treadle.tensor(x)
    for _ in range(2):
        assert_same(nested(at), expected(at))


def test_jit_in_jit_is_inlined_and_sees_its_own_state() -> None:
    seen = nn.Linear(2, 2, dtype="float64")
    inner = treadle.jit(lambda x: seen(x))
    outer = treadle.jit(lambda x: inner(inner(x)) * 2)
    x = treadle.ones((1, 2), dtype=treadle.float64)
    assert_same(outer(x), seen(seen(x)) * 2)
    assert not inner.specializations
    with treadle.no_grad():
        seen.weight.fill_(0.5)
    assert_same(outer(x), seen(seen(x)) * 2)


def test_grad_of_a_jitted_function_runs_compiled_code_only() -> None:
    def f(x: Any, w: Any) -> Any:
        return (treadle.tanh(x @ w) ** 2).sum()

    jitted = treadle.jit(f)
    x, w = values(1, 2, 3, 4).reshape(2, 2), values(1, -1, 0.5, 2).reshape(2, 2)
    for _ in range(2):
        found = treadle.grad(jitted, argnums=(0, 1))(x, w)
        expected = treadle.grad(f, argnums=(0, 1))(x, w)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    assert [spec.hits for spec in jitted.specializations] == [2]


def test_a_gradient_by_python_floats_and_trees_through_jit() -> None:
    f = treadle.jit(lambda x, p: x * x * p["a"] + p["b"])
    dx, dp = treadle.grad(f, argnums=(0, 1))(3.0, {"a": 2.0, "b": values(1)[0]})
    assert (float(dx), float(dp["a"]), float(dp["b"])) == (12.0, 9.0, 1.0)
    assert float(treadle.grad(treadle.grad(f))(3.0, {"a": 2.0, "b": 1.0})) == 4.0


def test_has_aux_and_value_through_jit() -> None:
    def f(x: Any) -> Any:
        return (x * x).sum(), {"double": x * 2}

    both = treadle.value_and_grad(treadle.jit(f), has_aux=True)
    (value, aux), gradient = both(values(1, 2))
    assert float(value) == 5
    assert_same(gradient, [2, 4])
    assert_same(aux["double"], [2, 4])
    assert not value.requires_grad and not aux["double"].requires_grad


# --- backward() through a call -------------------------------------------------------------------


class Net(nn.Module):
    """Linear, batch statistics kept in place, dropout-free."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 2)
        self.register_buffer("count", treadle.tensor(np.zeros((), np.float32)))

    def forward(self, x: Any) -> Any:
        with treadle.no_grad():
            self.count += 1
        return self.b(treadle.tanh(self.a(x)))


def two_nets() -> tuple[Net, Net]:
    one, two = Net(), Net()
    with treadle.no_grad():
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            q.copy_(p)
    return one, two


def batch(seed: int = 0) -> Tensor:
    return treadle.tensor(np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32))


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=2e-5, atol=1e-6)


def test_backward_through_a_jitted_model_accumulates_and_keeps_its_state() -> None:
    one, two = two_nets()
    forward = treadle.jit(one)
    for n in range(3):
        for net in (forward, two):
            (net(batch(n)) ** 2).sum().backward()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert_close(p.grad, q.grad)
    assert float(one.count) == 3
    assert len(forward.specializations) == 1


def test_backward_through_a_call_runs_two_native_functions() -> None:
    w = leaf(1, 2, 3)
    f = treadle.jit(lambda x: treadle.exp(treadle.sin(x * w)).sum())
    f(values(1, 1, 1)).backward()
    (spec,) = f.specializations
    assert spec._pull is not None
    forward, backward = spec.executable.stage("expand"), spec._pull.backward().stage("expand")
    assert "residual 0" in forward and "residual 0" in backward
    assert "sin(" in forward and "sin(" not in backward  # nothing dear is computed twice
    assert "exp(" in forward and "exp(" not in backward


@pytest.mark.parametrize("write_between", [False, True])
def test_a_jitted_loss_with_an_eager_optimizer(write_between: bool) -> None:
    one, two = two_nets()
    loss = treadle.jit(lambda x: (one(x) ** 2).mean())
    optimizers = [treadle.optim.Adam(net.parameters(), lr=0.05) for net in (one, two)]
    for n in range(4):
        x = batch(n)
        losses = [loss(x), (two(x) ** 2).mean()]
        assert_close(losses[0].detach(), losses[1].detach())
        for value, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        if write_between:
            with treadle.no_grad():
                for net in (one, two):
                    net.a.weight.mul_(0.5)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        assert_close(p, q)
    assert len(loss.specializations) == 1


def test_several_calls_in_one_history_and_eager_operations_between() -> None:
    w = leaf(0.5, -1.0)
    step = treadle.jit(lambda h, x: treadle.tanh(h * w + x))

    def loss(step: Step, x: Tensor) -> Tensor:
        h = x
        for _ in range(3):
            h = step(h, x) * 1.5
        return h.sum()

    loss(step, values(1, 2)).backward()
    found = w.grad
    w.grad = None
    loss(step.__wrapped__, values(1, 2)).backward()
    assert_same(found, w.grad)


def test_residuals_are_those_of_the_call_whatever_is_written_later() -> None:
    w = leaf(2.0)
    f = treadle.jit(lambda x: (x * w * w).sum())
    y = f(values(3))
    with treadle.no_grad():
        w.mul_(10)
    y.backward()
    assert_same(w.grad, [12])


def test_retained_histories_and_partial_cotangents() -> None:
    x = leaf(1, 2)
    f = treadle.jit(lambda x: (x * x, treadle.sin(x), x + 1))
    squares, sines, _ = f(x)
    squares.sum().backward(retain_graph=True)
    assert_same(x.grad, [2, 4])
    sines.backward(treadle.ones(2, dtype=treadle.float64))
    assert_same(x.grad, np.array([2, 4]) + np.cos([1, 2]))
    with pytest.raises(treadle.GradientError, match="second time"):
        sines.sum().backward()


def test_a_backward_pass_uses_up_only_what_its_outputs_depend_on() -> None:
    def run(wrap: Callable[[Step], Step]) -> list[Any]:
        x, w = leaf(1, 2), leaf(3, 4)
        total = x * 0.0
        step = wrap(lambda x, w, total: (x * x, treadle.sin(w), x * x * w, total + x))
        for _ in range(2):
            squares, sines, products, total = step(x, w, total)
            squares.sum().backward()
            sines.sum().backward()
            products.sum().backward()
        total.sum().backward()
        with pytest.raises(treadle.GradientError, match="second time"):
            products.sum().backward()
        return [x.grad, w.grad]

    for found, expected in zip(run(treadle.jit), run(plain), strict=True):
        assert_same(found, expected)


def test_higher_orders_through_a_call_by_arguments_and_captured_parameters() -> None:
    w = leaf(0.7, -0.4)

    def f(x: Any) -> Any:
        return (treadle.sin(x * w) * w).sum()

    def penalty(f: Step, x: Tensor) -> Tensor:
        (g * g).sum().backward() if (g := treadle.grad(f)(x)) is not None else None
        found = w.grad
        w.grad = None
        assert found is not None
        return found

    jitted = treadle.jit(f)
    assert_same(penalty(jitted, values(1, 2)), penalty(f, values(1, 2)))
    hessian = treadle.grad(lambda x: treadle.grad(jitted)(x).sum())
    expected = treadle.grad(lambda x: treadle.grad(f)(x).sum())
    assert_same(hessian(values(1, 2)), expected(values(1, 2)))
    third = treadle.grad(lambda x: hessian(x).sum())(values(1, 2))
    assert_same(third, treadle.grad(lambda x: expected(x).sum())(values(1, 2)))


def test_a_view_as_an_argument_and_as_state_is_differentiated() -> None:
    base = leaf(1, 2, 3, 4)
    w = leaf(5, 6, 7, 8)
    f = treadle.jit(lambda x: (x * w[1:3]).sum())
    f(base[::2]).backward()
    assert_same(base.grad, [6, 0, 7, 0])
    assert_same(w.grad, [0, 1, 3, 0])


def test_derivatives_of_a_function_that_draws_on_integers_bools_and_arrays() -> None:
    table = np.array([1.0, 2.0, 3.0])
    index = treadle.tensor(np.array([2, 0]))
    x = leaf(1, 2)
    f = treadle.jit(
        lambda x: treadle.where(x > 1.5, x * table[:2], x * 3).sum() + x[index % 2].sum()
    )
    f(x).backward()
    found = x.grad
    x.grad = None
    f.__wrapped__(x).backward()
    assert_same(found, x.grad)


# --- no_grad, detach, disable_jit ---------------------------------------------------------------


def test_no_grad_inside_around_and_as_a_decorator() -> None:
    w = leaf(2.0)

    def partly(x: Any) -> Any:
        with treadle.no_grad():
            scale = x * w
        return (scale * w).sum()

    jitted = treadle.jit(partly)
    jitted(values(3)).backward()
    assert_same(w.grad, [6])
    with treadle.no_grad():
        assert not jitted(values(3)).requires_grad
    assert jitted(values(3)).requires_grad
    assert not treadle.jit(treadle.no_grad()(partly))(values(3)).requires_grad
    assert not treadle.no_grad()(treadle.jit(partly))(values(3)).requires_grad
    with treadle.no_grad():
        inside = treadle.jit(treadle.enable_grad()(partly))(values(3))
    assert inside.requires_grad


def test_detach_of_an_argument_a_parameter_a_result_and_in_between() -> None:
    w = leaf(2.0)
    x = leaf(3.0)
    cases: list[Step] = [
        lambda x: (x.detach() * w).sum(),
        lambda x: (x * w.detach()).sum(),
        lambda x: (x * (x * w).detach()).sum(),
        lambda x: (x * w).sum() + (x * w).sum().detach(),
    ]
    for f in cases:
        expected = gradients_of(f, x, w)
        for _ in range(2):
            assert gradients_of(treadle.jit(f), x, w) == expected
    assert not treadle.jit(lambda x: (x * w).detach())(x).requires_grad
    assert not treadle.jit(lambda x: x * w)(x).detach().requires_grad


def gradients_of(f: Step, *leaves: Tensor) -> list[list[float] | None]:
    f(leaves[0]).backward()
    found = [None if x.grad is None else x.grad.numpy().tolist() for x in leaves]
    for x in leaves:
        x.grad = None
    return found


def test_disable_jit_runs_python_at_each_place() -> None:
    seen: list[bool] = []

    def f(x: Any) -> Any:
        seen.append(x.is_traced)
        return (x * x).sum()

    jitted = treadle.jit(f)
    x = leaf(3.0)
    with treadle.disable_jit():
        jitted(x).backward()
        assert_same(treadle.grad(jitted)(values(3)), [6])
        assert float(treadle.jit(lambda x: jitted(x))(x)) == 9
    assert seen == [False, False, False]
    assert not jitted.specializations
    assert_same(x.grad, [6])
    jitted(x)
    assert seen[-1]


def test_check_eager_compares_every_new_specialization_with_grad_and_state() -> None:
    net = Net()
    optimizer = treadle.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    checked = treadle.jit(step, check="eager")
    for n in range(3):
        checked(batch(n))
    checked(batch()[:2])
    assert float(net.count) == 4
    assert len(checked.specializations) == 2


def test_check_eager_leaves_histories_as_they_were() -> None:
    """Of an argument that was computed before, and of state that is computed from step to step."""
    x, h = leaf(1, 2), Holder(values(0, 0))

    def f(y: Any) -> Any:
        h.w = h.w + y * y
        h.w.mul_(2.0)
        return h.w.sum()

    checked = treadle.jit(f, check="eager")
    for _ in range(2):
        total = checked(x * 3)
    total.backward()
    assert_same(x.grad, [108, 216])
    assert_same(h.w.detach(), [54, 216])


def test_check_eager_compares_what_fails_and_leaves_state_as_it_was() -> None:
    count, x = values(0), values(1, 2, 3)

    def f(i: Any) -> Any:
        count.add_(1)
        return x[i]

    checked = treadle.jit(f, check="eager")
    with pytest.raises(treadle.IndexFault, match="found 7"):
        checked(treadle.tensor([7]))
    assert_same(count, [0])
    assert_same(checked(treadle.tensor([2])), [3])
    assert_same(count, [1])


@pytest.mark.parametrize("what", ["result", "structure", "dtype", "state", "gradient", "error"])
def test_check_eager_tells_of_any_difference_and_puts_the_state_back(what: str) -> None:
    state, w = values(1, 2), leaf(3, 4)

    def f(x: Any) -> Any:
        wrong = not x.is_traced  # eager and compiled are made to differ
        if wrong and what == "error":
            raise treadle.ShapeError("eager only")
        state.mul_(3.0 if wrong and what == "state" else 2.0)
        if not (wrong and what == "gradient"):
            (w * x).sum().backward()
        y = x * (5 if wrong and what == "result" else 2)
        if wrong and what == "dtype":
            return y.astype("float32")
        return [y] if wrong and what == "structure" else y

    expected = {"result": "the result differs", "structure": "the result is", "dtype": "float64",
                "state": "state differs", "gradient": "w.grad is set compiled only",
                "error": "eagerly it raises ShapeError"}  # fmt: skip
    with pytest.raises(treadle.TraceError, match=expected[what]):
        treadle.jit(f, check="eager")(values(1, 1))
    assert_same(state, [1, 2])
    assert w.grad is None


# --- where the two native functions meet the rest ----------------------------------------------


def test_in_place_state_and_differentiated_results_in_one_call() -> None:
    def run(wrap: Callable[[Step], Step]) -> list[Any]:
        w, total = leaf(1, 2), values(0, 0)

        def f(x: Any) -> Any:
            total.add_(x)
            return (x * w * total).sum()

        step = wrap(f)
        for n in range(3):
            step(values(1, n)).backward()
        return [w.grad, total]

    for found, expected in zip(run(treadle.jit), run(plain), strict=True):
        assert_same(found, expected)


def test_recursion_through_a_jitted_function() -> None:
    @treadle.jit
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    assert_same(power(values(2, 3), 4), [16, 81])
    assert_same(treadle.grad(lambda x: power(x, 3).sum())(values(2)), [12])


def test_jitted_methods_of_one_class_on_two_instances() -> None:
    class Scaler(nn.Module):
        def __init__(self, k: float) -> None:
            super().__init__()
            self.w = nn.Parameter(np.array([k], np.float32))

        @treadle.jit
        def forward(self, x: Any) -> Any:
            return x * self.w

    one, two = Scaler(2), Scaler(3)
    x = treadle.ones(1)
    for scaler, factor in ((one, 2), (two, 3), (one, 2)):
        assert_close(scaler(x).detach(), [factor])
    (one(x) * two(x)).sum().backward()
    assert_close(one.w.grad, [3])
    assert_close(two.w.grad, [2])
    assert isinstance(Scaler.forward, Jitted)
    assert len(Scaler.forward.specializations) == 1


def test_contexts_and_decorators_of_the_user_around_jit_and_inside() -> None:
    depth: list[int] = []

    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        depth.append(1)
        yield
        depth.pop()

    @counted()
    @treadle.jit
    def outside(x: Any) -> Any:
        return x * 2

    assert_same(outside(values(2)), [4])
    assert depth == []


# --- tensors that the function makes of storage from outside -----------------------------------


class Holder:
    """An object whose attributes a jitted function reads and binds."""

    def __init__(self, w: Tensor) -> None:
        self.w = w
        self.kept: Any = None


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_what_is_written_through_a_detached_view_of_state_requires_grad(wrap: Any) -> None:
    p, w = leaf(1, 2, 3), values(3, 4, 5)

    def f(p: Any) -> Any:
        y = w.detach()
        y.mul_(p)
        return y, y[1:]

    whole, part = wrap(f)(p)
    assert whole.requires_grad and part.requires_grad and not w.requires_grad
    part.sum().backward(retain_graph=True)
    whole.sum().backward()
    assert_same(p.grad, [3, 8, 10])
    with treadle.no_grad():
        w.zero_()  # the same storage
    assert_same(whole.detach(), [0, 0, 0])


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("made", ["view", "detached", "detached view"])
def test_a_view_of_state_in_two_places_is_one_tensor(wrap: Any, made: str) -> None:
    holder = Holder(leaf(1, 2, 3))

    def f() -> Any:
        x = holder.w.detach() if "detached" in made else holder.w
        holder.kept = x[1:] if "view" in made else x
        return holder.kept

    found = wrap(f)()
    assert found is holder.kept
    assert found.requires_grad is (made == "view")
    with treadle.no_grad():
        holder.w.mul_(2)
    assert_same(found.detach(), [4, 6] if "view" in made else [2, 4, 6])


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_leaf_made_by_detach_is_a_leaf_with_its_own_grad(wrap: Any) -> None:
    w = leaf(1, 2, 3)

    def f(x: Any) -> Any:
        made = [w.detach().requires_grad_(), w.detach()[1:].requires_grad_()]
        made.append(x.detach().requires_grad_())
        for y in made:
            (y * y).sum().backward()
        return made

    for x in (values(5, 6), values(4, 5, 6)[1:]):
        for y, expected in zip(wrap(f)(x), ([2, 4, 6], [4, 6], [10, 12]), strict=True):
            assert y.is_leaf and y.requires_grad
            assert_same(y.grad, expected)
            (y * y).sum().backward()
            assert_same(y.grad, 2 * np.array(expected))
    assert w.grad is None and not x.requires_grad


def test_a_flag_of_a_tensor_from_outside_is_not_set_in_a_trace() -> None:
    for x in (values(1, 2), values(1, 2, 3)[1:]):
        with pytest.raises(treadle.TraceError, match="part of the signature"):
            treadle.jit(lambda x: x.requires_grad_())(x)
        assert not x.requires_grad


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_result_and_its_views_share_storage_where_they_require_grad(wrap: Any) -> None:
    x = leaf(1, 2, 3)

    def f(x: Any) -> Any:
        y = x * 2
        return y, y[1:], y.detach()

    y, part, detached = wrap(f)(x)
    (y.sum() + 10 * part.sum()).backward(retain_graph=True)
    assert_same(x.grad, [2, 22, 22])
    part.mul_(x[1:])
    assert_same(detached, [2, 8, 18])
    x.grad = None
    y.sum().backward()
    assert_same(x.grad, [2, 8, 12])


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_result_that_was_changed_behind_its_history_fails_where_it_is_used(wrap: Any) -> None:
    x = leaf(1, 2, 3)

    def f(x: Any) -> Any:
        y = x * 2
        total = y.sum()
        with treadle.no_grad():
            y.add_(1)
        return total, y

    total, y = wrap(f)(x)
    total.backward()
    assert_same(x.grad, [2, 2, 2])
    line = f.__code__.co_firstlineno + 4
    with pytest.raises(treadle.GradientError, match=f"changed at {__file__}:{line}"):
        y.sum().backward()
    assert_same(y.detach(), [3, 5, 7])


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_two_backward_passes_weighted_by_one_gradient(wrap: Any) -> None:
    """A gradient that nobody differentiates is a number: passes that use it do not meet in it."""
    p = leaf(1, 2)

    def f(x: Any) -> Any:
        weights = x + treadle.grad(lambda z: (z * z * z).sum())(x)
        (p * weights).sum().backward()
        (p * p * weights).sum().backward()
        return weights

    assert_same(wrap(f)(values(1, 2)), [4, 14])
    assert_same(p.grad, [4 + 8, 14 + 56])


@pytest.mark.parametrize("inside", [True, False])
def test_a_value_that_is_changed_in_place_has_been_kept_by_a_compiled_call(inside: bool) -> None:
    """Where eager execution has to refuse the gradient."""
    x = leaf(1, 2, 3)

    def f(x: Any) -> Any:
        y = x * 2
        total = (y * y).sum()
        if inside:
            with treadle.no_grad():
                y.add_(1)
        return total

    def differentiated(step: Step) -> None:
        total = step(x)
        if not inside:
            with treadle.no_grad():
                x.zero_()
        total.backward()

    if inside:
        with pytest.raises(treadle.GradientError, match="changed in place"):
            differentiated(f)
    differentiated(treadle.jit(f))
    assert_same(x.grad, [8, 16, 24])


def test_backward_inside_a_call_ends_at_what_was_computed_outside() -> None:
    w = leaf(1, 2)
    y = w * 2

    def f(y: Any) -> None:
        (y * y).sum().backward()

    with pytest.raises(treadle.GradientError, match="computed outside of it; take its"):
        treadle.jit(f)(y)
    assert w.grad is None
    f(y)
    assert_same(w.grad, [8, 16])
