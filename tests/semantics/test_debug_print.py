"""`debug_print` prints values at run time, in the order of the program, eager and jitted alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle

Capture = pytest.CaptureFixture[str]


def lines(capsys: Capture) -> list[str]:
    return capsys.readouterr().out.splitlines()


def both(fn: Callable[..., Any], capsys: Capture, *args: Any) -> list[str]:
    """The lines of a call, the same eager, jitted, and jitted again."""
    lines(capsys)
    fn(*args)
    eager = lines(capsys)
    jitted = treadle.jit(fn)
    for _ in range(2):
        jitted(*args)
        assert lines(capsys) == eager
    return eager


def test_lines_of_a_call_come_in_the_order_of_the_program(capsys: Capture) -> None:
    def f(x: Any) -> Any:
        treadle.debug_print("start")
        y = x * 2
        treadle.debug_print("x = {}, y = {}", x, y)
        total = treadle.sum(y)
        treadle.debug_print("total {:.2f} of {n} at {0}", x[0], n=x.shape[0])
        return total

    found = both(f, capsys, treadle.tensor([1.0, 2.5]))
    assert found == ["start", "x = [1. , 2.5], y = [2., 5.]", "total 1.00 of 2 at 1.0"]


def test_a_format_applies_to_each_element(capsys: Capture) -> None:
    def f(x: Any, n: Any) -> Any:
        treadle.debug_print("{:.1f} {:03d} {{}} {!r}", x, n, "word")
        return x

    found = both(f, capsys, treadle.tensor([1.25, -2.0]), treadle.tensor([7, 12]))
    assert found == ["[1.2, -2.0] [007, 012] {} 'word'"]


def test_values_are_those_of_their_moment(capsys: Capture) -> None:
    w = treadle.zeros(2)

    def f(x: Any) -> None:
        treadle.debug_print("before {}", w)
        w.copy_(w + x)
        treadle.debug_print("after {}", w)
        w[0] = 9.0
        treadle.debug_print("then {}", w)

    step = treadle.jit(f)
    step(treadle.ones(2))
    assert lines(capsys) == ["before [0., 0.]", "after [1., 1.]", "then [9., 1.]"]
    step(treadle.ones(2))
    assert lines(capsys) == ["before [9., 1.]", "after [10.,  2.]", "then [9., 2.]"]


def test_what_was_printed_before_a_fault_is_shown(capsys: Capture) -> None:
    def f(x: Any, i: Any) -> Any:
        treadle.debug_print("first {}", i)
        y = treadle.exp(x)[i]
        treadle.debug_print("second {}", y)
        treadle.check(y < 2, "small")
        treadle.debug_print("third")
        return y

    step = treadle.jit(f)
    x = treadle.zeros(3)
    step(x, treadle.tensor([0]))
    assert lines(capsys) == ["first [0]", "second [1.]", "third"]
    for call in (f, step):
        with pytest.raises(treadle.IndexFault):
            call(x, treadle.tensor([3]))
        assert lines(capsys) == ["first [3]"]
        with pytest.raises(treadle.CheckError):
            call(x + 1, treadle.tensor([1]))
        assert lines(capsys) == ["first [1]", "second [2.718282]"]


def test_a_float_argument_and_a_bool_are_printed(capsys: Capture) -> None:
    def f(lr: float, x: Any) -> Any:
        treadle.debug_print("lr {} ok {} n {}", lr, treadle.all(x > 0), 3)
        return x

    assert both(f, capsys, 0.5, treadle.ones(2)) == ["lr 0.5 ok True n 3"]


def test_a_line_inside_a_differentiated_function_is_printed_once(capsys: Capture) -> None:
    def f(x: Any) -> Any:
        treadle.debug_print("x {}", x)
        return treadle.sum(x * x)

    x = treadle.ones(1)
    for gradient in (treadle.grad(f), treadle.grad(treadle.jit(f)), treadle.jit(treadle.grad(f))):
        assert gradient(x).tolist() == [2.0]
        assert lines(capsys) == ["x [1.]"]
    leaf = treadle.ones(1).requires_grad_()
    treadle.jit(f)(leaf).backward()
    assert lines(capsys) == ["x [1.]"]
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2.0]


def test_printing_changes_no_result() -> None:
    def f(x: Any, show: bool) -> Any:
        e = treadle.exp(x)
        if show:
            treadle.debug_print("{}", e)
        return e / treadle.sum(e)

    x = treadle.tensor(np.linspace(-3, 3, 33, dtype=np.float32))
    jitted = treadle.jit(f)
    np.testing.assert_array_equal(jitted(x, True).numpy(), jitted(x, False).numpy())


def test_a_long_array_is_abbreviated(capsys: Capture) -> None:
    found = both(lambda x: treadle.debug_print("{}", x), capsys, treadle.zeros(1000))
    assert found == ["[0., 0., 0., ..., 0., 0., 0.]"]


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(treadle.TreadleError, match="there is no value '1'; given: 0"):
        treadle.debug_print("{} {}", treadle.ones(1))


def test_printed_values_are_results_of_the_compiled_program() -> None:
    step = treadle.jit(lambda x: treadle.debug_print("x is {}", x))
    step(treadle.ones(2))
    assert 'debug_print(%0, text="x is {}")' in step.ir("traced")
    assert 'print %0 "x is {}"' in step.ir("fuse")
