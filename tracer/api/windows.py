"""Windows along an axis as an axis of their own: unfold."""

from __future__ import annotations

from treadle.ir.errors import ArgumentError
from treadle.ir.op import get_op
from treadle.ir.ops.sliding import ToWindowsAttrs, meetings
from treadle.ir.types import normalize_axis
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.creation import as_int
from treadle.tracer.api.manipulation import broadcast_to, moveaxis
from treadle.tracer.execute import apply_op
from treadle.tracer.promote import Operand, as_tensor
from treadle.tracer.tensor import Tensor


def taps_first(
    x: Tensor,
    axes: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """[*kernel, ..windows along `axes`..]; zeros where a window reaches into the padding."""
    attrs = ToWindowsAttrs(axes, kernel, stride, padding, dilation, 0.0)
    wide = broadcast_to(x, (*meetings(attrs), *x.shape))
    (found,) = apply_op(get_op("to_windows"), (wide,), attrs)
    return found


@array_function
def unfold(x: Operand, axis: int, size: int, step: int) -> Tensor:
    """The windows of `size` elements along `axis` that begin every `step` elements: the axis counts
    windows, and a new last axis their elements. A copy.

    Raises ShapeError for an axis out of range, ArgumentError for a size that is more than the axis
    holds, or a size or step below 1.
    """
    source = as_tensor(x)
    where = normalize_axis(axis, source.ndim)
    length, every = as_int(size, "the size of unfold"), as_int(step, "the step of unfold")
    if not 1 <= length <= source.shape[where]:
        raise ArgumentError(
            f"the size of unfold must be from 1 to the {source.shape[where]} elements of axis "
            f"{where}, found {length}"
        )
    if every < 1:
        raise ArgumentError(f"the step of unfold must be at least 1, found {every}")
    return moveaxis(taps_first(source, (where,), (length,), (every,), ((0, 0),), (1,)), 0, -1)
