"""Compiles a Function without the driver and calls it on buffers that are guarded on both sides."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.codegen.module import Emitted, emit_module
from treadle.codegen.plan import Plan, plan_function
from treadle.codegen.target import Target
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.memory import MemoryPlan
from treadle.ir.op import Attrs, OpDef
from treadle.ir.types import type_of_array
from treadle.passes import expand, fuse
from treadle.passes.manager import run_pipeline
from treadle.passes.memory import plan_memory
from treadle.runtime.driver import chosen_target
from treadle.runtime.native import NativeCode, load
from treadle.runtime.threads import pool
from treadle.tracer.backend import CompileOptions

Array = npt.NDArray[Any]

_libc = ctypes.CDLL(None, use_errno=True)


def function_of(op: OpDef, attrs: Attrs, arrays: Sequence[Array]) -> Function:
    """A function of that op alone."""
    b = Builder("f")
    params = [b.param(type_of_array(a), f"x{i}") for i, a in enumerate(arrays)]
    outs = b.emit(op, params, attrs)
    return b.finish([Result(o, f"y{i}") for i, o in enumerate(outs)])


@dataclass(frozen=True)
class Native:
    """A loaded function and what was decided on the way."""

    kernels: Function
    memory: MemoryPlan
    plan: Plan
    emitted: Emitted
    code: NativeCode

    def __call__(
        self, *arrays: Array, at_end: bool = True, shift: int = 0, threads: int = 1
    ) -> tuple[int, list[Array], list[int]]:
        """(returned, results, fault record). Buffers touch a forbidden page at their end or start;
        operands at their start are moved on by `shift` bytes.

        Operands that no in-place result overwrites must be as before.
        """
        with _Guarded() as guard:
            params = [guard.copy(a, at_end, shift) for a in arrays]
            shared = {r: params[p] for p, r in self.memory.in_place}
            results = [
                shared.get(n, guard.empty(v.type.static_shape, v.type.dtype.dtype, at_end))
                for n, v in enumerate(self.kernels.outputs)
            ]
            constants = [guard.copy(c.array(), at_end) for c in self.emitted.constants]
            scratch = self.emitted.scratch * threads
            room = -(-(self.emitted.workspace + scratch) // 64) * 64
            workspace = guard.empty((room,), np.dtype(np.uint8), at_end)
            held = [*params, *results, *constants, workspace]
            workers = pool().parallel if threads > 1 else None
            addresses = [*(a.ctypes.data for a in held), workers, threads]
            pointers = (ctypes.c_void_p * len(addresses))(*addresses)
            fault = (ctypes.c_int64 * 2)()
            entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
            returned = entry(self.code.address(self.emitted.entry))(pointers, fault)
            overwritten = {p for p, _ in self.memory.in_place}
            for n, (before, after) in enumerate(zip(arrays, params, strict=True)):
                if n not in overwritten:
                    np.testing.assert_array_equal(after, before, "an operand was changed")
            return returned, [r.copy() for r in results], list(fault)

    def results(self, *arrays: Array, threads: int = 1) -> list[Array]:
        """The results, which must not depend on which side of the buffers is guarded."""
        returned, outs, _ = self(*arrays, threads=threads)
        again, same, _ = self(*arrays, at_end=False, threads=threads)
        assert returned == again == 0
        for x, y in zip(outs, same, strict=True):
            np.testing.assert_array_equal(x, y)
        return outs


def lowered(fn: Function) -> Function:
    """`fn` at level KERNELS."""
    return run_pipeline(fn, (expand.PASS, fuse.PASS), [], verify="always")


def emitted_for(
    fn: Function, target: Target, winograd: int = 0
) -> tuple[MemoryPlan, Plan, Emitted]:
    """Plans and LLVM text of a KERNELS-level function; `winograd` as in CompileOptions."""
    memory = plan_memory(fn)
    plan = plan_function(fn, memory, target, winograd=winograd)
    return memory, plan, emit_module(fn, memory, plan, target, CompileOptions())


def compiled(fn: Function, target: Target | None = None) -> Native:
    """`fn`, at level CORE or KERNELS, as machine code for `target` (default: the knob's)."""
    target = target or chosen_target()
    kernels = lowered(fn)
    memory, plan, emitted = emitted_for(kernels, target)
    return Native(kernels, memory, plan, emitted, load(emitted.ir, target))


class _Guarded:
    """Buffers between pages that may not be touched."""

    def __init__(self) -> None:
        self._maps: list[tuple[mmap.mmap, int, int]] = []

    def __enter__(self) -> _Guarded:
        return self

    def __exit__(self, *exc: object) -> None:
        for block, address, size in self._maps:
            _protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
            _protect(
                address + size - mmap.PAGESIZE, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE
            )
            del block

    def empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], at_end: bool, shift: int = 0
    ) -> Array:
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        inside = max(-(-(nbytes + shift) // mmap.PAGESIZE), 1) * mmap.PAGESIZE
        block = mmap.mmap(-1, inside + 2 * mmap.PAGESIZE)
        whole = np.frombuffer(block, np.uint8)
        whole[:] = 0xA5
        address = whole.ctypes.data
        start = mmap.PAGESIZE + (inside - nbytes if at_end else shift)
        found = np.frombuffer(block, dtype, nbytes // dtype.itemsize, start).reshape(shape)
        _protect(address, mmap.PAGESIZE, 0)
        _protect(address + len(whole) - mmap.PAGESIZE, mmap.PAGESIZE, 0)
        self._maps.append((block, address, len(whole)))
        return found

    def copy(self, array: Array, at_end: bool, shift: int = 0) -> Array:
        found = self.empty(array.shape, array.dtype, at_end, shift)
        found[...] = array
        return found


def _protect(address: int, size: int, how: int) -> None:
    code = _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), how)
    assert code == 0, "mprotect failed"


@contextmanager
def silent() -> Iterator[None]:
    """NumPy without warnings about NaN and infinities."""
    with np.errstate(all="ignore"):
        yield


def close(got: Array, want: Array, ulps: float, scale: float, args: Sequence[Array]) -> bool:
    """|got - want| <= ulps units in the last place of `want` + scale units of the largest finite
    operand (or product of two); NaN equals NaN. Without floats or tolerance: equal."""
    if want.dtype.kind != "f" or (ulps == 0 and scale == 0):
        return bool(np.array_equal(got, want, equal_nan=want.dtype.kind == "f"))
    with silent():
        room = np.nan_to_num(ulps * np.spacing(np.abs(want)).astype(np.float64), posinf=0.0)
        if scale:
            finite = [np.abs(a[np.isfinite(a)]).max(initial=0) for a in args if a.dtype.kind == "f"]
            largest = float(max([1.0, *map(float, finite)]))
            room = room + scale * float(np.finfo(want.dtype).eps) * largest**2
        error = np.abs(got.astype(np.float64) - want.astype(np.float64))
        fine = (error <= room) | (got == want) | (np.isnan(got) & np.isnan(want))
        return bool(fine.all())
