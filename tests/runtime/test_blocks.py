"""Large results lie in blocks that come back when their arrays die, and never sooner."""

from __future__ import annotations

import gc
import threading

import numpy as np
from hypothesis import given, strategies as st

import treadle
from treadle.runtime.blocks import LARGE, Blocks

FLOAT = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_dead_results_memory_is_the_next_ones() -> None:
    blocks = Blocks()
    first = blocks.empty((1024, 1024), FLOAT)
    there = address(first)
    del first
    assert blocks.kept() >= 4 << 20
    assert address(blocks.empty((1 << 20,), FLOAT)) == there
    assert address(first := blocks.empty((512, 2048), FLOAT)) == there, "the temporary died"
    assert first.shape == (512, 2048)


def test_a_view_keeps_the_block() -> None:
    blocks = Blocks()
    whole = blocks.empty((1 << 20,), FLOAT)
    whole[:] = 7
    part = whole.reshape(1024, 1024)[5:, ::2].T
    del whole
    assert blocks.kept() == 0
    other = blocks.empty((1 << 20,), FLOAT)
    other[:] = 1
    assert np.all(part == 7)


def test_no_more_than_the_limit_is_kept() -> None:
    blocks = Blocks(most_kept=9 << 20)
    arrays = [blocks.empty((1 << 20,), FLOAT) for _ in range(5)]
    last = address(arrays[-1])
    while arrays:
        arrays.pop(0)
    assert blocks.kept() == 8 << 20
    assert address(blocks.empty((1 << 20,), FLOAT)) == last, "the latest is the warmest"


def test_a_block_above_the_limit_is_given_back() -> None:
    blocks = Blocks(most_kept=LARGE)
    del (array := [blocks.empty((1 << 20,), FLOAT)])[0]
    assert not array
    assert blocks.kept() == 0


@given(st.lists(st.integers(0, 3 << 18), min_size=1, max_size=8))
def test_live_arrays_never_overlap_and_large_ones_are_aligned(sizes: list[int]) -> None:
    blocks = Blocks()
    del (warm := [blocks.empty((n,), FLOAT) for n in sizes])[::2]
    arrays = [*warm, *(blocks.empty((n,), FLOAT) for n in sizes)]
    for n, array in enumerate(arrays):
        array[:] = n
    for n, array in enumerate(arrays):
        assert np.all(array == n)
        assert array.nbytes < LARGE or address(array) % 64 == 0


def test_arrays_that_die_in_cycles_and_on_other_threads_come_back() -> None:
    blocks = Blocks()
    seen: set[int] = set()

    def work() -> None:
        for _ in range(20):
            array = blocks.empty((1 << 18,), FLOAT)
            seen.add(address(array))
            cycle: list[object] = [array]
            del array
            cycle.append(cycle)
            del cycle
            gc.collect()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
    assert blocks.kept() == len(seen) << 20


def test_a_result_that_is_held_is_not_written_again() -> None:
    f = treadle.jit(lambda x: x + 1)
    x = treadle.tensor(np.zeros((1024, 512), np.float32))
    seen = f(x).numpy()
    for _ in range(3):
        x = f(x)
    assert np.all(seen == 1)
    assert np.all(x.numpy() == 3)
