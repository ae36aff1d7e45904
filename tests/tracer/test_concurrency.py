"""Threads, re-entry, Ctrl-C and garbage collection: right results, nothing broken afterwards."""

from __future__ import annotations

import gc
import itertools
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim

X = np.linspace(-1, 1, 64, dtype=np.float32)


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of `work(n)`, run by `count` threads that start together."""
    gate = threading.Barrier(count)

    def at_once(n: int) -> Any:
        gate.wait()
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(at_once, range(count)))


# --- threads ---------------------------------------------------------------------------------


def test_threads_that_call_one_new_function_compile_it_once() -> None:
    @treadle.jit
    def f(x: Any) -> Any:
        return treadle.sum(treadle.exp(x))

    expected = float(np.exp(X.astype(np.float64)).sum())
    found = in_threads(8, lambda n: [float(f(treadle.tensor(X))) for _ in range(20)])
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-5)
    assert len(f.specializations) == 1


def test_threads_that_call_different_functions_get_their_own_results() -> None:
    def work(n: int) -> list[float]:
        f = treadle.jit(lambda x: treadle.sum(x * float(n) + n))
        return [float(f(treadle.tensor(X + k))) for k in range(10)]

    for n, found in enumerate(in_threads(6, work)):
        expected = [float(((X + k) * n + n).sum()) for k in range(10)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_threads_that_need_different_specializations_get_the_right_ones() -> None:
    treadle.set_explain(False)

    @treadle.jit
    def f(x: Any, scale: int) -> Any:
        return treadle.sum(x) * scale

    def work(n: int) -> bool:
        for k in range(30):
            size, scale = 1 + (n + k) % 3, 1 + k % 2
            if float(f(treadle.ones(size), scale)) != size * scale:
                return False
        return True

    try:
        assert all(in_threads(4, work))
    finally:
        treadle.set_explain(True)
    assert len(f.specializations) == 6


def test_threads_train_their_own_models_as_one_thread_does() -> None:
    def train(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        w = treadle.tensor(rng.standard_normal((8, 4)).astype(np.float32)).requires_grad_()
        opt = optim.Adam([w], lr=0.05)
        x = treadle.tensor(rng.standard_normal((16, 8)).astype(np.float32))
        y = treadle.tensor(rng.integers(0, 4, 16))

        @treadle.jit
        def step() -> Any:
            opt.zero_grad()
            loss = treadle.mean(treadle.cross_entropy(x @ w, y))
            loss.backward()
            opt.step()
            return loss

        return [float(step()) for _ in range(20)]

    alone = [train(seed) for seed in range(4)]
    assert in_threads(4, train) == alone  # bit for bit


def test_a_thread_that_works_eagerly_is_not_traced_by_another() -> None:
    stop = threading.Event()
    wrong: list[float] = []

    def eager() -> None:
        x = treadle.tensor(X)
        expected = float((X * 2).sum())
        while not stop.is_set():
            found = float(treadle.sum(x * 2))
            if abs(found - expected) > 1e-3:
                wrong.append(found)

    thread = threading.Thread(target=eager)
    thread.start()
    try:
        for n in range(20):
            f = treadle.jit(lambda x, n=n: treadle.tanh(x) + n)
            np.testing.assert_allclose(f(treadle.tensor(X)).numpy(), np.tanh(X) + n, rtol=1e-5)
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def test_grad_modes_of_threads_are_their_own() -> None:
    w = treadle.ones(3).requires_grad_()
    f = treadle.jit(lambda: treadle.sum(w * w))

    def work(n: int) -> bool:
        for _ in range(50):
            if n % 2:
                with treadle.no_grad():
                    if f().requires_grad:
                        return False
            elif not f().requires_grad:
                return False
        return True

    assert all(in_threads(4, work))


# --- re-entry --------------------------------------------------------------------------------


def test_a_jitted_function_may_call_itself() -> None:
    @treadle.jit
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else power(x, n - 1) * x

    assert power(treadle.tensor([2.0, 3.0]), 3).tolist() == [16.0, 81.0]


def test_a_call_while_another_function_is_traced_is_part_of_that_trace() -> None:
    inner = treadle.jit(lambda x: x + 1)
    inner(treadle.ones(2))  # compiled by itself as well
    outer = treadle.jit(lambda x: inner(x) * 2)
    assert outer(treadle.ones(2)).tolist() == [4.0, 4.0]
    assert inner(treadle.ones(2)).tolist() == [2.0, 2.0]


def test_a_call_from_a_signal_handler_or_finaliser_disturbs_nothing() -> None:
    f = treadle.jit(lambda x: treadle.sum(x * 3))
    g = treadle.jit(lambda x: treadle.sum(x + 1))
    x = treadle.ones(4)
    f(x), g(x)
    seen: list[float] = []

    class Watched:
        def __del__(self) -> None:
            seen.append(float(g(x)))

    @treadle.jit
    def h(x: Any) -> Any:
        Watched()  # dies while the trace runs
        return f(x) + 1

    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(float(g(x))))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        found = [float(f(x)) for _ in range(3000)]
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(found) == {12.0}
    assert set(seen) <= {8.0}


# --- Ctrl-C ----------------------------------------------------------------------------------


class Interrupted:
    """Raises KeyboardInterrupt in the main thread after some time, as Ctrl-C does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


class Learner:
    def __init__(self) -> None:
        treadle.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.count = treadle.tensor(0)
        self.step = treadle.jit(self.plain)

    def plain(self, x: Any, y: Any) -> Any:
        self.count += 1
        self.optimizer.zero_grad()
        loss = treadle.mean(treadle.cross_entropy(self.model(x), y))
        loss.backward()
        self.optimizer.step()
        return loss

    def weights(self) -> list[np.ndarray]:
        return [p.numpy().copy() for p in self.model.parameters()]


