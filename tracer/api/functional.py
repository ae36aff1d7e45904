"""Functions of neural networks: softmax and its family, activations, layer_norm, losses.

Integers become float32 where floats are needed. softmax, log_softmax, logsumexp and cross_entropy
subtract each row's maximum, and treat infinities alike: a row of -inf only gives softmax 0,
logsumexp -inf, log_softmax -inf, loss inf and gradient 0; k entries of +inf share 1/k each; a NaN
makes its row NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import dtype_of, float32, reduced_shape, shape_text
from treadle.tracer.api.arguments import (
    Axis,
    added_number,
    array_function,
    as_float,
    as_float_tensor,
    as_integer,
    axes_of,
    axis_of,
    flag,
    option,
)
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply, reshape_view, view
from treadle.tracer.promote import Operand, promote
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import PermuteMap

# --- the softmax family -----------------------------------------------------------------------


@array_function
def softmax(x: Operand, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, for numbers of any size."""
    found = as_float_tensor(x)
    return apply("softmax", found, axis=axis_of(found, axis))


@array_function
def log_softmax(x: Operand, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, accurate where softmax is near 0 or 1."""
    found = as_float_tensor(x)
    return apply("log_softmax", found, axis=axis_of(found, axis))


@array_function
def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over axes (None: all of them), for numbers of any size."""
    found = as_float_tensor(x)
    axes = axes_of(found, axis)
    if len(axes) == 1:
        return apply("logsumexp", found, axis=axes[0], keepdims=flag("keepdims", keepdims))
    kept = [i for i in range(found.ndim) if i not in axes]
    rows = view(found, PermuteMap((*kept, *axes)))
    count = math.prod(found.shape[i] for i in axes)
    rows = reshape_view(rows, (*(found.shape[i] for i in kept), count))
    joined = apply("logsumexp", rows, axis=len(kept), keepdims=False)
    return reshape_view(joined, reduced_shape(found.shape, axes, flag("keepdims", keepdims)))  # type: ignore[arg-type]


# --- activations ------------------------------------------------------------------------------


@array_function
def gelu(x: Operand, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x times the normal distribution function at x: exact, or by the tanh that approximates it.

    Raises ArgumentError for another `approximate`.
    """
    form = option("approximate", approximate, ("none", "tanh"))
    return apply("gelu", as_float(x), approximate=form == "tanh")


# --- normalisation ----------------------------------------------------------------------------


@array_function
def layer_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the last dimensions, which are `normalized_shape`, times
    `weight` plus `bias`, both of that shape. var is not corrected.

    Raises ShapeError where the shapes differ from that, ArgumentError for an eps below 0.
    """
    found = as_float_tensor(x)
    expected = _sizes(normalized_shape)
    _check_normalized(found, expected)
    axes = tuple(range(found.ndim - len(expected), found.ndim))
    scaled = apply("layer_norm", found, axes=axes, eps=added_number("eps", eps))
    if weight is not None:
        scaled = apply("mul", *promote(scaled, _affine("weight", weight, expected)))
    if bias is not None:
        scaled = apply("add", *promote(scaled, _affine("bias", bias, expected)))
    return scaled


def _sizes(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    listed = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    try:
        return tuple(s.__index__() for s in listed)
    except (TypeError, AttributeError):
        raise DTypeError(
            f"normalized_shape must be an int or ints, found {normalized_shape!r:.60}"
        ) from None


def _check_normalized(x: Tensor, expected: tuple[int, ...]) -> None:
    if not expected or x.shape[-len(expected) :] != expected:
        raise ShapeError(
            f"layer_norm over {shape_text(expected)} needs a tensor whose last dimensions are "
            f"these, found shape {shape_text(x.shape)}"
        )


def _affine(name: str, x: Operand, expected: tuple[int, ...]) -> Tensor:
    found = as_float(x)
    if found.shape != expected:
        raise ShapeError(
            f"the {name} of layer_norm must have shape {shape_text(expected)}, found "
            f"{shape_text(found.shape)}"
        )
    return found


# --- classes ----------------------------------------------------------------------------------


@array_function
def one_hot(x: Operand, num_classes: int, dtype: object = float32) -> Tensor:
    """1 at each label's own place along a new last axis of `num_classes`, else 0; zeros for a
    label out of range.

    Raises DTypeError unless labels and `num_classes` are integers.
    """
    labels = as_integer(x, "the labels of one_hot")
    depth = as_int(num_classes, "num_classes")
    if depth < 0:
        raise ArgumentError(f"num_classes must be at least 0, found {depth}")
    return apply("one_hot", labels, depth=depth, dtype=dtype_of(dtype))


@array_function
def cross_entropy(
    logits: Operand,
    labels: Operand,
    reduction: Literal["none", "mean", "sum"] = "mean",
) -> Tensor:
    """-log(softmax(logits))[label] of each row: logits [..., classes], integer labels [...].

    `reduction`: the mean over all rows, their sum, or "none" of these. A label outside of 0 to
    classes - 1 raises IndexFault. Raises ShapeError or DTypeError for other shapes and dtypes,
    ArgumentError for another reduction.
    """
    how = option("reduction", reduction, ("none", "mean", "sum"))
    classes = as_integer(labels, "the labels of cross_entropy")
    losses = apply("cross_entropy", as_float_tensor(logits), classes)
    if how == "none":
        return losses
    return apply(how, losses, axes=tuple(range(losses.ndim)), keepdims=False)
