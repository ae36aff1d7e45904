"""Resizing as a function: nearest, linear and cubic interpolation of spatial axes.

Along each axis a new element is a weighted sum of at most four old ones; the tables are PyTorch's,
its rounding to float32 where it picks an element included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.op import ArrayData
from treadle.ir.types import shape_text
from treadle.nn.functional.adaptive import adaptive_avg_pool
from treadle.nn.functional.spatial import PerAxis, float_input, per_axis
from treadle.tracer.api.arguments import array_function, flag, option, real
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]
Tables = tuple[Array, Array]

# How many spatial axes a mode is for; None is any.
_MODES: Final[dict[str, int | None]] = {
    "nearest": None, "nearest-exact": None, "linear": 1, "bilinear": 2, "bicubic": 2, "area": None,
}  # fmt: skip
_CORNERS: Final = ("linear", "bilinear", "bicubic")
_CUBIC: Final = -0.75  # the free parameter of the cubic kernel, PyTorch's choice


@array_function
def interpolate(
    input: Operand,
    size: PerAxis | None = None,
    scale_factor: float | list[float] | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """`input` [N, C, *S] of floats, with one spatial axis or two, resized.

    `size` or `scale_factor`, one number or one an axis: of a factor the new size is the floor of
    the product, and the factor itself says where elements lie, unless `recompute_scale_factor`
    takes the ratio of the sizes. `mode`: "nearest" (an element begins where the ratio of sizes puts
    its beginning), "nearest-exact" (its middle), "linear" for one axis, "bilinear" and "bicubic"
    for two, "area" (`adaptive_avg_pool`). `align_corners`, for the linear ones and "bicubic": the
    middles of the outermost elements fall together, not their outer edges.

    Raises ArgumentError for options that do not go together, ShapeError for an input of another
    rank or without elements along a spatial axis.
    """
    x = float_input("interpolate", input)
    kind = option("mode", mode, tuple(_MODES))
    rank = x.ndim - 2
    if rank not in (1, 2) or _MODES[kind] not in (None, rank):
        wanted = {None: "[N, C, L] or [N, C, H, W]", 1: "[N, C, L]", 2: "[N, C, H, W]"}
        raise ShapeError(
            f"interpolate: input must be {wanted[_MODES[kind]]} for mode={kind!r}, found shape "
            f"{shape_text(x.shape)}"
        )
    if 0 in x.shape[2:]:
        raise ShapeError(f"interpolate: input {shape_text(x.shape)} has no elements to interpolate")
    corners = _corners(kind, align_corners)
    sizes, factors = _sizes(x, size, scale_factor, recompute_scale_factor)
    if kind == "area":
        return adaptive_avg_pool("interpolate", rank, x, sizes)
    found = x
    for axis in reversed(range(rank)):
        old, new = x.shape[2 + axis], sizes[axis]
        step = _step(old, new, factors[axis], corners)
        index, weights = _tables(kind, old, new, step, corners)
        if new != old or not _is_identity(index, weights):
            tables = {"index": ArrayData.of(index), "weights": ArrayData.of(weights)}
            found = apply("resample", found, axis=2 + axis, **tables)
    return found.clone() if found is x else found


def _corners(kind: str, given: Any) -> bool:
    if given is None:
        return False
    if kind not in _CORNERS:
        raise ArgumentError(f"align_corners is for {', '.join(_CORNERS)}, found mode={kind!r}")
    return flag("align_corners", given)


def _sizes(
    x: Tensor, size: Any, scale_factor: Any, recompute: Any
) -> tuple[tuple[int, ...], list[float | None]]:
    """The new sizes, and for each axis the factor that says where elements lie, if one does."""
    rank = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate needs either size or scale_factor, and not both")
    again = recompute is not None and flag("recompute_scale_factor", recompute)
    if size is not None:
        if again:
            raise ArgumentError("recompute_scale_factor is for scale_factor, found size")
        return per_axis("size", size, rank, 1), [None] * rank
    listed = scale_factor if isinstance(scale_factor, (list, tuple)) else (scale_factor,) * rank
    if len(listed) != rank:
        raise ShapeError(f"scale_factor must have {rank} entries, found {scale_factor!r:.60}")
    factors = [real("scale_factor", factor) for factor in listed]
    if not all(factor > 0 and math.isfinite(factor) for factor in factors):
        raise ArgumentError(f"scale_factor must be positive, found {scale_factor!r:.60}")
    sizes = tuple(math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
    if min(sizes) < 1:
        raise ShapeError(
            f"interpolate of {shape_text(x.shape)} by {scale_factor!r:.60} would leave sizes "
            f"{shape_text(sizes)}"
        )
    return sizes, [None] * rank if again else list(factors)


# --- tables ------------------------------------------------------------------------------------


def _step(old: int, new: int, factor: float | None, corners: bool) -> float:
    """How many old elements lie between two new ones."""
    if corners:
        return (old - 1) / (new - 1) if new > 1 else 0.0
    return old / new if factor is None else 1.0 / factor


def _tables(kind: str, old: int, new: int, step: float, corners: bool) -> Tables:
    """Which old elements each new one is made of, and with what weights: both [new, terms]."""
    at = np.arange(new)
    if kind == "nearest":
        return _picked(at * step, old)
    if kind == "nearest-exact":
        return _picked((at + 0.5) * step, old)
    if kind == "bicubic":
        return _cubic(at * step if corners else (at + 0.5) * step - 0.5, old)
    if new == old:
        return at[:, None], np.ones((new, 1))
    return _linear(at * step if corners else np.maximum((at + 0.5) * step - 0.5, 0), old)


def _floor(place: Array) -> Array:
    return np.floor(place.astype(np.float32)).astype(np.int64)


def _picked(place: Array, old: int) -> Tables:
    return np.minimum(_floor(place), old - 1)[:, None], np.ones((len(place), 1))


def _begin(place: Array, old: int) -> Tables:
    """The element before each place, and how far behind it the place lies, from 0 to 1."""
    first = np.minimum(_floor(place), old - 1)
    return first, np.clip(place - first, 0, 1)


def _linear(place: Array, old: int) -> Tables:
    first, behind = _begin(place, old)
    index = np.stack([first, np.minimum(first + 1, old - 1)], 1)
    return index, np.stack([1 - behind, behind], 1)


def _cubic(place: Array, old: int) -> Tables:
    """Keys' cubic convolution (IEEE Transactions on Acoustics, Speech, and Signal Processing 29,
    1981), with the outermost elements repeated."""
    first, behind = _begin(place, old)
    distances = (behind + 1, behind, 1 - behind, 2 - behind)
    kernels: tuple[Callable[[Array], Array], ...] = (_outer, _inner, _inner, _outer)
    weights = [kernel(d) for kernel, d in zip(kernels, distances, strict=True)]
    index = [np.clip(first + step, 0, old - 1) for step in (-1, 0, 1, 2)]
    return np.stack(index, 1), np.stack(weights, 1)


def _inner(d: Array) -> Array:
    """The cubic kernel at distances up to 1."""
    return np.asarray(((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1)


def _outer(d: Array) -> Array:
    """The cubic kernel at distances from 1 to 2."""
    return np.asarray(((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC)


def _is_identity(index: Array, weights: Array) -> bool:
    at = np.arange(len(index))[:, None]
    return bool(((index == at) | (weights == 0)).all() and (weights.sum(1) == 1).all())
