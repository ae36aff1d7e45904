"""Where memory runs out there is a MemoryError that tells the size, and all is as before the call.

Each script runs in a process of its own, whose address space is limited.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.runtime.blocks import Blocks
from treadle.runtime.progress import progress
from treadle.runtime.room import make_sure_of_room

_HEAD = """
import contextlib, gc, resource
import numpy as np
import treadle
from treadle.runtime.blocks import blocks

treadle.set_explain(False)

@contextlib.contextmanager
def at_most(mib):
    "Inside, so much more address space than now."
    with open("/proc/self/status") as file:
        now = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (now + int(mib * 2**20), resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

def refused(call, mib=100):
    with at_most(mib):
        try:
            call()
        except MemoryError as error:
            return str(error)
    raise AssertionError("there was memory")

rows = treadle.tensor(np.linspace(0, 1, 12_000, dtype=np.float32))
few = rows[:300]
count = treadle.tensor(np.zeros(3, np.float32))
"""


def run(text: str, **more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + text],
        env={**os.environ, "TREADLE_CACHE": "0", "TREADLE_NUM_THREADS": "1", **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr


on_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="sizes and limits are Linux's"
)

RESULT = """
@treadle.jit
def step(x):
    count.add_(1)
    return x[:, None] * x[None, :]

compiled = [step(few) for _ in range(2)]
for _ in range(CALLS):
    with contextlib.suppress(MemoryError):
        step(rows)
gc.collect()
blocks.give_back()
before = count.numpy().copy()
said = refused(lambda: step(rows))
assert "(12000, 12000)" in said and "float32" in said and "549.3 MiB" in said, said
assert np.array_equal(count.numpy(), before)
assert step(rows).shape == (12_000, 12_000)
assert np.array_equal(count.numpy(), before + 1)
"""


@on_linux
@pytest.mark.parametrize("calls", [1, 8], ids=["through Python", "without Python"])
def test_a_result_for_which_there_is_no_memory(calls: int) -> None:
    run(RESULT.replace("CALLS", str(calls)))


WORKSPACE = """
@treadle.jit
def step(x):
    count.add_(1)
    table = treadle.softmax(x[:, None] * x[None, :], axis=-1)
    return (table @ table)[0] @ x

with at_most(4000):
    step(few)
    before = count.numpy().copy()
    said = refused(lambda: step(rows[:9000]), 300)
assert "besides its operands and results" in said and "MiB" in said, said
assert np.array_equal(count.numpy(), before)
step(few)
assert np.array_equal(count.numpy(), before + 1)
"""


@on_linux
def test_a_workspace_for_which_there_is_no_memory() -> None:
    run(WORKSPACE)


EAGER = """
said = refused(lambda: rows[:, None] * rows[None, :])
assert "(12000, 12000)" in said and "549" in said, said
said = refused(lambda: treadle.ones(10**12))
assert "3.64 TiB" in said, said

x = treadle.tensor(np.linspace(0, 1, 12_000, dtype=np.float32)).requires_grad_()
loss = (x * 2).sum()
said = refused(lambda: (x[:, None] * x[None, :]).sum().backward())
assert "(12000, 12000)" in said, said
assert x.grad is None
loss.backward()
assert np.array_equal(x.grad.numpy(), np.full(12_000, 2, np.float32))
"""


@on_linux
def test_an_eager_operation_for_which_there_is_no_memory() -> None:
    run(EAGER)


KEPT = """
fn = treadle.jit(lambda x: x[:, None] * x[None, :])
wide, wider = rows[:6000], rows[:6500]
fn(wide), fn(wider)
gc.collect()
blocks.give_back()
fn(wide)
kept = blocks.kept()
assert kept >= 137 << 20
with at_most(100):  # the next one takes 161 MiB
    assert fn(wider).shape == (6500, 6500)
assert blocks.kept() >= 161 << 20
"""


@on_linux
def test_memory_that_waits_for_the_next_result_is_given_back_first() -> None:
    run(KEPT)


SMALL = """
@treadle.jit
def step(x):
    count.add_(1)
    return x[:, None] + x[None, :]

piece = rows[:120]  # results of 57 kB, which come from the C library
for _ in range(8):
    step(piece)
held, before = [], float(count.numpy()[0])

def fill():
    while True:
        held.append(step(piece))

refused(fill, 30)
done = len(held)
assert done > 100
assert float(count.numpy()[0]) == before + done
assert np.array_equal(held[-1].numpy(), held[0].numpy())
held.clear()
step(piece)
assert float(count.numpy()[0]) == before + done + 1
"""


@on_linux
def test_small_results_until_there_is_no_memory() -> None:
    """Those that native code makes without Python."""
    run(SMALL)


COMPILER = """
fn = treadle.jit(lambda x: treadle.softmax(x, axis=-1) * count)
treadle.jit(lambda x: x + 1)(few)  # LLVM is there
said = refused(lambda: fn(few[:3]), 16)
assert "compiler" in said and "MiB" in said, said
assert fn.specializations == []
assert fn(few[:3]).shape == (3,)
"""


@on_linux
def test_a_compilation_for_which_there_is_no_memory() -> None:
    """LLVM would end the process."""
    run(COMPILER)


WORKERS = """
large = treadle.tensor(np.linspace(0, 1, 1 << 20, dtype=np.float32))
fn = treadle.jit(lambda x: treadle.exp(x).sum())
with treadle.num_threads(1):
    alone = fn(large)
with treadle.num_threads(2):
    first = fn(large)  # the pool is compiled, with one worker
with at_most(2), treadle.num_threads(16):  # less than the stack of a thread
    found = [fn(large) for _ in range(5)]
assert {float(x.numpy()) for x in [alone, first, *found]} == {float(alone.numpy())}
"""


@on_linux
def test_workers_for_which_there_is_no_memory_are_done_without() -> None:
    run(WORKERS)


def test_room_is_asked_for_in_vain_without_harm() -> None:
    make_sure_of_room(1000)
    with pytest.raises(MemoryError, match=r"no memory for the compiler: it may need .* MiB"):
        make_sure_of_room(1 << 60)


def test_sizes_below_a_mebibyte_are_told_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    with pytest.raises(MemoryError, match=r"shape \(5, 7\) and dtype float32: 140 bytes"):
        Blocks().empty((5, 7), np.dtype(np.float32))


def test_no_thread_for_a_progress_line_is_no_reason_not_to_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(self: object) -> None:
        raise RuntimeError("can't start new thread")

    fn = treadle.jit(lambda x: x * 7 - 2)
    monkeypatch.setattr("threading.Timer.start", start)
    assert np.array_equal(fn(treadle.ones(3)).numpy(), np.full(3, 5, np.float32))
    with progress(fn.specializations[0].function):
        pass


PRODUCT = """
from treadle.runtime import ahead

treadle.jit(lambda x: x + 1)(few)  # LLVM is there
square = treadle.tensor(np.eye(300, dtype=np.float32))
fn = treadle.jit(lambda x: treadle.softmax(x @ x, axis=-1))
said = refused(lambda: fn(square), 16)
assert "compiler" in said, said
assert ahead._begun
assert fn(square).shape == (300, 300)
"""


@on_linux
def test_a_product_for_whose_compilation_there_is_no_memory() -> None:
    """Its library is compiled on another thread, which says nothing."""
    run(PRODUCT)


def test_no_thread_to_compile_on_is_no_reason_not_to_compile() -> None:
    run(
        """
import threading

def start(self):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
square = treadle.tensor(np.eye(300, dtype=np.float32))
fn = treadle.jit(lambda x: x @ x)
assert np.array_equal(fn(square).numpy(), square.numpy())
"""
    )
