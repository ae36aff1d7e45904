"""A run that finds a fault raises what eager raises, and leaves all state as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim


def error_of(fn: Callable[..., Any], *args: Any) -> BaseException:
    with pytest.raises(treadle.TreadleError) as caught:
        fn(*args)
    return caught.value


def same_error(fn: Callable[..., Any], *args: Any) -> BaseException:
    """The error of the jitted function; eager raises the same type with the same words."""
    eager = error_of(fn, *args)
    jitted = error_of(treadle.jit(fn), *args)
    assert type(jitted) is type(eager)
    assert str(jitted) == str(eager)
    return jitted


def line_of(fn: Callable[..., Any], text: str) -> str:
    """`file:line` of the first line of `fn` that holds `text`."""
    import inspect

    lines, first = inspect.getsourcelines(fn)
    number = next(n for n, line in enumerate(lines) if text in line)
    return f"{__file__}:{first + number}"


# --- what is raised --------------------------------------------------------------------------


def test_an_index_out_of_range_names_value_axis_and_line() -> None:
    def pick(x: Any, i: Any) -> Any:
        return x[i] * 2

    found = same_error(pick, treadle.ones((3, 2)), treadle.tensor([0, 7]))
    assert isinstance(found, IndexError)
    assert "axis 0 of size 3, found 7" in str(found)
    assert line_of(pick, "x[i]") in str(found)


def test_a_negative_index_beyond_the_axis_is_out_of_range() -> None:
    found = same_error(lambda x, i: x[i], treadle.ones(3), treadle.tensor([-3, -4]))
    assert "found -4" in str(found)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_out_of_range_names_value_and_line(label: int) -> None:
    def loss(x: Any, y: Any) -> Any:
        return treadle.mean(treadle.cross_entropy(x, y))

    found = same_error(loss, treadle.ones((2, 3)), treadle.tensor([0, label]))
    assert isinstance(found, IndexError)
    assert f"label out of range for size 3, found {label}" in str(found)
    assert line_of(loss, "cross_entropy") in str(found)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda x, i: treadle.take(x, i, axis=0), id="take"),
        pytest.param(lambda x, i: treadle.scatter_add(x, i, treadle.ones(2)), id="scatter_add"),
        pytest.param(lambda x, i: treadle.take_along_axis(x, i, axis=0), id="take_along_axis"),
    ],
)
def test_every_lookup_is_checked(use: Callable[..., Any]) -> None:
    same_error(use, treadle.ones(3), treadle.tensor([1, 3]))


def test_a_write_out_of_range_faults_and_writes_nothing() -> None:
    def write(x: Any, i: Any) -> Any:
        x[i] = 5.0
        return x

    for call in (write, treadle.jit(write)):
        x = treadle.ones(3)
        assert "found 9" in str(error_of(call, x, treadle.tensor([0, 9])))
        assert x.tolist() == [1.0, 1.0, 1.0]


def test_a_lookup_is_checked_where_only_its_gradient_is_wanted() -> None:
    def looked_up(w: Any, i: Any) -> Any:
        return treadle.sum(w[i])

    def scored(x: Any, y: Any) -> Any:
        return treadle.sum(treadle.cross_entropy(x, y))

    same_error(treadle.grad(looked_up), treadle.ones(3), treadle.tensor([5]))
    same_error(treadle.grad(scored), treadle.ones((2, 3)), treadle.tensor([0, 4]))


def test_a_lookup_whose_result_nobody_reads_is_checked() -> None:
    def unused(x: Any, i: Any) -> Any:
        x[i]
        return x + 1

    same_error(unused, treadle.ones(3), treadle.tensor([4]))


def unused(x: Any, i: Any) -> None:
    x[i]


def only_differentiated(x: Any, i: Any) -> None:
    treadle.grad(lambda z: (z[i] * 3).sum())(x)


def backward_inside(x: Any, i: Any) -> None:
    leaf = x.detach().requires_grad_()
    (leaf[i] * 2).sum().backward()


def scored_for_nothing(x: Any, i: Any) -> None:
    treadle.cross_entropy(x.reshape((1, -1)), i[:1])


@pytest.mark.parametrize(
    "lookup", [unused, only_differentiated, backward_inside, scored_for_nothing]
)
def test_a_lookup_is_checked_in_a_call_that_is_differentiated_from_outside(lookup: Any) -> None:
    """The forward function of a call with a pullback has all checks of the program."""
    x = treadle.ones(6).requires_grad_()

    def f(i: Any) -> Any:
        lookup(x, i)
        return (x * 2).sum()

    found = same_error(f, treadle.tensor([7, 1]))
    assert line_of(lookup, "i]" if lookup is not scored_for_nothing else "cross") in str(found)
    jitted = treadle.jit(f)
    jitted(treadle.tensor([1, 1])).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 6
    same_error(treadle.grad(lambda y: f(treadle.tensor([9, 1])) * y), 2.0)


def test_of_equal_lookups_the_first_is_told_of() -> None:
    """The first one is not read; what fails in between comes later."""

    def f(x: Any, p: Any, i: Any) -> Any:
        treadle.grad(lambda z: (z[i] * 2).sum())(p)
        treadle.check(x > 0, "positive")
        y = treadle.cross_entropy(x.reshape((1, -1)), i[:1] * 0)
        return x[i] + y

    x, p = treadle.ones(6), treadle.ones(6)
    assert line_of(f, "z[i]") in str(same_error(f, x, p, treadle.tensor([6, 1])))
    assert line_of(f, "z[i]") in str(same_error(f, -x, p, treadle.tensor([1, 6])))
    assert "positive" in str(same_error(f, -x, p, treadle.tensor([1, 5])))


# --- check -----------------------------------------------------------------------------------


def test_a_check_that_fails_raises_its_message_with_index_and_line() -> None:
    def guarded(x: Any) -> Any:
        treadle.check(x > 0, "x must be positive")
        return x.sum()

    bad = np.ones((3, 20), np.float32)
    bad[1, 17] = bad[2, 3] = -1
    found = same_error(guarded, treadle.tensor(bad))
    assert isinstance(found, treadle.CheckError)
    assert isinstance(found, AssertionError)
    assert "x must be positive: false first at index (1, 17)" in str(found)
    assert line_of(guarded, "treadle.check") in str(found)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1001])
def test_a_check_looks_at_every_element(size: int) -> None:
    checked = treadle.jit(lambda ok: treadle.check(ok, "all hold"))
    checked(treadle.ones(size, dtype=bool))
    for position in {0, size // 2, size - 1} if size else ():
        ok = np.ones(size, bool)
        ok[position] = False
        assert f"at index {position}" in str(error_of(checked, treadle.tensor(ok)))


def test_a_check_of_a_scalar_has_no_index() -> None:
    found = same_error(lambda x: treadle.check(x.sum() > 9, "too small"), treadle.ones(3))
    assert str(found).startswith("too small (at ")


def test_a_check_of_a_python_bool_is_made_when_the_function_runs() -> None:
    def sized(x: Any) -> Any:
        treadle.check(x.ndim == 1, "a vector is expected")
        return x

    assert treadle.jit(sized)(treadle.ones(2)).shape == (2,)
    same_error(sized, treadle.ones((2, 2)))


def test_a_check_of_numbers_is_refused() -> None:
    with pytest.raises(treadle.DTypeError, match="check needs a bool condition"):
        treadle.check(treadle.ones(2), "numbers")  # type: ignore[arg-type]


def test_a_check_does_not_change_gradients() -> None:
    def f(x: Any) -> Any:
        treadle.check(x > 0, "positive")
        return treadle.sum(x * x)

    x = treadle.tensor([1.0, 2.0])
    for gradient in (treadle.grad(f), treadle.jit(treadle.grad(f))):
        assert gradient(x).tolist() == [2.0, 4.0]
        with pytest.raises(treadle.CheckError):
            gradient(-x)


def test_a_check_in_the_native_step_is_made_by_native_code() -> None:
    checked = treadle.jit(lambda x: (treadle.check(x < 2, "small"), x * 2)[1])
    checked(treadle.ones(4))
    assert "check(" in checked.ir("fuse")
    assert "seek" in checked.ir("llvm")


# --- several faults --------------------------------------------------------------------------


def test_of_several_faults_the_first_of_the_program_is_raised() -> None:
    def f(x: Any, i: Any, y: Any) -> Any:
        a = treadle.sum(treadle.exp(x)[i])
        treadle.check(x < 10, "x is large")
        b = treadle.cross_entropy(x.reshape((1, -1)), y)
        return a + b.sum()

    good, bad = treadle.ones(3), treadle.tensor([1.0, 99.0, 1.0])
    at = treadle.tensor([0, 1]), treadle.tensor([0, 5])
    label = treadle.tensor([2]), treadle.tensor([3])
    assert "found 5" in str(same_error(f, bad, at[1], label[1]))
    assert "x is large" in str(same_error(f, bad, at[0], label[1]))
    assert "label" in str(same_error(f, good, at[0], label[1]))
    assert float(treadle.jit(f)(good, at[0], label[0])) == pytest.approx(
        float(f(good, at[0], label[0]))
    )


# --- state -----------------------------------------------------------------------------------


class Learner:
    """A model with every kind of state that a step may change."""

    def __init__(self, optimizer: str) -> None:
        treadle.manual_seed(0)
        self.model = nn.Linear(4, 3)
        parameters = list(self.model.parameters())
        if optimizer == "adam":
            self.optimizer: Any = optim.Adam(parameters, lr=0.1)
        else:
            self.optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
        self.calls = treadle.tensor(0)
        self.seen = treadle.zeros(8)
        self.best = treadle.zeros(3)
        self.history = SimpleNamespace(last=treadle.zeros(3))

    def step(self, x: Any, y: Any, at: Any) -> Any:
        self.calls += 1  # in place, before anything can fail
        self.seen[0] = self.seen[0] + 1.0
        self.optimizer.zero_grad()
        loss = treadle.mean(treadle.cross_entropy(self.model(x), y))
        loss.backward()
        self.optimizer.step()
        self.history.last = self.model.weight.detach().sum(axis=1)  # bound anew
        self.best.copy_(self.best + self.model.bias.detach())
        treadle.check(treadle.isfinite(loss), "the loss is finite")
        with treadle.no_grad():
            self.seen[at] = loss.detach()  # a fault behind all of the writes above
        return loss

    def state(self) -> list[np.ndarray]:
        found = [self.calls, self.seen, self.best, self.history.last]
        found += list(self.model.parameters())
        arrays = [t.numpy().copy() for t in found]
        for p in self.model.parameters():
            grad = p.grad
            arrays.append(np.zeros(0) if grad is None else grad.numpy().copy())
            for name in sorted(self.optimizer.state.get(p, {})):
                value = self.optimizer.state[p][name]
                arrays.append(np.array(value.numpy() if hasattr(value, "numpy") else value))
        return arrays


def unchanged(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    assert len(before) == len(after)
    for b, a in zip(before, after, strict=True):
        np.testing.assert_array_equal(b, a)


X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
GOOD = (X, np.array([0, 2]), np.array([3]))
BAD = {
    "label": (X, np.array([0, 3]), np.array([3])),
    "index": (X, np.array([0, 2]), np.array([8])),
    "check": (X * np.float32(np.nan), np.array([0, 2]), np.array([3])),
    "all": (X * np.float32(np.nan), np.array([0, 3]), np.array([8])),
}


def tensors(arrays: tuple[np.ndarray, ...]) -> list[Any]:
    return [treadle.tensor(a) for a in arrays]


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("what", BAD)
def test_a_failed_step_leaves_all_state_as_it_was(optimizer: str, what: str) -> None:
    learner, reference = Learner(optimizer), Learner(optimizer)
    step = treadle.jit(learner.step)
    for _ in range(2):
        step(*tensors(GOOD))
        reference.step(*tensors(GOOD))
    before = learner.state()
    with pytest.raises((treadle.IndexFault, treadle.CheckError)):
        step(*tensors(BAD[what]))
    unchanged(before, learner.state())
    step(*tensors(GOOD))  # the call after a failed one is a call like any other
    reference.step(*tensors(GOOD))
    for mine, eager in zip(learner.state(), reference.state(), strict=True):
        np.testing.assert_allclose(mine, eager, rtol=2e-5, atol=1e-6)


def test_a_first_call_that_fails_leaves_all_state_as_it_was() -> None:
    learner = Learner("adam")
    before = learner.state()
    step = treadle.jit(learner.step)
    with pytest.raises(treadle.IndexFault):
        step(*tensors(BAD["label"]))
    now = learner.state()
    unchanged(before[:6], now[:6])
    step(*tensors(GOOD))
    assert int(learner.calls) == 1


def test_a_fault_in_an_inner_jit_leaves_the_outer_state_as_it_was() -> None:
    count, total = treadle.tensor(0), treadle.zeros(2)

    @treadle.jit
    def inner(x: Any, i: Any) -> Any:
        total.copy_(total + x[:2])
        return x[i]

    @treadle.jit
    def outer(x: Any, i: Any) -> Any:
        count.copy_(count + 1)
        return inner(x, i).sum()

    x = treadle.ones(3)
    outer(x, treadle.tensor([2]))
    found = error_of(outer, x, treadle.tensor([3]))
    assert "found 3" in str(found)
    assert int(count) == 1
    assert total.tolist() == [1.0, 1.0]
    outer(x, treadle.tensor([0]))
    assert int(count) == 2


def test_a_backward_through_a_failed_call_does_not_exist() -> None:
    w = treadle.ones(3).requires_grad_()

    @treadle.jit
    def f(i: Any) -> Any:
        return (w * w)[i].sum()

    f(treadle.tensor([1])).backward()
    assert w.grad is not None
    with pytest.raises(treadle.IndexFault):
        f(treadle.tensor([4])).backward()
    assert w.grad.tolist() == [0.0, 2.0, 0.0]


def test_faults_in_several_threads_do_not_mix() -> None:
    step = treadle.jit(lambda x, i: x[i].sum())
    x = treadle.arange(100, dtype=treadle.float32)
    wrong: list[str] = []

    def work(thread: int) -> None:
        for n in range(200):
            index = 50 * thread + n % 50 if n % 3 else 1000 + thread
            try:
                found = float(step(x, treadle.tensor([index])))
                if found != float(index):
                    wrong.append(f"{index}: {found}")
            except treadle.IndexFault as error:
                if f"found {1000 + thread} " not in str(error) or index < 1000:
                    wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
