"""Random programs mean the same before and after each pass.

Bit for bit for canonicalize, fold, cse and dce; for expand and stabilize, in float64, within
rounding; autodiff against central differences.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataclasses import replace

from programs import EVERYTHING, EXACT, SMOOTH, Program, programs, seeded, uncovered_ops

from treadle.ir.graph import Function, Level
from treadle.ir.interpreter import interpret
from treadle.ir.types import bool_, float32, int32
from treadle.ir.verifier import verify
from treadle.passes import autodiff, canonicalize, cse, dce, expand, fold, stabilize
from treadle.passes.manager import Pass, PassContext, run_pass, run_pipeline
from treadle.passes.pipeline import PIPELINE

Array = npt.NDArray[Any]

BITWISE = (cse.EARLY, canonicalize.PASS, fold.PASS, cse.PASS, dce.PASS)
_REWRITTEN_OPS = """
    neg add sub mul div pow abs where logical_not eq lt cast sum max reshape permute broadcast_to
    flip slice slice_update
"""
REWRITTEN = replace(
    EVERYTHING,
    ops=frozenset(_REWRITTEN_OPS.split()),
    dtypes=(float32, int32, bool_),
    steps=40,
)
DIFFERENTIATED = replace(SMOOTH, gradients=True, steps=8)
IDIOMS = replace(
    SMOOTH,
    ops=frozenset({"softmax_idiom", "mul", "sub", "add", "slice", "reshape", "sum"}),
    steps=6,
)


def same_bits(found: Sequence[Array], expected: Sequence[Array]) -> None:
    """Equal, signs of zeros included; a NaN is a NaN."""
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        np.testing.assert_array_equal(f, e)
        if f.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(f[f == 0]), np.signbit(e[e == 0]))


def close(found: Sequence[Array], expected: Sequence[Array], bound: float) -> None:
    """Within `bound` of the largest magnitude of each result."""
    for f, e in zip(found, expected, strict=True):
        scale = max(1.0, float(np.max(np.abs(e), initial=0.0)))
        np.testing.assert_allclose(f, e, rtol=0, atol=bound * scale)


def after(pass_: Pass, fn: Function) -> Function:
    ctx = PassContext(pass_.name)
    done = run_pass(pass_, fn, ctx)
    assert not [note for note in ctx.notes if note.kind == "budget"]
    return done


def test_random_programs_hold_every_op() -> None:
    assert uncovered_ops() == []


@pytest.mark.parametrize("pass_", BITWISE, ids=lambda p: p.name)
@given(program=programs(EVERYTHING))
@settings(max_examples=80)
def test_results_are_the_same_bits(pass_: Pass, program: Program) -> None:
    done = after(pass_, program.fn)
    verify(done, Level.TRACED)
    same_bits(interpret(done, program.arrays), interpret(program.fn, program.arrays))


@pytest.mark.parametrize("pass_", BITWISE, ids=lambda p: p.name)
def test_results_are_the_same_bits_over_a_sweep(pass_: Pass) -> None:
    for seed in range(600):
        program = seeded(seed, EVERYTHING if seed % 4 == 0 else REWRITTEN)
        done = after(pass_, program.fn)
        try:
            same_bits(interpret(done, program.arrays), interpret(program.fn, program.arrays))
        except AssertionError as error:
            error.add_note(f"seed {seed}: {program}\nbecame\n{done}")
            raise


@given(program=programs(replace(EXACT, steps=25)))
@settings(max_examples=60)
def test_results_are_the_same_bits_after_all_of_them(program: Program) -> None:
    done = run_pipeline(program.fn, BITWISE, verify="all")
    same_bits(interpret(done, program.arrays), interpret(program.fn, program.arrays))


@pytest.mark.parametrize("pass_", BITWISE, ids=lambda p: p.name)
@given(program=programs(EXACT))
@settings(max_examples=40)
def test_nothing_is_left_for_a_second_run(pass_: Pass, program: Program) -> None:
    once = after(pass_, program.fn)
    assert after(pass_, once) is once


@given(program=programs(SMOOTH))
@settings(max_examples=150)
def test_expansions_mean_their_composites(program: Program) -> None:
    done = after(expand.PASS, program.fn)
    verify(done, Level.CORE)
    expected = interpret(program.fn, program.arrays)
    assume(all(np.all(np.abs(e) < 1e6) for e in expected))
    close(interpret(done, program.arrays), expected, 1e-9)


@given(program=programs(IDIOMS))
@settings(max_examples=150)
def test_stabilized_programs_mean_the_same_at_tame_values(program: Program) -> None:
    done = after(stabilize.PASS, program.fn)
    verify(done, Level.TRACED)
    expected = interpret(program.fn, program.arrays)
    assume(all(np.all(np.abs(e) < 100) for e in expected))
    close(interpret(done, program.arrays), expected, 1e-9)


def directional(fn: Function, arrays: Sequence[Array], along: Sequence[Array], h: float) -> float:
    """The central difference of the first result of `fn`."""
    up, down = (
        interpret(fn, [a + s * h * d for a, d in zip(arrays, along, strict=True)])[0]
        for s in (1, -1)
    )
    return float((up - down) / (2 * h))


@given(program=programs(DIFFERENTIATED))
@settings(max_examples=120)
def test_gradients_are_central_differences(program: Program) -> None:
    fn = run_pipeline(program.fn, [cse.EARLY, stabilize.PASS, autodiff.PASS], verify="all")
    variables = len(fn.params)
    *_, loss = fn.results[: len(fn.results) - variables]
    gradients = interpret(fn, program.arrays)[-variables:]
    rng = np.random.default_rng(0)
    along = [rng.standard_normal(a.shape) for a in program.arrays]
    alone = replace(fn, results=(loss,))
    coarse, fine = (directional(alone, program.arrays, along, h) for h in (2e-5, 1e-5))
    assume(abs(coarse) < 1e4 and abs(coarse - fine) < 1e-6 * max(1, abs(coarse)))
    total = sum(float(np.sum(g * d)) for g, d in zip(gradients, along, strict=True))
    assert total == pytest.approx(fine, rel=1e-5, abs=1e-5)


@given(program=programs(DIFFERENTIATED))
@settings(max_examples=60)
def test_later_passes_keep_the_gradients(program: Program) -> None:
    to_core = [p for p in PIPELINE if p.ensures < Level.KERNELS]
    early = run_pipeline(program.fn, [cse.EARLY, stabilize.PASS, autodiff.PASS])
    late = run_pipeline(program.fn, to_core, verify="all")
    expected = interpret(early, program.arrays)
    assume(all(np.all(np.abs(e) < 1e6) for e in expected))
    close(interpret(late, program.arrays), expected, 1e-8)
