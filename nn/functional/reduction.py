"""How a loss becomes one number: the reductions that all losses share."""

from __future__ import annotations

from treadle.ir.errors import ShapeError
from treadle.ir.types import shape_text
from treadle.tracer import api
from treadle.tracer.api.arguments import option
from treadle.tracer.tensor import Tensor

REDUCTIONS = ("none", "mean", "sum")


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses themselves ("none"), their mean or their sum.

    Raises ArgumentError for another `reduction`, ShapeError for the mean of none.
    """
    how = option("reduction", reduction, REDUCTIONS)
    if how == "none":
        return losses
    if how == "mean":
        check_some(losses)
        return api.mean(losses)
    return api.sum(losses)


def weighted_mean(losses: Tensor, weights: Tensor, reduction: str) -> Tensor:
    """As `reduced`, but the mean is the sum of `losses` over the sum of `weights`."""
    if option("reduction", reduction, REDUCTIONS) == "mean":
        check_some(losses)
        return api.sum(losses) / api.sum(weights)
    return reduced(losses, reduction)


def check_some(losses: Tensor) -> None:
    """Raises ShapeError where there are no losses: their mean would be NaN, and so all that is
    trained by it."""
    if not losses.size:
        raise ShapeError(
            f"an empty batch has no mean loss, found losses of shape {shape_text(losses.shape)}: "
            "leave it out, or take reduction='sum'"
        )


def same_shape(what: str, x: Tensor, y: Tensor, names: tuple[str, str]) -> None:
    """Raises ShapeError unless both have one shape: a target [N] beside an input [N, 1] would
    broadcast to [N, N]."""
    if x.shape != y.shape:
        raise ShapeError(
            f"{what} needs {names[0]} and {names[1]} of one shape, found {shape_text(x.shape)} "
            f"and {shape_text(y.shape)}"
        )
