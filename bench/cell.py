"""One cell of the table, in a process of its own: `python -m treadle.bench.cell WORKLOAD PEER`.

Prints one JSON object: the times of single steps in seconds, the time to the first step, and the
peak resident size above what it was after imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter

from treadle.bench.workload import Step, workloads

# What a peer imports: its size is not the step's.
_MODULES = {
    "treadle": "llvmlite.binding",
    "numpy": "numpy",
    "torch": "torch",
    "compile": "torch._dynamo",
    "jax": "jax.numpy",
}


def measure(step: Step, seconds: float, least: int = 5) -> list[float]:
    """Times of single steps, for `seconds` and at least `least` of them, after a warm-up.

    Steps shorter than 20 us are timed in groups, so that the clock's own cost does not count.
    """
    step()
    started = perf_counter()
    step()
    group = max(1, int(20e-6 / max(perf_counter() - started, 1e-9)))
    warm_until = perf_counter() + min(0.3, seconds / 3)
    while perf_counter() < warm_until:
        step()
    times: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end or len(times) < least:
        started = perf_counter()
        for _ in range(group):
            step()
        times.append((perf_counter() - started) / group)
    return times


def measure_told(step: Step, seconds: float, least: int = 3) -> list[float]:
    """The seconds that steps tell of themselves, for `seconds` and at least `least` of them."""
    told: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end or len(told) < least:
        told.append(step())
    return told


_STATUS = Path("/proc/self/status")


def _peak_kib() -> int:
    """The largest resident size of this process so far.

    On Linux not `ru_maxrss`: a process inherits that from the one that started it, whose arrays
    are larger than a small step's whole memory.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _forget_peak() -> int:
    """The resident size now, from which the peak is counted anew where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return _peak_kib()
    return _status("VmRSS") or _peak_kib()


def _status(field: str) -> int | None:
    """A field of /proc/self/status in KiB; None where there is none."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="treadle.bench.cell")
    parser.add_argument("workload")
    parser.add_argument("peer")
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    workload = workloads()[args.workload]
    program = workload.programs[args.peer]
    import_module(_MODULES[args.peer])
    before = _forget_peak()
    started = perf_counter()
    step = program()
    step()
    first = perf_counter() - started
    times = (measure_told if workload.own_clock else measure)(step, args.seconds)
    peak = _peak_kib()
    json.dump({"times": times, "first": first, "peak_kib": peak - before}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
