"""Long programs: no recursion, and time that grows with their length."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import perf_counter

import pytest

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Level, Result
from treadle.ir.types import TensorType, float32
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import PIPELINE

TO_CORE = [p for p in PIPELINE if p.ensures < Level.KERNELS]


def chain(length: int) -> Function:
    """One op after the other, and the gradient through all of them."""
    b = Builder("f")
    x = b.call("variable", b.param(TensorType(float32, (8,)), "x"))
    h = x
    for _ in range(length // 3):
        h = b.neg(b.mul(b.call("sin", h), 0.5))
    (g,) = b.call_multi("gradient", h, b.ones_like(h), x, outputs=1)
    return b.finish([Result(h, "h"), Result(g, "g")])


def fan(length: int) -> Function:
    """One value with many users, whose cotangents all meet in it."""
    b = Builder("f")
    x = b.call("variable", b.param(TensorType(float32, (8,)), "x"))
    total = x
    for n in range(length // 3):
        total = b.add(total, b.mul(x, float(n)))
    (g,) = b.call_multi("gradient", total, b.ones_like(total), x, outputs=1)
    return b.finish([Result(total, "t"), Result(g, "g")])


def layouts(length: int) -> Function:
    """Layout upon layout, each with a user that could be part of a pattern."""
    b = Builder("f")
    h = total = b.param(TensorType(float32, (8,)), "x")
    for _ in range(length // 3):
        h = b.call("reshape", b.call("reshape", h, shape=(2, 4)), shape=(8,))
        total = b.add(h, total)
    return b.finish([Result(total, "t")])


def softmaxes(length: int) -> Function:
    """A hand-written softmax of a softmax of ..."""
    b = Builder("f")
    h = b.param(TensorType(float32, (4, 8)), "x")
    for _ in range(length // 3):
        e = b.exp(h)
        h = b.div(e, b.sum(e, 1, keepdims=True))
    return b.finish([Result(h, "h")])


@pytest.fixture
def _shallow() -> Iterator[None]:
    """Little room for recursion beyond what pytest itself takes."""
    before = sys.getrecursionlimit()
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    sys.setrecursionlimit(depth + 60)
    yield
    sys.setrecursionlimit(before)


def seconds(build: Callable[[int], Function], length: int) -> float:
    fn = build(length)
    started = perf_counter()
    run_pipeline(fn, TO_CORE)
    return perf_counter() - started


SHAPES = [chain, fan, layouts, softmaxes]


@pytest.mark.usefixtures("_shallow")
@pytest.mark.parametrize("build", SHAPES, ids=lambda f: f.__name__)
def test_passes_do_not_recurse_along_a_program(build: Callable[[int], Function]) -> None:
    run_pipeline(build(3000), TO_CORE)


@pytest.mark.parametrize("build", SHAPES, ids=lambda f: f.__name__)
def test_time_grows_with_the_length_of_a_program(build: Callable[[int], Function]) -> None:
    """Eight times the length: 8 times the time if linear, 64 if quadratic."""
    short = min(seconds(build, 750) for _ in range(3))
    assert seconds(build, 6000) < 30 * short
