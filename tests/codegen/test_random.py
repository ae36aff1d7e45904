"""The same numbers by every family's code, in any loop, at any vector width and thread count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native_call import compiled

from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.ir.types import DType, TensorType, float32, float64, int64, uint32

SEED, DRAW = np.array(-(7**20)), np.array(3**30)


def the_target(name: str) -> Target:
    target = host() if name == "host" else named(name)
    if not target.runs_here():
        pytest.skip(f"this machine lacks instructions of {name}")
    return target


def ulps(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance in units of the last place."""
    if not found.size:
        return 0.0
    gap = np.abs(found.astype(np.longdouble) - expected)
    return float(np.max(gap / np.spacing(np.abs(expected))))


def assert_same(found: np.ndarray, expected: np.ndarray, exact: bool) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        assert ulps(found, expected) <= 4


Make = Callable[[Builder, Any, Any], Any]


def program(make: Make) -> Function:
    b = Builder("f")
    seed, draw = (b.param(TensorType(int64), name) for name in ("seed", "draw"))
    return b.finish([Result(make(b, seed, draw), "y")])


def random(name: str, shape: tuple[int, ...], dtype: DType) -> Make:
    return lambda b, seed, draw: b.call(name, seed, draw, shape=shape, dtype=dtype)


# Rows that are whole blocks, that begin inside of one, that are shorter than a vector; vectors and
# single elements left over; axes that are joined and that are not.
SHAPES = [(0,), (), (1,), (2,), (3,), (17,), (64,), (100,), (1029,), (5, 64), (6, 36), (7, 30),
          (9, 33), (40, 3), (3, 1, 50), (2, 3, 4, 20), (1, 5000)]  # fmt: skip
OPS = [
    ("random_bits", uint32), ("random_bits", int64), ("random_uniform", float32),
    ("random_uniform", float64), ("random_normal", float32), ("random_normal", float64),
]  # fmt: skip


@pytest.mark.parametrize("name", ["host", *NAMES])
@pytest.mark.parametrize(("op", "dtype"), OPS, ids=lambda x: str(x))
def test_every_family_draws_the_same_numbers(name: str, op: str, dtype: DType) -> None:
    target = the_target(name)
    for shape in SHAPES:
        fn = program(random(op, shape, dtype))
        (found,) = compiled(fn, target).results(SEED, DRAW)
        (expected,) = interpret(fn, (SEED, DRAW))
        assert_same(found, expected, exact=op != "random_normal")


def transposed(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(36, 20), dtype=float32)
    return b.call("permute", x, perm=(1, 0))


def sliced(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(9, 70), dtype=float32)
    return b.call("slice", x, starts=(1, 3), steps=(2, 1), shape=(4, 61))


def flipped(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(5, 64), dtype=float32)
    return b.call("flip", x, axes=(1,))


def spread(b: Builder, seed: Any, draw: Any) -> Any:
    """One number a row, one a column, and one for all."""
    row = b.call("random_uniform", seed, draw, shape=(24, 1), dtype=float32)
    column = b.call("random_uniform", seed, draw, shape=(1, 40), dtype=float32, offset=1)
    one = b.call("random_uniform", seed, draw, shape=(), dtype=float32, offset=2)
    return b.add(b.add(row, column), one)


def two_sizes(b: Builder, seed: Any, draw: Any) -> Any:
    """Lanes of 4 and of 8 bytes in one loop."""
    x = b.call("random_uniform", seed, draw, shape=(11, 48), dtype=float32)
    y = b.call("random_uniform", seed, draw, shape=(11, 48), dtype=float64, offset=1)
    return b.add(b.call("cast", x, dtype=float64), y)


def largest_of_rows(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(33, 150), dtype=float32)
    return b.call("max", x, axes=(1,), keepdims=False)


def largest_of_columns(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(150, 33), dtype=float32)
    return b.call("max", x, axes=(0,), keepdims=False)


def largest_of_wide_columns(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(300, 1030), dtype=float32)
    return b.call("max", x, axes=(0,), keepdims=False)


def where_the_largest_is(b: Builder, seed: Any, draw: Any) -> Any:
    x = b.call("random_uniform", seed, draw, shape=(33, 150), dtype=float32)
    return b.call("argmax", x, axes=(1,), keepdims=False)


def less_the_largest(b: Builder, seed: Any, draw: Any) -> Any:
    """Drawn in two passes over a row."""
    x = b.call("random_uniform", seed, draw, shape=(12, 90), dtype=float32)
    return b.sub(x, b.call("max", x, axes=(1,), keepdims=True))


LOOPS = [transposed, sliced, flipped, spread, two_sizes, largest_of_rows, largest_of_columns,
         largest_of_wide_columns, where_the_largest_is, less_the_largest]  # fmt: skip


@pytest.mark.parametrize("name", ["host", *NAMES])
@pytest.mark.parametrize("make", LOOPS, ids=lambda m: m.__name__)
def test_every_loop_draws_the_same_numbers(make: Make, name: str) -> None:
    target = the_target(name)
    fn = program(make)
    (found,) = compiled(fn, target).results(SEED, DRAW)
    (expected,) = interpret(fn, (SEED, DRAW))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["host", *NAMES])
def test_an_epilogue_draws_the_same_mask(name: str) -> None:
    """Products of several shapes; the mask has the shape of the result, under which it is
    computed in pieces."""
    target = the_target(name)
    rng = np.random.default_rng(0)
    for rows, inner, columns in ((64, 16, 96), (37, 20, 30), (8, 5, 7)):
        b = Builder("f")
        seed, draw = (b.param(TensorType(int64), n) for n in ("seed", "draw"))
        x = b.param(TensorType(float32, (rows, inner)), "x")
        w = b.param(TensorType(float32, (inner, columns)), "w")
        even = b.call("random_uniform", seed, draw, shape=(rows, columns), dtype=float32)
        kept = b.ge(even, b.const(0.3, float32))
        fn = b.finish([Result(b.where(kept, b.call("matmul", x, w), 0.0), "y")])
        native = compiled(fn, target)
        assert [i.op.name for i in native.kernels.instrs] == ["contract"]
        args = [SEED, DRAW]
        args += [
            rng.standard_normal(s).astype(np.float32) for s in ((rows, inner), (inner, columns))
        ]
        (found,) = native.results(*args)
        (expected,) = interpret(fn, args)
        np.testing.assert_array_equal(found == 0, expected == 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_draws_the_same_numbers(threads: int) -> None:
    fn = program(random("random_uniform", (257, 1000), float32))
    (expected,) = interpret(fn, (SEED, DRAW))
    (found,) = compiled(fn).results(SEED, DRAW, threads=threads)
    np.testing.assert_array_equal(found, expected)


def test_normal_numbers_of_a_million_agree_to_4_ulp() -> None:
    for dtype in (float32, float64):
        fn = program(random("random_normal", (1 << 20,), dtype))
        (expected,) = interpret(fn, (SEED, DRAW))
        for name in NAMES:
            target = named(name)
            if target.runs_here():
                (found,) = compiled(fn, target).results(SEED, DRAW)
                assert ulps(found, expected) <= 4
