"""The one door from the tracer to the compiler.

`treadle.runtime` implements `Compiler` and registers it; the tracer knows nothing else of passes,
code generation or LLVM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What may be asked of the compiler; part of every cache key. `profile`: code that writes down
    when each kernel began and ended. `winograd`: convolutions may compute squares of up to so many
    positions a side together; 0: none."""

    reassociate: bool = False
    contract: bool = False
    profile: bool = False
    winograd: int = 2


class Finished(Exception):
    """What interrupted a call (Ctrl-C, a signal handler that raises) when the run was over.

    `results` are complete and parameters updated in place hold their new content; whoever called
    puts the rest in place, so that no state is half written, and raises `interrupt`.
    """

    def __init__(self, results: list[Array], interrupt: BaseException) -> None:
        super().__init__()
        self.results = results
        self.interrupt = interrupt


class Executable(Protocol):
    """A compiled Function."""

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:
        """(param, result) pairs: the call overwrites that parameter's buffer with that result, so
        the caller must own it alone (or pass a copy)."""
        ...

    @property
    def compile_seconds(self) -> float: ...

    @property
    def code_bytes(self) -> int:
        """The size of the machine code, with its constants."""
        ...

    @property
    def workspace_bytes(self) -> int:
        """The memory that a call on one thread needs besides parameters and results."""
        ...

    def run(self, arrays: Sequence[Array], threads: int | None = None) -> list[Array]:
        """One array a parameter, C-contiguous and of its type, in the Function's order; returns
        one array a result. The result of an in-place pair is the parameter's array itself.
        `threads`: how many to use, where that is asked for.
        Raises IndexFault or CheckError, with every array as before the call, where the run found
        a fault; Finished for an interrupt after the run, KeyboardInterrupt for one before it."""
        ...

    def stage(self, name: str) -> str:
        """The program as text after the pass `name` (also: memory, plan, llvm, asm)."""
        ...


class Profile(Protocol):
    """Where the time of a compiled function goes; prints as a table."""

    @property
    def rows(self) -> Sequence[Any]:
        """One row a kernel, in the order in which they run."""
        ...

    @property
    def seconds(self) -> float:
        """The least time of a whole step."""
        ...

    def to_chrome_trace(self, path: str | Path) -> None:
        """Write the fastest step as JSON for chrome://tracing and Perfetto."""
        ...

    def roofline(self, path: str | Path) -> None:
        """Draw the kernels below the machine's limits. Raises ImportError without matplotlib."""
        ...


class Compiler(Protocol):
    def compile(self, fn: Function, options: CompileOptions) -> Executable:
        """Compile a TRACED Function. Raises CompileError."""
        ...

    def profile(
        self,
        fn: Function,
        options: CompileOptions,
        arrays: Sequence[Array],
        threads: int | None,
        repeat: int,
    ) -> Profile:
        """Compile `fn` with time stamps and run it `repeat` times on copies of `arrays` (see
        `Executable.run`), each time from the same content. Raises what a run raises."""
        ...

    def differentiated(self, fn: Function) -> Function:
        """A TRACED Function without `gradient` instructions: they are expanded, after what must
        be stabilized before that."""
        ...


class Miss:
    """What a direct call gives where it has done nothing: the call has to go the long way."""

    def __repr__(self) -> str:
        return "MISS"


MISS: Final = Miss()


class DirectCall(Protocol):
    """What the call path knows of one specialization."""

    @property
    def hits(self) -> int:
        """Calls that ran without Python code."""
        ...


class Dispatcher(Protocol):
    """What the call path knows of one jitted function: `calls` are tried in that order."""

    calls: tuple[Any, ...]


class CallPath(Protocol):
    """A shorter way from a call to compiled code than through Python; it may be missing."""

    def call(self, spec: Any, plan: Any, arguments: int) -> DirectCall | None:
        """What is needed to call a specialization of so many positional arguments, guarded by
        `plan`; None where it has to go through Python."""
        ...

    def connect(self, calls: Sequence[DirectCall]) -> tuple[Dispatcher, Callable[..., Any]] | None:
        """A function that does what fits among `calls` for its arguments, or gives MISS, with
        what it looks at; None where there is no such way here."""
        ...


_registered: list[Compiler] = []
_paths: list[CallPath] = []


def register_call_path(path: CallPath) -> None:
    """Make `path` the one that jitted functions use."""
    _paths[:] = [path]


def call_path() -> CallPath | None:
    """The registered call path."""
    return _paths[0] if _paths else None


def register_compiler(compiler: Compiler) -> None:
    """Make `compiler` the one that `jit` uses."""
    _registered[:] = [compiler]


def compiler() -> Compiler:
    """The registered compiler."""
    if not _registered:
        raise RuntimeError("no compiler is registered; `import treadle` registers one")
    return _registered[0]
