"""Errors speak of the user's program; tracebacks show its frames; traced values can be shown."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle import nn, optim

ROOT = Path(treadle.__file__).resolve().parent.parent
HERE = Path(__file__).resolve()


def raised(fn: Callable[..., Any], *args: Any) -> BaseException:
    try:
        fn(*args)
    except BaseException as error:  # also KeyboardInterrupt
        return error
    raise AssertionError("nothing was raised")


def files_of(error: BaseException) -> set[Path]:
    return {Path(f.filename).resolve() for f in traceback.extract_tb(error.__traceback__)}


def functions_of(error: BaseException) -> list[str]:
    """The functions in the traceback, from `raised` inwards."""
    return [f.name for f in traceback.extract_tb(error.__traceback__)][1:]


# --- tracebacks ------------------------------------------------------------------------------


@treadle.jit
def product(x: Any, y: Any) -> Any:
    return x @ y


@treadle.jit
def picked(x: Any, i: Any) -> Any:
    return x[i]


def outer(x: Any) -> Any:
    return product(x, x)


X = treadle.ones((2, 3))
PLACES = {
    "operator": lambda: X + treadle.ones(4),
    "in place": lambda: X.__iadd__(treadle.ones(4)),
    "method": lambda: X.reshape(7),
    "function": lambda: treadle.concat([X, treadle.ones((3, 4))]),
    "indexing": lambda: X[5],
    "setting": lambda: X.__setitem__(5, 1.0),
    "backward": lambda: X.sum().backward(),
    "grad": lambda: treadle.grad(lambda x: x)(X),
    "traced": lambda: product(X, X),
    "native": lambda: picked(X, treadle.tensor([9])),
    "check": lambda: treadle.check(X > 1, "large"),
    "module": lambda: nn.Linear(4, 2)(X),
    "constructor": lambda: nn.Linear(-1, 2),
    "constructor without arguments": lambda: nn.Linear(),  # type: ignore[call-arg]
    "container": lambda: nn.Sequential(3),  # type: ignore[arg-type]
    "parameter": lambda: nn.Parameter("text"),
    "optimiser's constructor": lambda: optim.Adam([X], lr=-1.0),
    "optimiser": lambda: treadle.jit(optim.SGD([X.clone().requires_grad_()], lr=0.1).step)(3),
    "conversion": lambda: treadle.jit(lambda x: float(x))(X),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_traceback_shows_the_users_frames_only(place: str) -> None:
    error = raised(PLACES[place])
    assert isinstance(error, (treadle.TreadleError, TypeError))
    assert files_of(error) == {HERE}


def test_the_users_frames_inside_of_a_jitted_function_stay() -> None:
    error = raised(outer, X)
    assert functions_of(error) == ["outer", "product"]


def test_an_error_of_the_users_own_stays_as_it_is() -> None:
    @treadle.jit
    def wrong(x: Any) -> Any:
        return {}["missing"]

    error = raised(wrong, X)
    assert isinstance(error, KeyError)
    assert functions_of(error) == ["wrong"]


def test_a_cause_is_never_lost() -> None:
    @treadle.jit
    def chained(x: Any) -> Any:
        try:
            return x @ x
        except treadle.ShapeError as error:
            raise RuntimeError("no product") from error

    error = raised(chained, X)
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, treadle.ShapeError)
    assert files_of(error.__cause__) == {HERE}


def test_full_tracebacks_are_one_switch_away() -> None:
    treadle.set_traceback("full")
    try:
        files = files_of(raised(outer, X))
    finally:
        treadle.set_traceback("user")
    assert ROOT / "tracer" / "jit.py" in files
    assert files_of(raised(outer, X)) == {HERE}
    with pytest.raises(treadle.TreadleError, match='"user" or "full"'):
        treadle.set_traceback("some")  # type: ignore[arg-type]


def test_an_environment_variable_switches_tracebacks() -> None:
    program = "import treadle; treadle.ones(2) + treadle.ones(3)"
    for mode, shown in (("full", True), ("user", False)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TREADLE_TRACEBACK": mode},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert "ShapeError" in done.stderr
        assert ("execute.py" in done.stderr) is shown


def test_a_bug_of_the_library_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from treadle.tracer import execute

    monkeypatch.setattr(execute, "_owned", None)
    assert ROOT / "tracer" / "execute.py" in files_of(raised(lambda: X + 1))


# --- showing traced values -------------------------------------------------------------------


def test_showing_a_traced_value_tells_its_type_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    @treadle.jit
    def f(x: Any, n: float) -> Any:
        y = x * 2
        print(y)
        shown.extend([repr(y), f"{y}", f"{y:>60}", f"{n:.3f}", str([y]), str(x)])
        assert len(y) == 2
        assert y.shape == (2, 3)
        return y

    f(X, 1.5)
    line = f.__wrapped__.__code__.co_firstlineno + 2
    text = f"<traced tensor f32[2, 3], made by `mul` at {HERE}:{line}>"
    assert capsys.readouterr().out == text + "\n"
    assert shown[0] == shown[1] == shown[2].strip() == text
    assert shown[3].startswith("<traced tensor f64[]")
    assert shown[4] == f"[{text}]"
    assert "parameter" in shown[5]


def test_showing_a_value_that_leaked_tells_where_it_was_made() -> None:
    kept = queue.SimpleQueue[Any]()

    @treadle.jit
    def f(x: Any) -> Any:
        kept.put(x * 2)
        return x

    f(X)
    leaked = kept.get()
    line = f.__wrapped__.__code__.co_firstlineno + 2
    made = f"made at {HERE}:{line}"
    assert repr(leaked) == f"{leaked}" == f"<tensor f32[2, 3] of a trace that has ended {made}>"
    assert len(leaked) == 2


# --- leaks -----------------------------------------------------------------------------------


class Opaque:
    """Something that the walk of what a function reaches does not look into."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, thing: Any) -> None:
        self.queue.put(thing)

    def get(self) -> Any:
        return self.queue.get()


def leak(into: Callable[[Any], Any]) -> None:
    treadle.jit(lambda x: (into(x * 2), x)[1])(X)


def test_a_leaked_value_names_the_line_that_made_it_and_its_holder() -> None:
    box = Opaque()

    @treadle.jit
    def f(x: Any) -> Any:
        box.put(x * 2)
        return x

    f(X)
    leaked = box.get()
    error = raised(lambda: leaked + 1)
    assert isinstance(error, treadle.TraceError)
    line = f.__wrapped__.__code__.co_firstlineno + 2
    assert f"made at {HERE}:{line}" in str(error)
    assert "the variable 'leaked'" in str(error)
    assert "return it from the jitted function" in str(error)


LOCAL = threading.local()


def test_the_holder_of_a_leaked_value_is_named_by_its_path() -> None:
    box = Opaque()
    leak(box.put)
    LOCAL.kept = {"tensors": [box.get()]}
    error = raised(lambda: LOCAL.kept["tensors"][0].numpy())
    assert "item 0 of a list, which is item 'tensors' of a dict" in str(error)
    assert "the attribute 'kept' of a _local" in str(error)


def test_a_value_inside_of_a_returned_object_is_refused_with_its_holder() -> None:
    class Result:
        def __init__(self, hidden: Any) -> None:
            self.hidden = hidden

    error = raised(treadle.jit(lambda x: Result(x * 2)), X)
    assert isinstance(error, treadle.TraceError)
    assert "the attribute 'hidden' of a" in str(error)


@pytest.fixture(autouse=True)
def _tracebacks_of_the_user() -> Iterator[None]:
    treadle.set_traceback("user")
    yield
    treadle.set_traceback("user")
