"""From a traced Function to machine code that can be called: from the disk cache, or compiled.

The cache's key is taken from the trace, so that what is found there saves all passes, planning,
emission and LLVM's work, and most of the compiler is not even imported. The trace itself, with its
guards and the user's lines, is of this process always: stages and the places of run-time errors
are made from it where they are asked for.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from treadle.codegen.target import Target, host, named
from treadle.ir.collection import paused
from treadle.ir.errors import CompileError
from treadle.ir.forking import no_fork
from treadle.ir.graph import Function
from treadle.runtime import cache, knobs
from treadle.runtime.cache_key import program_key
from treadle.runtime.executable import NativeExecutable
from treadle.runtime.interface import Interface, interface_of
from treadle.runtime.native import compile_object, load_objects
from treadle.runtime.progress import progress
from treadle.tracer.backend import CompileOptions

if TYPE_CHECKING:
    from treadle.runtime.host import HostCalls
    from treadle.runtime.stages import Compilation


class NativeCompiler:
    """Implements `treadle.tracer.backend.Compiler`."""

    def compile(self, fn: Function, options: CompileOptions) -> NativeExecutable:
        """A TRACED Function for the target of `TREADLE_TARGET`, compiled or kept, and loaded.

        Raises CompileError where LLVM refuses the module or the host lacks the target's
        instructions.
        """
        target = chosen_target()
        if not target.runs_here():
            raise CompileError(
                f"this machine cannot run code for {target.name} (TREADLE_TARGET); "
                f"`treadle dump --stage asm` shows it without running"
            )
        key = _key(fn, options, target)
        found = _kept(key, fn, options, target) if key is not None else None
        return found if found is not None else _compiled(key, fn, options, target)

    def differentiated(self, fn: Function) -> Function:
        """The passes up to autodiff."""
        from treadle.runtime.lower import differentiated

        return differentiated(fn)


def chosen_target() -> Target:
    """The target that `TREADLE_TARGET` names, the host's by default."""
    name = knobs.target_name()
    return host() if name == "host" else named(name)


def compile_stages(fn: Function, options: CompileOptions, target: Target) -> Compilation:
    """Everything but machine code: works for any target, loads nothing."""
    with no_fork:
        from treadle.runtime import lower  # what a program from the disk cache does not need

    return lower.compile_stages(fn, options, target)


def _key(fn: Function, options: CompileOptions, target: Target) -> str | None:
    """The program's key; None where it is not to be found or kept on disk. Who asks for each pass
    to be verified wants the passes to run."""
    if not cache.is_on() or knobs.verify_mode() == "all":
        return None
    return program_key(fn, target, options)


def _kept(
    key: str, fn: Function, options: CompileOptions, target: Target
) -> NativeExecutable | None:
    """The program from the disk cache, if it is there."""
    started = perf_counter()
    found = cache.fetch(key)
    if found is None or found[1] is None:
        return None
    data, interface = found[0], found[1]
    try:
        code = load_objects(_separate(data, interface), target)
    except CompileError:  # whole, but LLVM does not take it: compiled anew and replaced
        return None
    seconds = perf_counter() - started
    host = _host_calls(interface, fn)
    return NativeExecutable(
        interface, code, seconds, lambda: compile_stages(fn, options, target), host
    )


def _host_calls(interface: Interface, fn: Function) -> HostCalls | None:
    """What the program calls in Python. Raises TraceError where this process does not have it."""
    if not interface.host_calls:
        return None
    from treadle.runtime.host import HostCalls  # seldom

    return HostCalls(interface.host_calls, fn)


def _separate(code: bytes, interface: Interface) -> list[bytes]:
    """The object files that stand in an entry one after the other."""
    ends = list(itertools.accumulate(interface.objects))
    return [code[end - size : end] for end, size in zip(ends, interface.objects, strict=True)]


def _compiled(
    key: str | None, fn: Function, options: CompileOptions, target: Target
) -> NativeExecutable:
    started = perf_counter()
    with progress(fn), paused():
        with no_fork:
            from treadle.runtime import ahead, lower
        library = ahead.begun(fn, options, target)
        module = None if library is None else library.module
        compilation = lower.compile_stages(fn, options, target, module)
        emitted = compilation.emitted
        data, parsing, generating = compile_object(emitted.apart or emitted.ir, target)
        objects = [data]
        if library is not None and emitted.apart is not None:
            objects.append(library.object())
        code = load_objects(objects, target, parsing, generating)
    interface = interface_of(compilation, objects)
    seconds = perf_counter() - started
    if key is not None:
        cache.keep(key, b"".join(objects), interface)
    from treadle.runtime.stages import Timing

    timings = (*compilation.timings, *(Timing(n, ms) for n, ms in code.times.items()))
    whole = replace(compilation, timings=timings)
    return NativeExecutable(interface, code, seconds, lambda: whole, _host_calls(interface, fn))
