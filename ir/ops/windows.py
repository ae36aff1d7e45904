"""The geometry of windows that move over padded spatial axes, as convolutions and pools share it.

Along one axis, window p covers the elements `p * stride + k * dilation - low` for the taps k of the
kernel; what lies outside of the tensor is padding.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.errors import ShapeError
from treadle.ir.types import Shape, Size, shape_text

Pads = tuple[tuple[int, int], ...]


def kernel_span(taps: int, dilation: int) -> int:
    """How many elements lie between a kernel's first and last tap, both included."""
    return dilation * (taps - 1) + 1


def check_windows(
    name: str, rank: int, stride: Sequence[int], padding: Pads, dilation: Sequence[int]
) -> None:
    """Raise ShapeError unless there is one legal stride, pair of pads and dilation an axis."""
    for what, given in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        if len(given) != rank:
            raise ShapeError(
                f"{name}: {what} needs one entry for each of {rank} spatial axes, found {given}"
            )
    for what, steps in (("stride", stride), ("dilation", dilation)):
        if any(step < 1 for step in steps):
            raise ShapeError(f"{name}: {what} must be at least 1, found {tuple(steps)}")
    if any(len(pads) != 2 or min(pads) < 0 for pads in padding):
        raise ShapeError(f"{name}: padding must be pairs of at least 0, found {padding}")


def window_counts(
    name: str,
    sizes: Sequence[Size],
    taps: Sequence[Size],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
) -> Shape:
    """How many windows fit along each axis.

    Raises ShapeError where a kernel has no taps or spans more than the padded axis, which would
    make a negative number of windows, and where a symbolic size meets a stride other than 1.
    """
    counts: list[Size] = []
    for axis, (size, k, step, pads, dil) in enumerate(
        zip(sizes, taps, stride, padding, dilation, strict=True)
    ):
        if not isinstance(k, int) or k < 1:
            raise ShapeError(f"{name}: the kernel needs fixed sizes of at least 1, found {k}")
        spare = size + sum(pads) - kernel_span(k, dil)
        if isinstance(spare, int):
            if spare < 0:
                raise ShapeError(_too_large(name, axis, size, k, pads, dil))
            counts.append(spare // step + 1)
        elif step == 1:
            counts.append(spare + 1)
        else:
            raise ShapeError(
                f"{name}: spatial axis {axis} of {shape_text(sizes)} needs a fixed size for "
                f"stride {step}"
            )
    return tuple(counts)


def _too_large(
    name: str, axis: int, size: Size, taps: int, pads: tuple[int, int], dilation: int
) -> str:
    dilated = f" with dilation {dilation}" if dilation > 1 else ""
    return (
        f"{name}: the kernel's {taps} taps{dilated} span {kernel_span(taps, dilation)} elements of "
        f"spatial axis {axis}, which has {size} and padding {pads}, so that no window fits"
    )
