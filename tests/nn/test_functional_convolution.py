"""Convolutions as functions: what is refused in which words, and what PyTorch does not have.

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
from treadle.nn.functional import conv1d, conv2d, conv_transpose1d, conv_transpose2d

X, W = treadle.ones((2, 4, 8, 9)), treadle.ones((6, 4, 3, 3))
V = treadle.ones((4, 6, 3, 3))  # a weight of transposed convolutions

BAD: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda x: conv2d(x, treadle.ones((6, 3, 3, 3))), treadle.ShapeError,
     r"conv2d: with groups=1 the weight \(6, 3, 3, 3\) takes 3 input channels, found .* 4 channel"),
    (lambda x: conv2d(x, W, groups=3), treadle.ShapeError,
     r"conv2d: groups=3 must divide the 4 channels of the input and the 6 of weight"),
    (lambda x: conv2d(x, treadle.ones((5, 2, 3, 3)), groups=2), treadle.ShapeError,
     r"groups=2 must divide"),
    (lambda x: conv2d(x, W, groups=0), treadle.ArgumentError, "groups must be at least 1, found 0"),
    (lambda x: conv2d(x, W, groups=1.0), treadle.DTypeError, "groups must be an int, found float"),
    (lambda x: conv2d(x, treadle.ones((6, 4, 9, 3))), treadle.ShapeError,
     "conv2d: the kernel's 9 taps span 9 elements of spatial axis 0, which has 8 and padding"),
    (lambda x: conv2d(x, W, dilation=(1, 5)), treadle.ShapeError,
     "3 taps with dilation 5 span 11 elements of spatial axis 1, which has 9"),
    (lambda x: conv2d(x, W, stride=0), treadle.ArgumentError, "stride must be at least 1, found 0"),
    (lambda x: conv2d(x, W, stride=(1, 2, 3)), treadle.ShapeError, "one entry or 2, found"),
    (lambda x: conv2d(x, W, stride=1.5), treadle.DTypeError, "stride must be an int, found float"),
    (lambda x: conv2d(x, W, dilation=0), treadle.ArgumentError, "dilation must be at least 1"),
    (lambda x: conv2d(x, W, padding=-1), treadle.ArgumentError, "padding must be at least 0"),
    (lambda x: conv2d(x, W, padding=((1, 2),)), treadle.ShapeError, "padding must have 2 pairs"),
    (lambda x: conv2d(x, W, padding=((1, -2), (0, 0))), treadle.ArgumentError, "at least 0"),
    (lambda x: conv2d(x, W, padding="full"), treadle.ArgumentError, "'valid', 'same', found 'full"),
    (lambda x: conv2d(x, W, padding="same", stride=2), treadle.ArgumentError, "asks for stride 1"),
    (lambda x: conv2d(x, W, bias=treadle.ones(5)), treadle.ShapeError,
     r"bias must have shape \(6,\), one number an output channel, found \(5,\)"),
    (lambda x: conv2d(x[0, 0], W), treadle.ShapeError, r"\[N, C, H, W\] or \[C, H, W\], found"),
    (lambda x: conv2d(x, treadle.ones((6, 4, 3))), treadle.ShapeError, "weight must have 4 axes"),
    (lambda x: conv2d(x, treadle.ones((6, 4, 0, 3))), treadle.ShapeError, "a kernel of size 0"),
    (lambda x: conv1d(x, W), treadle.ShapeError, r"\[N, C, L\] or \[C, L\], found shape"),
    (lambda x: conv2d(None, W), treadle.DTypeError, "found NoneType"),
    (lambda x: conv_transpose2d(x, W), treadle.ShapeError, "the input's 4 channels first"),
    (lambda x: conv_transpose2d(x, V, groups=3), treadle.ShapeError, "groups=3 divide them"),
    (lambda x: conv_transpose2d(x, V, bias=treadle.ones(4)), treadle.ShapeError, r"\(6,\), one"),
    (lambda x: conv_transpose2d(x, V, output_padding=1), treadle.ArgumentError,
     r"output_padding must be less than stride or dilation, found \(1, 1\)"),
    (lambda x: conv_transpose2d(x, V, padding=9), treadle.ShapeError,
     r"the result would have size \(-8, -7\)"),
    (lambda x: conv_transpose1d(x, V), treadle.ShapeError, "conv_transpose1d: input must be"),
]  # fmt: skip


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jitted"])
@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_what_does_not_fit_is_named_with_the_users_line(
    call: Callable[[Any], Any], error: type[Exception], message: str, jitted: bool
) -> None:
    with pytest.raises(error, match=message) as raised:
        (treadle.jit(call) if jitted else call)(X)
    assert f"(at {Path(__file__)}:" in str(raised.value)


def test_padding_by_pairs_is_that_of_pad() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 6, 7)), rng.standard_normal((4, 3, 3, 2))
    pads = ((2, 0), (1, 3))
    wider = np.pad(x, ((0, 0), (0, 0), *pads))
    wanted = np.asarray(conv2d(treadle.tensor(wider), treadle.tensor(w), stride=2))
    for fn in (conv2d, treadle.jit(conv2d)):
        found = fn(treadle.tensor(x), treadle.tensor(w), stride=2, padding=pads)
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-13)


def test_integers_are_converted_and_dtypes_promoted() -> None:
    found = conv1d(np.arange(6).reshape(1, 1, 6), np.ones((1, 1, 2), np.float64))
    assert found.dtype == treadle.float64
    np.testing.assert_array_equal(np.asarray(found)[0, 0], [1, 3, 5, 7, 9])


def test_a_transposed_convolution_is_the_gradient_of_the_convolution() -> None:
    rng = np.random.default_rng(1)
    x, w = (treadle.tensor(rng.standard_normal(s)) for s in ((2, 4, 9, 8), (6, 4, 3, 2)))
    options: dict[str, Any] = {"stride": (3, 2), "padding": ((1, 0), (2, 1)), "dilation": (2, 1)}
    y = conv2d(x, w, **options)

    def weighed(x: Tensor) -> Tensor:
        return treadle.sum(conv2d(x, w, **options) * y)

    gradient = np.asarray(treadle.grad(weighed)(x))
    back = conv_transpose2d(y, w, **options, output_padding=(2, 1))
    np.testing.assert_allclose(np.asarray(back), gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_jitted_network_of_convolutions_trains_as_eagerly(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    x = treadle.tensor(rng.standard_normal((3, 2, 9, 9)).astype(dtype))
    shapes = ((4, 2, 3, 3), (4,), (4, 1, 3, 3), (5, 4, 2, 2), (5,))
    weights = [treadle.tensor(rng.standard_normal(s).astype(dtype) / 3) for s in shapes]

    def loss(*w: Tensor) -> Tensor:
        h = treadle.relu(conv2d(x, w[0], w[1], padding=1, stride=2))
        h = treadle.tanh(conv2d(h, w[2], groups=4, padding="same"))
        return treadle.mean(conv_transpose2d(h, w[3].permute(1, 0, 2, 3), w[4], stride=2) ** 2)

    step = treadle.value_and_grad(loss, argnums=tuple(range(5)))
    eager, jitted = step(*weights), treadle.jit(step)(*weights)
    bound = 2e-6 if dtype is np.float32 else 1e-14
    np.testing.assert_allclose(np.asarray(jitted[0]), np.asarray(eager[0]), rtol=bound)
    for a, b in zip(jitted[1], eager[1], strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=bound)


def test_third_derivatives_are_those_of_differences() -> None:
    """Of a cube of a convolution, by differences of its second derivative."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 2, 5)), treadle.tensor(rng.standard_normal((2, 2, 3)))
    along = treadle.tensor(rng.standard_normal(x.shape))

    def cube(x: Tensor) -> Tensor:
        return treadle.sum(conv1d(x, w, stride=2, padding=1) ** 3)

    def slope(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: treadle.sum(treadle.grad(f)(x) * along)

    second, third = slope(slope(cube)), slope(slope(slope(cube)))
    h = 1e-3
    forth, back = (second(treadle.tensor(x + s * h * np.asarray(along))) for s in (1, -1))
    difference = (float(forth) - float(back)) / (2 * h)
    for fn in (third, treadle.jit(third)):
        assert float(fn(treadle.tensor(x))) == pytest.approx(difference, rel=1e-9)
