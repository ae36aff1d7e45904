"""Python code that native code calls: callbacks, watchers, prints in the middle of a program.

Native code runs without the interpreter's lock; it calls back on the thread that called it, where
ctypes takes the lock again. What the Python code raises is kept, native code is told to stop, and
the call raises it: nothing that outlives the call has been written by then.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TraceError
from treadle.ir.graph import Function
from treadle.ir.host import host_functions
from treadle.ir.host_function import HostFunction
from treadle.ir.ops.host_calls import checked_results
from treadle.ir.ops.prints import render
from treadle.ir.types import DType, TensorType
from treadle.ir.watchers import watchers
from treadle.runtime.interface import Call

Array = npt.NDArray[Any]
_DONE: Final = 1  # any other answer stops native code


class HostCalls:
    """The calls of one program, by number, and the functions of this process that they need.

    `silent`: nothing is printed, and no watcher told. Raises TraceError where the program calls a
    function that this process does not have.
    """

    address = 0  # of the function that native code calls

    def __init__(self, calls: Sequence[Call], fn: Function, silent: bool = False) -> None:
        self.calls = calls
        self.silent = silent
        self.functions: Mapping[int, HostFunction | str] = host_functions(fn) if calls else {}
        for found in self.functions.values():
            if isinstance(found, str):
                raise TraceError(
                    f"the program calls the Python function {found}, which a program that is read "
                    "from text does not have; trace the function anew where it is defined"
                )

    def call(self, number: int, pointers: int) -> None:
        """Do what call `number` asks for; `pointers`: addresses of operands, then results."""
        op, text, function, takes, gives = self.calls[number]
        at = (ctypes.c_void_p * (len(takes) + len(gives))).from_address(pointers)
        arrays = [_copy(at[n] or 0, *type) for n, type in enumerate(takes)]
        if op == "watch":
            if not self.silent:
                watchers.tell(text, arrays[0])
        elif op == "debug_print":
            if not self.silent:
                print(render(text, arrays), flush=True)
        else:
            host = self.functions[function]
            assert isinstance(host, HostFunction)
            types = [TensorType(dtype, shape) for shape, dtype in gives]
            made = checked_results(host.label, host.call(*arrays), types)
            for n, array in enumerate(made, len(takes)):
                ctypes.memmove(at[n] or 0, array.ctypes.data, array.nbytes)

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Inside, native code of this thread calls what this program calls."""
        run = Run(self)
        runs = _thread.__dict__.setdefault("runs", [])
        runs.append(run)
        try:
            yield run
        finally:
            runs.pop()


@dataclass(slots=True)
class Run:
    """One call of a compiled function, and what the Python code inside of it has raised."""

    calls: HostCalls
    error: BaseException | None = None


_thread = threading.local()


def _answer(number: int, pointers: int) -> int:
    run: Run = _thread.runs[-1]
    try:
        run.calls.call(number, pointers)
    except BaseException as error:  # raised again when native code has returned
        run.error = error
        return 0
    return _DONE


_host = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(_answer)
HostCalls.address = ctypes.cast(_host, ctypes.c_void_p).value or 0


def _copy(address: int, shape: tuple[int, ...], dtype: DType) -> Array:
    """A read-only array of its own: the function may keep it."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.dtype.itemsize
    if not nbytes:
        empty = np.empty(shape, dtype.dtype)
        empty.flags.writeable = False
        return empty
    return np.frombuffer(ctypes.string_at(address, nbytes), dtype.dtype).reshape(shape)
