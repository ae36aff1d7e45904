"""Nothing that shaped a trace changes in silence: jitted code follows what plain Python does."""

from __future__ import annotations

import contextvars
import dataclasses
import datetime
import functools
import importlib
import io
import itertools
import os
import pathlib
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stale_array_cases  # noqa: F401  these add their cases
import stale_attribute_cases  # noqa: F401
import stale_class_cases  # noqa: F401
import stale_container_cases  # noqa: F401
import stale_function_cases  # noqa: F401
from stale_cases import CASES, Case
from stale_global_cases import restore_globals
from stale_wrapped_cases import restore_modules

import treadle
from treadle import Tensor
from treadle.tracer.pytree import register_container


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)
    restore_globals()
    restore_modules()


def x3() -> Tensor:
    return treadle.tensor(np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_change_of_anything_that_shaped_a_trace_is_followed(make: Callable[[], Case]) -> None:
    f, change = make()
    jitted = treadle.jit(f)
    before = f(x3()).numpy().copy()
    for _ in range(2):
        np.testing.assert_array_equal(jitted(x3()), before)
    assert len(jitted.specializations) == 1
    change()
    after = f(x3()).numpy().copy()
    assert not np.array_equal(before, after), "a case must change the result"
    for _ in range(2):
        np.testing.assert_array_equal(jitted(x3()), after)
    assert len(jitted.specializations) <= 2


def test_how_arguments_are_given_matters_to_a_decorator() -> None:
    def twice(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(fn(*args, **kwargs), **kwargs)

        return wrapper

    @twice
    def f(x: Any, shift: int = 1) -> Any:
        return x * 2 + shift

    jitted = treadle.jit(f)
    for call in (lambda g: g(x3(), 5), lambda g: g(x3(), shift=5), lambda g: g(shift=5, x=x3())):
        try:
            expected = call(f).numpy()
        except TypeError:
            with pytest.raises(TypeError):
                call(jitted)
            continue
        np.testing.assert_array_equal(call(jitted), expected)


def test_floats_alone_give_floats_by_operators_and_tensors_by_functions() -> None:
    def f(a: Any, b: Any) -> Any:
        root = treadle.sqrt(a)
        return a * b + 1, -a, a**2, root, root * b, treadle.exp(a) + treadle.ones(2), abs(b)

    jitted = treadle.jit(f)
    for a, b in ((1.5, 2.0), (2.5, -3.0)):
        for one, other in zip(jitted(a, b), f(a, b), strict=True):
            assert type(one) is type(other)
            if isinstance(one, Tensor):
                assert (one.dtype, one.shape, one.weak) == (other.dtype, other.shape, other.weak)
            np.testing.assert_allclose(one, other, rtol=1e-7 if isinstance(one, Tensor) else 0)
    assert len(jitted.specializations) == 1


@dataclasses.dataclass
class Settings:
    """A dataclass with an attribute that is no field."""

    weight: Any

    def __post_init__(self) -> None:
        self.extra = 2


def test_an_attribute_of_a_dataclass_argument_that_is_no_field() -> None:
    @treadle.jit
    def f(x: Any, settings: Any) -> Any:
        settings.seen = x + settings.weight
        return settings.seen * settings.extra

    for weight in (treadle.ones(3), np.ones(3, np.float32)):
        settings = Settings(weight)
        np.testing.assert_array_equal(f(x3(), settings), [4, 6, 8])
        np.testing.assert_array_equal(settings.seen, [2, 3, 4])  # type: ignore[attr-defined]
        settings.extra = 3
        np.testing.assert_array_equal(f(x3(), settings), [6, 9, 12])


def test_arrays_and_modules_of_torch_are_guarded_by_their_content() -> None:
    torch = pytest.importorskip("torch")
    array = torch.ones(3)
    layer = torch.nn.Linear(1, 1, bias=False)
    f = treadle.jit(lambda x: x * float(array.sum()) * float(layer.weight.detach().sum()))
    with torch.no_grad():
        for value in (1, 2, 3):
            layer.weight.fill_(value)
            array.fill_(value)
            np.testing.assert_array_equal(f(x3()), np.array([1, 2, 3]) * 3 * value * value)


# --- modules and notebooks -----------------------------------------------------------------------


def test_a_module_that_is_edited_and_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source = tmp_path / "treadle_edited_module.py"
    source.write_text("FACTOR = 2\ndef helper(x):\n    return x * FACTOR\n")
    module = importlib.import_module("treadle_edited_module")
    by_module = treadle.jit(lambda x: module.helper(x))

    @treadle.jit
    def by_import(x: Any) -> Any:
        import treadle_edited_module  # type: ignore[import-not-found]

        return treadle_edited_module.helper(x)

    @treadle.jit
    def by_name(x: Any) -> Any:
        from treadle_edited_module import helper

        return helper(x)

    for f in (by_module, by_import, by_name):
        np.testing.assert_array_equal(f(x3()), [2, 4, 6])
    source.write_text("FACTOR = 2\ndef helper(x):\n    return x * FACTOR + 1\n")
    importlib.reload(module)
    for f in (by_module, by_import, by_name):
        np.testing.assert_array_equal(f(x3()), [3, 5, 7])
    source.write_text("FACTOR = 3\ndef helper(x):\n    return x * FACTOR + 1\n")
    monkeypatch.delitem(sys.modules, "treadle_edited_module")
    importlib.invalidate_caches()
    for f in (by_import, by_name):
        np.testing.assert_array_equal(f(x3()), [4, 7, 10])
    np.testing.assert_array_equal(by_module(x3()), [3, 5, 7])  # as eagerly: the old module


def test_a_module_that_is_imported_by_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "treadle_late_module.py").write_text("FACTOR = 2\n")

    @treadle.jit
    def f(x: Any) -> Any:
        import treadle_late_module  # type: ignore[import-not-found]

        return x * treadle_late_module.FACTOR

    np.testing.assert_array_equal(f(x3()), [2, 4, 6])
    monkeypatch.setattr(sys.modules["treadle_late_module"], "FACTOR", 3)
    np.testing.assert_array_equal(f(x3()), [3, 6, 9])


def test_a_function_that_is_redefined_in_a_notebook() -> None:
    cells: dict[str, Any] = {"treadle": treadle, "__name__": "__main__"}
    exec("def helper(x):\n    return x * 2", cells)
    exec("@treadle.jit\ndef step(x):\n    return helper(x)", cells)
    step = cells["step"]
    np.testing.assert_array_equal(step(x3()), [2, 4, 6])
    exec("def helper(x):\n    return x * 3", cells)
    np.testing.assert_array_equal(step(x3()), [3, 6, 9])
    exec("def helper(x, k=4):\n    return x * k", cells)
    np.testing.assert_array_equal(step(x3()), [4, 8, 12])
    exec("class Layer:\n    k = 5\n    def __call__(self, x): return x * self.k", cells)
    exec("layer = Layer()\ndef helper(x):\n    return layer(x)", cells)
    np.testing.assert_array_equal(step(x3()), [5, 10, 15])
    exec("class Layer:\n    k = 6\n    def __call__(self, x): return x * self.k", cells)
    np.testing.assert_array_equal(step(x3()), [5, 10, 15])  # the old instance, as eagerly
    exec("layer = Layer()", cells)
    np.testing.assert_array_equal(step(x3()), [6, 12, 18])
    exec("@treadle.jit\ndef step(x):\n    return helper(x) + 1", cells)
    np.testing.assert_array_equal(cells["step"](x3()), [7, 13, 19])


# --- what a compiled call could not repeat -------------------------------------------------------


def counting() -> Iterator[int]:
    n = 0
    while True:
        yield n
        n += 1


ITERATORS: dict[str, Callable[[], Any]] = {
    "list": lambda: iter([1, 2, 3]),
    "range": lambda: iter(range(9)),
    "generator": counting,
    "map of a generator": lambda: map(float, counting()),
    "zip": lambda: zip([1, 2, 3], "abc", strict=True),
    "enumerate": lambda: enumerate("abc"),
    "count": lambda: itertools.count(5),
    "cycle": lambda: itertools.cycle([1, 2]),
    "chain": lambda: itertools.chain([1], [2, 3]),
    "islice of a generator": lambda: itertools.islice(counting(), 5),
    "items of a dict": lambda: iter({"a": 1, "b": 2}.items()),
    "set": lambda: iter({1, 2, 3}),
    "reversed": lambda: reversed([1, 2, 3]),
    "file": lambda: io.StringIO("1\n2\n3\n"),
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS.keys())
def test_an_iterator_that_the_function_advances_is_an_error(make: Callable[[], Any]) -> None:
    steps = make()

    def f(x: Tensor) -> Tensor:
        next(steps)
        return x * 2

    with pytest.raises(treadle.TraceError, match=r"advances (the generator )?steps"):
        treadle.jit(f)(x3())


def test_an_iterator_of_the_user_is_state_like_any_object() -> None:
    class Steps:
        n = 0

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            self.n += 1
            return self.n

    steps = Steps()
    f = treadle.jit(lambda x: x * next(steps))
    for n in (1, 2, 3):
        np.testing.assert_array_equal(f(x3()), np.array([1, 2, 3]) * n)


def test_a_list_iterator_is_put_back_where_the_trace_has_failed() -> None:
    steps = iter([1, 2, 3])
    with pytest.raises(treadle.TraceError):
        treadle.jit(lambda x: x * next(steps))(x3())
    assert next(steps) == 1


def clock(x: Tensor) -> Tensor:
    return x * (time.time() > 0)


CLOCKS = [time.monotonic]


def clock_in_a_list(x: Tensor) -> Tensor:
    return x * (CLOCKS[0]() > 0)


def date(x: Tensor) -> Tensor:
    return x * (datetime.datetime.now().year > 0)


def reading(x: Tensor) -> Tensor:
    return x * len(pathlib.Path(__file__).read_text()[:1])


def listing(x: Tensor) -> Tensor:
    return x * (len(os.listdir(os.sep)) > 0)  # noqa: PTH208


def folder(x: Tensor) -> Tensor:
    return x * (len(os.path.abspath("a")) > 0)  # noqa: PTH100


def folder_of_a_path(x: Tensor) -> Tensor:
    return x * (len(pathlib.Path("a").resolve().parts) > 0)


@pytest.mark.parametrize(
    "f", [clock, clock_in_a_list, date, reading, listing, folder, folder_of_a_path]
)
def test_a_clock_or_a_file_that_is_read_in_a_trace_is_warned_of_at_its_line(
    f: Callable[[Tensor], Tensor],
) -> None:
    with pytest.warns(RuntimeWarning, match="later calls see the same value") as caught:
        treadle.jit(f)(x3())
    assert caught[0].filename == __file__
    assert caught[0].lineno == f.__code__.co_firstlineno + 1


def drawn_by_a_local_name() -> float:
    import numpy.random as draws

    return float(draws.rand())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: uuid.uuid4().int % 3, lambda: os.urandom(1)[0], lambda: secrets.randbelow(3),
        lambda: random.SystemRandom().random(), lambda: np.random.default_rng().normal(),
        lambda: random.random(), lambda: np.random.rand(),
        lambda: __import__("numpy").random.rand(), lambda: drawn_by_a_local_name(),
    ],
)  # fmt: skip
def test_entropy_that_is_drawn_in_a_trace_is_an_error(draw: Callable[[], float]) -> None:
    with pytest.raises(treadle.TraceError, match="the same at every call"):
        treadle.jit(lambda x: x * draw())(x3())


