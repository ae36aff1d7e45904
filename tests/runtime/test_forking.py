"""Forked and spawned processes, at any moment of their parents' lives: none waits for ever, and all
give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(
    path: Path, text: str, cache: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a script; what it starts with is `_HEAD`."""
    path.write_text(_HEAD + text, encoding="utf-8")
    kept = {"TREADLE_CACHE": "1", "TREADLE_CACHE_DIR": str(cache)} if cache else {}
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "TREADLE_CACHE": "0", "TREADLE_PROGRESS": "0", **kept, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


_HEAD = """
import faulthandler, gc, os, random, signal, sys, threading, time
import numpy as np
import treadle

if hasattr(signal, "SIGALRM"):  # who hangs says where, and ends
    faulthandler.register(signal.SIGALRM, chain=True)

treadle.set_explain(False)
small = treadle.tensor(np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64))
large = treadle.tensor(np.linspace(-1, 1, 1 << 18, dtype=np.float32).reshape(512, 512))

def child_of(work):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os._exit(0 if work() else 3)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(4)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

BESIDE_COMPILATIONS = """
shared = treadle.jit(lambda a, n: treadle.softmax(a @ a + n, axis=-1).sum())
stop = False

def work():
    n = 0
    while not stop:
        n += 1
        shared(small, n % 12)
        fn = treadle.jit(lambda a: treadle.gelu(a @ a) * n)
        fn(small)
        fn(large)
        if n % 12 == 0:
            shared.clear()

def in_child():
    good = abs(float(shared(small, 100)) - 64) < 1e-3
    fn = treadle.jit(lambda a: a * 3 + 1)
    for _ in range(6):
        good = good and np.array_equal(fn(large).numpy(), large.numpy() * 3 + 1)
    return good and gc.isenabled()

others = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for t in others: t.start()
rng = random.Random(7)
found = []
for _ in range(25):
    time.sleep(rng.random() * 0.02)
    found.append(ended(child_of(in_child)))
stop = True
for t in others: t.join()
assert not any(found), found
"""


@needs_fork
def test_a_fork_beside_threads_that_trace_and_compile_is_safe(tmp_path: Path) -> None:
    """From the first moment on, when the compiler is being imported."""
    run(tmp_path / "forks.py", BESIDE_COMPILATIONS, TREADLE_NUM_THREADS="2")


IN_A_TRACE = """
from treadle.tracer import entropy
begun, go_on = threading.Event(), threading.Event()

@treadle.jit
def slow(x):
    begun.set()
    go_on.wait()
    return x + 1

tracing = threading.Thread(target=lambda: slow(small), daemon=True)
tracing.start()
begun.wait()

def in_child():
    begun.set()
    go_on.set()
    same = np.array_equal(slow(small).numpy(), small.numpy() + 1)
    return same and os.urandom is entropy._urandom

code = ended(child_of(in_child))
go_on.set()
tracing.join()
assert code == 0, code
assert np.array_equal(slow(small).numpy(), small.numpy() + 1)
"""


@needs_fork
def test_the_child_calls_the_function_that_another_thread_was_tracing(tmp_path: Path) -> None:
    run(tmp_path / "trace.py", IN_A_TRACE)


LOCKS_TAKEN = """
from treadle.runtime import cache
from treadle.runtime.blocks import blocks
from treadle.ir.collection import _state as collector, paused
from treadle.tracer import entropy

taken, go_on = threading.Event(), threading.Event()

def hold():
    with paused(), blocks._lock, cache._state.lock, collector.lock, entropy._state.lock:
        taken.set()
        go_on.wait()

holding = threading.Thread(target=hold, daemon=True)
holding.start()
taken.wait()

def in_child():
    if not gc.isenabled():
        return False
    entropy.watch(lambda frame: None)
    entropy.unwatch()
    fn = treadle.jit(lambda x: x * 2)
    same = np.array_equal(fn(large).numpy(), large.numpy() * 2)
    return same and len(list(cache.entries())) > 0

code = ended(child_of(in_child))
go_on.set()
holding.join()
assert code == 0, code
"""


@needs_fork
def test_no_lock_of_another_thread_stays_taken_in_the_child(tmp_path: Path) -> None:
    run(tmp_path / "locks.py", LOCKS_TAKEN, tmp_path / "kept")


AFTER_USE = """
import multiprocessing

def scaled(k):
    fn = treadle.jit(lambda x: treadle.exp(x) * k + 1)
    return [fn(large).numpy().tobytes() for _ in range(6)][-1]

def step(k):
    return shared(large[: 64 * k]).numpy().tobytes()

shared = treadle.jit(lambda x: treadle.softmax(x @ x.T, axis=-1))

if __name__ == "__main__":
    want = [scaled(k) for k in range(1, 5)], [step(k) for k in range(1, 5)]
    with multiprocessing.get_context({method!r}).Pool(3) as processes:
        got = processes.map(scaled, range(1, 5)), processes.map(step, range(1, 5))
    assert got == want
    assert ([scaled(k) for k in range(1, 5)], [step(k) for k in range(1, 5)]) == want
"""


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_compile_and_call(
    method: str, kept: bool, tmp_path: Path
) -> None:
    """At once, and through one disk cache where there is one."""
    if method != "spawn" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    cache = tmp_path / "kept" if kept else None
    text = AFTER_USE.replace("{method!r}", repr(method))
    done = run(tmp_path / "user.py", text, cache, TREADLE_NUM_THREADS="3")
    assert not done.stderr
    if cache is not None:
        assert {p.suffix for p in cache.iterdir()} == {".treadle"}


GRANDCHILDREN = """
fn = treadle.jit(lambda x: treadle.exp(x).sum(axis=0))
want = fn(large).numpy().tobytes()

def generation(left):
    same = all(fn(large).numpy().tobytes() == want for _ in range(4))
    if left == 0:
        return same
    child = child_of(lambda: generation(left - 1))
    same = same and fn(large).numpy().tobytes() == want
    return ended(child) == 0 and same

assert generation(4)
"""


@needs_fork
def test_children_have_children(tmp_path: Path) -> None:
    run(tmp_path / "user.py", GRANDCHILDREN, TREADLE_NUM_THREADS="2")
