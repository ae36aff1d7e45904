"""Padding and interpolation as functions: what is refused in which words, and their promises.

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
from treadle.nn.functional import interpolate, pad

X = treadle.ones((2, 3, 4, 5))

BAD: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: pad(x, 1), treadle.DTypeError, "pad must be a sequence of ints, found int"),
    (lambda x: pad(x, (1, 2.0)), treadle.DTypeError, "an entry of pad must be an int, found float"),
    (lambda x: pad(x, (1, 2, 3)), treadle.ShapeError, "pairs .* for at most 4 axes"),
    (lambda x: pad(x, (1,) * 10), treadle.ShapeError, "for at most 4 axes"),
    (lambda x: pad(x, (-3, -3)), treadle.ShapeError, "takes more than the 5 elements of axis 3"),
    (lambda x: pad(x, (-6, 9)), treadle.ShapeError, "takes more than the 5 elements of axis 3"),
    (lambda x: pad(x, (1, 1), "mirror"), treadle.ArgumentError, "mode must be one of .constant"),
    (lambda x: pad(x, (5, 0), "reflect"), treadle.ShapeError,
     "mode='reflect' takes at most 4 elements for axis 3 of size 5, found 5"),
    (lambda x: pad(x, (0, 6), "circular"), treadle.ShapeError, "takes at most 5 elements"),
    (lambda x: pad(x[..., :0], (0, 1), "replicate"), treadle.ShapeError, "at most 0 elements"),
    (lambda x: pad(x, (1, 1), "reflect", 2.0), treadle.ArgumentError, "value is for mode="),
    (lambda x: pad(x, (1, 1), value="a"), treadle.DTypeError, "value must be a Python number"),
    (lambda x: interpolate(x), treadle.ArgumentError, "either size or scale_factor, and not both"),
    (lambda x: interpolate(x, 2, 2.0), treadle.ArgumentError, "and not both"),
    (lambda x: interpolate(x, (1, 2, 3)), treadle.ShapeError, "size must have one entry or 2"),
    (lambda x: interpolate(x, 0), treadle.ArgumentError, "size must be at least 1, found 0"),
    (lambda x: interpolate(x, scale_factor=0.1), treadle.ShapeError, r"would leave sizes \(0, 0\)"),
    (lambda x: interpolate(x, scale_factor=-1), treadle.ArgumentError, "must be positive"),
    (lambda x: interpolate(x, scale_factor=(1, 2, 3)), treadle.ShapeError, "must have 2 entries"),
    (lambda x: interpolate(x, 2, mode="cubic"), treadle.ArgumentError, "did you mean 'bicubic'"),
    (lambda x: interpolate(x, 2, mode="linear"), treadle.ShapeError,
     r"input must be \[N, C, L\] for mode='linear', found shape \(2, 3, 4, 5\)"),
    (lambda x: interpolate(x, 2, align_corners=True), treadle.ArgumentError,
     "align_corners is for linear, bilinear, bicubic, found mode='nearest'"),
    (lambda x: interpolate(x, 2, recompute_scale_factor=True), treadle.ArgumentError,
     "recompute_scale_factor is for scale_factor"),
    (lambda x: interpolate(x[:, :, :0], 2), treadle.ShapeError, "no elements to interpolate"),
    (lambda x: interpolate(treadle.astype(x, treadle.int64), 2), treadle.DTypeError,
     "interpolate: input must be float32 or float64"),
]  # fmt: skip


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jitted"])
@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_what_does_not_fit_is_named_with_the_users_line(
    call: Callable[[Any], Any], error: type[Exception], message: str, jitted: bool
) -> None:
    with pytest.raises(error, match=message) as raised:
        (treadle.jit(call) if jitted else call)(X)
    assert f"(at {Path(__file__)}:" in str(raised.value)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_is_numpys(mode: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    names = {"replicate": "edge", "circular": "wrap"}
    wanted = np.pad(x, ((2, 1), (0, 3), (4, 2)), names.get(mode, mode))
    given = (4, 2, 0, 3, 2, 1)
    for fn in (pad, treadle.jit(pad)):
        np.testing.assert_array_equal(np.asarray(fn(treadle.tensor(x), given, mode)), wanted)


def test_what_changes_nothing_is_a_copy() -> None:
    x = treadle.ones((1, 2, 3))
    for y in (pad(x, (0, 0)), pad(x, (0, 0), "reflect"), interpolate(x, 3)):
        y += 1
        np.testing.assert_array_equal(np.asarray(x), 1)


def test_an_interpolated_gradient_scatters_nothing() -> None:
    """Every old element looks up the new ones that it is part of, in loops without atomic adds."""
    x = treadle.tensor(np.random.default_rng(1).standard_normal((2, 3, 7, 5)))

    def f(x: Tensor) -> Tensor:
        return treadle.sum(interpolate(x, (11, 9), mode="bilinear") ** 2)

    text = treadle.jit(treadle.grad(f)).ir("fuse", x)
    assert "scatter" not in text


def test_a_weight_of_zero_leaves_infinities_out() -> None:
    x = treadle.tensor(np.array([[[1.0, np.inf, 3.0, 5.0]]]))
    for fn in (interpolate, treadle.jit(interpolate)):
        found = np.asarray(fn(x, 7, mode="linear", align_corners=True))[0, 0]
        np.testing.assert_array_equal(found, [1, np.inf, np.inf, np.inf, 3, 4, 5])
