"""Profiles: a step compiled once more with time stamps around its kernels, and run several times.

The code that ordinary calls run is not touched. The profiled runs work on copies of everything
that a call would overwrite, and each begins with the same content: afterwards all state is as
before, and an optimiser's step is profiled as if it were the first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.codegen.plan import KernelPlan
from treadle.codegen.stamps import CLOCK, EVENT_WORDS, first_events
from treadle.ir.graph import Function
from treadle.ir.work import work_of
from treadle.runtime.blocks import aligned_block
from treadle.runtime.driver import chosen_target, compile_stages
from treadle.runtime.host import HostCalls
from treadle.runtime.interface import host_calls_of
from treadle.runtime.machine import measured_machine
from treadle.runtime.native import NativeCode, load
from treadle.runtime.outcome import failure
from treadle.runtime.profile_report import Event, KernelTime, Profile
from treadle.runtime.stages import Compilation
from treadle.runtime.threads import get_num_threads, pool
from treadle.tracer.backend import CompileOptions

Array = npt.NDArray[Any]

_CALIBRATION: Final = 0.005  # seconds over which the CPU's clock is compared with the system's


def profile_function(
    fn: Function,
    options: CompileOptions,
    arrays: Sequence[Array],
    threads: int | None = None,
    repeat: int = 20,
) -> Profile:
    """See `treadle.tracer.backend.Compiler.profile`."""
    target = chosen_target()
    compilation = compile_stages(fn, replace(options, profile=True), target)
    code = load(compilation.emitted.ir, target)
    count = (threads or get_num_threads()) if compilation.emitted.parallel else 1
    run = _ProfiledRun(compilation, code, arrays, count)
    started = perf_counter(), run.clock()
    tables = [run.once() for _ in range(repeat)]
    second = _ticks_per_second(run, *started)
    best = min(tables, key=lambda t: int(t[0, 1] - t[0, 0]))
    least = np.min([t[:, 1] - t[:, 0] for t in tables], axis=0) / second
    plan = compilation.plan
    first = first_events(plan)
    rows = tuple(
        _row(compilation, k, float(least[n])) for k, n in zip(plan.kernels, first, strict=False)
    )
    return Profile(
        name=fn.name,
        target=str(target),
        threads=count,
        repeat=repeat,
        seconds=float(least[0]),
        rows=rows,
        events=tuple(_events(plan.kernels, first, best, second)),
        machine=measured_machine(),
        function=fn,
    )


class _ProfiledRun:
    """Profiled code with all that a call of it needs."""

    def __init__(
        self, compilation: Compilation, code: NativeCode, arrays: Sequence[Array], threads: int
    ) -> None:
        self._code = code  # holds the machine code for as long as this object lives
        entry_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self._entry = entry_type(code.address(compilation.emitted.entry))
        self.clock = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(CLOCK))
        self._compilation = compilation
        self._given = arrays
        calls = host_calls_of(compilation.emitted.host_calls)
        self._host = HostCalls(calls, compilation.traced, silent=True)
        shared = {result: param for param, result in compilation.memory.in_place}
        overwritten = set(shared.values())
        self._arrays = [a.copy() if n in overwritten else a for n, a in enumerate(arrays)]
        self._overwritten = sorted(overwritten)
        outputs = compilation.kernels.outputs
        outs = [
            self._arrays[shared[n]]
            if n in shared
            else np.empty(v.type.static_shape, v.type.dtype.dtype)
            for n, v in enumerate(outputs)
        ]
        emitted = compilation.emitted
        constants = [c.array() for c in emitted.constants]
        workspace = aligned_block(emitted.workspace + threads * emitted.scratch)
        self._table = np.zeros((first_events(compilation.plan)[-1], EVENT_WORDS), np.int64)
        self._kept = (outs, constants, workspace)
        buffers = [*self._arrays, *outs, *constants, workspace]
        parallel = pool().parallel if threads > 1 else 0
        addresses = [b.ctypes.data for b in buffers] + [parallel, threads, self._table.ctypes.data]
        self._buffers = (ctypes.c_void_p * len(addresses))(*addresses)

    def once(self) -> Array:
        """One step from the same content; its events. Raises what the step raises."""
        for n in self._overwritten:
            np.copyto(self._arrays[n], self._given[n])
        fault = (ctypes.c_int64 * 2)(0, self._host.address)
        with self._host.running() as run:
            stopped = self._entry(self._buffers, fault)
        if run.error is not None:
            raise run.error
        if stopped:
            site = self._compilation.emitted.faults[fault[0] - 1]
            raise failure(self._compilation.core, self._given, site, fault[1])
        return self._table.copy()


def _ticks_per_second(run: _ProfiledRun, started: float, shown: int) -> float:
    """How fast the CPU's clock goes, since the moment when it showed `shown`."""
    passed = perf_counter() - started
    if passed < _CALIBRATION:
        sleep(_CALIBRATION - passed)
    ticks: int = run.clock() - shown
    return ticks / (perf_counter() - started)


def _row(compilation: Compilation, kernel: KernelPlan, seconds: float) -> KernelTime:
    instr = compilation.kernels.instrs[kernel.instr]
    places = compilation.memory.places
    in_place = bool(instr.args and instr.results) and (
        places.get(instr.args[0]) == places[instr.results[0]]
    )
    return KernelTime(
        kernel=kernel.name,
        plan=str(kernel.body).splitlines()[0],
        lines=kernel.lines,
        seconds=seconds,
        work=work_of(instr, in_place),
        tiles=kernel.tiles,
        parallel=kernel.parallel,
    )


def _events(
    kernels: Sequence[KernelPlan], first: Sequence[int], table: Array, second: float
) -> list[Event]:
    """The events of one step, in seconds from its start; tiles follow their kernel."""
    begin = int(table[0, 0])

    def event(name: str, number: int, tile: int | None, thread: int) -> Event:
        start, end = (float(t - begin) / second for t in table[number, :2])
        return Event(name, tile, thread, start, end)

    found = [event("step", 0, None, 0)]
    for kernel, number in zip(kernels, first, strict=False):
        found.append(event(kernel.name, number, None, 0))
        tiles = kernel.tiles if kernel.tiles > 1 else 0
        for tile in range(tiles):
            row = number + 1 + tile
            found.append(event(kernel.name, row, tile, int(table[row, 2])))
    return found
