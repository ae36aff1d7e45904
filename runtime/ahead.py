"""What a program is sure to need, compiled on another thread while Python decides on the rest.

LLVM works without Python's lock. So a program with a matrix product has the functions that all of
these share (`treadle.codegen.library`), and then the thread pool, compiled during its passes. The
next programs of the process find both.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Final

from treadle.codegen.library import library, wanted
from treadle.codegen.target import Target
from treadle.ir.errors import CompileError
from treadle.ir.forking import in_child
from treadle.ir.graph import Function
from treadle.ir.types import DType
from treadle.runtime.native import compile_object
from treadle.runtime.threads import get_num_threads, pool
from treadle.tracer.backend import CompileOptions

_TURN: Final = 2e-4  # seconds


class Ahead:
    """A library and the thread that compiles it."""

    def __init__(self, target: Target, dtype: DType) -> None:
        self.module = library(target, dtype)
        self._target = target
        self._object: bytes | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treadle compiles ahead")
        try:
            self._thread.start()
        except RuntimeError:  # there is no thread to be had: who asks for it first compiles it
            self._ended.set()

    def object(self) -> bytes:
        """The object file, when it is there. Raises CompileError where LLVM refuses the module,
        MemoryError."""
        self._ended.wait()
        if self._object is None:
            self._compile()
        assert self._object is not None
        return self._object

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None:  # else it was never started
            self._thread.join()

    def _compile(self) -> None:
        self._object = compile_object(self.module.opened(), self._target)[0]

    def _run(self) -> None:
        # Who needs what failed here asks for it again, and is told why.
        with _quick_turns(), contextlib.suppress(CompileError, MemoryError):
            try:
                self._compile()
            finally:
                self._ended.set()
            if get_num_threads() > 1:
                pool()


@contextlib.contextmanager
def _quick_turns() -> Iterator[None]:
    """A thread that leaves LLVM waits for Python's lock until the others have had their turn, 5 ms
    each time: the dozens of small calls around a compilation would take longer than it does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(_TURN, usual))
    quick = sys.getswitchinterval()
    try:
        yield
    finally:
        if sys.getswitchinterval() == quick:  # else somebody has asked for another
            sys.setswitchinterval(usual)


_begun: Final[dict[tuple[Target, DType], Ahead]] = {}

in_child(_begun.clear)  # where the thread does not run


def begun(fn: Function, options: CompileOptions, target: Target) -> Ahead | None:
    """What a TRACED program needs, on its way; None where nothing is sure."""
    if options.reassociate or options.contract:
        return None
    dtype = wanted(fn)
    if dtype is None:
        return None
    found = _begun.get((target, dtype))
    if found is None:
        found = _begun[target, dtype] = Ahead(target, dtype)
    return found
