"""`treadle doctor`: what this machine and this installation can do, and what is amiss.

Exit code 0 where nothing is amiss, 1 where something is; each such line says what to do.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from treadle import __version__
from treadle.codegen.target import Target, host
from treadle.ir.errors import TreadleError
from treadle.runtime import cache, knobs
from treadle.runtime.cache_folder import Unusable, folder, opened
from treadle.runtime.cores import cpu_quota, usable_cores
from treadle.runtime.driver import chosen_target
from treadle.runtime.machine import Machine, measure_machine
from treadle.runtime.native import versions
from treadle.runtime.threads import get_num_threads, pool

_SIMD = re.compile(r"sse|avx|fma|f16c|amx|neon|sve|asimd|dotprod|i8mm|bf16|fp16|fullfp16")
_BUSY = 0.75  # of the cores, by the load average of the last minute
_SCALES = 0.7  # of so many times one core's rate is what all cores should reach


@dataclass(slots=True)
class Report:
    """Lines of (what, found), and what is amiss."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)

    def say(self, what: str, found: str) -> None:
        self.lines.append((what, found))

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.lines)
        told = [f"{what:<{width}}  {found}".rstrip() for what, found in self.lines]
        end = [f"amiss: {text}" for text in self.amiss] or ["nothing is amiss"]
        return "\n".join([*told, "", *end])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-measure", action="store_true", help="leave out FMA rate and bandwidths"
    )


def run(args: argparse.Namespace) -> int:
    report = examine(measure=None if args.no_measure else measure_machine)
    print(report)
    return 1 if report.amiss else 0


def examine(measure: Callable[[], Machine] | None) -> Report:
    """Everything that can be found out; `measure` gives the machine's rates."""
    report = Report()
    _versions(report)
    _settings(report)
    if _has_compiler(report):
        _cpu(report)
        _threads(report)
        _works(report)
    _disk_cache(report)
    if measure is not None and _has_compiler(None):
        _rates(report, measure())
    _load(report)
    return report


def _versions(report: Report) -> None:
    report.say("treadle", __version__)
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    report.say("Python", f"{python} on {platform.system()} {platform.machine()}")
    report.say("NumPy", np.__version__)
    for name in ("matplotlib", "tqdm"):
        report.say(name, _installed(name) or "not installed (only some commands want it)")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _has_compiler(report: Report | None) -> bool:
    """Whether LLVM is there; what is found or missing goes into the report."""
    try:
        found = versions()
    except (ImportError, OSError) as error:
        if report is not None:
            report.say("LLVM", "missing")
            report.amiss.append(f"llvmlite does not load ({error}): pip install llvmlite")
        return False
    if report is not None:
        report.say("llvmlite", found[0])
        report.say("LLVM", found[1])
    return True


def _settings(report: Report) -> None:
    """The knobs that are set."""
    given = [f"{k.variable}={knobs.read(k.variable)}" for k in knobs.KNOBS if _is_set(k)]
    report.say("settings", " ".join(given) or "none")


def _is_set(knob: knobs.Knob) -> bool:
    return knobs.read(knob.variable) != knob.default


def _cpu(report: Report) -> None:
    here = host()
    report.say("CPU", f"{here.cpu} ({here.arch})")
    report.say("features", " ".join(n for n in here.needs if _SIMD.match(n)) or "none listed")
    report.say("vectors", f"{here.vector_bytes * 8} bits, {here.registers} registers")
    try:
        target = chosen_target()
    except ValueError as error:
        report.amiss.append(f"TREADLE_TARGET: {error}")
        return
    report.say("target", str(target))
    report.amiss += _about_target(target, here)


def _about_target(target: Target, here: Target) -> Iterator[str]:
    if not target.runs_here():
        yield f"code for {target.name} (TREADLE_TARGET) cannot run on this machine: unset it"
    elif target.vector_bytes < here.vector_bytes:
        yield (
            f"TREADLE_TARGET={target.name} uses vectors of {target.vector_bytes * 8} bits where "
            f"this machine has {here.vector_bytes * 8}: unset it"
        )


