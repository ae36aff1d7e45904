"""Losses of classes: cross_entropy, nll_loss."""

from __future__ import annotations

from typing import Literal

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import int64, shape_text
from treadle.nn.functional.reduction import reduced, weighted_mean
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, real
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.tensor import Tensor

Reduction = Literal["none", "mean", "sum"]


@array_function
def cross_entropy(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input) at the target's class, for logits [C], [N, C] or [N, C, d1, ..].

    `target`: class indices, of the input's shape without C, or probabilities of the input's shape.
    `weight` [C] scales each class; the mean is then over the weights of the targets. Targets equal
    to `ignore_index` count for nothing. `label_smoothing` e gives each class e / C of the target's
    probability (Szegedy et al., 2016).

    An index out of range raises IndexFault. Raises ShapeError, DTypeError or ArgumentError for
    operands that do not fit.
    """
    logits, classes = promote(input, floating=True)[0], as_operand(target)
    smoothing = real("label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ArgumentError(f"label_smoothing must be in [0, 1], found {label_smoothing}")
    rows = _classes_last(logits, "input")
    scale = _class_weight(weight, rows)
    if classes.dtype.is_float:
        return _soft_cross_entropy(logits, rows, classes, scale, reduction, smoothing)
    _check_target("cross_entropy", logits, classes)
    counted = classes != ignore_index
    label = api.where(counted, classes, 0)
    losses = api.cross_entropy(rows, label, reduction="none")
    weights = counted.astype(rows.dtype)
    if scale is not None:
        weights = weights * api.take(scale, label)
    losses = losses * weights if scale is not None else api.where(counted, losses, 0.0)
    if smoothing:
        every = -api.log_softmax(rows)
        spread = api.mean(every if scale is None else every * scale, axis=-1)
        losses = (1 - smoothing) * losses + smoothing * api.where(counted, spread, 0.0)
    return weighted_mean(losses, weights, reduction)


def _soft_cross_entropy(
    logits: Tensor,
    rows: Tensor,
    target: Tensor,
    scale: Tensor | None,
    reduction: Reduction,
    smoothing: float,
) -> Tensor:
    if target.shape != logits.shape:
        raise ShapeError(
            f"cross_entropy takes probabilities of the input's shape {shape_text(logits.shape)}, "
            f"found {shape_text(target.shape)}"
        )
    share = _classes_last(target, "target").astype(rows.dtype)
    if smoothing:
        share = share * (1 - smoothing) + smoothing / rows.shape[-1]
    every = -api.log_softmax(rows)
    return reduced(api.sum(share * (every if scale is None else every * scale), axis=-1), reduction)


@array_function
def nll_loss(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """-input at the target's class: for log-probabilities [C], [N, C] or [N, C, d1, ..] and class
    indices of that shape without C. `weight` and `ignore_index` as in `cross_entropy`.

    An index out of range raises IndexFault. Raises ShapeError or DTypeError for operands that do
    not fit.
    """
    given, classes = promote(input, floating=True)[0], as_operand(target)
    rows = _classes_last(given, "input")
    scale = _class_weight(weight, rows)
    _check_target("nll_loss", given, classes)
    counted = classes != ignore_index
    label = api.where(counted, classes, 0).astype(int64)
    picked = api.take_along_axis(rows, api.expand_dims(label, -1), axis=-1)
    weights = counted.astype(rows.dtype)
    if scale is not None:
        weights = weights * api.take(scale, label)
    losses = -api.squeeze(picked, -1)
    losses = losses * weights if scale is not None else api.where(counted, losses, 0.0)
    return weighted_mean(losses, weights, reduction)


def _classes_last(x: Tensor, name: str) -> Tensor:
    """[C], or [N, C, ..] as [N, .., C]."""
    if x.ndim == 0:
        raise ShapeError(f"{name} must have an axis of classes, found shape ()")
    return x if x.ndim <= 2 else api.moveaxis(x, 1, -1)


def _class_weight(weight: Operand | None, rows: Tensor) -> Tensor | None:
    if weight is None:
        return None
    found = as_operand(weight)
    if found.shape != rows.shape[-1:]:
        raise ShapeError(
            f"weight must have one number a class, {shape_text(rows.shape[-1:])}, found shape "
            f"{shape_text(found.shape)}"
        )
    return found.astype(rows.dtype)


def _check_target(what: str, given: Tensor, classes: Tensor) -> None:
    if not classes.dtype.is_integer:
        raise DTypeError(f"the target of {what} must be class indices, found {classes.dtype.name}")
    expected = given.shape[:1] + given.shape[2:] if given.ndim > 1 else ()
    if classes.shape != expected:
        raise ShapeError(
            f"{what} of an input {shape_text(given.shape)} takes class indices of shape "
            f"{shape_text(expected)}, found {shape_text(classes.shape)}"
        )
