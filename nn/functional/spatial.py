"""What functions of spatial axes do with their arguments: one number or one an axis, pads, and
inputs with or without a batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer import api
from treadle.tracer.api.creation import as_int
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

PerAxis: TypeAlias = "int | Sequence[int]"
Padding: TypeAlias = "int | str | Sequence[int | Sequence[int]]"
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
