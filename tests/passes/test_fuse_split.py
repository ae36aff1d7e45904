"""Large reductions to a few elements get partial results, so that threads can share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.ir.graph import Function
from treadle.ir.parser import parse_function
from treadle.passes import fuse_split


def _of(text: str) -> Function:
    return parse_function(text)


SUM = """func @f(%0: f32[4096, 128] "x") {
  %1: f32[4096, 128] = mul(%0, %0)
  %2: f32[1, 1] = sum(%1, axes=(0, 1), keepdims=True)
  return %2 "out"
}
"""


def test_a_large_sum_gets_partial_results() -> None:
    found = str(fuse_split.run(_of(SUM)))
    assert "reshape(%0, shape=(16, 256, 128))" in found
    assert "axes=(1, 2), keepdims=True" in found
    assert "axes=(0,), keepdims=True" in found


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("4096", "256"),  # small
        ("f32[1, 1] = sum(%1, axes=(0, 1)", "f32[4096, 1] = sum(%1, axes=(1,)"),  # keeps many
        ("4096", "4095"),  # no parts of equal size
        ('return %2 "out"', 'return %2 "out", %1 "square"'),  # stored anyway, in one loop
    ],
)
def test_what_gains_nothing_stays_whole(was: str, becomes: str) -> None:
    fn = _of(SUM.replace(was, becomes))
    assert fuse_split.run(fn) is fn


CHANNELS = """func @f(%0: f32[16, 32, 64, 64] "x") {
  %1: f32[16, 32, 64, 64] = mul(%0, %0)
  %2: f32[1, 32, 1, 1] = sum(%1, axes=(0, 2, 3), keepdims=True)
  return %1 "square", %2 "out"
}
"""


def test_a_sum_of_channels_goes_plane_by_plane() -> None:
    found = str(fuse_split.run(_of(CHANNELS)))
    assert "f32[16, 32, 1, 1] = sum(%1, axes=(2, 3), keepdims=True)" in found
    assert "f32[1, 32, 1, 1] = sum(%2, axes=(0,), keepdims=True)" in found


@pytest.mark.parametrize(("was", "becomes"), [("64, 64", "15, 17"), ("16, 32, 64", "1, 32, 64")])
def test_small_planes_and_single_images_stay_whole(was: str, becomes: str) -> None:
    fn = _of(CHANNELS.replace(was, becomes))
    assert fuse_split.run(fn) is fn


PROGRAMS: list[Callable[[Any], Any]] = [
    treadle.sum,
    treadle.max,
    lambda x: treadle.mean((x - 1) * (x - 1)),
    lambda x: treadle.sum(treadle.reshape(x, (-1, 8)), axis=0),
    lambda x: treadle.sum(treadle.reshape(x, (32, 8, -1)) ** 2, axis=(0, 2)),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_split_reductions_have_the_same_bits_for_any_number_of_threads(
    program: Callable[[Any], Any],
) -> None:
    x = np.random.default_rng(0).standard_normal((2048, 256), dtype=np.float32)
    wide = program(treadle.tensor(x.astype(np.float64), dtype="float64")).numpy()
    found = []
    for threads in (1, 2, 3, 4, 8):
        step = treadle.jit(program, threads=threads)
        found.append(step(treadle.tensor(x)).numpy())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    np.testing.assert_allclose(found[0], wide, rtol=1e-5, atol=1e-2)
