"""Pools as functions: largest and mean elements of windows over one and two spatial axes."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.ops.windows import kernel_span
from treadle.nn.functional.adaptive import adaptive_avg_pool, adaptive_max_pool
from treadle.nn.functional.spatial import (
    OutputSize,
    Pads,
    PerAxis,
    batched,
    element_numbers,
    float_input,
    pads_per_axis,
    per_axis,
    pool_windows,
)
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, flag
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply, apply_multi
from treadle.tracer.promote import Operand
from treadle.tracer.tensor import Tensor

Sizes = tuple[int, ...]
TensorPair = tuple[Tensor, Tensor]

# --- max_pool ----------------------------------------------------------------------------------


@overload
def max_pool1d(
    input: Operand, kernel_size: PerAxis, stride: PerAxis | None = ..., padding: PerAxis = ...,
    dilation: PerAxis = ..., ceil_mode: bool = ..., return_indices: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def max_pool1d(
    input: Operand, kernel_size: PerAxis, stride: PerAxis | None = ..., padding: PerAxis = ...,
    dilation: PerAxis = ..., ceil_mode: bool = ..., *, return_indices: Literal[True],
) -> TensorPair: ...  # fmt: skip
@array_function
def max_pool1d(
    input: Operand,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | TensorPair:
    """`max_pool2d` with one spatial axis: `input` [N, C, L] or [C, L]."""
    return _max_pool(
        "max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@overload
def max_pool2d(
    input: Operand, kernel_size: PerAxis, stride: PerAxis | None = ..., padding: PerAxis = ...,
    dilation: PerAxis = ..., ceil_mode: bool = ..., return_indices: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip
@overload
def max_pool2d(
    input: Operand, kernel_size: PerAxis, stride: PerAxis | None = ..., padding: PerAxis = ...,
    dilation: PerAxis = ..., ceil_mode: bool = ..., *, return_indices: Literal[True],
) -> TensorPair: ...  # fmt: skip
@array_function
def max_pool2d(
    input: Operand,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | TensorPair:
    """The largest element of each window of `input`, [N, C, H, W] or [C, H, W] of floats.

    `kernel_size`, `stride` (the kernel's size unless given), `padding` (with -inf on both sides, at
    most half of the kernel) and `dilation`: one number or one an axis. The result has
    (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1 rows; with `ceil_mode` the quotient is
    rounded up, as long as the last window begins inside the input or its padding in front.

    A window with NaN gives NaN. The gradient goes to the first of equal elements in row-major
    order, and to the last NaN. With `return_indices` the result is a pair: int64 numbers, counted
    through the H * W elements of a plane, say where each maximum was found.

    Raises ShapeError where no window fits, ArgumentError and DTypeError for options that are no
    such numbers.
    """
    return _max_pool(
        "max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def _max_pool(
    name: str, rank: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: Any, return_indices: Any,
) -> Tensor | TensorPair:  # fmt: skip
    x, alone = batched(name, float_input(name, input), rank)
    kernel = per_axis("kernel_size", kernel_size, rank, 1)
    apart = per_axis("dilation", dilation, rank, 1)
    windows, _ = _windows(name, x, kernel, stride, padding, apart, ceil_mode)
    y, taps = apply_multi("max_pool", x, **windows)
    found = [y]
    if flag("return_indices", return_indices):
        found.append(element_numbers(taps, x.shape[2:], windows))
    found = [api.squeeze(v, axis=0) if alone else v for v in found]
    return found[0] if len(found) == 1 else (found[0], found[1])


def _windows(
    name: str, x: Tensor, kernel: Sizes, stride: Any, padding: Any, dilation: Sizes, ceil_mode: Any
) -> tuple[dict[str, Any], Pads]:
    """Attributes of an op on windows, with pads behind as far as windows reach, and the pads that
    were asked for. Raises ArgumentError for pads of more than half of the kernel."""
    rank = len(kernel)
    steps = kernel if stride is None else per_axis("stride", stride, rank, 1)
    pads = pads_per_axis("padding", padding, rank)
    for k, d, pair in zip(kernel, dilation, pads, strict=True):
        if 2 * max(pair) > kernel_span(k, d):
            raise ArgumentError(
                f"{name}: padding must be at most half of the kernel's {kernel_span(k, d)} "
                f"elements, found {padding!r:.60}"
            )
    counts = _counts(name, x.shape[2:], kernel, steps, pads, dilation, flag("ceil_mode", ceil_mode))
    reach = tuple(
        (low, max(0, (n - 1) * s + kernel_span(k, d) - size - low))
        for n, k, s, d, size, (low, _) in zip(
            counts, kernel, steps, dilation, x.shape[2:], pads, strict=True
        )
    )
    return pool_windows(kernel, steps, reach, dilation), pads


def _counts(
    name: str, sizes: Sizes, kernel: Sizes, stride: Sizes, pads: Pads, dilation: Sizes, up: bool
) -> Sizes:
    """How many windows lie along each axis. Raises ShapeError where none does."""
    counts = []
    for axis, (size, k, s, (low, high), d) in enumerate(
        zip(sizes, kernel, stride, pads, dilation, strict=True)
    ):
        spare = size + low + high - kernel_span(k, d)
        count = (spare + (s - 1 if up else 0)) // s + 1
        if up and (count - 1) * s >= size + low:
            count -= 1
        if count < 1:
            raise ShapeError(
                f"{name}: a kernel that spans {kernel_span(k, d)} elements has no window on "
                f"spatial axis {axis}, of size {size} with padding {(low, high)}"
            )
        counts.append(count)
    return tuple(counts)


# --- avg_pool ----------------------------------------------------------------------------------


@array_function
def avg_pool1d(
    input: Operand,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """`avg_pool2d` with one spatial axis: `input` [N, C, L] or [C, L]."""
    return _avg_pool(
        "avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None
    )


@array_function
def avg_pool2d(
    input: Operand,
    kernel_size: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of `input`, [N, C, H, W] or [C, H, W] of floats.

    Windows lie as those of `max_pool2d`, padding is zeros. The sum is divided by the elements of
    the window, with those under `padding` but not what `ceil_mode` adds; without
    `count_include_pad` by those inside of the input; or by `divisor_override`.

    Raises ShapeError where no window fits, ArgumentError and DTypeError for options that are no
    such numbers.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
        divisor_override,
    )  # fmt: skip


def _avg_pool(
    name: str, rank: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    count_include_pad: Any, divisor_override: Any,
) -> Tensor:  # fmt: skip
    x, alone = batched(name, float_input(name, input), rank)
    kernel = per_axis("kernel_size", kernel_size, rank, 1)
    windows, pads = _windows(name, x, kernel, stride, padding, (1,) * rank, ceil_mode)
    total = apply("window_sum", x, **windows)
    counted = flag("count_include_pad", count_include_pad)
    if divisor_override is not None:
        divisor: Any = as_int(divisor_override, "divisor_override")
        if divisor == 0:
            raise ArgumentError(f"{name}: divisor_override must not be 0")
    else:
        divisor = _divisors(windows, x.shape[2:], total.shape[2:], pads, counted)
    y = total / (divisor if isinstance(divisor, int) else divisor.astype(x.dtype.dtype))
    return api.squeeze(y, axis=0) if alone else y


def _divisors(
    windows: dict[str, Any], sizes: Sizes, counts: Sizes, pads: Pads, counted: bool
) -> int | npt.NDArray[Any]:
    """How many elements each window counts; one number where they all count as many."""
    found: Any = np.ones((), np.int64)
    lists = zip(windows["kernel"], windows["stride"], sizes, counts, pads, strict=True)
    for kernel, stride, size, count, (low, high) in lists:
        begin = np.arange(count) * stride - low
        end = np.minimum(begin + kernel, size + high)
        if not counted:
            begin, end = np.maximum(begin, 0), np.minimum(end, size)
        found = found[..., None] * (end - begin)
    return int(found.flat[0]) if found.size and (found == found.flat[0]).all() else found


# --- adaptive pools ----------------------------------------------------------------------------


@array_function
def adaptive_avg_pool1d(input: Operand, output_size: OutputSize) -> Tensor:
    """`adaptive_avg_pool2d` with one spatial axis: `input` [N, C, L] or [C, L]."""
    return adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


@array_function
def adaptive_avg_pool2d(input: Operand, output_size: OutputSize) -> Tensor:
    """The means of `input`, [N, C, H, W] or [C, H, W] of floats, over windows that make a result of
    `output_size`: one number or one an axis, None for the input's.

    Of P windows over H elements, window p holds those from p * H // P to before
    ceil((p + 1) * H / P). Raises ShapeError for an input without elements along an axis,
    ArgumentError for sizes below 1.
    """
    return adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


@array_function
def adaptive_max_pool1d(
    input: Operand, output_size: OutputSize, return_indices: bool = False
) -> Tensor | TensorPair:
    """`adaptive_max_pool2d` with one spatial axis: `input` [N, C, L] or [C, L]."""
    return adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


@array_function
def adaptive_max_pool2d(
    input: Operand, output_size: OutputSize, return_indices: bool = False
) -> Tensor | TensorPair:
    """The largest elements of `input` over the windows of `adaptive_avg_pool2d`; ties, NaN and
    indices as for `max_pool2d`."""
    return adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)
