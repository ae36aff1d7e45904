"""The native call path: taken where it should be, left where it must be, the same either way."""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.runtime import knobs
from treadle.tracer import jit as jit_module


def x4() -> treadle.Tensor:
    return treadle.tensor(np.arange(4, dtype=np.float32))


def direct_hits(fn: Any) -> int:
    """How many calls of a jitted function ran without Python."""
    return sum(spec.direct_hits for spec in fn.specializations)


def is_direct(fn: Any, *args: Any) -> bool:
    """Whether the third call of a function with these arguments runs without Python."""
    fn(*args), fn(*args)
    before = direct_hits(fn)
    fn(*args)
    return direct_hits(fn) == before + 1


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call makes the native path, so that the third one takes it."""
    monkeypatch.setattr(jit_module, "DIRECT_AFTER", 1)


pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="there is no native call path on this build",
)


# --- where it is taken -----------------------------------------------------------------------


def test_a_plain_call_runs_without_python() -> None:
    assert is_direct(treadle.jit(lambda x: x * 2 + 1), x4())


def test_results_in_containers_run_without_python() -> None:
    fn = treadle.jit(lambda x: {"a": (x + 1, None), "b": [x * 2, x], "c": 3})
    x = x4()
    assert is_direct(fn, x)
    out = fn(x)
    np.testing.assert_array_equal(out["a"][0], x.numpy() + 1)
    np.testing.assert_array_equal(out["b"][0], x.numpy() * 2)
    assert out["a"][1] is None and out["b"][1] is x and out["c"] == 3
    assert fn(x)["b"] is not out["b"]


def test_arrays_and_floats_are_taken_as_they_are() -> None:
    fn = treadle.jit(lambda a, s: treadle.tensor(a) * s)
    a = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert is_direct(fn, a, 0.5)
    np.testing.assert_array_equal(fn(a, 2.0), a * 2)
    np.testing.assert_array_equal(fn(a[:, ::-1], 2.0), a[:, ::-1] * 2)  # not contiguous


def test_a_train_step_runs_without_python_and_gives_the_same_bits() -> None:
    def losses(path: str) -> list[float]:
        knobs.write("TREADLE_CALL_PATH", path)
        model = treadle.nn.Linear(4, 2)
        with treadle.no_grad():
            for n, p in enumerate(model.parameters()):
                start = np.linspace(-1, 1, p.size).astype(np.float32)
                p.copy_(treadle.tensor(start.reshape(p.shape) + n))
        optimizer = treadle.optim.Adam(list(model.parameters()), lr=0.1)

        @treadle.jit
        def step(x: treadle.Tensor) -> treadle.Tensor:
            loss = (model(x) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        found = [step(x4()).item() for _ in range(6)]
        assert direct_hits(step) == (4 if path == "native" else 0)
        assert len(step.specializations) == 1
        return found

    try:
        assert losses("native") == losses("python")
    finally:
        knobs.write("TREADLE_CALL_PATH", None)


@dataclasses.dataclass
class Batch:
    x: Any
    scale: int


def test_dataclasses_and_instances_are_guarded_without_python() -> None:
    fn = treadle.jit(lambda b: b.x * b.scale)
    assert is_direct(fn, Batch(x4(), 2))
    np.testing.assert_array_equal(fn(Batch(x4(), 3)), x4().numpy() * 3)


def test_no_grad_has_a_specialization_of_its_own_that_is_direct() -> None:
    w = treadle.tensor(np.ones(4, np.float32)).requires_grad_()
    fn = treadle.jit(lambda x: x * w)
    with treadle.no_grad():
        assert is_direct(fn, x4())
        assert not fn(x4()).requires_grad
    assert fn(x4()).requires_grad
    with treadle.no_grad():
        assert not fn(x4()).requires_grad


def test_the_first_calls_wait_for_no_code_of_the_call_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jit_module, "DIRECT_AFTER", 4)
    fn = treadle.jit(lambda x: x * 2 + 1)
    for _ in range(5):  # the fifth makes it
        assert fn._dispatcher is None
        fn(x4())
    assert fn._dispatcher is not None and direct_hits(fn) == 0
    np.testing.assert_array_equal(fn(x4()), x4().numpy() * 2 + 1)
    assert direct_hits(fn) == 1


def test_a_new_specialization_is_connected_after_a_few_calls_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jit_module, "DIRECT_AFTER", 2)
    fn = treadle.jit(lambda x: x + 1)
    for _ in range(6):
        fn(x4())
    assert direct_hits(fn) == 3
    y = treadle.tensor(np.arange(7, dtype=np.float32))
    for n in range(6):
        np.testing.assert_array_equal(fn(y), y.numpy() + 1)
        assert fn.specializations[0].direct_hits == max(0, n - 2)
    np.testing.assert_array_equal(fn(x4()), x4().numpy() + 1)
    assert direct_hits(fn) == 7


# --- where it is left ------------------------------------------------------------------------


def test_whatever_is_another_call_goes_through_python_and_is_right() -> None:
    fn = treadle.jit(lambda x, n=2: x * n)
    x = x4()
    assert is_direct(fn, x, 2)
    np.testing.assert_array_equal(fn(x, n=3), x.numpy() * 3)
    np.testing.assert_array_equal(fn(x), x.numpy() * 2)
    np.testing.assert_array_equal(fn(x, 5), x.numpy() * 5)
    np.testing.assert_array_equal(fn(x[1:], 2), x.numpy()[1:] * 2)
    np.testing.assert_array_equal(fn(x.numpy(), 2), x.numpy() * 2)
    with pytest.raises(TypeError):
        fn(x, 2, 3)
    with treadle.disable_jit():
        before = direct_hits(fn)
        np.testing.assert_array_equal(fn(x, 2), x.numpy() * 2)
        assert direct_hits(fn) == before
    fn.clear()
    np.testing.assert_array_equal(fn(x, 2), x.numpy() * 2)
    assert direct_hits(fn) == 0


def test_a_call_while_another_function_is_traced_is_part_of_that_trace() -> None:
    inner = treadle.jit(lambda x: x * 2)
    assert is_direct(inner, x4())
    before = direct_hits(inner)
    outer = treadle.jit(lambda x: inner(x) + 1)
    np.testing.assert_array_equal(outer(x4()), x4().numpy() * 2 + 1)
    assert direct_hits(inner) == before and "mul" in outer.ir()


def test_every_change_of_a_guarded_value_is_seen_by_the_next_call() -> None:
    config = SimpleNamespace(scale=2, table={"bias": 1}, row=[1, 2], name="a")

    def fn(x: treadle.Tensor) -> treadle.Tensor:
        extra = sum(config.row) if config.name == "a" else 100
        return x * config.scale + config.table["bias"] + extra

    jitted = treadle.jit(fn, max_specializations=64)
    x = x4()
    assert is_direct(jitted, x)

    def rebind() -> None:
        config.table = {"bias": config.table["bias"]}

    changes = (
        lambda: setattr(config, "scale", config.scale + 1),
        lambda: config.table.update(bias=config.table["bias"] + 1),
        lambda: config.row.append(3),
        lambda: setattr(config, "name", config.name + "b"),
        rebind,
        lambda: vars(config).update(scale=7),
        lambda: setattr(config, "name", "".join(["a"])),  # equal, another object
        lambda: setattr(config, "row", [9]),
    )
    for change in changes:
        for _ in range(3):
            np.testing.assert_array_equal(jitted(x), fn(x))
        change()
        for _ in range(3):
            np.testing.assert_array_equal(jitted(x), fn(x))
    assert direct_hits(jitted) > len(changes)


def test_an_attribute_set_in_a_hot_loop_is_seen_each_time() -> None:
    class Config:
        def __init__(self) -> None:
            self.scale = 0

    config = Config()
    jitted = treadle.jit(lambda x: x * config.scale, max_specializations=8)
    x = x4()
    for n in range(400):  # the interpreter specialises its own stores too
        config.scale = n % 3
        assert jitted(x).numpy()[1] == n % 3
    assert direct_hits(jitted) > 300


def test_a_fault_is_raised_with_all_state_as_before() -> None:
    total = treadle.tensor(np.zeros(3, np.float32))

    @treadle.jit
    def step(i: treadle.Tensor) -> treadle.Tensor:
        total.add_(1.0)
        return treadle.take(total, i, axis=0)

    good, bad = (treadle.tensor(np.array([n], np.int64)) for n in (1, 7))
    assert is_direct(step, good)
    for _ in range(2):
        before, version = total.numpy().copy(), total.cell.version
        with pytest.raises(treadle.IndexFault):
            step(bad)
        np.testing.assert_array_equal(total, before)
        assert total.cell.version == version
        step(good)
        np.testing.assert_array_equal(total, before + 1)


def test_a_view_that_numpy_holds_keeps_its_values() -> None:
    total = treadle.tensor(np.zeros(3, np.float32))

    @treadle.jit
    def step() -> None:
        total.add_(1.0)

    assert is_direct(step)
    held = total.numpy()
    kept = held.copy()
    step(), step()
    np.testing.assert_array_equal(held, kept)
    np.testing.assert_array_equal(total, kept + 2)
    del held
    assert is_direct(step)


def test_a_write_is_told_of_with_the_users_line() -> None:
    w = treadle.tensor(np.ones(3, np.float32)).requires_grad_()
    scratch = treadle.tensor(np.ones(3, np.float32))

    @treadle.jit
    def write() -> None:
        scratch.mul_(2.0)

    lines = []
    for _ in range(4):
        write()  # here
        lines.append(scratch.cell.written_at)
    write()
    assert lines[0] is not None and all(line == lines[0] for line in lines)
    assert scratch.cell.written_at is not None
    assert scratch.cell.written_at.line == lines[0].line + 2
    y = (w * scratch).sum()
    write()
    with pytest.raises(treadle.GradientError, match=r"test_direct_calls\.py"):
        y.backward()


def test_the_switch_turns_it_off() -> None:
    knobs.write("TREADLE_CALL_PATH", "python")
    try:
        assert not is_direct(treadle.jit(lambda x: x * 2), x4())
    finally:
        knobs.write("TREADLE_CALL_PATH", None)


# --- what it leaves behind -------------------------------------------------------------------


def test_a_hundred_thousand_calls_leave_every_count_as_it_was() -> None:
    w = treadle.tensor(np.ones(4, np.float32))
    fn = treadle.jit(lambda batch: {"y": batch["x"] * 2 + w, "z": None})
    batch = {"x": x4()}
    state = treadle.jit(lambda: w.mul_(1.0))

    def calls(count: int) -> None:
        for _ in range(count):
            fn(batch)
            state()

    watched = (
        batch, batch["x"], batch["x"].cell, batch["x"].cell.buffer, w, w.cell, w.type, None, True,
        False, (), np.dtype(np.float32), treadle.Tensor, type(w.cell), type(w.history), np.ndarray,
    )  # fmt: skip
    calls(10)
    gc.collect()
    before = [sys.getrefcount(x) for x in watched]
    blocks = sys.getallocatedblocks()
    calls(50_000)
    gc.collect()
    after = [sys.getrefcount(x) for x in watched]
    assert all(abs(a - b) < 100 for a, b in zip(after, before, strict=True)), (before, after)
    assert sys.getallocatedblocks() - blocks < 2_000
    assert direct_hits(fn) > 50_000 and direct_hits(state) > 50_000


def test_results_and_functions_are_freed() -> None:
    w = treadle.tensor(np.ones(4, np.float32))
    fn = treadle.jit(lambda x: x + w)
    assert is_direct(fn, x4())
    out = fn(x4())
    cell, buffer = weakref.ref(out.cell), weakref.ref(out.cell.buffer)
    del out
    assert cell() is None and buffer() is None
    gone = weakref.ref(fn)
    del fn
    gc.collect()
    assert gone() is None


class _Sets:
    """Changes itself whenever a result is let go."""

    def __init__(self, fn: Any, x: treadle.Tensor) -> None:
        self.fn, self.x, self.count = fn, x, 0

    def __call__(self, _: Any) -> None:
        self.count += 1
        self.fn(self.x)


def test_a_finaliser_may_call_the_function_that_lets_go_of_its_object() -> None:
    w = treadle.tensor(np.ones(4, np.float32)).requires_grad_()
    holder = SimpleNamespace(w=w)

    @treadle.jit
    def step(x: treadle.Tensor) -> treadle.Tensor:
        loss = (x * holder.w).sum()
        holder.w.grad = None
        loss.backward()
        return loss

    x = x4()
    assert is_direct(step, x)
    called = _Sets(treadle.jit(lambda x: x + 1), x)
    again = _Sets(step, x)
    for hook in (called, again):
        step(x)
        assert w.grad is not None
        reference = weakref.ref(w.grad, hook)
        step(x)
        assert hook.count == 1
        del reference
    np.testing.assert_array_equal(w.grad, x)


def test_threads_that_call_one_function_get_their_own_results() -> None:
    fn = treadle.jit(lambda x: (x * 2).sum())
    big = treadle.jit(lambda x: x @ x)
    wrong: list[Any] = []
    square = np.eye(96, dtype=np.float32)

    def work(n: int) -> None:
        x, m = treadle.tensor(np.full(4, n, np.float32)), treadle.tensor(square * n)
        results = [(fn(x).item(), big(m).numpy()[0, 0]) for _ in range(300)]
        wrong.extend(r for r in results if r != (8 * n, n * n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and direct_hits(fn) > 0 and direct_hits(big) > 0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)
