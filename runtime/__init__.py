"""Compile, cache, load, call.

Importing this package registers the compiler with the tracer; passes, code generation and LLVM are
imported when the first function is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from treadle.ir.forking import no_fork
from treadle.ir.graph import Function
from treadle.runtime.knobs import explains, full_tracebacks
from treadle.tracer.backend import (
    CompileOptions,
    DirectCall,
    Dispatcher,
    Profile,
    register_call_path,
    register_compiler,
)  # fmt: skip
from treadle.tracer.explain import set_explain
from treadle.tracer.traceback import set_traceback

if TYPE_CHECKING:
    from treadle.runtime.executable import NativeExecutable


class _OnFirstUse:
    """The native compiler, imported when it is first asked for something."""

    def compile(self, fn: Function, options: CompileOptions) -> NativeExecutable:
        with no_fork:
            from treadle.runtime.driver import NativeCompiler

        return NativeCompiler().compile(fn, options)

    def profile(
        self,
        fn: Function,
        options: CompileOptions,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int | None,
        repeat: int,
    ) -> Profile:
        from treadle.runtime.profile import profile_function

        return profile_function(fn, options, arrays, threads, repeat)

    def differentiated(self, fn: Function) -> Function:
        with no_fork:
            from treadle.runtime.driver import NativeCompiler

        return NativeCompiler().differentiated(fn)


class _CallPathOnFirstUse:
    """The native call path, imported with the compiler."""

    def call(self, spec: Any, plan: Any, arguments: int) -> DirectCall | None:
        with no_fork:
            from treadle.runtime.call import CallPath

        return CallPath().call(spec, plan, arguments)

    def connect(self, calls: Sequence[DirectCall]) -> tuple[Dispatcher, Callable[..., Any]] | None:
        with no_fork:
            from treadle.runtime.call import CallPath

        return CallPath().connect(calls)


register_compiler(_OnFirstUse())
register_call_path(_CallPathOnFirstUse())
set_traceback("full" if full_tracebacks() else "user")
set_explain(explains())
