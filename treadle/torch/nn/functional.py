"""`torch.nn.functional`: Treadle's functions, with PyTorch's remaining keywords."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import treadle
from treadle.nn import functional as native
from treadle.torch import pointwise
from treadle.torch.functions import facade
from treadle.torch.names import missing
from treadle.tracer import api
from treadle.tracer.promote import as_operand

_INPLACE = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "mish", "hardtanh", "hardswish",
    "hardsigmoid", "dropout",
)  # fmt: skip


def _with_inplace(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, which takes `inplace=True` to write its result over the input."""

    @functools.wraps(fn)
    def call(input: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        found = fn(input, *args, **kwargs)
        return input.copy_(found) if inplace else found

    return call


for _name in native.__all__:
    _function = facade(getattr(native, _name))
    globals()[_name] = _with_inplace(_function) if _name in _INPLACE else _function


def _implicit(dim: int | None, rank: int) -> int:
    """PyTorch's choice where no dimension is said."""
    return (0 if rank in (0, 1, 3) else 1) if dim is None else dim


@facade
def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along `dim`"""
    x = as_operand(input)
    return pointwise.softmax(x, _implicit(dim, x.ndim), dtype)


@facade
def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """log(softmax(x)) along `dim`"""
    x = as_operand(input)
    return pointwise.log_softmax(x, _implicit(dim, x.ndim), dtype)


@facade
def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """Rows of zeros with a 1 at the index, int64; without `num_classes` the largest index says how
    many there are, which is known only now."""
    x = as_operand(tensor)
    classes = int(api.max(x)) + 1 if num_classes == -1 else num_classes
    return api.one_hot(x, classes).astype("int64")


@facade
def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """x where |x| is above `lambd`, else 0"""
    x = as_operand(input)
    return api.where(api.abs(x) > lambd, x, 0.0)


@facade
def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """x moved towards 0 by `lambd`, 0 where it would cross"""
    x = as_operand(input)
    return api.where(x > lambd, x - lambd, api.where(x < -lambd, x + lambd, 0.0))


@facade
def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """x where it is above `threshold`, else `value`"""
    found = pointwise.threshold(input, threshold, value)
    return input.copy_(found) if inplace else found


@facade
def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, dim: int = -1) -> Any:
    """softmax((logits + gumbel noise) / tau); `hard`: its largest as 1, with the soft gradient."""
    x = as_operand(logits)
    soft = api.softmax((x + treadle.random.gumbel(None, x.shape, dtype=x.dtype)) / tau, axis=dim)
    if not hard:
        return soft
    place = api.argmax(soft, axis=dim, keepdims=True)
    rows = api.arange(soft.shape[dim]).reshape(
        [-1 if d == dim % x.ndim else 1 for d in range(x.ndim)]
    )
    return api.equal(rows, place).astype(x.dtype) - soft.detach() + soft


@facade
def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """The p-norm of x1 - x2 + eps along the last dimension"""
    return api.norm(api.subtract(x1, x2) + eps, p, axis=-1, keepdims=keepdim)


@facade
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """max(0, -target * (input1 - input2) + margin)"""
    return _reduced(
        api.relu(margin - as_operand(target) * (as_operand(input1) - input2)), reduction
    )


@facade
def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Any:  # fmt: skip
    """max(0, |anchor - positive| - |anchor - negative| + margin)"""
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = api.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced(api.relu(near - far + margin), reduction)


@facade
def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """exp(x) - target * x, or x - target * log(x + eps); `full` adds Stirling's terms."""
    x, y = as_operand(input), as_operand(target)
    found = api.exp(x) - y * x if log_input else x - y * api.log(x + eps)
    if full:
        above = api.where(y > 1, y, 1.0)
        terms = above * api.log(above) - above + 0.5 * api.log(2 * math.pi * above)
        found = found + api.where(y > 1, terms, 0.0)
    return _reduced(found, reduction)


def _reduced(x: Any, reduction: str) -> Any:
    from treadle.nn.functional.reduction import reduced

    return reduced(x, reduction)


_OWN = (
    "gumbel_softmax", "hardshrink", "log_softmax", "margin_ranking_loss", "one_hot",
    "pairwise_distance", "poisson_nll_loss", "softmax", "softshrink", "threshold",
    "triplet_margin_loss",
)  # fmt: skip
__all__ = sorted({*native.__all__, *_OWN})


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.nn.functional", name, __all__)
