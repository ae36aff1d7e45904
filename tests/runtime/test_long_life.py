"""Compiled code goes with its function, or when it is told to."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.bench import soak
from treadle.bench.soak import Curve


@pytest.fixture
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


def test_clear_cache_frees_code_and_the_next_call_compiles_again() -> None:
    fn = treadle.jit(lambda x: x * 3 + 1)
    x = treadle.ones(4)
    first = np.asarray(fn(x))
    code = weakref.ref(fn.specializations[0].executable._code)
    treadle.clear_cache()
    assert fn.specializations == []
    gc.collect()
    assert code() is None
    assert np.array_equal(np.asarray(fn(x)), first)
    assert len(fn.specializations) == 1


def test_code_goes_with_its_function() -> None:
    codes = []
    for n in range(20):
        fn = treadle.jit(lambda x, n=n: x + n)
        fn(treadle.ones(3))
        codes.append(weakref.ref(fn.specializations[0].executable._code))
        del fn
    gc.collect()
    assert [c for c in codes if c() is not None] == []


def test_forgetting_inside_of_a_running_call_is_safe() -> None:
    inner = treadle.jit(lambda x: x * 2)
    inner(treadle.ones(3))

    def outer(x: treadle.Tensor) -> treadle.Tensor:
        treadle.clear_cache()
        return inner(x) + 1

    fn = treadle.jit(outer)
    for _ in range(2):
        assert np.array_equal(np.asarray(fn(treadle.ones(3))), np.full(3, 3.0))


def count_alive(counts: Counter[str]) -> None:
    """How many objects of each type the collector knows, but for those in which abstract base
    classes remember which classes they were asked about."""
    gc.collect()
    counts.clear()
    counts.update(type(x).__qualname__ for x in gc.get_objects())
    del counts["ReferenceType"], counts["builtin_function_or_method"]


@pytest.mark.parametrize(("kind", "turns"), [("compiles", 20), ("calls", 1)])
def test_no_object_is_left_behind(kind: str, turns: int, quiet: None) -> None:
    """Programs that are compiled, called on the path without Python and dropped; calls."""
    turn = soak.KINDS[kind][0]()
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for number in range(3 * turns):
        if number == 2 * turns:
            count_alive(before)
        turn(number)
    count_alive(after)
    assert after - before == Counter()


def test_growth_is_told_from_a_warm_start() -> None:
    warm = [100_000, *[150_000 + 500 * (n % 5) for n in range(39)]]
    assert Curve("calls", list(range(40)), warm).is_flat
    leaking = [150_000 + 300 * n for n in range(40)]
    assert Curve("calls", list(range(40)), leaking).growth_kib == 20 * 300
    assert not Curve("calls", list(range(40)), leaking).is_flat
    assert "GROWS" in soak.table(Curve("calls", list(range(40)), leaking))


@pytest.mark.skipif(not os.access("/proc/self/status", os.R_OK), reason="sizes are Linux's")
def test_a_soak_in_little_is_flat_and_kept(tmp_path: Path) -> None:
    file, text = tmp_path / "soak.json", tmp_path / "soak.txt"
    command = [
        sys.executable,
        "-m",
        "treadle.bench.soak",
        "--json",
        str(file),
        "--table",
        str(text),
    ]
    for kind, count in (("compiles", 60), ("calls", 8_000)):
        done = subprocess.run(
            [*command, kind, "--count", str(count)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert soak.read(file)[kind].done[-1] == count
    assert text.read_text().count("flat") == 2
