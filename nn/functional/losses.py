"""Losses of numbers and of probabilities, elementwise and by rows."""

from __future__ import annotations

from typing import Literal

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.nn.functional.reduction import reduced, same_shape, weighted_mean
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, flag, option, real
from treadle.tracer.custom import custom_vjp
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.tensor import Tensor

Reduction = Literal["none", "mean", "sum"]


def _pair(what: str, input: Operand, target: Operand) -> tuple[Tensor, Tensor]:
    x, y = promote(input, target, floating=True)
    same_shape(what, x, y, ("input", "target"))
    return x, y


# --- differences -----------------------------------------------------------------------------


@array_function
def mse_loss(
    input: Operand,
    target: Operand,
    reduction: Reduction = "mean",
    weight: Operand | None = None,
) -> Tensor:
    """(input - target)^2, times `weight`, whose mean is then over the weights. Raises ShapeError
    unless all have one shape."""
    x, y = _pair("mse_loss", input, target)
    return _weighed("mse_loss", api.square(x - y), weight, reduction)


@array_function
def l1_loss(
    input: Operand,
    target: Operand,
    reduction: Reduction = "mean",
    weight: Operand | None = None,
) -> Tensor:
    """|input - target|, with a `weight` as in `mse_loss`. Raises ShapeError unless all have one
    shape."""
    x, y = _pair("l1_loss", input, target)
    return _weighed("l1_loss", api.abs(x - y), weight, reduction)


def _weighed(what: str, losses: Tensor, weight: Operand | None, reduction: Reduction) -> Tensor:
    if weight is None:
        return reduced(losses, reduction)
    weights = as_operand(weight).astype(losses.dtype)
    same_shape(what, losses, weights, ("input", "weight"))
    return weighted_mean(losses * weights, weights, reduction)


@array_function
def huber_loss(
    input: Operand,
    target: Operand,
    reduction: Reduction = "mean",
    delta: float = 1.0,
    weight: Operand | None = None,
) -> Tensor:
    """d^2 / 2 where d = |input - target| < delta, else delta * (d - delta / 2) (Huber, 1964),
    times `weight`, whose mean is over the elements, unlike that of `mse_loss`: as in PyTorch.

    Raises ShapeError unless all have one shape, ArgumentError for a delta that is not above 0.
    """
    limit = real("delta", delta)
    if limit <= 0:
        raise ArgumentError(f"delta must be above 0, found {delta}")
    x, y = _pair("huber_loss", input, target)
    d = api.abs(x - y)
    losses = api.where(d < limit, 0.5 * d * d, limit * (d - 0.5 * limit))
    if weight is not None:
        weights = as_operand(weight).astype(losses.dtype)
        same_shape("huber_loss", losses, weights, ("input", "weight"))
        losses = losses * weights
    return reduced(losses, reduction)


@array_function
def smooth_l1_loss(
    input: Operand, target: Operand, reduction: Reduction = "mean", beta: float = 1.0
) -> Tensor:
    """d^2 / (2 beta) where d = |input - target| < beta, else d - beta / 2; l1_loss for beta 0.

    Raises ShapeError unless both have one shape, ArgumentError for a beta below 0.
    """
    limit = real("beta", beta)
    if limit < 0:
        raise ArgumentError(f"beta must be at least 0, found {beta}")
    x, y = _pair("smooth_l1_loss", input, target)
    d = api.abs(x - y)
    losses = d if limit == 0 else api.where(d < limit, 0.5 * d * d / limit, d - 0.5 * limit)
    return reduced(losses, reduction)


# --- probabilities ---------------------------------------------------------------------------


