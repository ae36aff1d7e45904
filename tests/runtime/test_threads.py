"""Compiled functions on several threads: the same bits, and the numbers that users give."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.codegen import plan_tiles, pool as emitted_pool
from treadle.runtime import knobs, threads
from treadle.runtime.threads import pool

COUNTS = (1, 2, 3, 4, 8)


@pytest.fixture
def fine_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that even a test's arrays have many."""
    monkeypatch.setattr(plan_tiles, "GRAIN", 50)


@pytest.fixture
def own_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads._default, "count", None)
    yield
    knobs.write("TREADLE_NUM_THREADS", None)


def array(*shape: int, seed: int = 0) -> treadle.Tensor:
    rng = np.random.default_rng(seed)
    return treadle.tensor(rng.standard_normal(shape).astype(np.float32))


def has_tiles(fn: Any) -> bool:
    plan = fn.specializations[0].executable.compilation.plan
    return any(k.parallel for k in plan.kernels)


# --- the same bits ---------------------------------------------------------------------------


def trained(count: int, steps: int) -> bytes:
    """All parameters and losses of a small network after training on `count` threads."""
    treadle.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 5))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    rng = np.random.default_rng(1)
    xs = rng.standard_normal((8, 33, 12)).astype(np.float32)
    ys = rng.integers(0, 5, (8, 33))

    @treadle.jit(threads=count)
    def step(x: Any, y: Any) -> Any:
        loss = treadle.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = [np.asarray(step(xs[n % 8], ys[n % 8])).tobytes() for n in range(steps)]
    assert has_tiles(step)
    return b"".join([*losses, *(p.numpy().tobytes() for p in model.parameters())])


def test_a_training_run_is_the_same_bit_for_bit_on_any_number_of_threads(fine_grain: None) -> None:
    alone = trained(1, 1000)
    for count in COUNTS[1:]:
        assert trained(count, 1000) == alone, f"{count} threads"


