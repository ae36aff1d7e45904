"""Loops and branches give the same eagerly and compiled, and so do their derivatives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bodies import CASES, arrays, assert_same, case, rnn, rnn_arguments, scalar

import treadle
from treadle.tracer.pytree import flatten


def float_arguments(args: list[Any]) -> tuple[int, ...]:
    return tuple(n for n, a in enumerate(args) if all(x.dtype.is_float for x in flatten(a)[0]))


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_plain_python(name: str) -> None:
    fn, args = case(name)
    assert_same(treadle.jit(fn)(*args), fn(*args))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_plain_python(name: str) -> None:
    fn, args = case(name)
    gradient = treadle.grad(scalar(fn), float_arguments(args))
    assert_same(treadle.jit(gradient)(*args), gradient(*args))


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_those_of_plain_python(name: str) -> None:
    fn, args = case(name)
    which = float_arguments(args)
    gradient = treadle.grad(scalar(fn), which)
    second = treadle.grad(scalar(lambda *a: gradient(*a)), which)
    assert_same(treadle.jit(second)(*args), second(*args), 1e-9)


@pytest.mark.parametrize("name", ["rnn", "branching", "halving", "swapping-odd"])
def test_third_derivatives_are_those_of_plain_python(name: str) -> None:
    fn, args = case(name)
    first = treadle.grad(scalar(fn))
    second = treadle.grad(scalar(lambda *a: first(*a)))
    third = treadle.grad(scalar(lambda *a: second(*a)))
    assert_same(treadle.jit(third)(*args), third(*args), 1e-8)


@pytest.mark.parametrize("name", ["rnn", "lstm", "branching", "mapped"])
def test_derivatives_agree_with_finite_differences(name: str) -> None:
    fn, args = case(name)
    total = treadle.jit(scalar(fn))
    gradient = treadle.jit(treadle.grad(scalar(fn)))(*args)
    direction = np.random.default_rng(7).standard_normal(args[0].shape)
    step = 1e-6
    moved = [treadle.tensor(args[0].numpy() + s * step * direction) for s in (1, -1)]
    up, down = (float(total(m, *args[1:])) for m in moved)
    assert (up - down) / (2 * step) == pytest.approx((gradient.numpy() * direction).sum(), rel=1e-6)


@pytest.mark.parametrize("name", ["rnn", "lstm", "nested", "halving", "branching"])
def test_backward_through_a_compiled_call(name: str) -> None:
    fn, args = case(name)
    total = scalar(fn)

    def gradients(f: Any) -> list[Any]:
        given = [a.clone().requires_grad_() if isinstance(a, treadle.Tensor) else a for a in args]
        f(*given).backward()
        return [a.grad for a in given if isinstance(a, treadle.Tensor)]

    assert_same(gradients(treadle.jit(total)), gradients(total))


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_any_length(length: int) -> None:
    args = rnn_arguments(length)
    assert_same(treadle.jit(rnn)(*args), rnn(*args))
    gradient = treadle.grad(scalar(rnn), (0, 1, 2, 3))
    assert_same(treadle.jit(gradient)(*args), gradient(*args))


def test_no_rows_give_empty_results() -> None:
    h, ys = rnn(*rnn_arguments(0))
    assert ys.shape == (0, 2, 4)
    assert_same(h, rnn_arguments(0)[3])


def test_a_length_without_rows() -> None:
    def powers(x: Any) -> Any:
        return treadle.scan(lambda p, _: (p * x, p), x * 0.0 + 1.0, None, length=5)

    x = treadle.tensor(3.0, dtype=treadle.float64)
    last, all_ = treadle.jit(powers)(x)
    assert float(last) == 243.0
    assert all_.tolist() == [1.0, 3.0, 9.0, 27.0, 81.0]
    assert_same(powers(x), (last, all_))


def test_numbers_take_the_dtype_of_the_carry() -> None:
    def f(xs: Any) -> Any:
        return treadle.scan(lambda c, x: ((c[0] + x, 1.0), c[1]), (xs[0] * 0.0, 0.0), xs)

    xs = treadle.tensor(np.arange(3, dtype=np.float32))
    (total, one), seen = treadle.jit(f)(xs)
    assert one.dtype == treadle.float32
    assert float(total) == 3.0
    assert seen.tolist() == [0.0, 1.0, 1.0]
    assert_same(f(xs), ((total, one), seen))


def test_a_body_may_change_what_it_gets() -> None:
    def f(h: Any, xs: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            before = h.clone()
            h += x
            x *= 2.0
            return h, (before, x)

        return treadle.scan(body, h, xs)

    h, xs = treadle.zeros((2,)), treadle.tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    eager, compiled = f(h, xs), treadle.jit(f)(h, xs)
    assert_same(compiled, eager)
    assert h.tolist() == [0.0, 0.0]
    assert xs.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_bool_and_integer_carries() -> None:
    def f(xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            seen, count = carry
            return (seen | (x > 2), count + 2), count

        return treadle.scan(body, (treadle.tensor(False), 0), xs)

    xs = treadle.tensor(np.array([1, 3, 0]))
    assert_same(treadle.jit(f)(xs), f(xs))


def test_the_same_bits_with_any_number_of_threads() -> None:
    args = [a.astype(treadle.float32) for a in rnn_arguments(9)]
    large = [treadle.tensor(np.tile(a.numpy(), [1] * (a.ndim - 1) + [1])) for a in args]
    one = treadle.jit(rnn, threads=1)(*large)
    two = treadle.jit(rnn, threads=2)(*large)
    for a, b in zip(flatten(one)[0], flatten(two)[0], strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_derivatives_inside_a_body_by_what_is_read_from_outside() -> None:
    def total(x: Any) -> Any:
        return (treadle.tanh(x) ** 3).sum()

    def along(x: Any, e: Any) -> Any:
        return treadle.grad(lambda x: (treadle.grad(total)(x) * e).sum())(x)

    def third(x: Any, e: Any) -> Any:
        return treadle.grad(lambda x: (along(x, e) ** 2).sum())(x)

    def f(rows: Any) -> Any:
        def hessian(x: Any) -> Any:
            return treadle.map(lambda e: along(x, e), treadle.eye(3, dtype=treadle.float64))

        chosen = treadle.cond(
            rows.sum() > -100, lambda: third(rows[0], rows[1]), lambda: rows[0] * 1.0
        )
        return treadle.map(hessian, rows), chosen

    rows = treadle.tensor(np.random.default_rng(3).standard_normal((2, 3)))
    found = treadle.jit(f)(rows)
    assert_same(found, f(rows))
    assert all(np.asarray(found[0])[:, n, n].all() for n in range(3))


OWN_STORAGE: dict[str, Any] = {
    "no rows": lambda x: treadle.scan(lambda c, r: (c, r), x, x[:0])[0],
    "last carry": lambda x: treadle.scan(lambda c, r: (x, r), x, x)[0],
    "two carries": lambda x: treadle.scan(lambda c, r: ((c[0], c[0]), r), (x, x), x)[0],
    "no step": lambda x: treadle.while_loop(lambda c: c.sum() > 1e9, lambda c: c, x),
    "one step": lambda x: treadle.while_loop(lambda c: c.sum() > -1e9, lambda c: x, x, max_steps=1),
    "branch": lambda x: treadle.cond(x.sum() > -1e9, lambda: x, lambda: x * 2),
    "view": lambda x: treadle.cond(x.sum() > -1e9, lambda a: a[1:], lambda a: a[:-1], x),
    "switch": lambda x: treadle.switch(treadle.argmax(x[0]), [lambda a: a] * 4, x),
    "remat": lambda x: treadle.remat(lambda a: (a, a))(x),
}


@pytest.mark.parametrize("name", OWN_STORAGE)
def test_results_have_storage_of_their_own(name: str) -> None:
    def f(x: Any) -> Any:
        x = x * 1.0
        made = OWN_STORAGE[name](x)
        first = made[0] if isinstance(made, tuple) else made
        first += 1.0
        return made, x

    [x] = arrays((4, 3))
    found = treadle.jit(f)(x)
    assert_same(found, f(x))
    assert_same(found[1], x)


def test_rows_of_a_tensor_that_every_step_changes_are_those_of_their_step() -> None:
    def f(xs: Any) -> Any:
        total = treadle.zeros(3, dtype=treadle.float64)

        def body(c: Any, x: Any) -> Any:
            total.copy_(total + x * x)
            return c, total

        ys = treadle.scan(body, (), xs)[1]
        total += 1.0
        return ys, total

    [xs] = arrays((5, 3))
    assert_same(treadle.jit(f)(xs), f(xs))
    assert_same(f(xs)[0], np.cumsum(xs.numpy() ** 2, axis=0))
    gradient = treadle.grad(scalar(f))
    assert_same(treadle.jit(gradient)(xs), gradient(xs))