@array_function
def binary_cross_entropy(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """-weight * (target * log(input) + (1 - target) * log(1 - input)), each logarithm at least
    -100 and the gradient (input - target) / max(input (1 - input), 1e-12), as in PyTorch. An input
    outside of [0, 1] raises CheckError.

    Prefer `binary_cross_entropy_with_logits`, which is accurate for all inputs. Raises ShapeError
    unless input and target have one shape.
    """
    x, y = _pair("binary_cross_entropy", input, target)
    api.check((x >= 0) & (x <= 1), "an input of binary_cross_entropy is outside of [0, 1]")
    return reduced(_times(_entropy(x, y), weight), reduction)


# The least x (1 - x) that the gradient divides by: PyTorch's 1e-12, a float32 for all dtypes.
_STEEPEST = 9.999999960041972e-13


def _bounded_logs(x: Tensor) -> tuple[Tensor, Tensor]:
    """log(x) and log(1 - x), at least -100."""
    return api.maximum(api.log(x), -100.0), api.maximum(api.log1p(-x), -100.0)


@custom_vjp
def _entropy(x: Tensor, y: Tensor) -> Tensor:
    one, other = _bounded_logs(x)
    return -(y * one + (1 - y) * other)


def _entropy_forward(x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return _entropy(x, y), (x, y)


def _entropy_backward(xy: tuple[Tensor, Tensor], ct: Tensor) -> tuple[Tensor, Tensor]:
    x, y = xy
    one, other = _bounded_logs(x)
    slope = (x - y) / api.maximum(x * (1 - x), _STEEPEST)
    return ct * slope, ct * (other - one)


_entropy.defvjp(_entropy_forward, _entropy_backward)


@array_function
def binary_cross_entropy_with_logits(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: Reduction = "mean",
    pos_weight: Operand | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), accurate for logits of any size:

    weight * ((1 - target) * x + (1 + (pos_weight - 1) * target) * softplus(-x))

    `pos_weight` scales the positive targets and broadcasts against them. Raises ShapeError unless
    input and target have one shape.
    """
    x, y = _pair("binary_cross_entropy_with_logits", input, target)
    below = api.softplus(-x)
    if pos_weight is not None:
        below = (1 + (as_operand(pos_weight).astype(x.dtype) - 1) * y) * below
    return reduced(_times((1 - y) * x + below, weight), reduction)


def _times(losses: Tensor, weight: Operand | None) -> Tensor:
    return losses if weight is None else losses * as_operand(weight).astype(losses.dtype)


@array_function
def kl_div(
    input: Operand,
    target: Operand,
    reduction: Literal["none", "mean", "sum", "batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input) for log-probabilities `input`, 0 where the target is 0.

    With `log_target` the target holds logarithms too. "batchmean" is the divergence of Kullback
    and Leibler: the sum over the first axis' size. Raises ShapeError unless both have one shape.
    """
    how = option("reduction", reduction, ("none", "mean", "sum", "batchmean"))
    x, y = _pair("kl_div", input, target)
    if flag("log_target", log_target):
        losses = api.exp(y) * (y - x)
    else:
        some = y > 0
        entropy = api.where(some, y * api.log(api.where(some, y, 1.0)), y * 0.0)
        losses = entropy - y * x
    if how != "batchmean":
        return reduced(losses, how)
    if x.ndim == 0:
        raise ShapeError("kl_div needs a batch axis for 'batchmean', found shape ()")
    return api.sum(losses) / x.shape[0]


# --- similarity ------------------------------------------------------------------------------


@array_function
def cosine_similarity(x1: Operand, x2: Operand, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`; the operands broadcast."""
    a, b = promote(x1, x2, floating=True)
    least = real("eps", eps)
    a, b = api.broadcast_arrays(a, b)

    def unit(x: Tensor) -> Tensor:
        return x / api.maximum(api.norm(x, axis=dim, keepdims=True), least)

    return api.sum(unit(a) * unit(b), axis=dim)


@array_function
def cosine_embedding_loss(
    input1: Operand,
    input2: Operand,
    target: Operand,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1, for inputs [N, D] with
    targets [N], or [D] with a target of rank 0.

    cos = x1 . x2 / sqrt((|x1|^2 + e) (|x2|^2 + e)) with e = 1e-12, as in PyTorch. Raises ShapeError
    where the shapes do not fit.
    """
    a, b = promote(input1, input2, floating=True)
    same_shape("cosine_embedding_loss", a, b, ("input1", "input2"))
    signs = as_operand(target)
    if a.ndim == 0 or signs.shape != a.shape[:-1]:
        raise ShapeError(
            f"cosine_embedding_loss of inputs {shape_text(a.shape)} takes targets of shape "
            f"{shape_text(a.shape[:-1])}, found {shape_text(signs.shape)}"
        )
    dot, *squares = (api.sum(x * y, axis=-1) for x, y in ((a, b), (a, a), (b, b)))
    cos = dot / api.sqrt((squares[0] + 1e-12) * (squares[1] + 1e-12))
    apart = api.maximum(cos - real("margin", margin), 0.0)
    losses = api.where(signs == 1, 1 - cos, api.where(signs == -1, apart, cos * 0.0))
    return reduced(losses, reduction)
