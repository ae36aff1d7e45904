"""Manipulation functions, by the Array API standard: reshape, permute_dims, concat, take, pad, ...

Functions that only rearrange give views where NumPy would: reshape, permute_dims, squeeze,
expand_dims, moveaxis, swapaxes, flip, broadcast_to, unstack, split. A broadcast view is read-only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.types import (
    bool_,
    broadcast_shapes,
    normalize_axes,
    normalize_axis,
    resolve_reshape,
    shape_text,
)
from treadle.tracer.api.arguments import Axis, array_function, flag, option
from treadle.tracer.api.creation import SizeLike, as_int, as_shape
from treadle.tracer.execute import apply, reshape_view, view
from treadle.tracer.promote import (
    Operand,
    as_operand,
    as_tensor,
    constant,
    number_of,
    promote,
)
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import BroadcastMap, FlipMap, PermuteMap, ReshapeMap, SliceMap

# --- shapes ----------------------------------------------------------------------------------


@array_function
def reshape(x: Operand, /, shape: SizeLike, *, copy: bool | None = None) -> Tensor:
    """The elements of `x` in row-major order under another shape; one size may be -1.

    A view where the layout of `x` allows it, unless `copy`. Raises ShapeError where the element
    counts differ, or where `copy=False` and no view is possible.
    """
    source = as_tensor(x)
    sizes = tuple(int(s) for s in resolve_reshape(source.shape, as_shape(shape)))  # type: ignore[arg-type]
    if copy is not None and flag("copy", copy):
        return apply("reshape", source, shape=sizes)
    shown = reshape_view(source, sizes)
    if copy is False and shown.cell is not source.cell:
        raise ShapeError(
            f"reshape(copy=False) from {shape_text(source.shape)} to {shape_text(sizes)}: the "
            "elements do not lie in memory in that order"
        )
    return shown


@array_function
def flatten(x: Operand, start: int = 0, end: int = -1) -> Tensor:
    """Axes `start` to `end`, both included, as one; rank 0 becomes rank 1. A view where possible.

    Raises ShapeError where `start` comes after `end`.
    """
    source = as_tensor(x)
    if source.ndim == 0:
        return reshape(source, (1,))
    first, last = normalize_axis(start, source.ndim), normalize_axis(end, source.ndim)
    if first > last:
        raise ShapeError(f"flatten from axis {first} to axis {last}, which comes before it")
    joined = math.prod(source.shape[first : last + 1])
    return reshape(source, (*source.shape[:first], joined, *source.shape[last + 1 :]))


@array_function
def permute_dims(x: Operand, /, axes: Sequence[int]) -> Tensor:
    """Axis i of the result is axis axes[i] of `x`. A view."""
    source = as_tensor(x)
    listed = axes if isinstance(axes, (list, tuple)) else (axes,)
    perm = tuple(normalize_axis(a, source.ndim) for a in listed)
    if sorted(perm) != list(range(source.ndim)):
        raise ShapeError(
            f"permute_dims needs each of the {source.ndim} axes of {shape_text(source.shape)} "
            f"once, found {tuple(axes)}"
        )
    identity = perm == tuple(range(source.ndim))
    return source if identity else view(source, PermuteMap(perm))


@array_function
def swapaxes(x: Operand, axis1: int, axis2: int, /) -> Tensor:
    """Two axes exchanged. A view."""
    source = as_tensor(x)
    perm = list(range(source.ndim))
    i, j = normalize_axis(axis1, source.ndim), normalize_axis(axis2, source.ndim)
    perm[i], perm[j] = j, i
    return permute_dims(source, perm)


@array_function
def moveaxis(
    x: Operand, source: int | Sequence[int], destination: int | Sequence[int], /
) -> Tensor:
    """The axes `source` moved to the positions `destination`; the others keep their order. A view.

    Raises ShapeError where an axis is named twice or the counts differ.
    """
    moved = as_tensor(x)
    origins = _distinct(source, moved.ndim)
    targets = _distinct(destination, moved.ndim)
    if len(origins) != len(targets):
        raise ShapeError(
            f"moveaxis needs as many destinations as sources, found {destination} for {source}"
        )
    perm = [axis for axis in range(moved.ndim) if axis not in origins]
    for target, origin in sorted(zip(targets, origins, strict=True)):
        perm.insert(target, origin)
    return permute_dims(moved, perm)


def _distinct(axes: int | Sequence[int], rank: int) -> list[int]:
    """The axes in their order, counted from the front."""
    normalize_axes(axes, rank)  # raises for repeats
    listed = axes if isinstance(axes, (list, tuple)) else (axes,)
    return [normalize_axis(a, rank) for a in listed]


@array_function
def expand_dims(x: Operand, /, axis: int | Sequence[int] = 0) -> Tensor:
    """`x` with a new axis of size 1 at each position `axis` of the result. A view."""
    source = as_tensor(x)
    listed = axis if isinstance(axis, (list, tuple)) else (axis,)
    rank = source.ndim + len(listed)
    new = normalize_axes(listed, rank)
    sizes = iter(source.shape)
    return view(source, ReshapeMap(tuple(1 if i in new else next(sizes) for i in range(rank))))


@array_function
def squeeze(x: Operand, /, axis: int | Sequence[int]) -> Tensor:
    """`x` without the axes `axis`, which have size 1. A view. Raises ShapeError for other sizes."""
    source = as_tensor(x)
    gone = normalize_axes(axis, source.ndim)
    for i in gone:
        if source.shape[i] != 1:
            raise ShapeError(
                f"squeeze of axis {i} of {shape_text(source.shape)}: its size is not 1"
            )
    kept = tuple(s for i, s in enumerate(source.shape) if i not in gone)
    return view(source, ReshapeMap(kept)) if gone else source


@array_function
def broadcast_to(x: Operand, /, shape: SizeLike) -> Tensor:
    """`x` repeated along axes of size 1 and along new leading axes. A read-only view; a size of
    -1 keeps the size of `x`."""
    source = as_tensor(x)
    sizes = as_shape(shape)
    extra = len(sizes) - source.ndim
    if extra >= 0:
        old = (*(-1,) * extra, *source.shape)
        sizes = tuple(o if s == -1 else s for s, o in zip(sizes, old, strict=True))
    return source if sizes == source.shape else view(source, BroadcastMap(sizes))


@array_function
def broadcast_arrays(*arrays: Operand) -> list[Tensor]:
    """All operands broadcast to one shape: read-only views."""
    tensors = [as_tensor(x) for x in arrays]
    shape = broadcast_shapes(*(t.shape for t in tensors))
    return [broadcast_to(t, shape) for t in tensors]  # type: ignore[arg-type]


@array_function
def flip(x: Operand, /, axis: Axis = None) -> Tensor:
    """The order of the elements reversed along `axis` (all axes for None). A view."""
    source = as_tensor(x)
    axes = normalize_axes(axis, source.ndim)
    return view(source, FlipMap(axes)) if axes else source


# --- joining and splitting -------------------------------------------------------------------


@array_function
def concat(arrays: Sequence[Operand], /, axis: int | None = 0) -> Tensor:
    """The operands one after the other along `axis` (flattened first for None), promoted to one
    dtype. Raises ShapeError where other axes differ or the list is empty."""
    tensors = _promoted("concat", arrays)
    if axis is None:
        tensors = [reshape(t, (-1,)) for t in tensors]
        axis = 0
    if any(t.ndim == 0 for t in tensors):
        raise ShapeError("concat needs operands of rank 1 or more; use stack for scalars")
    return apply("concat", *tensors, axis=normalize_axis(axis, tensors[0].ndim))


def _promoted(name: str, arrays: Iterable[Operand]) -> list[Tensor]:
    if not isinstance(arrays, Iterable) or isinstance(arrays, (str, bytes)):
        raise DTypeError(
            f"{name} needs a sequence of tensors, found {type(arrays).__name__} {arrays!r:.60}"
        )
    arrays = list(arrays)
    if not arrays:
        raise ShapeError(f"{name} needs one operand or more, found none")
    return [as_tensor(t) for t in promote(*arrays)]


@array_function
def stack(arrays: Sequence[Operand], /, axis: int = 0) -> Tensor:
    """The operands, of one shape, side by side along a new axis `axis` of the result."""
    tensors = _promoted("stack", arrays)
    for t in tensors:
        if t.shape != tensors[0].shape:
            raise ShapeError(
                f"stack needs operands of one shape, found {shape_text(tensors[0].shape)} and "
                f"{shape_text(t.shape)}"
            )
    where = normalize_axis(axis, tensors[0].ndim + 1)
    return apply("concat", *(expand_dims(t, axis=where) for t in tensors), axis=where)


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Elements start to stop (not included) along `axis`: a view."""
    starts = tuple(start if i == axis else 0 for i in range(x.ndim))
    shape = tuple(stop - start if i == axis else s for i, s in enumerate(x.shape))
    return view(x, SliceMap(starts, (1,) * x.ndim, shape))


