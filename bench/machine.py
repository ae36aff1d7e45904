"""What this machine can do: FMA rate and memory bandwidths, measured by compiled loops.

Every number is the best of several runs: the limit is what the hardware gives when undisturbed.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from treadle.codegen.target import Target, host
from treadle.ir.types import float32
from treadle.runtime.native import load

_STREAM_BYTES = 64 << 20  # an array, well above any cache
_CHAINS = 12  # independent FMAs in flight: latency 4 times two units, and some
_REPEATS = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates per second: floating-point operations (an FMA is two) and bytes."""

    name: str
    target: str
    cores: int
    flops_one_core: float
    flops_all_cores: float
    bytes_read: float
    bytes_moved: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Machine:
        return Machine(**data)

    def describe(self) -> str:
        return (
            f"{self.name}, {self.cores} cores, {self.target}: "
            f"FMA {self.flops_one_core / 1e9:.0f} GFLOP/s on one core, "
            f"{self.flops_all_cores / 1e9:.0f} on all; memory: read "
            f"{self.bytes_read / 1e9:.1f} GB/s, read and write {self.bytes_moved / 1e9:.1f} GB/s"
        )


def measure_machine() -> Machine:
    """Measure for about two seconds, on the cores that this process may use."""
    target = host()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    code = load(_loops(target), target)
    signature = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    fma, read, move = (signature(code.address(n)) for n in ("fma_loop", "read_loop", "move_loop"))
    lanes = target.lanes(float32)
    spare = [np.zeros(64 * 32, np.float32) for _ in range(cores)]
    rounds = 1 << 20
    flops = 2.0 * lanes * _CHAINS * rounds

    def fma_on(core: int) -> None:
        fma(rounds, spare[core].ctypes.data, spare[core].ctypes.data)

    arrays = [np.ones(_STREAM_BYTES // 4, np.float32) for _ in range(2)]
    vectors = arrays[0].size // cores // (lanes * 4) * 4

    def stream(loop: Callable[[int, int, int], None]) -> Callable[[int], None]:
        def on(core: int) -> None:
            skip = core * vectors * lanes * 4
            loop(vectors, arrays[0].ctypes.data + skip, arrays[1].ctypes.data + skip)

        return on

    moved = 4.0 * lanes * vectors
    with ThreadPoolExecutor(cores) as pool:
        return Machine(
            name=_cpu_name(),
            target=target.name,
            cores=cores,
            flops_one_core=flops / _best(pool, fma_on, 1),
            flops_all_cores=cores * flops / _best(pool, fma_on, cores),
            bytes_read=cores * moved / _best(pool, stream(read), cores),
            bytes_moved=2 * cores * moved / _best(pool, stream(move), cores),
        )


def _best(pool: ThreadPoolExecutor, work: Callable[[int], None], cores: int) -> float:
    """The least time in which `cores` threads each do `work` once (native code, no GIL)."""
    times = []
    for _ in range(_REPEATS):
        started = perf_counter()
        list(pool.map(work, range(cores)))
        times.append(perf_counter() - started)
    return min(times)


def _loops(target: Target) -> str:
    """LLVM IR of the three loops; `n` counts rounds or vectors."""
    lanes = target.lanes(float32)
    v = f"<{lanes} x float>"
    chains = range(_CHAINS)
    zero = "zeroinitializer"
    multiply_add = (
        [f"  %n{c} = call {v} @llvm.fma({v} %a{c}, {v} %x, {v} %x)" for c in chains]
        if target.has_fma
        else [
            line
            for c in chains
            for line in (f"  %m{c} = fmul {v} %a{c}, %x", f"  %n{c} = fadd {v} %m{c}, %x")
        ]
    )
    fma = [
        *(f"  %a{c} = phi {v} [{zero}, %entry], [%n{c}, %body]" for c in chains),
        *multiply_add,
    ]
    read = [
        *(f"  %a{c} = phi {v} [{zero}, %entry], [%n{c}, %body]" for c in range(4)),
        *_loads(v, "%p", "%k"),
        *(f"  %n{c} = fadd {v} %a{c}, %l{c}" for c in range(4)),
    ]
    move = [
        *_loads(v, "%p", "%k"),
        *(
            line
            for c in range(4)
            for line in (
                f"  %s{c} = getelementptr {v}, ptr %q, i64 %j{c}",
                f"  store {v} %l{c}, ptr %s{c}, align 4",
            )
        ),
    ]
    return "\n".join(
        [
            f'target triple = "{target.triple}"',
            f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})",
            _function("fma_loop", v, fma, 1, _CHAINS, "  %x = load " + v + ", ptr %p, align 4"),
            _function("read_loop", v, read, 4, 4, ""),
            _function("move_loop", v, move, 4, 0, ""),
        ]
    ).replace("@llvm.fma(", f"@llvm.fma.v{lanes}f32(")


def _loads(v: str, base: str, index: str) -> list[str]:
    lines = []
    for c in range(4):
        lines += [
            f"  %j{c} = add i64 {index}, {c}",
            f"  %g{c} = getelementptr {v}, ptr {base}, i64 %j{c}",
            f"  %l{c} = load {v}, ptr %g{c}, align 4",
        ]
    return lines


def _function(name: str, v: str, body: list[str], step: int, kept: int, setup: str) -> str:
    """A loop of `n / step` rounds whose `kept` accumulators are stored, so that none is dead."""
    phis = [line for line in body if " phi " in line]
    rest = [line for line in body if " phi " not in line]
    stores = []
    for c in range(kept):
        stores += [
            f"  %e{c} = getelementptr {v}, ptr %q, i64 {c}",
            f"  store {v} %n{c}, ptr %e{c}, align 4",
        ]
    return "\n".join(
        [
            f"define void @{name}(i64 %n, ptr %p, ptr %q) {{",
            "entry:",
            setup,
            "  br label %body",
            "body:",
            "  %k = phi i64 [0, %entry], [%next, %body]",
            *phis,
            *rest,
            f"  %next = add i64 %k, {step}",
            "  %more = icmp slt i64 %next, %n",
            "  br i1 %more, label %body, label %done",
            "done:",
            *stores,
            "  ret void",
            "}",
        ]
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
