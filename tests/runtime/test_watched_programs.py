"""Random programs tell watchers the same values compiled as interpreted, in the same order."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from programs import EXACT, Program, programs

from treadle.ir.errors import IndexFault
from treadle.ir.graph import Function
from treadle.ir.interpreter import interpret
from treadle.ir.op import get_op
from treadle.ir.ops.host_calls import WatchAttrs
from treadle.passes.copier import Copier
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import pipeline
from treadle.runtime.driver import NativeCompiler
from treadle.tracer.backend import CompileOptions
from treadle.tracer.watching import watching

Told = list[tuple[str, Any]]
_EVERY = 3


def watched(fn: Function) -> Function:
    """`fn` that watches every third value that it computes."""
    copier = Copier(fn)
    for number, instr in enumerate(fn.instrs):
        kept = copier.keep(instr)
        if number % _EVERY == 0 and kept.results:
            copier.builder.emit(get_op("watch"), (kept.results[0],), WatchAttrs(f"w{number}"))
    copier.leave_out()  # there is something else now
    return copier.finish()


def run(program: Program, compiled: bool) -> tuple[Told, list[Any] | None]:
    """What is told, and the results; None for a fault."""
    told: Told = []
    with watching(lambda name, array: told.append((name, array))):
        try:
            if compiled:
                executable = NativeCompiler().compile(program.fn, CompileOptions())
                arrays = [np.array(a, order="C") for a in program.arrays]
                return told, executable.run(arrays)
            passes = [p for p in pipeline() if p.name != "fuse"]
            return told, interpret(run_pipeline(program.fn, passes), program.arrays)
        except IndexFault:
            return told, None


@given(programs(EXACT))
@settings(max_examples=40, deadline=None)
def test_watched_values_are_those_of_the_program_in_its_order(program: Program) -> None:
    program = replace(program, fn=watched(program.fn))
    told, results = run(program, compiled=True)
    expected, wanted = run(program, compiled=False)
    assert (results is None) == (wanted is None)
    if results is None or wanted is None:
        return  # which of them came before the fault is not promised
    assert [name for name, _ in told] == [name for name, _ in expected]
    for (_, found), (_, value) in zip(told, expected, strict=True):
        np.testing.assert_array_equal(found, value)
    for found, value in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(found, value)