def batch() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 16)).astype(np.float32)
    return treadle.tensor(x), treadle.tensor(rng.integers(0, 4, 32))


# Python ignores what is raised in a finaliser; there Ctrl-C may land as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_of_a_first_call_breaks_nothing() -> None:
    """While it is traced, compiled or run: the next call is right, and nothing was half done."""
    reference = Learner()
    first = float(reference.step(*batch()))
    interrupted = 0
    started = time.perf_counter()
    Learner().step(*batch())
    whole = time.perf_counter() - started
    for part in range(12):
        learner = Learner()
        start = learner.weights()
        data = batch()
        try:
            with Interrupted(whole * (part + 0.5) / 12):
                learner.step(*data)
        except KeyboardInterrupt:
            interrupted += 1
            same = all((a == b).all() for a, b in zip(start, learner.weights(), strict=True))
            if same and int(learner.count) == 0:
                assert float(learner.step(*data)) == first
        found = float(learner.step(*data))
        assert np.isfinite(found)
        assert treadle.is_grad_enabled()
        assert treadle.tensor([1.0, 2.0]).sum().item() == 3.0  # no trace is left running
    assert interrupted > 0


class Counter:
    """State of every kind, all of which says how many steps there were."""

    def __init__(self) -> None:
        self.in_place = treadle.zeros(300_000)
        self.bound = treadle.tensor(0.0)
        self.table = {"n": treadle.tensor(0.0)}
        self.w = treadle.ones(1).requires_grad_()
        self.step = treadle.jit(self.plain)

    def plain(self) -> Any:
        self.in_place += 1
        self.bound = self.bound + 1
        self.table["n"] = self.table["n"] + 1
        treadle.sum(self.w).backward()
        return self.bound

    def counts(self) -> set[float]:
        grad = self.w.grad
        counted = [self.bound, self.table["n"], self.in_place[0], self.in_place[-1]]
        return {float(t) for t in counted} | {0.0 if grad is None else float(grad)}


def test_ctrl_c_leaves_no_step_half_done() -> None:
    counter = Counter()
    counter.step()
    counter.step()  # with a gradient from before
    moments = random.Random(0)
    for _ in range(40):
        try:
            with Interrupted(moments.uniform(0.0005, 0.005)):
                while True:
                    counter.step()
        except KeyboardInterrupt:
            pass
        assert len(counter.counts()) == 1, counter.counts()
    assert counter.counts() != {2.0}


# --- garbage collection ----------------------------------------------------------------------


def test_functions_and_results_may_die_in_any_order() -> None:
    order = random.Random(0)
    for _ in range(8):
        w = treadle.ones(8).requires_grad_()
        f = treadle.jit(lambda x, w=w: treadle.sum(w * x))
        x = treadle.ones(8)
        held: dict[str, Any] = {"f": f, "x": x, "w": w, "loss": f(x), "view": f(x).numpy()}
        held["again"] = f(x)
        del w, f, x
        names = list(held)
        order.shuffle(names)
        for name in names:
            thing = held.pop(name)
            if name == "loss" and order.random() < 0.5:
                thing.backward()
            del thing
            gc.collect()
            for left in held.values():
                if isinstance(left, treadle.Tensor):
                    assert np.isfinite(left.numpy()).all()


def test_a_result_outlives_the_function_that_computed_it() -> None:
    w = treadle.ones(4).requires_grad_()
    f = treadle.jit(lambda x: treadle.sum(w * x))
    loss = f(treadle.tensor([1.0, 2.0, 3.0, 4.0]))
    gone = weakref.ref(f)
    del f
    gc.collect()
    assert gone() is None
    loss.backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_collecting_inside_of_a_trace_or_call_disturbs_nothing() -> None:
    @treadle.jit
    def f(x: Any) -> Any:
        y = treadle.exp(x)
        gc.collect()
        return treadle.sum(y * y)

    before = gc.get_threshold()
    gc.set_threshold(1)  # nearly every allocation collects
    try:
        found = [float(f(treadle.zeros(3))) for _ in range(5)]
    finally:
        gc.set_threshold(*before)
    assert found == [3.0] * 5


def test_code_is_released_while_other_threads_run_theirs() -> None:
    stop = threading.Event()

    def compile_and_drop() -> int:
        for n in itertools.count():
            if stop.is_set():
                return n
            treadle.jit(lambda x, n=n: x * n)(treadle.ones(3))
        return 0

    with ThreadPoolExecutor(1) as pool:
        dropped = pool.submit(compile_and_drop)
        f = treadle.jit(lambda x: treadle.sum(treadle.sin(x)))
        expected = float(f(treadle.tensor(X)))
        try:
            for _ in range(300):
                assert float(f(treadle.tensor(X))) == expected
        finally:
            stop.set()
        assert dropped.result() > 0


def test_a_function_may_be_cleared_while_other_threads_call_it() -> None:
    f = treadle.jit(lambda x: treadle.sum(x * 3))
    expected = float(f(treadle.tensor(X)))
    treadle.set_explain(False)
    stop = threading.Event()

    def call(n: int) -> bool:
        while not stop.is_set():
            if float(f(treadle.tensor(X))) != expected:
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(call, n) for n in range(2)]
        for _ in range(25):
            time.sleep(0.01)
            f.clear()
        stop.set()
        treadle.set_explain(True)
        assert all(c.result() for c in calls)


@pytest.fixture(autouse=True)
def _no_trace_is_left_behind() -> Any:
    yield
    assert treadle.ones(2).sum().item() == 2.0