def test_where_there_is_no_pool_everything_runs_on_one_thread(
    fine_grain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system whose threads the pool does not know: four are asked for, the caller does it
    all, and gets the same bits."""
    expected = trained(4, 30)
    monkeypatch.setattr(emitted_pool, "parking_of", lambda target: None)
    monkeypatch.setattr(threads, "_pools", [])
    assert trained(4, 30) == expected
    assert len(threads._pools) == 1
    assert pool().parallel == 0
    assert pool().workers == 0


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "map": (lambda x: treadle.exp(x) * 2, ((70, 33),)),
    "flat map": (lambda x: treadle.tanh(x), ((5001,),)),
    "turned": (lambda x: x.T + 1, ((75, 90),)),
    "rows": (lambda x: treadle.softmax(x, axis=-1), ((37, 65),)),
    "rows in the middle": (lambda x: treadle.sum(x, axis=(1, 2)), ((9, 11, 40),)),
    "columns": (lambda x: treadle.sum(x, axis=0), ((300, 700),)),
    "columns inside": (lambda x: treadle.max(x, axis=1), ((7, 20, 50),)),
    "product": (lambda a, b: a @ b, ((130, 70), (70, 150))),
    "product of long rows": (lambda a, b: a @ b, ((20, 900), (900, 64))),
    "batched": (lambda a, b: a @ b, ((6, 3, 33, 20), (6, 3, 20, 35))),
    "turned product": (lambda a, b: treadle.relu(a.T @ b.T + 1), ((70, 130), (150, 70))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernels_give_the_same_bits_on_any_number_of_threads(name: str, fine_grain: None) -> None:
    fn, shapes = FUNCTIONS[name]
    args = [array(*shape, seed=n) for n, shape in enumerate(shapes)]
    jitted = treadle.jit(fn)
    found = []
    for count in COUNTS:
        with treadle.num_threads(count):
            found += [jitted(*args).numpy() for _ in range(5)]
    assert has_tiles(jitted)
    np.testing.assert_allclose(found[0], fn(*args).numpy(), rtol=1e-4, atol=1e-5)
    assert {f.tobytes() for f in found} == {found[0].tobytes()}


def test_tiles_do_not_depend_on_the_number_of_threads() -> None:
    plans = []
    for count in (1, 8):
        with treadle.num_threads(count):
            fn = treadle.jit(lambda a, b: treadle.softmax(a @ b, axis=1))
            plans.append(fn.ir("plan", array(300, 200), array(200, 300)))
    assert plans[0].replace(":", "") == plans[1].replace(":", "")
    assert "tiles" in plans[0]
    assert "grain" in plans[0]


def test_the_fault_of_the_lowest_tile_is_raised(fine_grain: None) -> None:
    fn = treadle.jit(lambda x, i: treadle.exp(treadle.take(x, i, axis=0)))
    index = np.zeros(400, np.int64)
    index[[50, 120, 399]] = 10, 11, 12
    x = array(7, 40)
    for count in COUNTS:
        with treadle.num_threads(count):
            for _ in range(20):
                with pytest.raises(treadle.IndexFault, match="found 10"):
                    fn(x, index)
    assert has_tiles(fn)


# --- numbers that users give -----------------------------------------------------------------


def test_small_work_stays_on_one_thread() -> None:
    small, large = treadle.jit(lambda x: x * 2 + 1), treadle.jit(lambda x: treadle.exp(x))
    small(array(1000))
    large(array(1_000_000))
    assert not has_tiles(small)
    assert has_tiles(large)


def test_the_number_is_the_usable_cores_unless_given(own_default: None) -> None:
    assert treadle.get_num_threads() == threads.usable_cores_once()


def test_the_knob_the_call_and_the_context_give_a_number(own_default: None) -> None:
    knobs.write("TREADLE_NUM_THREADS", "5")
    assert treadle.get_num_threads() == 5
    treadle.set_num_threads(7)
    assert treadle.get_num_threads() == 7
    with treadle.num_threads(3):
        assert treadle.get_num_threads() == 3
        with treadle.num_threads(1):
            assert treadle.get_num_threads() == 1
        assert treadle.get_num_threads() == 3
    treadle.set_num_threads(None)
    assert treadle.get_num_threads() == 5


def test_the_context_is_this_threads(own_default: None) -> None:
    seen: list[int] = []
    treadle.set_num_threads(2)
    with treadle.num_threads(6):
        other = threading.Thread(target=lambda: seen.append(treadle.get_num_threads()))
        other.start()
        other.join()
    assert seen == [2]


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_number_outside_of_the_limits_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 256"):
        treadle.set_num_threads(count)
    with pytest.raises(ValueError, match="from 1 to 256"), treadle.num_threads(count):
        pass
    with pytest.raises(ValueError, match="from 1 to 256"):
        treadle.jit(lambda x: x, threads=count)


@pytest.mark.parametrize("text", ["two", "0", "-3", "1e3", "257"])
def test_a_knob_that_is_no_number_is_refused(own_default: None, text: str) -> None:
    knobs.write("TREADLE_NUM_THREADS", text)
    with pytest.raises(ValueError, match="TREADLE_NUM_THREADS"):
        treadle.get_num_threads()


def test_a_number_above_the_cores_is_honoured() -> None:
    count = threads.usable_cores_once() + 3
    fn = treadle.jit(lambda x: treadle.exp(x), threads=count)
    x = array(500_000)
    with treadle.num_threads(1):  # what the function was given counts for more
        np.testing.assert_allclose(fn(x).numpy(), np.exp(x.numpy()), rtol=1e-6)
    assert pool().workers >= count - 1


# --- processes and threads -------------------------------------------------------------------


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_START = """
import os, signal, sys, threading, time
import numpy as np, treadle
from treadle.runtime.threads import pool
x = treadle.tensor(np.linspace(0, 1, 1_000_000, dtype=np.float32))
f = treadle.jit(lambda x: treadle.exp(x) + 1)
"""


def test_the_environment_sets_the_number_and_the_pool_starts_at_the_first_need() -> None:
    code = _START + "treadle.jit(lambda x: x + 1)(x[:10]); import treadle.runtime.threads as t\n"
    code += "print(len(t._pools)); f(x); print(pool().workers)"
    assert _run(code, TREADLE_NUM_THREADS="4").split() == ["0", "3"]


def test_one_thread_needs_no_pool() -> None:
    code = _START + "f(x); import treadle.runtime.threads as t; print(len(t._pools))"
    assert _run(code, TREADLE_NUM_THREADS="1").split() == ["0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_workers_of_its_own() -> None:
    code = (
        _START
        + """
want = f(x).numpy().tobytes()
for _ in range(5):
    child = os.fork()
    if child == 0:
        before = pool().workers
        same = all(f(x).numpy().tobytes() == want for _ in range(20))
        g = treadle.jit(lambda x: treadle.exp(x) * 3)
        g(x)
        os._exit(0 if same and before == 0 and pool().workers == 2 else 1)
    f(x)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("done")
"""
    )
    assert _run(code, TREADLE_NUM_THREADS="3").split() == ["done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_beside_running_calls_is_safe() -> None:
    code = (
        _START
        + """
want = f(x).numpy().tobytes()
stop = False
def work():
    while not stop:
        f(x)
others = [threading.Thread(target=work) for _ in range(2)]
for t in others: t.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(f(x).numpy().tobytes() == want for _ in range(5)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop = True
for t in others: t.join()
print("done")
"""
    )
    assert _run(code, TREADLE_NUM_THREADS="2").split() == ["done"]


def test_the_interpreter_ends_beside_a_running_call() -> None:
    code = (
        _START
        + """
def work():
    while True:
        f(x)
threading.Thread(target=work, daemon=True).start()
f(x)
time.sleep(0.05)
print("done")
"""
    )
    for _ in range(3):
        assert _run(code, TREADLE_NUM_THREADS="3").split() == ["done"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="/proc tells of masks")
def test_workers_leave_signals_to_python() -> None:
    code = (
        _START
        + """
f(x)
blocked = []
for task in os.listdir("/proc/self/task"):
    lines = open(f"/proc/self/task/{task}/status").read().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    blocked.append(bool(mask >> (signal.SIGINT - 1) & 1))
print(sum(blocked), len(blocked) - sum(blocked) >= 1)
"""
    )
    assert _run(code, TREADLE_NUM_THREADS="4").split() == ["3", "True"]


def test_calls_from_several_python_threads_agree(fine_grain: None) -> None:
    fn = treadle.jit(lambda a, b: treadle.softmax(a @ b, axis=1))
    a, b = array(90, 60), array(60, 80)
    want = fn(a, b).numpy().tobytes()
    wrong: list[int] = []

    def work(count: int) -> None:
        with treadle.num_threads(count):
            got = [fn(a, b).numpy().tobytes() for _ in range(200)]
        wrong.extend(count for g in got if g != want)

    workers = [threading.Thread(target=work, args=(n % 3 + 1,)) for n in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_python_runs_while_native_code_does() -> None:
    fn = treadle.jit(lambda x: treadle.tanh(treadle.exp(treadle.sin(x))), threads=1)
    x = array(4_000_000)
    fn(x)
    entered, left = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        fn(x)
        left.set()

    other = threading.Thread(target=work)
    other.start()
    entered.wait()
    counted = 0
    while not left.is_set():
        counted += 1
    other.join()
    assert counted > 1000, "the GIL was held"