def _threads(report: Report) -> None:
    everything, usable, quota = os.cpu_count() or 1, usable_cores(), cpu_quota()
    report.say("cores", f"{everything}, of which this process may use {usable}")
    report.say("CPU quota", "none" if quota is None else f"{quota:g} cores")
    if quota is not None and quota < _affinity(everything):
        report.amiss.append(
            f"the CPU quota of {quota:g} cores is below the {_affinity(everything)} that this "
            f"process may run on: threads beyond it would be throttled, so {usable} are used"
        )
    try:
        count = get_num_threads()
    except ValueError as error:
        report.amiss.append(str(error))
        return
    report.say("threads", str(count))
    if count > usable:
        report.amiss.append(
            f"{count} threads share {usable} cores: lower TREADLE_NUM_THREADS, or unset it"
        )
    available = bool(pool().parallel)
    report.say("thread pool", "available" if available else "not on this platform")
    if count > 1 and not available:
        report.amiss.append("there is no thread pool on this platform: all runs on one thread")


def _affinity(everything: int) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything


def _works(report: Report) -> None:
    """A function compiled here and now gives what NumPy gives."""
    import treadle

    x = np.linspace(-2, 2, 37, dtype=np.float32)
    try:
        found = treadle.jit(lambda x: x * 2 + 1)(treadle.tensor(x)).numpy()
    except (TreadleError, ValueError) as error:
        report.say("compiles", "no")
        report.amiss.append(f"a function does not compile: {str(error).splitlines()[0]}")
        return
    right = np.array_equal(found, x * 2 + 1)
    report.say("compiles", "yes" if right else "yes, with wrong results")
    if not right:
        report.amiss.append("a compiled function gives other numbers than NumPy: report this")


def _disk_cache(report: Report) -> None:
    try:
        where = folder()
        report.say("cache", f"{where}{'' if cache.is_on() else ' (off: TREADLE_CACHE=0)'}")
        knobs.cache_bytes()
        opened(create=False)
        kept = cache.entries()
    except ValueError as error:
        report.amiss.append(f"no disk cache: {error}")
        return
    except FileNotFoundError:
        report.say("cache size", "empty")
        if not os.access(_nearest(where), os.W_OK):
            report.amiss.append(f"{where} cannot be made: set TREADLE_CACHE_DIR to another place")
        return
    except Unusable as why:
        report.amiss.append(f"no disk cache: {why}; set TREADLE_CACHE_DIR to another place")
        return
    report.say("cache size", f"{sum(e.size for e in kept) / 1e6:.2f} MB in {len(kept)} entries")
    if not os.access(where, os.W_OK):
        report.amiss.append(f"{where} cannot be written to: set TREADLE_CACHE_DIR to another place")


def _nearest(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next((p for p in path.absolute().parents if p.is_dir()), Path("/"))


def _rates(report: Report, machine: Machine) -> None:
    one, every = machine.flops_one_core, machine.flops_all_cores
    report.say("FMA rate", f"{one / 1e9:.0f} GFLOP/s on one core, {every / 1e9:.0f} on all")
    read, moved = machine.bytes_read / 1e9, machine.bytes_moved / 1e9
    report.say("memory", f"read {read:.1f} GB/s, read and write {moved:.1f} GB/s")
    for near in machine.bandwidths[:-1]:
        size = 2 * near.data
        text = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
        report.say(f"data of {text}", f"read and write {near.moved_all / 1e9:.0f} GB/s")
    if every < _SCALES * machine.cores * one:
        report.amiss.append(
            f"{machine.cores} cores together do {every / one:.1f} times what one does: they are "
            "hardware threads of fewer cores, or other processes are running"
        )


def _load(report: Report) -> None:
    if not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    report.say("load", f"{load:.2f} on {cores} cores")
    if load > _BUSY * cores:
        report.amiss.append(
            f"this machine is busy (load {load:.2f} on {cores} cores): times will waver"
        )