def test_entropy_that_others_draw_during_a_trace_is_theirs() -> None:
    """Another thread's is not the traced function's, and nothing is left behind."""
    urandom = os.urandom

    @treadle.jit
    def step(x: Tensor) -> Tensor:
        if len(x.shape) > 3:
            return x * secrets.randbelow(3)  # so that draws are watched
        assert os.urandom is not urandom
        another = threading.Thread(target=secrets.token_bytes, args=[4])
        another.start()
        another.join()
        return x * treadle.jit(lambda y: y * np.random.default_rng(0).integers(2, 3))(x)

    np.testing.assert_array_equal(step(x3()).numpy(), 2 * x3().numpy() ** 2)
    assert os.urandom is urandom and random._urandom is urandom  # type: ignore[attr-defined]


def test_a_trace_without_clocks_and_files_is_not_profiled() -> None:
    """A model whose weights are drawn from a seed is none that reads from outside."""

    class Model(treadle.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            treadle.manual_seed(3)
            self.w = treadle.nn.Parameter(np.random.default_rng(0).normal(size=3).astype("f4"))

        def forward(self, x: Tensor) -> Tensor:
            profiled.append(sys.getprofile())
            return x * self.w

    profiled: list[Any] = []
    model = Model()
    treadle.jit(lambda x: model(x))(x3())
    assert profiled == [sys.getprofile()]


def test_contents_that_are_changed_in_a_trace_are_an_error_and_put_back() -> None:
    data = bytearray(b"\1\2")
    variable = contextvars.ContextVar("variable", default=1)

    def change_bytes(x: Tensor) -> Tensor:
        data[0] += 1
        return x * data[0]

    def change_variable(x: Tensor) -> Tensor:
        variable.set(variable.get() + 1)
        return x * variable.get()

    for f in (change_bytes, change_variable):
        with pytest.raises(treadle.TraceError, match="which a compiled call could not repeat"):
            treadle.jit(f)(x3())
    assert data == b"\1\2"
    assert variable.get() == 1


@pytest.mark.parametrize(
    "read",
    [
        lambda w: w.item(), lambda w: float(w), lambda w: bool(w), lambda w: w.tolist(),
        lambda w: w.numpy().sum(), lambda w: np.asarray(w).sum(), lambda w: int(w),
        lambda w: np.float32(w), lambda w: w.__array__().sum(), lambda w: [1, 2][w.astype("int64")],
    ],
)  # fmt: skip
def test_a_captured_tensor_cannot_be_read_as_a_number_in_a_trace(
    read: Callable[[Any], Any],
) -> None:
    w = treadle.tensor(np.float32(1))
    with pytest.raises(treadle.TraceError):
        treadle.jit(lambda x: x * read(w))(x3())


# --- threads of other compilers' trackers --------------------------------------------------------


class Hashed:
    """An argument with an `__eq__` and a hash that follow what it holds."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashed) and self.value == other.value


def test_jax_13992_a_hashed_argument_that_is_changed_after_its_first_use() -> None:
    add = treadle.jit(lambda v, y: y + v.value)
    v = Hashed(100)
    for value in (100, 0, 0, 7, 100):
        v.value = value
        assert add(v, treadle.tensor(np.float32(1))).item() == value + 1


class Held:
    """A container of the user's, known to Treadle."""

    def __init__(self, data: Any) -> None:
        self.data = data


register_container(Held, lambda held: ([held.data], None), lambda _, parts: Held(*parts))


def test_jax_9024_a_registered_container_whose_array_is_changed_in_place() -> None:
    held = Held(np.arange(4))
    doubled = treadle.jit(lambda held: treadle.tensor(held.data) * 2)
    np.testing.assert_array_equal(doubled(held), [0, 2, 4, 6])
    held.data += 1
    np.testing.assert_array_equal(doubled(held), [2, 4, 6, 8])
    held.data = held.data[:2]
    np.testing.assert_array_equal(doubled(held), [2, 4])


def test_jax_9023_an_object_as_an_argument_is_known_by_what_it_holds_not_by_its_identity() -> None:
    class Model:
        def __init__(self, scale: int) -> None:
            self.scale = scale
            self.weights = np.ones(3, np.float32)

        @treadle.jit
        def __call__(self, x: Any) -> Any:
            return x * self.scale * self.weights

    model = Model(2)
    np.testing.assert_array_equal(model(x3()), [2, 4, 6])
    model.scale = 3
    np.testing.assert_array_equal(model(x3()), [3, 6, 9])
    model.weights *= 2
    np.testing.assert_array_equal(model(x3()), [6, 12, 18])
    np.testing.assert_array_equal(Model(5)(x3()), [5, 10, 15])
    np.testing.assert_array_equal(model(x3()), [6, 12, 18])


def test_mlx_4234_random_numbers_are_never_frozen_in_any_thread() -> None:
    generator = np.random.default_rng(0)

    def sample(x: Tensor) -> Tensor:
        return x + generator.normal()

    def call() -> str:
        try:
            treadle.jit(sample)(x3())
        except treadle.TraceError as error:
            return str(error)
        return "frozen"

    with ThreadPoolExecutor(2) as pool:
        said = [call(), *pool.map(lambda _: call(), range(2))]
    assert all("draws random numbers" in text for text in said)
    given = treadle.jit(lambda x, noise: x + noise)
    first, second = (given(x3(), generator.normal()).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert len(given.specializations) == 1


class TestTinygradFootguns:
    """The kinds of silent mismatch that a test file of tinygrad lists, and its errors."""

    def test_results_share_no_buffer_with_later_calls(self) -> None:
        f = treadle.jit(lambda x: x.sum())
        results = [f(treadle.tensor([n, n])) for n in (1, 2, 3)]
        assert [r.item() for r in results] == [2, 4, 6]

    def test_an_output_may_become_the_next_input_and_then_another_one(self) -> None:
        step = treadle.jit(lambda x: (x + 1) * 2)
        for start, expected in ((20, 174), (100, 814)):
            x = treadle.tensor([start])
            for _ in range(3):
                x = step(x)
            assert x.item() == expected

    def test_a_window_shifts_and_its_first_row_is_that_of_the_call(self) -> None:
        @treadle.jit
        def shift(window: Any, row: Any) -> Any:
            moved = treadle.concat([window[1:], row], axis=0)
            return moved, moved[:1]

        window = treadle.tensor(np.array([[0], [1], [2]]))
        rows: list[int] = []
        for n in range(5):
            window, first = shift(window, treadle.tensor(np.array([[10 + n]])))
            rows.append(first.item())
        assert rows == [1, 2, 10, 11, 12]

    def test_a_slice_that_is_assigned_is_read_in_the_same_call(self) -> None:
        cache = treadle.zeros((4, 4))

        @treadle.jit
        def f(row: int) -> Any:
            cache[row : row + 1, :] = treadle.ones((1, 4))
            return cache.sum()

        for row in range(4):
            with treadle.no_grad():
                cache.fill_(0)
            assert f(row).item() == 4

    def test_padding_follows_the_shape_of_each_call(self) -> None:
        a = treadle.ones((3, 10))

        @treadle.jit
        def f(a: Any) -> Any:
            return treadle.concat([a + 1, treadle.zeros((3, 10 - a.shape[1]))], axis=1)

        for n in (1, 2, 3, 4, 2):
            assert int((f(a[:, :n])[0] != 0).sum().item()) == n

    def test_python_numbers_are_those_of_the_call(self) -> None:
        factor = 1
        f = treadle.jit(lambda x: x * factor)
        for n in range(5):
            factor = n + 1
            assert f(treadle.tensor([10])).item() == 10 * factor

    def test_the_branch_is_that_of_the_call(self) -> None:
        f = treadle.jit(lambda x, square: x * x if square else x * 2)
        for square in (True, False, True, False):
            assert f(treadle.tensor([3]), square).item() == (9 if square else 6)

    def test_side_effects_happen_at_each_call(self) -> None:
        calls = [0]

        @treadle.jit
        def f(x: Any) -> Any:
            calls[0] += 1
            return x * 2

        for n in range(5):
            f(treadle.tensor([n]))
        assert calls == [5]

    def test_what_is_no_tensor_may_go_in_and_come_out(self) -> None:
        f = treadle.jit(lambda x, n: (x * 2, n * 10, None, "text"))
        for n in range(3):
            y, *rest = f(treadle.tensor([n]), n)
            assert (y.item(), rest) == (2 * n, [n * 10, None, "text"])

    def test_inputs_may_be_equal_views_constants_and_keywords(self) -> None:
        f = treadle.jit(lambda a, b: a + b)
        x = treadle.tensor([1.0, 2.0, 3.0])
        np.testing.assert_array_equal(f(x, x), [2, 4, 6])
        np.testing.assert_array_equal(f(x, x[::-1]), [4, 4, 4])
        np.testing.assert_array_equal(f(b=treadle.tensor(2.0), a=x), [3, 4, 5])
        base = treadle.tensor(np.arange(20.0))
        for start in range(4):
            expected = np.arange(start, start + 3) + np.arange(1, 4)
            np.testing.assert_array_equal(f(base[start : start + 3], x), expected)

    def test_values_that_only_a_run_knows_are_no_shapes(self) -> None:
        for f in (lambda x: treadle.zeros(x.sum().item()), lambda x: treadle.tensor(x.tolist())):
            with pytest.raises(treadle.TraceError):
                treadle.jit(f)(treadle.tensor([1, 1, 1]))

    def test_an_argument_that_is_changed_in_place_is_changed_at_each_call(self) -> None:
        @treadle.jit
        def f(x: Any) -> Any:
            x += 1
            return x

        a = treadle.tensor([0])
        for _ in range(5):
            assert f(a) is a
        assert a.item() == 5
