"""Patches of images as columns, and back: unfold, fold."""

from __future__ import annotations

from math import prod

from treadle.ir.errors import ShapeError
from treadle.ir.op import get_op
from treadle.ir.ops.sliding import FromWindowsAttrs
from treadle.ir.ops.windows import window_counts
from treadle.ir.types import shape_text
from treadle.nn.functional.spatial import PerAxis, batched, float_input, pads_per_axis, per_axis
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.windows import taps_first
from treadle.tracer.execute import apply, apply_op
from treadle.tracer.promote import Operand
from treadle.tracer.tensor import Tensor

_AXES = (2, 3)


@array_function
def unfold(
    input: Operand,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
) -> Tensor:
    """The patches of images [N, C, H, W] (or [C, H, W]) that a kernel covers, as columns: [N, C *
    kernel, L], where L counts the places of the kernel, row by row.

    Raises ShapeError, ArgumentError or DTypeError for arguments that do not fit.
    """
    x, added = batched("unfold", float_input("unfold", input), 2)
    kernel, pads = per_axis("kernel_size", kernel_size, 2, 1), pads_per_axis("padding", padding, 2)
    strides, gaps = per_axis("stride", stride, 2, 1), per_axis("dilation", dilation, 2, 1)
    found = api.permute_dims(taps_first(x, _AXES, kernel, strides, pads, gaps), (2, 3, 0, 1, 4, 5))
    n, c, *_, rows, columns = found.shape
    columns_of = api.reshape(found, (n, c * prod(kernel), rows * columns))
    return api.squeeze(columns_of, axis=0) if added else columns_of


@array_function
def fold(
    input: Operand,
    output_size: PerAxis,
    kernel_size: PerAxis,
    dilation: PerAxis = 1,
    padding: PerAxis = 0,
    stride: PerAxis = 1,
) -> Tensor:
    """Images [N, C, *output_size] in which patches, the columns [N, C * kernel, L] that `unfold`
    makes (or [C * kernel, L]), are added up where they overlap.

    Raises ShapeError, ArgumentError or DTypeError for arguments that do not fit.
    """
    x = float_input("fold", input)
    if x.ndim not in (2, 3):
        raise ShapeError(
            f"fold needs an input [N, C * kernel, L] or [C * kernel, L], found {x.type}"
        )
    size, kernel = (
        per_axis("output_size", output_size, 2, 1),
        per_axis("kernel_size", kernel_size, 2, 1),
    )
    pads, strides = pads_per_axis("padding", padding, 2), per_axis("stride", stride, 2, 1)
    gaps = per_axis("dilation", dilation, 2, 1)
    columns = api.expand_dims(x, axis=0) if x.ndim == 2 else x
    n, both, count = columns.shape
    rows, wide = (int(s) for s in window_counts("fold", size, kernel, strides, pads, gaps))  # type: ignore[arg-type]
    if both % prod(kernel) or count != rows * wide:
        raise ShapeError(
            f"fold to {shape_text(size)} by a kernel {kernel} needs an input of a multiple of "
            f"{prod(kernel)} rows and {rows * wide} columns, found shape {shape_text(x.shape)}"
        )
    parts = api.reshape(columns, (n, both // prod(kernel), *kernel, rows, wide))
    attrs = FromWindowsAttrs(size, _AXES, kernel, strides, pads, gaps)
    taps = api.permute_dims(parts, (2, 3, 0, 1, 4, 5))
    (found,) = apply_op(get_op("from_windows"), (taps,), attrs)
    image = apply("sum", found, axes=(0, 1), keepdims=False)
    return api.squeeze(image, axis=0) if x.ndim == 2 else image
