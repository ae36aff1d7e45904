"""A compiled function: buffers in, one native call, buffers out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import TreadleError
from treadle.ir.lazily import lazily
from treadle.ir.ops.host_calls import INTERRUPTED
from treadle.runtime.blocks import blocks
from treadle.runtime.interface import Interface
from treadle.runtime.native import NativeCode
from treadle.runtime.outcome import failure, show
from treadle.runtime.threads import get_num_threads, pool
from treadle.tracer.backend import Finished

if TYPE_CHECKING:
    from treadle.runtime.host import HostCalls
    from treadle.runtime.stages import Compilation

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


_Fault = ctypes.c_int64 * 2
_NOT_RUN = -1  # in the fault record until native code has run to its end


class NativeExecutable:
    """Implements `treadle.tracer.backend.Executable`. May be called from several threads."""

    def __init__(
        self,
        interface: Interface,
        code: NativeCode,
        seconds: float,
        stages: Callable[[], Compilation],
        host: HostCalls | None = None,
    ) -> None:
        self.interface = interface
        self._host = host
        self.compile_seconds = seconds
        self.in_place = interface.in_place
        self._stages = stages
        self._code = code  # holds the machine code for as long as this object lives
        entry_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self.entry_address = code.address(interface.entry)
        self._entry = entry_type(self.entry_address)
        shared = {result: param for param, result in self.in_place}
        # a result's parameter where it is updated in place, else the fresh array's shape and dtype
        self.results: tuple[int | tuple[tuple[int, ...], np.dtype[Any]], ...] = tuple(
            shared.get(n, (shape, dtype.dtype))
            for n, (shape, dtype) in enumerate(interface.results)
        )
        self._texts = interface.prints
        self._given = interface.given
        self._constants = [c.array() for c in interface.constants]
        self.constant_pointers = [data_pointer(c) for c in self._constants]
        count = interface.params + len(self.results) + len(self._constants) + 3
        self._buffers_type = ctypes.c_void_p * count
        self._parallel = interface.parallel
        self._blocks: list[Array] = []

    @lazily
    def compilation(self) -> Compilation:
        """Every stage of the compilation; of code that came from the disk cache they are made now,
        from the current trace."""
        return self._stages()

    @property
    def code_bytes(self) -> int:
        """The size of the machine code, with its constants."""
        return self._code.size + sum(c.nbytes for c in self._constants)

    @property
    def workspace_bytes(self) -> int:
        """The memory that a call on one thread needs besides parameters and results."""
        return self.interface.workspace + self.interface.scratch

    def run(self, arrays: Sequence[Array], threads: int | None = None) -> list[Array]:
        """See `treadle.tracer.backend.Executable.run`."""
        outs = [arrays[r] if isinstance(r, int) else blocks.empty(*r) for r in self.results]
        fault = _Fault(_NOT_RUN, 0 if self._host is None else self._host.address)
        try:
            self._run(arrays, outs, fault, threads)
            if self._texts:
                show(self._texts, outs[self._given :])
        except BaseException as interrupt:
            # Ctrl-C is raised when native code returns, which is where a step spends its time.
            if fault[0] == 0:
                raise Finished(outs[: self._given], interrupt) from None
            raise
        if self._texts:
            del outs[self._given :]
        return outs

    def _run(
        self,
        arrays: Sequence[Array],
        outs: Sequence[Array],
        fault: ctypes.Array[ctypes.c_int64],
        threads: int | None,
    ) -> None:
        count = (threads or get_num_threads()) if self._parallel else 1
        block = self._workspace(count)
        try:
            self._call(arrays, outs, block, fault, count)
        finally:
            if not self._blocks:
                self._blocks.append(block)

    def _workspace(self, threads: int) -> Array:
        """The block of the last call, or a fresh one: while another thread is using that, or where
        an interrupt has lost it."""
        nbytes = self.interface.workspace + threads * self.interface.scratch
        try:
            block = self._blocks.pop()  # atomic; a lock could be left taken by an interrupt
        except IndexError:
            return blocks.workspace(nbytes)
        return block if block.nbytes >= nbytes else blocks.workspace(nbytes)

    def _call(
        self,
        arrays: Sequence[Array],
        outs: Sequence[Array],
        workspace: Array,
        fault: ctypes.Array[ctypes.c_int64],
        threads: int,
    ) -> None:
        pointers = [data_pointer(a) for a in arrays]
        pointers += [data_pointer(a) for a in outs]
        pointers += self.constant_pointers
        pointers += (data_pointer(workspace), pool().parallel if threads > 1 else 0, threads)
        if self._host is not None:
            with self._host.running() as run:
                stopped = self._entry(self._buffers_type(*pointers), fault)
            if run.error is not None:
                self._locate(run.error, fault[0] - 1)
                raise run.error
        else:
            stopped = self._entry(self._buffers_type(*pointers), fault)
        if stopped:
            site = self.compilation.emitted.faults[fault[0] - 1]
            if site.message == INTERRUPTED:
                raise KeyboardInterrupt  # ctypes has swallowed it
            raise failure(self.compilation.core, arrays, site, fault[1]) from None

    def _locate(self, error: BaseException, site: int) -> None:
        """Add the line of the call of Python code to an error about what it gave."""
        if not isinstance(error, TreadleError) or error.located or site < 0:
            return
        loc = self.compilation.emitted.faults[site].loc
        if loc is not None:
            error.located = True
            error.args = (f"{error} (at {loc})",)

    def stage(self, name: str) -> str:
        """The program as text after the pass `name` (also: traced, memory, plan, llvm, asm)."""
        return self.compilation.text(name)