@array_function
def unstack(x: Operand, /, axis: int = 0) -> tuple[Tensor, ...]:
    """The sub-tensors along `axis`, which they lack: views."""
    source = as_tensor(x)
    where = normalize_axis(axis, source.ndim)
    parts = (_part(source, where, i, i + 1) for i in range(source.shape[where]))
    return tuple(squeeze(p, axis=where) for p in parts)


@array_function
def split(x: Operand, sections: int | Sequence[int], /, axis: int = 0) -> list[Tensor]:
    """NumPy's split: `sections` equal parts along `axis`, or parts that end before each index of
    a list. Views. Raises ShapeError where the axis does not divide."""
    source = as_tensor(x)
    where = normalize_axis(axis, source.ndim)
    size = source.shape[where]
    if isinstance(sections, Sequence):
        bounds = [0, *(_bound(b, size) for b in sections), size]
    else:
        count = as_int(sections, "split's sections")
        if count < 1 or size % count:
            raise ShapeError(f"axis {where} of size {size} does not split into {count} equal parts")
        bounds = [i * (size // count) for i in range(count + 1)]
    return [_part(source, where, low, max(low, high)) for low, high in itertools.pairwise(bounds)]


def _bound(index: int, size: int) -> int:
    """An end as in a slice: negative from the end, clipped to the axis."""
    return slice(as_int(index, "a bound of split")).indices(size)[1]


@array_function
def roll(x: Operand, /, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
    """Elements moved by `shift` along `axis`, from the end back to the start; of the flat tensor
    for None."""
    source = as_tensor(x)
    if axis is None:
        total = sum(as_shape(shift))
        return reshape(roll(reshape(source, (-1,)), total, axis=0), source.shape)
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    shifts = as_shape(shift)
    if len(shifts) == 1:
        shifts = shifts * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll needs one shift an axis, found {shift} for axes {axis}")
    for by, where in zip(shifts, axes, strict=True):
        source = _rolled(source, by, normalize_axis(where, source.ndim))
    return source


def _rolled(x: Tensor, shift: int, axis: int) -> Tensor:
    size = x.shape[axis]
    cut = (size - shift) % size if size else 0
    parts = [_part(x, axis, cut, size), _part(x, axis, 0, cut)]
    return apply("concat", *parts, axis=axis)


@array_function
def repeat(x: Operand, repeats: int, /, axis: int | None = None) -> Tensor:
    """Each element `repeats` times in a row along `axis`; of the flat tensor for None."""
    source = as_tensor(x) if axis is not None else reshape(x, (-1,))
    where = normalize_axis(0 if axis is None else axis, source.ndim)
    count = as_int(repeats, "repeat's repeats")
    if count < 0:
        raise ShapeError(f"repeat's repeats must be at least 0, found {count}")
    before, size, after = source.shape[:where], source.shape[where], source.shape[where + 1 :]
    spread = broadcast_to(expand_dims(source, axis=where + 1), (*before, size, count, *after))
    return apply("reshape", spread, shape=(*before, size * count, *after))


@array_function
def tile(x: Operand, repetitions: SizeLike, /) -> Tensor:
    """`x` repeated as a whole: repetitions[i] times along axis i, aligned at the last axis."""
    source, reps = as_tensor(x), as_shape(repetitions)
    if any(r < 0 for r in reps):
        raise ShapeError(f"tile's repetitions must be at least 0, found {reps}")
    rank = max(source.ndim, len(reps))
    sizes = (1,) * (rank - source.ndim) + source.shape
    reps = (1,) * (rank - len(reps)) + reps
    apart = tuple(n for size in sizes for n in (1, size))
    spread = tuple(n for pair in zip(reps, sizes, strict=True) for n in pair)
    wide = broadcast_to(reshape(source, apart), spread)
    return apply("reshape", wide, shape=tuple(r * s for r, s in zip(reps, sizes, strict=True)))


# --- padding and picking ---------------------------------------------------------------------

PadWidth = int | tuple[int, int] | Sequence[tuple[int, int]]


@array_function
def pad(
    x: Operand,
    pad_width: PadWidth,
    /,
    *,
    mode: str = "constant",
    constant_values: Operand = 0,
) -> Tensor:
    """NumPy's pad with a constant: `pad_width` is one number, (before, after) for all axes, or a
    pair for each axis. Raises ShapeError for negative widths and for a constant that is not of
    rank 0, ArgumentError for other modes."""
    option("pad's mode", mode, ("constant",))
    source = as_tensor(x)
    pairs = _pad_pairs(pad_width, source.ndim)
    low, high = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    number = number_of(constant_values)
    if number is not None:
        return apply("pad", source, low=low, high=high, value=number)
    value = as_operand(constant_values)  # known only at run time: a float argument, for one
    if value.ndim:
        raise ShapeError(f"pad's constant_values must be of rank 0, found {value.type}")
    wide = apply("pad", source, low=low, high=high, value=0)
    inside = apply("broadcast_to", constant(True, bool_), shape=source.shape)
    kept = apply("pad", inside, low=low, high=high, value=False)
    return apply("where", kept, wide, value.astype(source.dtype, copy=False))


def _pad_pairs(pad_width: PadWidth, rank: int) -> list[tuple[int, int]]:
    if not isinstance(pad_width, Sequence):
        width = as_int(pad_width, "pad_width")
        return [(width, width)] * rank
    if len(pad_width) == 2 and not any(isinstance(p, Sequence) for p in pad_width):
        low, high = as_shape(pad_width)
        return [(low, high)] * rank
    pairs = [as_shape(p) for p in pad_width]
    if len(pairs) == 1:
        pairs = pairs * rank
    if len(pairs) != rank or any(len(p) != 2 for p in pairs):
        raise ShapeError(f"pad_width needs (before, after) for {rank} axes, found {pad_width}")
    return [(low, high) for low, high in pairs]


@array_function
def take(x: Operand, indices: Operand, /, axis: int | None = None) -> Tensor:
    """The sub-tensors at integer `indices` along `axis`; of the flat tensor for None.

    The shape of `indices` stands in place of the axis. Negative indices count from the end; raises
    IndexFault for one out of range.
    """
    source, index = as_tensor(x), as_operand(indices)
    if axis is None:
        source = reshape(source, (-1,))
    where = normalize_axis(0 if axis is None else axis, source.ndim)
    picked = apply("gather", source, index, axes=(where,), checked=True)
    return moveaxis(picked, tuple(range(index.ndim)), tuple(range(where, where + index.ndim)))


@array_function
def take_along_axis(x: Operand, indices: Operand, /, axis: int = -1) -> Tensor:
    """Along `axis`, the elements that `indices` (of the rank of `x`, broadcast on other axes) name
    for each place of the other axes. Raises IndexFault for one out of range."""
    source, index = as_tensor(x), as_operand(indices)
    where = normalize_axis(axis, source.ndim)
    if index.ndim != source.ndim:
        raise ShapeError(
            f"take_along_axis needs indices of rank {source.ndim}, found shape "
            f"{shape_text(index.shape)}"
        )
    others = broadcast_shapes(
        _without(source.shape, where), _without(index.shape, where)
    )  # fmt: skip
    at, rest = index.shape[where], tuple(int(s) for s in others)  # type: ignore[arg-type]
    source = broadcast_to(source, (*rest[:where], source.shape[where], *rest[where:]))
    shape = (*rest[:where], at, *rest[where:])
    places = broadcast_to(index, shape)
    return apply("take_along", source, places, axis=where, checked=True)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


@array_function
def scatter_add(x: Operand, indices: Operand, values: Operand, /, axis: int = 0) -> Tensor:
    """A copy of `x` with `values` added to the sub-tensors at integer `indices` along `axis`;
    repeated indices add up. `values` broadcasts to the shape of `take(x, indices, axis=axis)`.

    Raises IndexFault for an index out of range, DTypeError for bools.
    """
    source, index = as_tensor(x), as_operand(indices)
    where = normalize_axis(axis, source.ndim)
    added = as_operand(values).astype(source.dtype, copy=False)
    before, after = source.shape[:where], source.shape[where + 1 :]
    added = broadcast_to(added, (*before, *index.shape, *after))
    inside = tuple(range(where, where + index.ndim))
    added = moveaxis(added, inside, tuple(range(index.ndim)))
    return apply("scatter_add", source, added, index, axes=(where,), checked=True)
