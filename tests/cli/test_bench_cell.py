"""What a benchmark's cell reports: its own peak size, and the clock of steps that have one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from treadle.bench import cell, resident
from treadle.bench.first import in_new_process
from treadle.bench.workload import workloads

on_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be counted anew here"
)

_MIB = 1 << 10  # in KiB


@on_linux
def test_the_peak_counts_what_follows_and_nothing_before() -> None:
    earlier = np.ones(64 << 17)  # 64 MiB
    del earlier
    before = resident.forget_peak()
    assert resident.peak_kib() - before < 8 * _MIB
    later = np.ones(32 << 17)
    assert 30 * _MIB < resident.peak_kib() - before < 48 * _MIB
    del later


@on_linux
def test_the_peak_of_the_starting_process_is_not_inherited() -> None:
    large = np.ones(256 << 17)
    program = "from treadle.bench import resident; print(resident.peak_kib())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) < 200 * _MIB
    del large


def test_a_step_with_a_clock_of_its_own_tells_the_time() -> None:
    told = iter([0.5, 0.25, 0.125])
    assert cell.measure_told(lambda: next(told), seconds=0.0) == [0.5, 0.25, 0.125]


def test_a_first_call_runs_in_a_new_process_with_the_cache_it_is_given(tmp_path: Path) -> None:
    assert in_new_process("treadle") > 0
    assert in_new_process("treadle", "call") > 0
    assert not list(tmp_path.iterdir())
    assert in_new_process("treadle", "call", str(tmp_path)) > 0
    assert list(tmp_path.glob("*.treadle"))


def test_first_calls_have_clocks_of_their_own_and_long_programs_wait_to_be_asked_for() -> None:
    known = workloads()
    names = ("import", "first-cold", "first-cached", "first-gpt-cold", "layers-48", "chain-100000")
    assert all(known[name].own_clock for name in names)
    asked = {name for name, w in known.items() if w.on_request}
    assert {"layers-4", "layers-48", "chain-100000", "chain-of-100000"} <= asked
    assert "mlp-32" not in asked
