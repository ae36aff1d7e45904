"""Everything of a compilation but machine code: passes, memory plan, kernel plan, LLVM IR text.

Imported when something is compiled that is not in the disk cache.
"""

from __future__ import annotations

from time import perf_counter

from treadle.codegen.llvm import Module
from treadle.codegen.module import emit_module
from treadle.codegen.plan import plan_function
from treadle.codegen.target import Target
from treadle.ir.graph import Function
from treadle.passes.manager import Record, run_pipeline
from treadle.passes.memory import plan_memory
from treadle.passes.pipeline import pipeline
from treadle.runtime import knobs
from treadle.runtime.native import assembly
from treadle.runtime.stages import Compilation, Timing
from treadle.tracer.backend import CompileOptions


def compile_stages(
    fn: Function, options: CompileOptions, target: Target, library: Module | None = None
) -> Compilation:
    """Everything but machine code: works for any target, loads nothing. `library`: functions that
    are compiled apart."""
    record = Record()
    kernels = run_pipeline(fn, pipeline(), [record], verify=knobs.verify_mode())
    timings = [Timing(s.pass_.name, s.milliseconds) for s in record.steps]

    def timed(name: str, started: float) -> None:
        timings.append(Timing(name, (perf_counter() - started) * 1e3))

    started = perf_counter()
    memory = plan_memory(kernels)
    timed("memory", started)
    started = perf_counter()
    plan = plan_function(kernels, memory, target, winograd=options.winograd)
    timed("plan", started)
    started = perf_counter()
    emitted = emit_module(kernels, memory, plan, target, options, library)
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


def differentiated(fn: Function) -> Function:
    """A TRACED Function after the passes up to autodiff, as instructions that can be told apart:
    without regions for what is done to each parameter."""
    passes = pipeline()
    last = next(n for n, p in enumerate(passes) if p.name == "autodiff")
    chosen = [p for p in passes[: last + 1] if p.name != "outline"]
    return run_pipeline(fn, chosen, [], verify=knobs.verify_mode())
