"""What is wrong with a loop or branch is told when it is traced, with the name of the carry and the
user's line; eagerly and compiled alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bodies import arrays

import treadle
from treadle import ArgumentError, DTypeError, GradientError, ShapeError, TraceError

HERE = r"test_control_errors\.py:\d+"


def wrong_shape(x: Any) -> Any:
    return treadle.scan(lambda c, x: ({"h": c["h"][:2]}, x), {"h": x[0]}, x)


def wrong_dtype(x: Any) -> Any:
    return treadle.scan(lambda c, x: ((c[0], c[1] + 0.5), x), (x[0], 0), x)


def wrong_structure(x: Any) -> Any:
    return treadle.scan(lambda c, x: (c[0], x), (x[0],), x)


def no_pair(x: Any) -> Any:
    return treadle.scan(lambda c, x: c + x, x[0], x)


def a_string(x: Any) -> Any:
    return treadle.scan(lambda c, x: (c, "y"), x[0], x)


def lengths(x: Any) -> Any:
    return treadle.scan(lambda c, r: (c, c), x[0], {"a": x, "b": x[:2]})


def given_length(x: Any) -> Any:
    return treadle.scan(lambda c, r: (c, c), x[0], x, length=9)


def no_length(x: Any) -> Any:
    return treadle.scan(lambda c, r: (c, c), x[0], None)


def a_scalar(x: Any) -> Any:
    return treadle.scan(lambda c, r: (c, c), x[0], x.sum())


def while_shape(x: Any) -> Any:
    return treadle.while_loop(lambda c: c.sum() < 1e3, lambda c: c[:, None] + c, x[0])


def no_bool(x: Any) -> Any:
    return treadle.while_loop(lambda c: c.sum(), lambda c: c, x[0])


def many_bools(x: Any) -> Any:
    return treadle.cond(x > 0, lambda: x, lambda: x)


def an_index(x: Any) -> Any:
    return treadle.switch(x.sum(), [lambda: x])


def no_branch(x: Any) -> Any:
    return treadle.switch(0, [])


def no_function(x: Any) -> Any:
    return treadle.cond(x.sum() > 0, lambda: x, x)


def no_functions(x: Any) -> Any:
    return treadle.switch(0, lambda: x)  # type: ignore[arg-type]


def no_condition(x: Any) -> Any:
    return treadle.while_loop(None, lambda c: c, x)  # type: ignore[arg-type]


def no_mapped(x: Any) -> Any:
    return treadle.map(3, x)  # type: ignore[arg-type]


WRONG: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (wrong_shape, ShapeError, r"carry\['h'\] goes in as f64\[3\] .* as f64\[2\]; a carry keeps"),
    (wrong_dtype, DTypeError, r"carry\[1\] goes in as i64\[\] .* as f32\[\]"),
    (wrong_structure, ShapeError, r"goes in as tuple\(\*\) and comes out of the body .* as \*"),
    (no_pair, ArgumentError, r"expects \(carry, y\) from its function, found Tensor"),
    (a_string, DTypeError, r"holds a str 'y'"),
    (lengths, ShapeError, r"xs\['b'\] is f64\[2, 3\], with 2 rows; xs\['a'\] has 4"),
    (given_length, ShapeError, r"with 4 rows; length has 9"),
    (no_length, ArgumentError, r"xs holds no tensors, so length must be given"),
    (a_scalar, ShapeError, r"xs is f64\[\], which has no rows"),
    (while_shape, ShapeError, r"while_loop: carry goes in as f64\[3\] .* as f64\[3, 3\]"),
    (no_bool, DTypeError, r"while_loop's condition must be one bool, found f64\[\]"),
    (many_bools, ShapeError, r"cond's condition must be one bool, found bool\[4, 3\]"),
    (an_index, DTypeError, r"switch's index must be an integer, found f64\[\]"),
    (no_branch, ArgumentError, r"at least one branch"),
    (no_function, DTypeError, r"cond's false_fn expects a function, found Tensor f64\[4, 3\]"),
    (no_functions, DTypeError, r"switch expects a list of functions, found function"),
    (no_condition, DTypeError, r"while_loop's cond expects a function, found NoneType None"),
    (no_mapped, DTypeError, r"map expects a function, found int 3"),
]


@pytest.mark.parametrize(("fn", "kind", "text"), WRONG, ids=lambda x: getattr(x, "__name__", None))
@pytest.mark.parametrize("how", ["eager", "jit"])
def test_wrong_loops_are_told_with_the_line(
    fn: Callable[[Any], Any], kind: type[Exception], text: str, how: str
) -> None:
    (x,) = arrays((4, 3))
    with pytest.raises(kind, match=rf"(?s){text}.*{HERE}"):
        (treadle.jit(fn) if how == "jit" else fn)(x)


def test_the_body_is_named_by_its_line() -> None:
    (x,) = arrays((4, 3))
    line = wrong_shape.__code__.co_firstlineno + 1
    with pytest.raises(ShapeError, match=rf"out of the body \(test_control_errors\.py:{line}\)"):
        wrong_shape(x)


def test_branches_give_one_type() -> None:
    @treadle.jit
    def f(x: Any) -> Any:
        return treadle.cond(x.sum() > 0, lambda: {"a": x}, lambda: {"a": x[0]})

    (x,) = arrays((4, 3))
    with pytest.raises(
        ShapeError, match=r"cond's false_fn gives result\['a'\] as f64\[3\], .*4, 3"
    ):
        f(x)


@pytest.mark.parametrize("how", ["eager", "jit"])
def test_a_loop_without_a_bound_has_no_derivative(how: str) -> None:
    def loss(x: Any) -> Any:
        return treadle.while_loop(lambda c: c.sum() < 10.0, lambda c: c * 2.0, x).sum()

    gradient = treadle.grad(loss)
    (x,) = arrays((3,))
    with pytest.raises(GradientError, match="pass max_steps="):
        (treadle.jit(gradient) if how == "jit" else gradient)(x * x + 1.0)


def test_a_loop_without_a_bound_runs() -> None:
    def f(x: Any) -> Any:
        return treadle.while_loop(lambda c: c.sum() < 10.0, lambda c: c * 2.0, x)

    x = treadle.ones((3,))
    assert treadle.jit(f)(x).tolist() == f(x).tolist() == [4.0, 4.0, 4.0]


def test_a_tensor_of_a_body_has_no_value_outside() -> None:
    kept: list[Any] = []

    @treadle.jit
    def f(x: Any) -> Any:
        def body(c: Any, row: Any) -> Any:
            kept.append(c * row)
            return c + row, c

        treadle.scan(body, x[0], x)
        return kept[0] + 1.0

    (x,) = arrays((4, 3))
    with pytest.raises(TraceError, match=r"outside of the body of scan.*return it from there"):
        f(x)


def test_python_may_not_branch_on_what_a_step_computes() -> None:
    @treadle.jit
    def f(x: Any) -> Any:
        return treadle.scan(lambda c, r: (c + r if r.sum() > 0 else c, c), x[0], x)

    (x,) = arrays((4, 3))
    with pytest.raises(TraceError, match="traced tensor"):
        f(x)


def test_backward_beyond_a_body_is_refused() -> None:
    @treadle.jit
    def f(w: Any, x: Any) -> Any:
        def body(c: Any, r: Any) -> Any:
            (c * r * w).sum().backward()
            return c, r

        return treadle.scan(body, x[0] * w, x)

    w, x = arrays((3,), (4, 3))
    w.requires_grad_()
    with pytest.raises(GradientError, match="reaches what was computed outside of it"):
        f(w, x)


def test_a_gradient_left_by_a_body_is_refused() -> None:
    @treadle.jit
    def f(w: Any, x: Any) -> Any:
        def body(c: Any, r: Any) -> Any:
            (r * w).sum().backward()
            return c, r

        return treadle.scan(body, 0, x)

    w, x = arrays((3,), (4, 3))
    w.requires_grad_()
    with pytest.raises(TraceError, match=r"leaves \.grad of a tensor .*zero_grad"):
        f(w, x)


def test_an_index_out_of_range_in_a_step_is_an_error_with_its_line() -> None:
    def f(table: Any, indices: Any, log: Any) -> Any:
        def body(c: Any, i: Any) -> Any:
            return c + table[i], c

        out = treadle.scan(body, table[0], indices)
        log += 1.0
        return out

    (table,) = arrays((4, 3))
    log = treadle.zeros((2,))
    jitted = treadle.jit(f)
    good, bad = treadle.tensor([0, 3, 1]), treadle.tensor([0, 9, 1])
    jitted(table, good, log)
    with pytest.raises(treadle.IndexFault, match=rf"axis 0 of size 4, found 9.*{HERE}"):
        jitted(table, bad, log)
    assert log.tolist() == [1.0, 1.0]


def test_a_failed_check_in_a_branch_is_an_error() -> None:
    @treadle.jit
    def f(x: Any) -> Any:
        def checked() -> Any:
            treadle.check(x < 5.0, "small")
            return x * 2.0

        return treadle.cond(x.sum() > 0, checked, lambda: x)

    assert f(treadle.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert f(treadle.tensor([-9.0, 6.0])).tolist() == [-9.0, 6.0]
    with pytest.raises(treadle.CheckError, match="small"):
        f(treadle.tensor([1.0, 7.0]))


ONLY_CHECKS: dict[str, Callable[[Any], Any]] = {
    "scan": lambda x: treadle.scan(lambda c, row: (c, small(row.sum())), (), x),
    "map": lambda x: treadle.map(small, x[:, 0]),
    "nested": lambda x: treadle.map(lambda row: treadle.map(small, row), x),
    "cond": lambda x: treadle.cond(x.sum() > -1e9, lambda: small(x.max()), tuple),
    "switch": lambda x: treadle.switch(treadle.argmax(x[0]), [lambda: small(x.max())] * 3),
    "remat": lambda x: treadle.remat(small)(x.max()),
}


def small(x: Any) -> Any:
    treadle.check(x < 5.0, "small")
    return ()


@pytest.mark.parametrize("how", ["jit", "grad", "backward"])
@pytest.mark.parametrize("name", ONLY_CHECKS)
def test_a_loop_or_branch_that_does_nothing_but_check_runs(name: str, how: str) -> None:
    def f(x: Any, w: Any) -> Any:
        ONLY_CHECKS[name](x)
        return treadle.tanh(x @ w + 1.0).sum()

    def through(x: Any, w: Any) -> Any:
        treadle.jit(f)(x, w.clone().requires_grad_()).backward()

    run = {"jit": treadle.jit(f), "grad": treadle.jit(treadle.grad(f)), "backward": through}[how]
    x, w = treadle.full((4, 3), 1.0), treadle.ones((3, 3))
    run(x, w)
    with pytest.raises(treadle.CheckError, match=rf"small.*{HERE}"):
        run(x * 6.0, w)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: treadle.scan(lambda c: (c, c), x, x), r"scan: .*2 arguments, it takes \(c\)"),
        (lambda x: treadle.map(lambda: x, x), r"map: .*1 argument, it takes \(\)"),
        (
            lambda x: treadle.while_loop(lambda: 1, lambda c: c, x),
            r"while_loop's cond: .*takes \(\)",
        ),
        (lambda x: treadle.while_loop(lambda c: c, lambda c, d: c, x), r"takes \(c, d\)"),
        (lambda x: treadle.cond(x.sum() > 0, lambda: x, lambda y: x), "cond's false_fn: .*0 arg"),
        (lambda x: treadle.switch(0, [lambda: x], x), "switch's branch 0: .*1 argument"),
    ],
)
def test_a_body_that_takes_other_arguments_is_told(run: Any, message: str) -> None:
    for how in (run, treadle.jit(run)):
        with pytest.raises(treadle.ArgumentError, match=rf"{message}.*{HERE}"):
            how(treadle.ones((3, 3)))
