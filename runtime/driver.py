"""From a traced Function to machine code: passes, memory plan, kernel plan, LLVM, load."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from treadle.codegen.module import emit_module
from treadle.codegen.plan import plan_function
from treadle.codegen.target import Target, host, named
from treadle.ir.errors import CompileError
from treadle.ir.graph import Function
from treadle.passes.manager import Record, run_pipeline
from treadle.passes.memory import plan_memory
from treadle.passes.pipeline import pipeline
from treadle.runtime import knobs
from treadle.runtime.executable import NativeExecutable
from treadle.runtime.interface import interface_of
from treadle.runtime.native import assembly, load
from treadle.runtime.stages import Compilation, Timing
from treadle.tracer.backend import CompileOptions


class NativeCompiler:
    """Implements `treadle.tracer.backend.Compiler`."""

    def compile(self, fn: Function, options: CompileOptions) -> NativeExecutable:
        """Compile a TRACED Function for the target of `TREADLE_TARGET` and load it.

        Raises CompileError where LLVM refuses the module or the host lacks the target's
        instructions.
        """
        started = perf_counter()
        target = chosen_target()
        if not target.runs_here():
            raise CompileError(
                f"this machine cannot run code for {target.name} (TREADLE_TARGET); "
                f"`treadle dump --stage asm` shows it without running"
            )
        compilation = compile_stages(fn, options, target)
        code = load(compilation.emitted.ir, target)
        timings = (*compilation.timings, *(Timing(n, ms) for n, ms in code.times.items()))
        whole = replace(compilation, timings=timings)
        seconds = perf_counter() - started
        return NativeExecutable(interface_of(whole), code, seconds, lambda: whole)

    def differentiated(self, fn: Function) -> Function:
        """The passes up to autodiff."""
        passes = pipeline()
        last = next(n for n, p in enumerate(passes) if p.name == "autodiff")
        return run_pipeline(fn, passes[: last + 1], [], verify=knobs.verify_mode())


def chosen_target() -> Target:
    """The target that `TREADLE_TARGET` names, the host's by default."""
    name = knobs.target_name()
    return host() if name == "host" else named(name)


def compile_stages(fn: Function, options: CompileOptions, target: Target) -> Compilation:
    """Everything but machine code: works for any target, loads nothing."""
    record = Record()
    kernels = run_pipeline(fn, pipeline(), [record], verify=knobs.verify_mode())
    timings = [Timing(s.pass_.name, s.milliseconds) for s in record.steps]

    def timed(name: str, started: float) -> None:
        timings.append(Timing(name, (perf_counter() - started) * 1e3))

    started = perf_counter()
    memory = plan_memory(kernels)
    timed("memory", started)
    started = perf_counter()
    plan = plan_function(kernels, memory, target)
    timed("plan", started)
    started = perf_counter()
    emitted = emit_module(kernels, memory, plan, target, options)
    timed("emit", started)
    return Compilation(
        traced=fn,
        steps=tuple(record.steps),
        memory=memory,
        plan=plan,
        emitted=emitted,
        target=target,
        timings=tuple(timings),
        assembly=lambda: assembly(emitted.ir, target),
    )
