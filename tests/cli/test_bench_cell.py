"""The peak size that a benchmark's cell reports is its own."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from treadle.bench import cell

on_linux = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be counted anew here"
)

_MIB = 1 << 10  # in KiB


@on_linux
def test_the_peak_counts_what_follows_and_nothing_before() -> None:
    earlier = np.ones(64 << 17)  # 64 MiB
    del earlier
    before = cell._forget_peak()
    assert cell._peak_kib() - before < 8 * _MIB
    later = np.ones(32 << 17)
    assert 30 * _MIB < cell._peak_kib() - before < 48 * _MIB
    del later


@on_linux
def test_the_peak_of_the_starting_process_is_not_inherited() -> None:
    large = np.ones(256 << 17)
    program = "from treadle.bench import cell; print(cell._peak_kib())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) < 200 * _MIB
    del large
