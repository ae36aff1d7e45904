"""Runs the cells of a benchmark: peers alternate, each cell is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from shutil import which

from treadle.bench.workload import PEERS, Workload
from treadle.runtime.machine import Machine, measure_machine

OURS = "treadle"
_TIMEOUT = 600.0


@dataclass(slots=True)
class Cell:
    """The times of one peer at one workload, in seconds; `error` where it could not run."""

    workload: str
    peer: str
    times: list[float] = field(default_factory=list)
    first: float | None = None
    peak_kib: int = 0
    error: str = ""

    @property
    def p10(self) -> float | None:
        """The 10th percentile: what the machine does when nobody disturbs it."""
        return _quantile(self.times, 0.1)

    @property
    def median(self) -> float | None:
        return _quantile(self.times, 0.5)

    @property
    def spread(self) -> float | None:
        """(90th - 10th percentile) / median."""
        low, mid, high = self.p10, self.median, _quantile(self.times, 0.9)
        if low is None or mid is None or high is None:
            return None
        return (high - low) / mid


@dataclass(slots=True)
class Run:
    """One run: the machine, and the cells by workload and peer."""

    machine: Machine
    workloads: list[Workload]
    peers: list[str]
    cells: dict[tuple[str, str], Cell]


def installed_peers(wanted: Sequence[str] = PEERS) -> list[str]:
    """Those of `wanted` that can run here."""
    present = {
        "numpy": True,
        "torch": find_spec("torch") is not None,
        "compile": find_spec("torch") is not None and which("c++") is not None,
        "jax": find_spec("jax") is not None,
    }
    return [p for p in wanted if present[p]]


def run_benchmark(
    chosen: Sequence[Workload],
    peers: Sequence[str],
    *,
    rounds: int = 3,
    seconds: float = 1.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Run:
    """Every cell `rounds` times for `seconds`, peers in turn within a round."""
    progress("measuring this machine")
    machine = measure_machine()
    order = [OURS, *peers]
    cells: dict[tuple[str, str], Cell] = {}
    for workload in chosen:
        for turn in range(rounds):
            for peer in order:
                if peer not in workload.programs:
                    continue
                cell = cells.setdefault((workload.name, peer), Cell(workload.name, peer))
                progress(f"{workload.name}: {peer} ({turn + 1}/{rounds})")
                if not cell.error:
                    _run_cell(cell, seconds)
    return Run(machine, list(chosen), order, cells)


def _run_cell(cell: Cell, seconds: float) -> None:
    command = [sys.executable, "-m", "treadle.bench.cell", cell.workload, cell.peer]
    command += ["--seconds", str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        cell.error = f"took more than {_TIMEOUT:.0f} s"
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        cell.error = f"exit code {done.returncode}: {last}"
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    cell.times += found["times"]
    cell.first = found["first"] if cell.first is None else min(cell.first, found["first"])
    cell.peak_kib = max(cell.peak_kib, found["peak_kib"])


def _quantile(times: Sequence[float], share: float) -> float | None:
    if not times:
        return None
    ordered = sorted(times)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
