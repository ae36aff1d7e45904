"""A compiled function: buffers in, one native call, buffers out."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.runtime.blocks import aligned_block, blocks
from treadle.runtime.native import NativeCode
from treadle.runtime.outcome import failure, printed_texts, show
from treadle.runtime.stages import Compilation
from treadle.runtime.threads import get_num_threads, pool

Array = npt.NDArray[Any]

# In CPython a PyArrayObject's `data` pointer follows the object header. Reading it there costs a
# seventh of `array.ctypes.data`; where the layout is another one, the slow way is taken.
_DATA_OFFSET = 2 * ctypes.sizeof(ctypes.c_void_p)
_pointer_at = ctypes.c_void_p.from_address


def _layout_is_known() -> bool:
    probe = np.empty(3, np.float32)
    return _pointer_at(id(probe) + _DATA_OFFSET).value == probe.ctypes.data


def _fast_pointer(array: Array) -> int | None:
    return _pointer_at(id(array) + _DATA_OFFSET).value


def _slow_pointer(array: Array) -> int | None:
    return int(array.ctypes.data)


data_pointer = _fast_pointer if _layout_is_known() else _slow_pointer


class NativeExecutable:
    """Implements `treadle.tracer.backend.Executable`. May be called from several threads."""

    def __init__(self, compilation: Compilation, code: NativeCode, seconds: float) -> None:
        self.compilation = compilation
        self.compile_seconds = seconds
        self.in_place = compilation.memory.in_place
        self._code = code  # holds the machine code for as long as this object lives
        entry_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self._entry = entry_type(code.address(compilation.emitted.entry))
        fn = compilation.kernels
        shared = {result: param for param, result in self.in_place}
        # a result's parameter where it is updated in place, else the fresh array's shape and dtype
        self._results: tuple[int | tuple[tuple[int, ...], np.dtype[Any]], ...] = tuple(
            shared.get(n, (v.type.static_shape, v.type.dtype.dtype))
            for n, v in enumerate(fn.outputs)
        )
        self._texts = printed_texts(fn)
        self._given = sum(r.kind != "print" for r in fn.results)  # the results that callers get
        self._constants = [c.array() for c in compilation.emitted.constants]
        self._constant_pointers = [data_pointer(c) for c in self._constants]
        count = len(fn.params) + len(self._results) + len(self._constants) + 3
        self._buffers_type = ctypes.c_void_p * count
        self._parallel = compilation.emitted.parallel
        self._block: Array | None = None
        self._block_lock = threading.Lock()

    def run(self, arrays: Sequence[Array], threads: int | None = None) -> list[Array]:
        """See `treadle.tracer.backend.Executable.run`."""
        results = self._run(arrays, threads)
        if self._texts:
            show(self._texts, results[self._given :])
            del results[self._given :]
        return results

    def _run(self, arrays: Sequence[Array], threads: int | None) -> list[Array]:
        count = (threads or get_num_threads()) if self._parallel else 1
        outs = [arrays[r] if isinstance(r, int) else blocks.empty(*r) for r in self._results]
        mine = self._block_lock.acquire(blocking=False)
        try:
            self._call(arrays, outs, self._workspace(mine, count), count)
        finally:
            if mine:
                self._block_lock.release()
        return outs

    def _workspace(self, mine: bool, threads: int) -> Array:
        """The executable's own block, or a fresh one while another thread is using that."""
        emitted = self.compilation.emitted
        nbytes = emitted.workspace + threads * emitted.scratch
        if not mine:
            return aligned_block(nbytes)
        if self._block is None or self._block.nbytes < nbytes:
            self._block = aligned_block(nbytes)
        return self._block

    def _call(
        self, arrays: Sequence[Array], outs: Sequence[Array], workspace: Array, threads: int
    ) -> None:
        pointers = [data_pointer(a) for a in arrays]
        pointers += [data_pointer(a) for a in outs]
        pointers += self._constant_pointers
        pointers += (data_pointer(workspace), pool().parallel if threads > 1 else 0, threads)
        fault = (ctypes.c_int64 * 2)()
        if self._entry(self._buffers_type(*pointers), fault):
            site = self.compilation.emitted.faults[fault[0] - 1]
            raise failure(self.compilation.core, arrays, site, fault[1]) from None

    def stage(self, name: str) -> str:
        """The program as text after the pass `name` (also: traced, memory, plan, llvm, asm)."""
        return self.compilation.text(name)
