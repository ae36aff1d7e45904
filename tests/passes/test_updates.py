"""Updates of parameters mean outlined what they meant, and parameters of a type share a region."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Level, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.parser import parse_function
from treadle.ir.printer import print_function
from treadle.ir.types import TensorType, float32
from treadle.ir.verifier import verify
from treadle.passes import updates
from treadle.passes.manager import Pass, PassContext, run_pipeline
from treadle.passes.pipeline import PIPELINE

SHAPES = [(5, 3), (4,), (2, 1, 3), (5, 3), (1,), (7,), (4,), (3, 2)]
KINDS = ("neg", "abs", "add", "sub", "mul", "div", "maximum", "where", "sqrt")


def formula(b: Builder, rng: np.random.Generator, known: list[Value]) -> Value:
    """One more elementwise value of arrays of one shape and numbers."""
    array, other = known[rng.integers(2)], known[rng.integers(len(known))]
    kind = KINDS[rng.integers(len(KINDS))]
    if kind in ("neg", "abs", "sqrt"):
        return b.call(kind, array)
    if kind == "where":
        return b.where(b.call("gt", array, other), array, other)
    return b.call(kind, array, b.const(0.5, float32) if rng.integers(4) == 0 else other)


def step(seed: int, count: int, kept: bool) -> Function:
    """The same random update of each of `count` parameters; `kept`: of the gradients, too."""
    b = Builder("step")
    rate, decay = (b.param(TensorType(float32), name, "state") for name in ("rate", "decay"))
    scale = b.mul(rate, decay)
    results = []
    for n in range(count):
        rng = np.random.default_rng(seed)
        type = TensorType(float32, SHAPES[n % len(SHAPES)])
        p, m = (b.param(type, f"{name}{n}", "state") for name in "pm")
        known = [p, b.param(type, f"g{n}"), m, rate, scale]
        for _ in range(6):
            value = formula(b, rng, known)
            known[rng.integers(3)] = value
        results += [Result(b.sub(p, known[0]), f"p{n}", "state")]
        results += [Result(b.add(known[2], known[1]), f"m{n}", "state")]
        if kept:
            results.append(Result(b.mul(p, value), f"out{n}"))
    return b.finish(results)


def arguments(fn: Function) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(v.type.static_shape).astype(np.float32) for v in fn.inputs]


def outlined(fn: Function) -> Function:
    return updates.run(fn, PassContext("outline"))


def same(found: Function, fn: Function) -> None:
    args = arguments(fn)
    for x, y in zip(interpret(found, args), interpret(fn, args), strict=True):
        np.testing.assert_array_equal(x, y)


def without_outline() -> list[Pass]:
    return [p for p in PIPELINE if p.name != "outline"]


@pytest.mark.parametrize("kept", [False, True], ids=["state", "results"])
@pytest.mark.parametrize("seed", range(25))
def test_outlined_updates_give_the_same_bits(seed: int, kept: bool) -> None:
    fn = step(seed, 9, kept)
    found = outlined(fn)
    verify(found, Level.TRACED)
    same(found, fn)
    kernels = run_pipeline(fn, PIPELINE, verify="all")
    same(kernels, run_pipeline(fn, without_outline()))


def test_updates_of_one_type_share_a_region_and_read_back_from_text() -> None:
    found = outlined(step(3, 16, False))
    regions = [i.regions[0] for i in found.instrs if i.op.name == "update"]
    assert len(regions) in (16, 32)  # one for parameter and moment, or one for each
    assert len(set(map(id, regions))) == len(set(SHAPES)) * len(regions) // 16
    text = print_function(found)
    again = parse_function(text)
    verify(again, Level.TRACED)
    assert print_function(again) == text


def test_few_updates_and_those_that_others_read_stay_as_they_are() -> None:
    few = step(3, updates.MIN_ALIKE - 1, False)
    assert outlined(few) is few
    b = Builder("f")
    results = []
    for n in range(6):
        p = b.param(TensorType(float32, (4,)), f"p{n}", "state")
        new = b.mul(p, p)
        new = b.sub(p, new)
        results += [Result(new, f"p{n}", "state"), Result(b.sum(new, 0), f"out{n}")]
    read = b.finish(results)
    assert outlined(read) is read


@pytest.mark.parametrize("count", [8, 40])
def test_kernels_do_not_grow_with_the_parameters(count: int) -> None:
    kernels = run_pipeline(step(3, count, False), PIPELINE)
    loops = [i for i in kernels.instrs if i.regions]
    plain = run_pipeline(step(3, count, False), without_outline())
    assert len(loops) <= len([i for i in plain.instrs if i.regions]) <= 2
