"""What this machine can do: FMA rate and memory bandwidths, measured by compiled loops.

Every number is the best of several runs: the limit is what the hardware gives when undisturbed.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from treadle.codegen.target import Target, host
from treadle.ir.dataclass import dataclass
from treadle.ir.types import float32
from treadle.runtime.blocks import aligned_block
from treadle.runtime.driver import chosen_target
from treadle.runtime.native import load
from treadle.runtime.threads import usable_cores_once

_STREAM_BYTES: Final = 64 << 20  # an array, well above any cache
# Arrays of these sizes as well: what lies in a cache is limited by that cache.
_NEAR_BYTES: Final = (64 << 10, 512 << 10, 4 << 20, 16 << 20)
_CHAINS: Final = 12  # independent FMAs in flight: latency 4 times two units, and some
_REPEATS: Final = 7
_LOOPS: Final = ("fma_loop", "read_loop", "move_loop", "past_loop")


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes a second, on one core and on all, of a loop that reads arrays of `data` bytes, and of
    one that copies one such array to another: bytes read and bytes written."""

    data: int
    read_one: float
    read_all: float
    moved_one: float
    moved_all: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates per second: floating-point operations in float32 (an FMA is two) and bytes.

    `bytes_read` and `bytes_moved` (half read, half written) are the memory's on all cores;
    `bandwidths` are those of smaller data too, the smallest first.
    """

    name: str
    target: str
    cores: int
    flops_one_core: float
    flops_all_cores: float
    bytes_read: float
    bytes_moved: float
    bandwidths: tuple[Bandwidth, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Machine:
        """Raises TypeError where a field is missing or not known."""
        near = tuple(Bandwidth(**b) for b in data.get("bandwidths", ()))
        return Machine(**{**data, "bandwidths": near})

    def flop_rate(self, threads: int, itemsize: int = 4) -> float:
        """FMA operations a second of so many threads, on elements of so many bytes."""
        one, every = self.flops_one_core, self.flops_all_cores
        return min(threads * one, every) * 4 / max(itemsize, 4)

    def move_seconds(self, read: int, written: int, threads: int) -> float:
        """The least time in which so many threads read and write so many bytes.

        By the rates of the largest measured data that are no larger, so that it is a limit.
        """
        moved = 2 * min(read, written)
        rest = read + written - moved
        if not self.bandwidths:
            return moved / self.bytes_moved + rest / self.bytes_read
        near = [b for b in self.bandwidths if 2 * b.data <= read + written] or self.bandwidths[:1]
        best = near[-1]
        read_rate = min(threads * best.read_one, best.read_all)
        return moved / min(threads * best.moved_one, best.moved_all) + rest / read_rate

    def describe(self) -> str:
        return (
            f"{self.name}, {self.cores} cores, {self.target}: "
            f"FMA {self.flops_one_core / 1e9:.0f} GFLOP/s on one core, "
            f"{self.flops_all_cores / 1e9:.0f} on all; memory: read "
            f"{self.bytes_read / 1e9:.1f} GB/s, read and write {self.bytes_moved / 1e9:.1f} GB/s"
        )


@cache
def measured_machine() -> Machine:
    """`measure_machine()`, once in a process."""
    return measure_machine()


def measure_machine() -> Machine:
    """Measure for less than a second, on the cores that this process may use."""
    target, cores = chosen_target(), usable_cores_once()
    if not target.runs_here():
        target = host()
    code = load(_loops(target), target)
    signature = ctypes.CFUNCTYPE(
        None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
    )
    fma, read, move, past = (signature(code.address(n)) for n in _LOOPS)
    lanes = target.lanes(float32)
    spare = [np.zeros(64 * 32, np.float32) for _ in range(cores)]
    steps = 1 << 20

    def fma_on(core: int) -> None:
        fma(1, steps, spare[core].ctypes.data, spare[core].ctypes.data)

    arrays = [aligned_block(_STREAM_BYTES) for _ in range(2)]
    for array in arrays:
        array.fill(0)
    flops = 2.0 * lanes * _CHAINS * steps

    def stream(loop: Callable[..., None], nbytes: int, cores: int) -> float:
        """Bytes of an array that pass in a second; each core has a piece of its own."""
        vectors = nbytes // 4 // cores // (lanes * 4) * 4
        rounds = _STREAM_BYTES // nbytes

        def on(core: int) -> None:
            skip = core * vectors * lanes * 4
            loop(rounds, vectors, arrays[0].ctypes.data + skip, arrays[1].ctypes.data + skip)

        return cores * rounds * vectors * lanes * 4.0 / _best(pool, on, cores)

    def moved(nbytes: int, cores: int) -> float:
        return 2 * max(stream(loop, nbytes, cores) for loop in (move, past))

    with ThreadPoolExecutor(cores) as pool:
        bandwidths = tuple(
            Bandwidth(
                size, stream(read, size, 1), stream(read, size, cores), moved(size, 1),
                moved(size, cores),
            )
            for size in (*_NEAR_BYTES, _STREAM_BYTES)
        )  # fmt: skip
        return Machine(
            name=_cpu_name(),
            target=target.name,
            cores=cores,
            flops_one_core=flops / _best(pool, fma_on, 1),
            flops_all_cores=cores * flops / _best(pool, fma_on, cores),
            bytes_read=bandwidths[-1].read_all,
            bytes_moved=bandwidths[-1].moved_all,
            bandwidths=bandwidths,
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
    """LLVM IR of the loops: `rounds` times over `n` steps or vectors. `past_loop` copies with
    stores that go past the cache."""
    lanes = target.lanes(float32)
    v = f"<{lanes} x float>"
    chains = range(_CHAINS)
    multiply_add = (
        [f"  %n{c} = call {v} @llvm.fma.v{lanes}f32({v} %a{c}, {v} %x, {v} %x)" for c in chains]
        if target.has_fma
        else [
            line
            for c in chains
            for line in (f"  %m{c} = fmul {v} %a{c}, %x", f"  %n{c} = fadd {v} %m{c}, %x")
        ]
    )
    read = [*_loads(v, "%p", "%k"), *(f"  %n{c} = fadd {v} %a{c}, %l{c}" for c in range(4))]
    move, past = (
        [
            *_loads(v, "%p", "%k"),
            *(
                line
                for c in range(4)
                for line in (
                    f"  %s{c} = getelementptr {v}, ptr %q, i64 %j{c}",
                    f"  store {v} %l{c}, ptr %s{c}, align {target.vector_bytes}{hint}",
                )
            ),
        ]
        for hint in ("", ", !nontemporal !0")
    )
    return "\n".join(
        [
            f'target triple = "{target.triple}"',
            f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})",
            _function("fma_loop", v, multiply_add, 1, _CHAINS, f"  %x = load {v}, ptr %p, align 4"),
            _function("read_loop", v, read, 4, 4, ""),
            _function("move_loop", v, move, 4, 0, ""),
            _function("past_loop", v, past, 4, 0, ""),
            "!0 = !{i32 1}",
        ]
    )


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
    """A loop of `rounds` times `n / step` whose `kept` accumulators (`%a0` and on, `%n0` their
    next values) are stored, so that none is dead."""
    stores = []
    for c in range(kept):
        stores += [
            f"  %e{c} = getelementptr {v}, ptr %q, i64 {c}",
            f"  store {v} %n{c}, ptr %e{c}, align 4",
        ]
    start = "zeroinitializer"
    return "\n".join(
        [
            f"define void @{name}(i64 %rounds, i64 %n, ptr %p, ptr %q) {{",
            "entry:",
            setup,
            "  br label %round",
            "round:",
            "  %r = phi i64 [0, %entry], [%r.next, %turn]",
            *(f"  %o{c} = phi {v} [{start}, %entry], [%n{c}, %turn]" for c in range(kept)),
            "  br label %body",
            "body:",
            "  %k = phi i64 [0, %round], [%next, %body]",
            *(f"  %a{c} = phi {v} [%o{c}, %round], [%n{c}, %body]" for c in range(kept)),
            *body,
            f"  %next = add i64 %k, {step}",
            "  %more = icmp slt i64 %next, %n",
            "  br i1 %more, label %body, label %turn",
            "turn:",
            "  %r.next = add i64 %r, 1",
            "  %again = icmp slt i64 %r.next, %rounds",
            "  br i1 %again, label %round, label %done",
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
