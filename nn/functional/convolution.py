"""Convolutions as functions: one and two spatial axes, plain and transposed."""

from __future__ import annotations

from typing import Any, cast

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.ops.windows import kernel_span, window_counts
from treadle.ir.types import shape_text
from treadle.nn.functional.spatial import Padding, Pads, PerAxis, batched, pads_per_axis, per_axis
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, option
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand, promote
from treadle.tracer.tensor import Tensor

Sizes = tuple[int, ...]


@array_function
def conv1d(
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with one spatial axis: `input` [N, C, L] or [C, L], `weight` [O, C/groups, K]."""
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@array_function
def conv2d(
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of `input` with `weight` over two spatial axes, plus `bias`.

    `input` [N, C, H, W] or [C, H, W], `weight` [O, C/groups, KH, KW], `bias` [O], floats; the
    result is [N, O, H', W'] with H' = (H + pads - dilation * (KH - 1) - 1) // stride + 1.

    `stride` and `dilation`: one number or one an axis. `padding`, zeros: one number, one an axis, a
    pair (before, after) an axis, "valid" for none, or "same" for a result of the input's size,
    which asks for stride 1; an odd total has one more behind. `groups`: input and output channels
    fall into so many runs, each of which meets its own kind only.

    Raises ShapeError for channels that do not fit the groups and for a kernel larger than the
    padded input, ArgumentError and DTypeError for options that are no such numbers.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@array_function
def conv_transpose1d(
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Tensor:
    """`conv_transpose2d` with one spatial axis."""
    return _transposed(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip


@array_function
def conv_transpose2d(
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Tensor:
    """The transpose of `conv2d` as a linear map of its input, plus `bias`.

    `input` [N, C, H, W] or [C, H, W], `weight` [C, O/groups, KH, KW], `bias` [O], floats; the
    result is [N, O, H', W'] with
    H' = (H - 1) * stride - pads + dilation * (KH - 1) + output_padding + 1.

    `padding` (numbers or pairs as for `conv2d`) is taken away from the result; `output_padding`
    says which of the sizes that `conv2d` takes to H the result has: less than stride or dilation.

    Raises ShapeError for channels that do not fit and for a negative size, ArgumentError for an
    `output_padding` that is too large.
    """
    return _transposed(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups,
        dilation,
    )  # fmt: skip


# --- what they share ---------------------------------------------------------------------------


def _conv(
    name: str, rank: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    dilation: Any, groups: Any,
) -> Tensor:  # fmt: skip
    x, w, b, alone = _operands(name, rank, input, weight, bias)
    count = _groups(name, groups)
    steps = per_axis("stride", stride, rank, 1)
    apart = per_axis("dilation", dilation, rank, 1)
    pads = _pads(padding, w.shape[2:], steps, apart)
    _check_channels(name, x, w, count)
    _check_bias(name, b, w.shape[0])
    window_counts(name, x.shape[2:], w.shape[2:], steps, pads, apart)
    y = apply("conv", x, w, stride=steps, padding=pads, dilation=apart, groups=count)
    return _finished(y, b, alone)


def _transposed(
    name: str, rank: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    output_padding: Any, groups: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    x, w, b, alone = _operands(name, rank, input, weight, bias)
    count = _groups(name, groups)
    steps = per_axis("stride", stride, rank, 1)
    apart = per_axis("dilation", dilation, rank, 1)
    pads = pads_per_axis("padding", padding, rank)
    more = per_axis("output_padding", output_padding, rank, 0)
    if w.shape[0] != x.shape[1] or x.shape[1] % count:
        raise ShapeError(
            f"{name}: weight {shape_text(w.shape)} must have the input's {x.shape[1]} channels "
            f"first, and groups={count} divide them"
        )
    _check_bias(name, b, w.shape[1] * count)
    if any(m >= max(s, d) for m, s, d in zip(more, steps, apart, strict=True)):
        raise ArgumentError(
            f"output_padding must be less than stride or dilation, found {more} with stride "
            f"{steps} and dilation {apart}"
        )
    # What is more than a stride are windows of their own, which nothing falls into.
    rows = [n + m // s for n, m, s in zip(x.shape[2:], more, steps, strict=True)]
    x = _with_rows(x, rows)
    size = _transposed_size(name, rows, w.shape[2:], steps, pads, apart, more)
    y = apply(
        "conv_input_grad", x, w, size=size, stride=steps, padding=pads, dilation=apart, groups=count
    )
    return _finished(y, b, alone)


def _operands(
    name: str, rank: int, input: Any, weight: Any, bias: Any
) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """Input, weight and bias of one float dtype, the input with a batch axis, and whether that had
    to be added."""
    given = (input, weight) if bias is None else (input, weight, bias)
    x, w, *rest = promote(*given, floating=True)
    x, alone = batched(name, x, rank)
    if w.ndim != rank + 2:
        raise ShapeError(
            f"{name}: weight must have {rank + 2} axes, of channels, channels of a group and "
            f"kernel, found shape {shape_text(w.shape)}"
        )
    if 0 in w.shape[2:]:
        raise ShapeError(f"{name}: weight {shape_text(w.shape)} has a kernel of size 0")
    return x, w, rest[0] if rest else None, alone


def _groups(name: str, groups: Any) -> int:
    found = as_int(groups, "groups")
    if found < 1:
        raise ArgumentError(f"{name}: groups must be at least 1, found {found}")
    return found


def _pads(padding: Any, taps: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    if not isinstance(padding, str):
        return pads_per_axis("padding", padding, len(taps))
    if option("padding", padding, ("valid", "same")) == "valid":
        return ((0, 0),) * len(taps)
    if any(s != 1 for s in stride):
        raise ArgumentError(f"padding='same' asks for stride 1, found stride {stride}")
    totals = [kernel_span(k, d) - 1 for k, d in zip(taps, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _check_channels(name: str, x: Tensor, w: Tensor, groups: int) -> None:
    channels, outputs, of_group = x.shape[1], w.shape[0], w.shape[1]
    if channels % groups or outputs % groups:
        raise ShapeError(
            f"{name}: groups={groups} must divide the {channels} channels of the input and the "
            f"{outputs} of weight {shape_text(w.shape)}"
        )
    if channels != of_group * groups:
        raise ShapeError(
            f"{name}: with groups={groups} the weight {shape_text(w.shape)} takes "
            f"{of_group * groups} input channels, found an input of {channels} channels, "
            f"{shape_text(x.shape)}"
        )


def _check_bias(name: str, bias: Tensor | None, outputs: int) -> None:
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(
            f"{name}: bias must have shape {shape_text((outputs,))}, one number an output channel, "
            f"found {shape_text(bias.shape)}"
        )


def _with_rows(x: Tensor, rows: list[int]) -> Tensor:
    """`x` with zeros behind, up to `rows` elements along the spatial axes."""
    more = tuple(n - have for n, have in zip(rows, x.shape[2:], strict=True))
    if not any(more):
        return x
    return apply("pad", x, low=(0,) * x.ndim, high=(0, 0, *more), value=0)


def _transposed_size(
    name: str, rows: list[int], taps: Sizes, stride: Sizes, pads: Pads, dilation: Sizes, more: Sizes
) -> Sizes:
    """The spatial sizes of a transposed convolution. Raises ShapeError for a negative one."""
    size = tuple(
        (n - 1) * s - sum(p) + kernel_span(k, d) + m % s
        for n, k, s, p, d, m in zip(rows, taps, stride, pads, dilation, more, strict=True)
    )
    if min(size) < 0:
        raise ShapeError(
            f"{name}: the result would have size {shape_text(size)}: an input of size "
            f"{shape_text(rows)} has less than padding {pads} takes away"
        )
    return size


def _finished(y: Tensor, bias: Tensor | None, alone: bool) -> Tensor:
    """`y` plus the bias of each channel, without the batch axis that was added."""
    if bias is not None:
        ones = (1,) * (y.ndim - 2)
        y = apply("add", y, api.reshape(bias, cast(Any, (*bias.shape, *ones))))
    return api.squeeze(y, axis=0) if alone else y
