"""Activations, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from typing import Literal

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, axis_of, real
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.tensor import Tensor

# Klambauer et al. (2017), equation 14: the fixed point of mean 0 and variance 1.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _float(x: Operand) -> Tensor:
    return promote(x, floating=True)[0]


@array_function
def relu(input: Operand) -> Tensor:
    """max(x, 0)"""
    return api.relu(input)


@array_function
def relu6(input: Operand) -> Tensor:
    """min(max(x, 0), 6); the gradient at both ends is 0"""
    return hardtanh(input, 0.0, 6.0)


@array_function
def leaky_relu(input: Operand, negative_slope: float = 0.01) -> Tensor:
    """x where it is above 0, else negative_slope * x"""
    x = _float(input)
    return api.where(x > 0, x, real("negative_slope", negative_slope) * x)


@array_function
def prelu(input: Operand, weight: Operand) -> Tensor:
    """x where it is above 0, else weight * x, with one weight, or one a channel (axis 1).

    Raises ShapeError where the weights are not as many.
    """
    x, slopes = promote(input, weight, floating=True)
    channels = x.shape[1] if x.ndim > 1 else 1
    if slopes.ndim > 1 or (slopes.ndim == 1 and slopes.shape[0] not in (1, channels)):
        raise ShapeError(
            f"prelu takes one weight, or one a channel; found {shape_text(slopes.shape)} for an "
            f"input {shape_text(x.shape)}"
        )
    if slopes.ndim == 1:
        alone = slopes.shape[0] == 1
        slopes = slopes.reshape(() if alone else (-1, *[1] * (x.ndim - 2)))
    return api.where(x > 0, x, slopes * x)


@array_function
def elu(input: Operand, alpha: float = 1.0) -> Tensor:
    """x where it is above 0, else alpha * (exp(x) - 1)"""
    x = _float(input)
    return api.where(x > 0, x, real("alpha", alpha) * api.expm1(_below_zero(x)))


@array_function
def celu(input: Operand, alpha: float = 1.0) -> Tensor:
    """x where it is above 0, else alpha * (exp(x / alpha) - 1)"""
    x, scale = _float(input), real("alpha", alpha)
    return api.where(x > 0, x, scale * api.expm1(_below_zero(x) / scale))


def _below_zero(x: Tensor) -> Tensor:
    """min(x, 0), with all of the gradient at 0."""
    return api.where(x > 0, 0.0, x)


@array_function
def selu(input: Operand) -> Tensor:
    """scale * elu(x, alpha), with the constants of Klambauer et al. (2017)"""
    return _SELU_SCALE * elu(input, _SELU_ALPHA)


@array_function
def gelu(input: Operand, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x times the normal distribution function at x, or by the tanh that approximates it"""
    return api.gelu(input, approximate=approximate)


@array_function
def silu(input: Operand) -> Tensor:
    """x * sigmoid(x)"""
    return api.silu(input)


@array_function
def mish(input: Operand) -> Tensor:
    """x * tanh(softplus(x)) (Misra, 2019)"""
    x = _float(input)
    return x * api.tanh(api.softplus(x))


@array_function
def sigmoid(input: Operand) -> Tensor:
    """1 / (1 + exp(-x))"""
    return api.sigmoid(input)


@array_function
def hardsigmoid(input: Operand) -> Tensor:
    """min(max(x + 3, 0), 6) / 6; the gradient at both ends is 0"""
    return hardtanh(_float(input) + 3, 0.0, 6.0) / 6


@array_function
def logsigmoid(input: Operand) -> Tensor:
    """log(sigmoid(x)), accurate for x of any size"""
    return -api.softplus(-_float(input))


@array_function
def tanh(input: Operand) -> Tensor:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))"""
    return api.tanh(input)


@array_function
def hardtanh(input: Operand, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val); the gradient at both ends is 0.

    Raises ArgumentError where min_val is above max_val.
    """
    x, low, high = _float(input), real("min_val", min_val), real("max_val", max_val)
    if low > high:
        raise ArgumentError(f"min_val must be at most max_val, found {low} and {high}")
    return api.where(x >= high, high, api.where(x <= low, low, x))


@array_function
def hardswish(input: Operand) -> Tensor:
    """x * hardsigmoid(x) (Howard et al., 2019); the gradient is 0 at -3 and 1 at 3"""
    x = _float(input)
    return api.where(x >= 3, x, api.where(x <= -3, 0.0, x * (x + 3) / 6))


@array_function
def softplus(input: Operand, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x is above `threshold`"""
    scaled = real("beta", beta) * _float(input)
    found = api.where(scaled > real("threshold", threshold), scaled, api.softplus(scaled))
    return found / real("beta", beta)


@array_function
def softsign(input: Operand) -> Tensor:
    """x / (1 + |x|)"""
    x = _float(input)
    return x / (1 + api.abs(x))


@array_function
def tanhshrink(input: Operand) -> Tensor:
    """x - tanh(x)"""
    x = _float(input)
    return x - api.tanh(x)


@array_function
def softmax(input: Operand, dim: int | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, for numbers of any size.

    Without `dim` along the last axis; raises ArgumentError then for three axes or more, of which
    PyTorch takes the first or the second.
    """
    return api.softmax(input, axis=_axis_of_softmax("softmax", input, dim))


@array_function
def softmin(input: Operand, dim: int | None = None) -> Tensor:
    """softmax(-x) along `dim`; see `softmax`"""
    return api.softmax(-_float(input), axis=_axis_of_softmax("softmin", input, dim))


@array_function
def log_softmax(input: Operand, dim: int | None = None) -> Tensor:
    """log(softmax(x)) along `dim`, accurate where softmax is near 0 or 1; see `softmax`"""
    return api.log_softmax(input, axis=_axis_of_softmax("log_softmax", input, dim))


def _axis_of_softmax(name: str, input: Operand, dim: int | None) -> int:
    if dim is not None:
        return dim
    rank = as_operand(input).ndim
    if rank > 2:
        raise ArgumentError(f"{name} of {rank} axes needs dim: say which, -1 is the last")
    return -1


@array_function
def glu(input: Operand, dim: int = -1) -> Tensor:
    """a * sigmoid(b) for the two halves a and b of x along `dim` (Dauphin et al., 2017).

    Raises ShapeError where `dim` has an odd size.
    """
    x = _float(input)
    axis = axis_of(x, dim)
    if x.shape[axis] % 2:
        raise ShapeError(f"glu halves axis {axis}, whose size is {x.shape[axis]}")
    first, second = api.split(x, 2, axis=axis)
    return first * api.sigmoid(second)


@array_function
def normalize(input: Operand, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(|x|_p, eps) along `dim`"""
    x = _float(input)
    norm = api.norm(x, real("p", p), axis=dim, keepdims=True)
    return x / api.maximum(norm, real("eps", eps))


@array_function
def linear(input: Operand, weight: Operand, bias: Operand | None = None) -> Tensor:
    """x W^T + b for x [.., n], W [m, n] and b [m]. Raises ShapeError where these do not fit."""
    x, w = promote(input, weight, floating=True)
    if w.ndim != 2 or x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            f"linear takes [.., n] and a weight [m, n], found {shape_text(x.shape)} and "
            f"{shape_text(w.shape)}"
        )
    y = x @ w.T
    return y if bias is None else y + as_operand(bias).astype(y.dtype)
