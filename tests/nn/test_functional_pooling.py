"""Pools as functions: what is refused in which words, and what programs they become.

Results and gradients are compared with PyTorch's in tests/torch_agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor
from treadle.nn.functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)

X = treadle.ones((2, 3, 8, 9))

BAD: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: max_pool2d(x, 0), treadle.ArgumentError, "kernel_size must be at least 1, found 0"),
    (lambda x: max_pool2d(x, (2, 2, 2)), treadle.ShapeError, "kernel_size must have one entry or"),
    (lambda x: max_pool2d(x, 2.0), treadle.DTypeError, "kernel_size must be an int, found float"),
    (lambda x: max_pool2d(x, 2, stride=0), treadle.ArgumentError, "stride must be at least 1"),
    (lambda x: max_pool2d(x, 2, dilation=-1), treadle.ArgumentError, "dilation must be at least"),
    (lambda x: max_pool2d(x, 3, padding=2), treadle.ArgumentError,
     "max_pool2d: padding must be at most half of the kernel's 3 elements, found 2"),
    (lambda x: max_pool2d(x, 9), treadle.ShapeError,
     "a kernel that spans 9 elements has no window on spatial axis 0, of size 8"),
    (lambda x: max_pool2d(x, 3, dilation=(1, 5)), treadle.ShapeError, "spans 11 elements"),
    (lambda x: max_pool2d(x, 2, ceil_mode=1), treadle.DTypeError, "ceil_mode must be a bool"),
    (lambda x: max_pool2d(x[0, 0], 2), treadle.ShapeError, r"input must be \[N, C, H, W\] or"),
    (lambda x: max_pool1d(x, 2), treadle.ShapeError, r"max_pool1d: input must be \[N, C, L\] or"),
    (lambda x: max_pool2d(treadle.astype(x, treadle.int64), 2), treadle.DTypeError,
     "max_pool2d: input must be float32 or float64, found i64"),
    (lambda x: avg_pool2d(x, 2, divisor_override=0), treadle.ArgumentError, "must not be 0"),
    (lambda x: avg_pool2d(x, 2, padding=2), treadle.ArgumentError, "avg_pool2d: padding must be"),
    (lambda x: avg_pool1d(x[0], 10), treadle.ShapeError, "no window on spatial axis 0, of size 9"),
    (lambda x: adaptive_avg_pool2d(x, 0), treadle.ArgumentError, "output_size must be at least 1"),
    (lambda x: adaptive_avg_pool2d(x, (1, 2, 3)), treadle.ShapeError, "output_size must have 2 en"),
    (lambda x: adaptive_max_pool1d(x[0, :, :0], 1), treadle.ShapeError, "an axis without elements"),
]  # fmt: skip


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jitted"])
@pytest.mark.parametrize(("call", "error", "message"), BAD[:-1])
def test_what_does_not_fit_is_named_with_the_users_line(
    call: Callable[[Any], Any], error: type[Exception], message: str, jitted: bool
) -> None:
    with pytest.raises(error, match=message) as raised:
        (treadle.jit(call) if jitted else call)(X)
    assert f"(at {Path(__file__)}:" in str(raised.value)


def test_an_adaptive_pool_of_nothing_is_refused() -> None:
    with pytest.raises(treadle.ShapeError, match="has a spatial axis without elements"):
        adaptive_max_pool1d(treadle.ones((2, 3, 0)), 1)


def kernels(fn: Callable[..., Any], *args: Tensor) -> list[str]:
    """What runs at KERNELS level: the ops that compute or move anything."""
    text = treadle.jit(fn).ir("fuse", *args)
    lines = [line.strip() for line in text.splitlines() if line.startswith("  %")]
    found = [line.split(" = ")[1].split("(")[0] for line in lines]
    return [name for name in found if name not in ("reshape", "const")]


@pytest.mark.parametrize(
    ("pool", "count"),
    [
        (lambda x: max_pool2d(x, 2), 1),
        (lambda x: max_pool2d(x, 3, 2, 1), 1),
        (lambda x: avg_pool2d(x, 3, 2, 1), 1),
        (lambda x: max_pool2d(x, 7, 1, 3), 2),  # more taps than are unrolled: a reduction
    ],
)
def test_a_pool_is_one_loop_and_so_is_its_gradient(pool: Any, count: int) -> None:
    """No buffer of windows, no scattering: maps over the result, and over the input."""
    x = treadle.tensor(np.random.default_rng(0).standard_normal((2, 3, 12, 14)))
    assert set(kernels(pool, x)) == {"fused"}
    assert len(kernels(pool, x)) <= count
    both = kernels(treadle.grad(lambda x: treadle.sum(pool(x) * 2)), x)
    assert set(both) == {"fused"}
    assert len(both) <= 2 * count + 1


def test_the_first_of_equal_elements_of_a_window_gets_the_gradient() -> None:
    nan = np.nan
    x = treadle.tensor(np.array([[[1.0, 1, 0, 3, 3, 3, 0, 2, nan, 7, nan, 8, -np.inf, -np.inf]]]))

    def slope(x: Tensor) -> Tensor:
        return treadle.grad(lambda x: treadle.sum(max_pool1d(x, 2) * np.arange(1.0, 8)))(x)

    for fn in (slope, treadle.jit(slope)):
        found = np.asarray(fn(x))[0, 0]
        np.testing.assert_array_equal(found, [1, 0, 0, 2, 3, 0, 0, 4, 5, 0, 6, 0, 7, 0])


def test_a_window_with_nan_is_nan_and_the_last_one_gets_the_gradient() -> None:
    x = treadle.tensor(np.array([[[1.0, np.nan, np.nan, 5.0], [np.inf, 2.0, -1.0, -np.inf]]]))
    for fn in (max_pool1d, treadle.jit(max_pool1d)):
        np.testing.assert_array_equal(np.asarray(fn(x, 4))[0, :, 0], [np.nan, np.inf])
        _, place = fn(x, 4, return_indices=True)
        np.testing.assert_array_equal(np.asarray(place)[0, :, 0], [2, 0])


def test_pools_and_their_gradients_are_the_same_bits_for_any_number_of_threads() -> None:
    """Windows that overlap: several add to one element, in an order of its own."""
    rng = np.random.default_rng(5)
    x = treadle.tensor(rng.standard_normal((8, 16, 40, 40)).astype(np.float32))
    weight = treadle.tensor(rng.standard_normal((8, 16, 20, 20)).astype(np.float32))

    def f(x: Tensor) -> Tensor:
        y = max_pool2d(x, 3, 2, 1) * weight + avg_pool2d(x, 5, 2, 2) * weight
        return treadle.sum(y) + treadle.sum(adaptive_avg_pool2d(x, 7) ** 2)

    step = treadle.jit(treadle.value_and_grad(f))
    found = []
    for count in (1, 2, 3):
        with treadle.num_threads(count):
            value, gradient = step(x)
        found.append((np.asarray(value).tobytes(), np.asarray(gradient).tobytes()))
    assert found[0] == found[1] == found[2]
