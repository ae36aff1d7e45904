"""What functions of spatial axes do with their arguments: one number or one an axis, pads, and
inputs with or without a batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import int64, shape_text
from treadle.tracer import api
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

PerAxis: TypeAlias = "int | Sequence[int]"
Padding: TypeAlias = "int | str | Sequence[int | Sequence[int]]"
OutputSize: TypeAlias = "int | Sequence[int | None] | None"
Pads: TypeAlias = tuple[tuple[int, int], ...]


def per_axis(what: str, value: Any, rank: int, least: int) -> tuple[int, ...]:
    """`value` as one int an axis, each at least `least`: one number stands for all axes.

    Raises DTypeError for what is no int, ShapeError for another count, ArgumentError for numbers
    that are too small.
    """
    if isinstance(value, (list, tuple, np.ndarray)):
        found = tuple(as_int(v, f"an entry of {what}") for v in value)
        if len(found) == 1:
            found *= rank
        if len(found) != rank:
            raise ShapeError(f"{what} must have one entry or {rank}, found {value!r:.60}")
    else:
        found = (as_int(value, what),) * rank
    if any(v < least for v in found):
        raise ArgumentError(f"{what} must be at least {least}, found {value!r:.60}")
    return found


def pads_per_axis(what: str, value: Any, rank: int) -> Pads:
    """`value` as a pair (before, after) an axis: one number, one an axis, or a pair an axis."""
    pairs = isinstance(value, (list, tuple, np.ndarray)) and any(map(_is_listed, value))
    if not pairs:
        return tuple((n, n) for n in per_axis(what, value, rank, 0))
    if len(value) != rank or not all(_is_listed(v) and len(v) == 2 for v in value):
        raise ShapeError(f"{what} must have {rank} pairs (before, after), found {value!r:.60}")
    found = tuple((as_int(v[0], what), as_int(v[1], what)) for v in value)
    if any(min(pair) < 0 for pair in found):
        raise ArgumentError(f"{what} must be at least 0, found {value!r:.60}")
    return found


def _is_listed(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def float_input(name: str, x: Any) -> Tensor:
    """`x` as a float tensor; raises DTypeError for integers and bools."""
    found = as_tensor(x)
    if not found.dtype.is_float:
        raise DTypeError(f"{name}: input must be float32 or float64, found {found.type}")
    return found


def batched(name: str, x: Tensor, rank: int) -> tuple[Tensor, bool]:
    """`x` as [N, C, *S] with `rank` spatial axes, and whether the batch axis had to be added."""
    if x.ndim == rank + 2:
        return x, False
    if x.ndim == rank + 1:
        return api.expand_dims(x, axis=0), True
    axes = ", ".join(("L",) if rank == 1 else ("H", "W"))
    raise ShapeError(
        f"{name}: input must be [N, C, {axes}] or [C, {axes}], found shape {shape_text(x.shape)}"
    )


def output_size(value: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """`output_size` as one number an axis, None standing for the input's size. Raises as
    `per_axis` does."""
    listed = value if _is_listed(value) else (value,) * len(sizes)
    if len(listed) != len(sizes):
        raise ShapeError(f"output_size must have {len(sizes)} entries, found {value!r:.60}")
    filled = [size if v is None else v for v, size in zip(listed, sizes, strict=True)]
    return per_axis("output_size", filled, len(sizes), 1)


def pool_windows(
    kernel: Sequence[int], stride: Sequence[int], padding: Pads, dilation: Sequence[int]
) -> dict[str, Any]:
    """The attributes of an op on windows over all axes but the first two."""
    return {
        "axes": tuple(range(2, 2 + len(kernel))), "kernel": tuple(kernel),
        "stride": tuple(stride), "padding": padding, "dilation": tuple(dilation),
    }  # fmt: skip


def element_numbers(
    taps: Tensor, plane: Sequence[int], windows: dict[str, Any], elements: Any = None
) -> Tensor:
    """int64 numbers, counted through the elements of a `plane`, of what the taps of windows lie on.

    `elements`: for each axis the numbers in the plane of what the windows were laid over, where
    that is not the plane itself.
    """
    rest: Any = api.astype(taps, int64)
    along = []
    for kernel in reversed(windows["kernel"]):
        along.append(rest % kernel)
        rest = rest // kernel
    number: Any = 0
    for axis, tap in enumerate(reversed(along)):
        low = windows["padding"][axis][0]
        shape = [1] * taps.ndim
        shape[2 + axis] = count = taps.shape[2 + axis]
        first = (np.arange(count) * windows["stride"][axis] - low).reshape(shape)
        at = tap * windows["dilation"][axis] + first
        if elements is not None:
            at = apply("gather", api.asarray(elements[axis]), at, axes=(0,), checked=False)
        number = number * plane[axis] + at
    return cast(Tensor, number)
