"""LLVM IR text to machine code in this process, or to assembly, through llvmlite's binding.

LLVM's IR passes are left out: the emitters write what its code generator wants to see. Measured on
softmax, GELU, sums, a transpose, a product and a normalisation with its gradient, instcombine, GVN,
sinking and simplifycfg add 2 to 11 ms a module, all of O2 6 to 80 ms, for speeds within the noise.
Each compiled module has a link unit of its own, so that closing it gives all its memory back. LLVM
is entered by one thread at a time.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from time import perf_counter
from typing import Any, Final

from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CompileError
from treadle.ir.forking import fork_waits_for, no_fork
from treadle.runtime.room import make_sure_of_room

_LOCK: Final = no_fork  # the child of a fork finds LLVM at rest
_NAMES: Final = count()

# All code by its name, as (jit, trackers). Held here and not by `NativeCode` alone, so that the
# collector of cycles, which finalizes in any order, leaves closing them to us.
_LOADED: Final[dict[str, tuple[Any, list[Any]]]] = {}
# The names of code whose holder has died.
_DEAD: Final[deque[str]] = deque()


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, this thread alone may enter LLVM, and no fork happens."""
    with _LOCK:
        yield
    _bury()


def _bury() -> None:
    """Release what has died, unless a thread is in LLVM: that one will do it when it leaves."""
    while _DEAD and _LOCK.acquire(blocking=False):
        try:
            while _DEAD:
                _release(_DEAD.popleft())
        finally:
            _LOCK.release()


def _release(name: str) -> None:
    jit, trackers = _LOADED.pop(name)
    for tracker in reversed(trackers):
        tracker.close()
    jit.close()


def _lock_of_llvmlite() -> Any:
    """llvmlite takes a lock of its own for each call; other libraries may be in one (Numba). There
    is no public name for it; None where it has another one."""
    ffi = sys.modules.get("llvmlite.binding.ffi")
    return getattr(getattr(getattr(ffi, "lib", None), "_lock", None), "_lock", None)


fork_waits_for(_lock_of_llvmlite)

# The code generator's effort. Levels 1 to 3 give the same speed on the kernels above and compile
# within a tenth of each other; level 0 compiles in half the time, for code up to twice as slow.
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

    def __init__(self, name: str, jit: Any, tracker: Any, size: int, timings: Timings) -> None:
        self.size = size
        self.timings = timings
        self._name = name
        self._jit = jit
        self._trackers = [tracker]
        _LOADED[name] = (jit, self._trackers)
        self._addresses: dict[str, int] = {}

    def address(self, symbol: str) -> int:
        """The address of a function that is not internal.

        Raises CompileError where there is none of that name, or after `close()`.
        """
        with compiling():
            if symbol not in self._addresses:
                self._addresses[symbol] = self._look_up(symbol)
            return self._addresses[symbol]

    def _look_up(self, symbol: str) -> int:
        if self.closed:
            raise CompileError(f"the code that holds {symbol} was released")
        try:
            tracker = self._jit.lookup(self._name, symbol)
        except RuntimeError as error:
            raise CompileError(f"compiled code has no function {symbol}: {error}") from error
        self._trackers.append(tracker)
        return int(tracker[symbol])

    @property
    def times(self) -> dict[str, float]:
        """Milliseconds of each phase, by name."""
        t = self.timings
        seconds = {"llvm parse": t.parse, "llvm codegen": t.codegen, "llvm link": t.link}
        return {name: s * 1e3 for name, s in seconds.items()}

    @property
    def closed(self) -> bool:
        return self._jit is None

    def close(self) -> None:
        """Release code and constants. No call may be running, none may follow."""
        with compiling():
            if self._jit is None:
                return
            _release(self._name)
            self._jit, self._addresses = None, {}

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At interpreter exit LLVM, and this module's names, may be gone before this object; the
        # memory goes anyway. Else: the collector of cycles calls this on any thread at any moment,
        # be it one that holds a lock for which a thread waits that is in LLVM. So this never waits.
        if not is_finalizing() and getattr(self, "_jit", None) is not None:
            _DEAD.append(self._name)
            _bury()


def versions() -> tuple[str, str]:
    """Those of llvmlite and LLVM. Raises ImportError or OSError where they do not load."""
    import llvmlite
    import llvmlite.binding as llvm

    return llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info))


def load(ir: str, target: Target) -> NativeCode:
    """Compile IR text and make its functions callable in this process.

    Raises CompileError, which holds the text, where LLVM refuses it.
    """
    code, parsing, generating = compile_object(ir, target)
    return load_object(code, target, parsing, generating)


def compile_object(ir: str, target: Target) -> tuple[bytes, float, float]:
    """An object file of `ir`, with the seconds spent on parsing and on code generation."""
    with compiling():
        return _compile(ir, target)


def _compile(ir: str, target: Target) -> tuple[bytes, float, float]:
    """A function of its own, so that the module is gone before the lock is."""
    start = perf_counter()
    make_sure_of_room(len(ir))
    machine = _machine(target)
    module = _parse(ir, machine)
    parsed = perf_counter()
    try:
        code: bytes = machine.emit_object(module)
    except RuntimeError as error:
        raise _refused(ir, error) from error
    return code, parsed - start, perf_counter() - parsed


def load_object(
    code: bytes, target: Target, parsing: float = 0.0, generating: float = 0.0
) -> NativeCode:
    """Link an object file made by `compile_object` into this process; see `load_objects`."""
    return load_objects((code,), target, parsing, generating)


def load_objects(
    objects: Sequence[bytes], target: Target, parsing: float = 0.0, generating: float = 0.0
) -> NativeCode:
    """Link object files made by `compile_object` into this process, with each other.

    There is no check of them here: whoever kept them on disk must have checked them.
    """
    if not target.runs_here():
        raise CompileError(f"code for {target} cannot run on this machine")
    import llvmlite.binding as llvm

    with compiling():
        start = perf_counter()
        make_sure_of_room(sum(map(len, objects)))
        name = f"treadle{next(_NAMES)}"
        try:
            jit = llvm.create_lljit_compiler(_machine(target))
            builder = llvm.JITLibraryBuilder().add_current_process()
            for code in objects:
                builder.add_object_img(code)
            tracker = builder.link(jit, name)
        except RuntimeError as error:
            raise CompileError(f"LLVM could not link a module: {error}") from error
        timings = Timings(parsing, generating, perf_counter() - start)
        return NativeCode(name, jit, tracker, sum(map(len, objects)), timings)


def assembly(ir: str, target: Target) -> str:
    """The assembly text of `ir` for `target`, which need not be this machine."""
    with compiling():
        return _assembly(ir, target)


def _assembly(ir: str, target: Target) -> str:
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
    # Loop strength reduction takes half of the code generator's time on a module with a matrix
    # product (50 ms of LLVM 22 become 24) and gains nothing: loops are emitted with the addresses
    # that it would look for.
    llvm.set_option("treadle", "-disable-lsr")
