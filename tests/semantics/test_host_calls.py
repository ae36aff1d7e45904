"""Python code inside of a jitted step: `callback`, `watch`, and prints in loops and branches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.tracer.pytree import flatten

F32 = treadle.float32
HERE = Path(__file__).name
Spec = treadle.TensorType
Capture = pytest.CaptureFixture[str]
Told = list[tuple[str, Any]]


def same(fn: Callable[..., Any], *args: Any, calls: int = 2) -> Any:
    """The result of a call, the same eager, jitted, and jitted again."""
    eager = fn(*args)
    jitted = treadle.jit(fn)
    for _ in range(calls):
        found = jitted(*args)
        for x, y in zip(flatten(eager)[0], flatten(found)[0], strict=True):
            assert x.type == y.type
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-6)
    return eager


def double(x: Any) -> Any:
    return x * 2


@pytest.fixture
def x() -> Any:
    return treadle.tensor([1.0, -2.0, 3.0])


# --- callback ------------------------------------------------------------------------------------


def test_a_callback_runs_numpy_code_in_the_middle_of_a_step(x: Any) -> None:
    found = same(lambda x: treadle.exp(treadle.callback(np.sort, x * 2, result=x)) + 1, x)
    np.testing.assert_allclose(found.numpy(), np.exp(np.sort(x.numpy() * 2)) + 1, rtol=1e-6)


def test_arguments_and_results_are_trees(x: Any) -> None:
    def numbers(given: Any, factor: int, mode: str) -> Any:
        assert isinstance(given["x"], np.ndarray)
        assert mode == "sum"
        return {"scaled": given["x"] * np.float32(factor), "count": given["x"].size, "none": ()}

    result = {"scaled": x, "count": Spec(treadle.int64, ()), "none": ()}
    found = same(lambda x: treadle.callback(numbers, {"x": x}, 3, "sum", result=result), x)
    assert found["count"].tolist() == 3
    assert found["scaled"].tolist() == [3.0, -6.0, 9.0]


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 2)])
@pytest.mark.parametrize("dtype", [treadle.bool, treadle.int32, treadle.float32, treadle.float64])
def test_arrays_of_any_shape_and_dtype_go_in_and_out(shape: Any, dtype: Any) -> None:
    data = treadle.tensor(np.ones(shape), dtype=dtype)
    seen: list[Any] = []

    def look(array: Any) -> Any:
        seen.append((array.shape, array.dtype))
        return array

    same(lambda data: treadle.callback(look, data, result=data), data)
    assert set(seen) == {(shape, dtype.dtype)}


def test_callbacks_run_in_the_order_of_the_program_once_each(x: Any) -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda array: order.append(f"{name} {float(array.sum()):.0f}")

    first, second, third = note("first"), note("second"), note("third")

    def f(x: Any) -> Any:
        large = treadle.concat([x, x]) @ treadle.ones((6, 4))
        treadle.callback(first, large)
        treadle.callback(second, x)
        treadle.callback(third, x + 1)
        return large

    jitted = treadle.jit(f)
    for fn in (f, jitted, jitted):
        order.clear()
        fn(x)
        assert order == ["first 16", "second 2", "third 5"]


def test_what_a_callback_raises_reaches_the_caller_before_state_is_written(x: Any) -> None:
    count = treadle.tensor(0.0)
    mood = {"bad": True}

    def moody(array: Any) -> Any:
        if mood["bad"]:
            raise LookupError("not today")
        return array

    @treadle.jit
    def step(x: Any) -> Any:
        count.copy_(count + 1)
        return treadle.callback(moody, x, result=x)

    for _ in range(2):
        with pytest.raises(LookupError, match="not today"):
            step(x)
        assert float(count) == 0
    mood["bad"] = False
    step(x)
    assert float(count) == 1


def test_ctrl_c_in_a_callback_leaves_no_step_half_done(x: Any) -> None:
    count = treadle.tensor(0.0)

    def interrupted(array: Any) -> None:
        raise KeyboardInterrupt

    @treadle.jit
    def step(x: Any) -> Any:
        count.copy_(count + 1)
        treadle.callback(interrupted, x)
        return x

    with pytest.raises(KeyboardInterrupt):
        step(x)
    assert float(count) == 0


def test_a_failed_check_before_a_callback_keeps_it_from_running(x: Any) -> None:
    calls: list[int] = []

    @treadle.jit
    def f(x: Any, i: Any) -> Any:
        y = x[i]
        treadle.callback(lambda array: calls.append(1), y)
        return y

    with pytest.raises(treadle.IndexFault, match="found 7"):
        f(x, treadle.tensor([7]))
    assert calls == []


WRONG = {
    "dtype": (lambda a: a.astype("float64"), "result 0 as f64.3., expected f32.3.; convert it"),
    "shape": (lambda a: a[:2], r"result 0 as f32\[2\], expected f32\[3\]"),
    "number": (lambda a: 1.5, r"result 0 as f32\[\], expected f32\[3\]"),
    "nothing": (lambda a: None, "gave None, expected one array"),
    "several": (lambda a: (a, a), "expected one array"),
    "text": (lambda a: "x", "gave result 0 as"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_result_of_another_type_is_an_error_with_the_line(x: Any, what: str, jit: bool) -> None:
    fn, message = WRONG[what]

    def f(x: Any) -> Any:
        return treadle.callback(fn, x, result=Spec(F32, (3,)))

    with pytest.raises((TypeError, ValueError), match=rf"callback <lambda> .*{message}.*{HERE}"):
        (treadle.jit(f) if jit else f)(x)


def test_given_arrays_are_read_only_and_may_be_kept(x: Any) -> None:
    kept: list[Any] = []

    def change(array: Any) -> None:
        kept.append(array)
        array[0] = 5

    jitted = treadle.jit(lambda x: treadle.callback(change, x * 2))
    for given in (x, x + 1):
        with pytest.raises(ValueError, match="read-only"):
            jitted(given)
    np.testing.assert_array_equal(kept, [[2, -4, 6], [4, -2, 8]])


def test_a_pure_callback_whose_result_is_unused_is_left_out(x: Any) -> None:
    calls: list[int] = []

    def count(array: Any) -> Any:
        calls.append(1)
        return array

    def f(x: Any, pure: bool) -> Any:
        treadle.callback(count, x, result=x, pure=pure)
        return x + 1

    jitted = treadle.jit(f)
    jitted(x, True)
    assert "callback" not in jitted.ir("fuse", x, True)
    assert calls == []
    jitted(x, False)
    assert calls == [1]


def test_a_callback_has_no_derivative_unless_it_is_given_one(x: Any) -> None:
    def f(x: Any) -> Any:
        return treadle.sum(treadle.callback(np.sin, x, result=x))

    for fn in (treadle.grad(f), treadle.jit(treadle.grad(f))):
        with pytest.raises(treadle.GradientError, match=r"callback sin .*custom_vjp"):
            fn(x)
    assert same(treadle.grad(lambda x: f(x.detach()) + treadle.sum(x)), x).tolist() == [1, 1, 1]


def test_callbacks_work_in_loops_and_branches(x: Any) -> None:
    def body(carry: Any, row: Any) -> Any:
        carry = treadle.callback(np.add, carry, row, result=carry)
        return carry, carry * 2

    same(lambda x: treadle.scan(body, treadle.tensor(0.0), x), x)

    def doubled(x: Any) -> Any:
        return treadle.callback(double, x, result=x)

    same(lambda x: treadle.cond(x[0] > 0, lambda: doubled(x), lambda: -x), x)
    same(lambda x: treadle.cond(x[0] > 0, lambda: doubled(x), lambda: -x), -x)
    same(lambda x: treadle.while_loop(lambda c: treadle.sum(c) < 99, doubled, x), x)


def test_a_loop_ends_where_a_callback_raises() -> None:
    steps: list[int] = []

    def third(array: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            raise LookupError("third")
        return array

    @treadle.jit
    def f(x: Any) -> Any:
        return treadle.map(lambda row: treadle.callback(third, row, result=row), x)

    with pytest.raises(LookupError, match="third"):
        f(treadle.ones(10))
    assert len(steps) == 3


def test_a_callback_that_a_remat_would_repeat_must_be_pure(x: Any) -> None:
    def layer(x: Any, pure: bool) -> Any:
        return x * treadle.callback(np.cos, x.detach(), result=x, pure=pure)

    def loss(x: Any, pure: bool) -> Any:
        return treadle.sum(treadle.remat(lambda x: layer(x, pure))(x))

    with pytest.raises(treadle.GradientError, match=rf"second time.*pure=True.*{HERE}"):
        treadle.jit(treadle.grad(loss))(x, False)
    found = treadle.jit(treadle.grad(loss))(x, True)
    np.testing.assert_allclose(found.numpy(), np.cos(x.numpy()), rtol=1e-6)


def test_a_callback_may_call_jitted_functions_and_itself(x: Any) -> None:
    inner = treadle.jit(lambda x: x * 3)
    outer = treadle.jit(
        lambda x: treadle.callback(lambda a: inner(treadle.tensor(a)), x, result=x) + 1
    )
    assert outer(x).tolist() == [4.0, -5.0, 10.0]

    def down(array: Any) -> Any:
        return count(treadle.tensor(array - 1)) if array > 0 else array

    @treadle.jit
    def count(n: Any) -> Any:
        return treadle.callback(down, n, result=n) + 1

    assert float(count(treadle.tensor(4.0))) == 5.0


def test_threads_call_their_own_callbacks(x: Any) -> None:
    seen: dict[int, set[int]] = {}

    def note(array: Any) -> None:
        seen.setdefault(int(array[0]), set()).add(threading.get_ident())

    @treadle.jit
    def f(x: Any) -> Any:
        treadle.callback(note, x)
        return x

    def work(n: int) -> None:
        for _ in range(30):
            f(x * 0 + n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set.union(*seen.values())) == 4
    assert all(len(idents) == 1 for idents in seen.values())


def test_what_a_callback_reads_and_changes_compiles_nothing_anew(x: Any) -> None:
    log: list[float] = []

    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor, self.calls = factor, 0

        def run(self, array: Any) -> Any:
            self.calls += 1
            log.append(self.factor)
            return array * np.float32(self.factor)

    scale = Scale(2.0)
    run = scale.run

    @treadle.jit
    def f(x: Any) -> Any:
        return treadle.callback(run, x, result=x)

    for factor in (2.0, 3.0, 3.0):
        scale.factor = factor
        assert f(x).tolist() == (x * factor).tolist()
    assert scale.calls == 3
    assert len(f.specializations) == 1


def test_another_function_or_object_is_another_step(x: Any) -> None:
    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def run(self, array: Any) -> Any:
            return array * np.float32(self.factor)

        def __call__(self, x: Any) -> Any:
            return treadle.callback(self.run, x, result=x)

    f = treadle.jit(lambda scale, x: scale(x))
    assert f(Scale(2.0), x).tolist() == [2.0, -4.0, 6.0]
    assert f(Scale(3.0), x).tolist() == [3.0, -6.0, 9.0]
    g = treadle.jit(lambda fn, x: treadle.callback(fn, x, result=x))
    assert g(np.negative, x).tolist() == [-1.0, 2.0, -3.0]
    assert g(double, x).tolist() == [2.0, -4.0, 6.0]


def test_code_from_the_disk_cache_calls_the_functions_of_this_process(
    x: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_CACHE", "1")
    monkeypatch.setenv("TREADLE_CACHE_DIR", str(tmp_path))

    def made(factor: float) -> Callable[[Any], Any]:
        def scaled(array: Any) -> Any:
            return array * np.float32(factor)

        return scaled

    def run(fn: Callable[[Any], Any]) -> Any:
        return treadle.jit(lambda x: treadle.callback(fn, x, result=x))(x).tolist()

    assert run(made(2.0)) == [2.0, -4.0, 6.0]
    kept = list(tmp_path.rglob("*"))
    assert run(made(3.0)) == [3.0, -6.0, 9.0]
    assert kept == list(tmp_path.rglob("*"))  # the second program was found


def test_a_saved_program_says_which_function_it_lacks(x: Any, tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        y = treadle.callback(double, x, result=x)
        z = y + 1
        return z  # noqa: RET504  a name of the graph

    graph = treadle.trace(f, [Spec(F32, (3,))])
    run = graph.run(feed={"x": x})
    assert isinstance(run, treadle.Tensor)
    assert run.tolist() == [3.0, -3.0, 7.0]
    graph.save(tmp_path / "graph")
    loaded = treadle.load_graph(tmp_path / "graph")
    assert str(loaded) == str(graph)
    with pytest.raises(treadle.TraceError, match="Python function double#0, which"):
        loaded.run(feed={"x": x})
    part = loaded.run("z", feed={"y": x})
    assert isinstance(part, treadle.Tensor)
    assert part.tolist() == [2.0, -1.0, 4.0]


# --- watch ---------------------------------------------------------------------------------------


def told_by(run: Callable[[], Any]) -> Told:
    """What is watched while `run` runs."""
    told: Told = []
    with treadle.watching(lambda name, array: told.append((name, array))):
        run()
    return told


def watched(x: Any) -> Any:
    y = treadle.watch("y", x * 2)
    return treadle.watch("total", treadle.sum(y))


def test_watched_values_are_delivered_in_order(x: Any) -> None:
    jitted = treadle.jit(watched)
    for fn in (watched, jitted, jitted):
        told = told_by(lambda: fn(x))  # noqa: B023  called at once
        assert [name for name, _ in told] == ["y", "total"]
        np.testing.assert_array_equal(told[0][1], [2, -4, 6])
        assert not told[0][1].flags.writeable


def test_a_watch_that_nobody_asks_for_leaves_nothing_in_the_step(x: Any) -> None:
    def plain(x: Any) -> Any:
        y = x * 2
        return treadle.sum(y)

    with_watch, without = treadle.jit(watched), treadle.jit(plain)
    for stage in ("traced", "fuse"):
        texts = [fn.ir(stage, x) for fn in (with_watch, without)]
        assert _program(texts[0]) == _program(texts[1])


def _program(text: str) -> list[str]:
    return [line.split(";")[0].replace("@watched", "@plain") for line in text.splitlines()]


def test_both_versions_of_a_watched_function_are_kept(x: Any) -> None:
    told: list[str] = []
    f = treadle.jit(watched)
    for _ in range(8):  # so often that calls go without Python
        f(x)
    assert told == []
    for _ in range(2):
        with treadle.watching(lambda name, array: told.append(name), "total"):
            for _ in range(6):
                f(x)
        f(x)
    assert told == ["total"] * 12
    assert len(f.specializations) == 2


def test_names_choose_what_is_watched(x: Any) -> None:
    loss: list[str] = []
    both: list[str] = []
    f = treadle.jit(watched)
    with treadle.watching(lambda name, array: loss.append(name), "tot*"):
        f(x)
        with treadle.watching(lambda name, array: both.append(name), ["y", "total"]):
            f(x)
        f(x)
    assert loss == ["total"] * 3
    assert both == ["y", "total"]
    with treadle.watching(lambda name, array: loss.append(name), "other"):
        f(x)
    assert len(loss) == 3


def test_values_in_loops_and_branches_are_watched_each_time(x: Any) -> None:
    def body(carry: Any, row: Any) -> Any:
        treadle.watch("carry", carry)
        return carry + row, row

    def f(x: Any) -> Any:
        total, _ = treadle.scan(body, treadle.tensor(0.0), x)
        return treadle.cond(total > 0, lambda: treadle.watch("yes", total), lambda: total)

    for fn in (f, treadle.jit(f)):
        told = [(name, float(array)) for name, array in told_by(lambda: fn(x))]  # noqa: B023
        assert told == [("carry", 0.0), ("carry", 1.0), ("carry", -1.0), ("yes", 2.0)]


def test_a_watched_value_keeps_its_gradient_and_is_told_of_once(x: Any) -> None:
    def f(x: Any) -> Any:
        inner = treadle.remat(lambda x: treadle.watch("inside", treadle.sin(x)) * x)
        return treadle.sum(inner(x))

    jitted = treadle.jit(treadle.grad(f))
    told: list[str] = []
    with treadle.watching(lambda name, array: told.append(name)):
        found = jitted(x)
    assert told == ["inside"]
    at = x.numpy()
    np.testing.assert_allclose(found.numpy(), np.cos(at) * at + np.sin(at), rtol=1e-5)


def test_what_a_watcher_raises_the_step_raises_with_state_as_before(x: Any) -> None:
    count = treadle.tensor(0.0)

    @treadle.jit
    def step(x: Any) -> Any:
        count.copy_(count + treadle.watch("one", treadle.tensor(1.0)))
        return x

    def refuse(name: str, array: Any) -> None:
        raise LookupError(name)

    with treadle.watching(refuse), pytest.raises(LookupError, match="one"):
        step(x)
    assert float(count) == 0
    step(x)
    assert float(count) == 1


def test_wrong_arguments_of_watch_are_named(x: Any) -> None:
    with pytest.raises(treadle.ArgumentError, match=rf"name first, found int.*{HERE}"):
        treadle.watch(3, x)  # type: ignore[arg-type]
    with pytest.raises(treadle.DTypeError, match="expects a tensor, found str"):
        treadle.watch("x", "y")
    with pytest.raises(treadle.ArgumentError, match="expects a function"), treadle.watching(3):  # type: ignore[arg-type]
        pass
    with pytest.raises(treadle.ArgumentError, match="pattern"), treadle.watching(print, [3]):  # type: ignore[list-item]
        pass


# --- prints in loops and branches ----------------------------------------------------------------


def test_lines_in_loops_and_branches_come_in_the_order_of_the_program(
    x: Any, capsys: Capture
) -> None:
    def body(carry: Any, row: Any) -> Any:
        treadle.debug_print("row {}", row)
        return carry + row, row

    def f(x: Any) -> Any:
        treadle.debug_print("begin")
        total, _ = treadle.scan(body, treadle.tensor(0.0), x)
        treadle.cond(total > 0, lambda: treadle.debug_print("positive"), lambda: None)
        treadle.debug_print("end {}", total)
        return total

    jitted = treadle.jit(f)
    for fn in (f, jitted, jitted):
        fn(x)
        lines = capsys.readouterr().out.splitlines()
        assert lines == ["begin", "row 1.0", "row -2.0", "row 3.0", "positive", "end 2.0"]


def test_a_profile_prints_nothing_and_tells_nobody(x: Any, capsys: Capture) -> None:
    def f(x: Any) -> Any:
        treadle.map(lambda row: treadle.debug_print("row {}", row), x)
        return treadle.watch("y", treadle.exp(x))

    told: list[str] = []
    jitted = treadle.jit(f)
    with treadle.watching(lambda name, array: told.append(name)):
        assert "exp" in str(jitted.profile(x, repeat=2))
    assert told == []
    assert capsys.readouterr().out == ""
