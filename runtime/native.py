"""LLVM IR text to machine code in this process, or to assembly, through llvmlite's binding.

The IR passes of LLVM are left out: what the emitters write is in the shape that its code generator
wants, and the passes cost ten times what they gain (docs/accuracy.md has nothing to fear either:
no pass may reassociate). Each compiled module has a link unit of its own, so that closing it gives
all its memory back. LLVM is entered by one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from time import perf_counter
from typing import Any, Final

from treadle.codegen.target import Target
from treadle.ir.errors import CompileError

_LOCK: Final = threading.RLock()
_NAMES: Final = count()

# The code generator's effort. See `docs/decisions` for what the levels cost and give.
OPT_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that each phase of a compilation took."""

    parse: float
    codegen: float
    link: float

    @property
    def total(self) -> float:
        return self.parse + self.codegen + self.link


class NativeCode:
    """Machine code in memory. The addresses are valid until `close()`."""

    def __init__(self, addresses: dict[str, int], size: int, timings: Timings, engine: Any) -> None:
        self._addresses = addresses
        self.size = size
        self.timings = timings
        self._engine: Any = engine

    def address(self, symbol: str) -> int:
        """The address of an exported function; raises KeyError for a name not asked for."""
        if self._engine is None:
            raise RuntimeError(f"the module that holds {symbol} was closed")
        return self._addresses[symbol]

    @property
    def closed(self) -> bool:
        return self._engine is None

    def close(self) -> None:
        """Release code and constants. No call may be running, none may follow."""
        with _LOCK:
            if self._engine is None:
                return
            tracker, jit = self._engine
            self._engine = None
            tracker.close()
            jit.close()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None and _LOCK is not None:
            self.close()


def load(ir: str, target: Target, symbols: Sequence[str]) -> NativeCode:
    """Compile IR text and make the functions called `symbols` callable.

    Raises CompileError, which holds the text, where LLVM refuses it.
    """
    code, parsing, generating = compile_object(ir, target)
    return load_object(code, target, symbols, parsing, generating)


def compile_object(ir: str, target: Target) -> tuple[bytes, float, float]:
    """An object file of `ir`, with the seconds spent on parsing and on code generation."""
    with _LOCK:
        start = perf_counter()
        machine = _machine(target)
        module = _parse(ir, machine)
        parsed = perf_counter()
        try:
            code: bytes = machine.emit_object(module)
        except RuntimeError as error:
            raise _refused(ir, error) from error
        return code, parsed - start, perf_counter() - parsed


def load_object(
    code: bytes,
    target: Target,
    symbols: Sequence[str],
    parsing: float = 0.0,
    generating: float = 0.0,
) -> NativeCode:
    """Link an object file made by `compile_object` into this process.

    There is no check of `code` here: whoever kept it on disk must have checked it.
    """
    if not target.runs_here():
        raise CompileError(f"code for {target} cannot run on this machine")
    import llvmlite.binding as llvm

    with _LOCK:
        start = perf_counter()
        name = f"treadle{next(_NAMES)}"
        try:
            jit = llvm.create_lljit_compiler(_machine(target))
            library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
            for symbol in symbols:
                library.export_symbol(symbol)
            tracker = library.link(jit, name)
        except RuntimeError as error:
            raise CompileError(f"LLVM could not link {', '.join(symbols)}: {error}") from error
        addresses = {symbol: int(tracker[symbol]) for symbol in symbols}
        timings = Timings(parsing, generating, perf_counter() - start)
        return NativeCode(addresses, len(code), timings, (tracker, jit))


def assembly(ir: str, target: Target) -> str:
    """The assembly text of `ir` for `target`, which need not be this machine."""
    with _LOCK:
        machine = _machine(target)
        module = _parse(ir, machine)
        try:
            return str(machine.emit_assembly(module))
        except RuntimeError as error:
            raise _refused(ir, error) from error


def _parse(ir: str, machine: Any) -> Any:
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(ir, llvm.create_context())
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise _refused(ir, error) from error
    return module


def _refused(ir: str, error: RuntimeError) -> CompileError:
    return CompileError(f"LLVM refused a module: {error}\n\nThe module:\n\n{ir}")


@cache
def _machine(target: Target) -> Any:
    """LLVM's TargetMachine, made once for each Target."""
    import llvmlite.binding as llvm

    _initialize()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=OPT_LEVEL,
        reloc="pic",
        codemodel="small",
    )


@cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
