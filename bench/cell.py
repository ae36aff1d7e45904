"""One cell of the table, in a process of its own: `python -m treadle.bench.cell WORKLOAD PEER`.

Prints one JSON object: the times of single steps in seconds, the time to the first step, and the
peak resident size above what it was after imports.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from time import perf_counter

from treadle.bench.resident import forget_peak, peak_kib
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="treadle.bench.cell")
    parser.add_argument("workload")
    parser.add_argument("peer")
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    workload = workloads()[args.workload]
    program = workload.programs[args.peer]
    import_module(_MODULES[args.peer])
    before = forget_peak()
    started = perf_counter()
    step = program()
    step()
    first = perf_counter() - started
    times = (measure_told if workload.own_clock else measure)(step, args.seconds)
    peak = peak_kib()
    json.dump({"times": times, "first": first, "peak_kib": peak - before}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
