"""Random programs give the same results compiled as interpreted.

Bit for bit for arithmetic, comparison and data movement; within rounding (float64, against the
same program interpreted after all passes) for vector maths, reductions and contractions. A program
that failed once is kept in `tests/golden/compiled/` and run again at every test.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataclasses import replace

from programs import EXACT, SMOOTH, Program, programs

from treadle.ir.errors import IndexFault
from treadle.ir.interpreter import interpret
from treadle.ir.parser import parse_function
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import pipeline
from treadle.runtime.driver import NativeCompiler
from treadle.tracer.backend import CompileOptions

KEPT = sorted((Path(__file__).parents[1] / "golden" / "compiled").glob("*.ir"))
DIFFERENTIATED = replace(SMOOTH, gradients=True, steps=8)


def compiled_results(program: Program) -> list[np.ndarray] | None:
    """What the machine code gives; None where it reports a fault. No argument is changed."""
    exe = NativeCompiler().compile(program.fn, CompileOptions())
    given_arrays = [np.array(a, order="C") for a in program.arrays]
    try:
        return exe.run(given_arrays)
    except IndexFault:
        return None


def interpreted_results(program: Program) -> list[np.ndarray] | None:
    """The reference: the program after all passes but fusion, op by op."""
    passes = [p for p in pipeline() if p.name != "fuse"]
    try:
        return interpret(run_pipeline(program.fn, passes), program.arrays)
    except IndexFault:
        return None


@given(programs(EXACT))
@settings(max_examples=60, deadline=None)
def test_exact_programs_are_compiled_bit_for_bit(program: Program) -> None:
    found, expected = compiled_results(program), interpreted_results(program)
    assert (found is None) == (expected is None)
    for f, e in zip(found or [], expected or [], strict=True):
        assert f.dtype == e.dtype
        np.testing.assert_array_equal(f, e)
        if f.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(f[f == 0]), np.signbit(e[e == 0]))


@given(programs(DIFFERENTIATED))
@settings(max_examples=40, deadline=None)
def test_programs_with_gradients_are_compiled_within_rounding(program: Program) -> None:
    found, expected = compiled_results(program), interpreted_results(program)
    assert (found is None) == (expected is None)
    for f, e in zip(found or [], expected or [], strict=True):
        tolerance = 1e-10 if f.dtype == np.float64 else 1e-3
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_programs_that_failed_once_stay_right(path: Path) -> None:
    fn = parse_function(path.read_text(encoding="utf-8"), path.name)
    rng = np.random.default_rng(0)
    arrays = [
        (rng.standard_normal(v.type.static_shape) * 2).astype(v.type.dtype.dtype) for v in fn.inputs
    ]
    program = Program(fn, tuple(arrays))
    found, expected = compiled_results(program), interpreted_results(program)
    for f, e in zip(found or [], expected or [], strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5)
