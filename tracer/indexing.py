"""Indexing: what `x[key]` shows and what `x[key] = value` writes.

A key is parsed once, into index maps for its basic part (ints, slices, None, Ellipsis), which make
a view, and integer tensors that address axes of that view. So

    x[key]            view(x, maps)                     basic keys: a view of x
                      gather(view(x, maps), *indices)   with arrays: a copy
    x[key] = v        v is written through the view; with arrays, the view is overwritten with
                      scatter(view, v, *indices)

by NumPy's rules, its placement of the indexed axes included: where array indices (ints among them
count) are separated by a slice, an Ellipsis or None, their axes come first. Boolean masks become
the indices of their true elements. In a trace these are not known, so that reading a mask is an
error there; assignment of one value to all of them is a `where`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, IndexFault, TraceError
from treadle.ir.types import bool_, broadcast_shapes, float64, int64, shape_text
from treadle.tracer.create import tensor
from treadle.tracer.errors import located_errors
from treadle.tracer.execute import apply, check_writable, copy_into, reshape_view, view, write
from treadle.tracer.modes import modes
from treadle.tracer.promote import as_operand, constant, number_of
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import BroadcastMap, PermuteMap, ReshapeMap, SliceMap, ViewMap


def getitem(x: Tensor, key: Any) -> Tensor:
    """`x[key]`. Raises IndexFault for an index out of range or too many of them, DTypeError for
    what is no index, TraceError for a mask in a trace."""
    with located_errors():
        plan = parse(x, key)
        shown = view(x, *plan.maps)
        if plan.masks_unknown:
            raise TraceError(
                "x[mask] in a jitted function: how many elements the mask selects, and so the "
                "shape, is known only when the compiled code runs; use treadle.where(mask, x, "
                "other), or multiply by the mask"
            )
        if not plan.arrays:
            return shown
        picked = apply("gather", shown, *plan.indices(), axes=plan.axes, checked=True)
        return _permuted(picked, plan.result_order(shown.ndim))


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """`x[key] = value`: cast to the dtype of `x` and broadcast. Raises as `getitem`, and ShapeError
    where the value does not broadcast; nothing is written then."""
    with located_errors():
        plan = parse(x, key)
        shown = view(x, *plan.maps)
        check_writable(shown)
        new = as_value(value, x)
        if not plan.arrays:
            copy_into(shown, new)
        elif plan.masks_unknown or _is_one_value_mask(plan, shown, new):
            write(shown, _masked(plan, shown, new))
        else:
            write(shown, _scattered(plan, shown, new))


# --- parsed keys -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Place:
    """An array index: which axes of the view it addresses. A mask addresses as many as its rank."""

    index: Tensor
    axes: tuple[int, ...]


@dataclass(slots=True)
class Plan:
    """A parsed key: `maps` make the view, `arrays` address its axes.

    `separated`: the arrays' axes come first in the result, else where the first of them stands.
    """

    maps: tuple[ViewMap, ...]
    arrays: tuple[_Place, ...]
    separated: bool
    _found: list[Tensor] = field(default_factory=list)

    @property
    def masks_unknown(self) -> bool:
        """A mask whose true elements are not known now."""
        return modes.trace is not None and any(p.index.dtype == bool_ for p in self.arrays)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the view that the indices address."""
        return tuple(axis for place in self.arrays for axis in place.axes)

    def indices(self) -> list[Tensor]:
        """One integer tensor for each of `axes`, all of one shape."""
        if not self._found:
            found = [t for place in self.arrays for t in _integers(place)]
            shape = broadcast_shapes(*(t.shape for t in found))
            self._found = [_broadcast(t, tuple(map(int, shape))) for t in found]  # type: ignore[arg-type]
        return self._found

    def result_order(self, rank: int) -> tuple[int, ...]:
        """The permutation from gather's result (indexed axes first) to NumPy's order."""
        inner, kept = self.indices()[0].ndim, rank - len(self.axes)
        before = 0 if self.separated else self.axes[0]
        first = tuple(range(inner, inner + before))
        return (*first, *range(inner), *range(inner + before, inner + kept))


def _integers(place: _Place) -> tuple[Tensor, ...]:
    """The index itself, or the positions of a mask's true elements, one tensor an axis."""
    if place.index.dtype != bool_:
        return (place.index,)
    mask = place.index.array()
    if mask.ndim == 0:  # a new axis of size 1, taken or not
        return (tensor(np.zeros(int(mask), np.int64)),)
    return tuple(tensor(position) for position in np.nonzero(mask))


def _broadcast(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else view(x, BroadcastMap(shape))


def _permuted(x: Tensor, perm: tuple[int, ...]) -> Tensor:
    return x if perm == tuple(range(x.ndim)) else view(x, PermuteMap(perm))


# --- parsing ---------------------------------------------------------------------------------


def parse(x: Tensor, key: Any) -> Plan:
    """Read a key for a tensor of the shape of `x`. Raises IndexFault or DTypeError."""
    entries = [_entry(k) for k in (key if isinstance(key, tuple) else (key,))]
    reader = _Reader(x.shape)
    for entry in _with_ellipsis(entries, x):
        reader.read(entry)
    return reader.plan()


def _entry(k: Any) -> Any:
    """A part of a key: int, slice, None, Ellipsis, or a Tensor of integers or bools."""
    if k is None or k is Ellipsis or isinstance(k, slice):
        return k
    if isinstance(k, (bool, np.bool_)):
        return tensor(bool(k))
    if isinstance(k, (list, tuple)):
        k = _listed(k)
    if isinstance(k, np.ndarray):
        k = as_operand(k) if k.dtype.kind in "biu" else _refuse(f"an array of {k.dtype}")
    if isinstance(k, Tensor):
        if not (k.dtype.is_integer or k.dtype == bool_):
            _refuse(f"a tensor of {k.dtype.name}")
        return k
    try:
        return operator.index(k)
    except TypeError:
        return _refuse(f"{type(k).__name__} {k!r:.60}")


def _listed(items: Sequence[Any]) -> Any:
    """A list of indices as an array; an empty one holds no floats."""
    if _has_tensor(items):
        return tensor(items)
    try:
        array = np.asarray(items)
    except ValueError:
        return _refuse("a list whose items differ in length")
    return array if array.size else array.astype(np.int64)


def _has_tensor(items: Sequence[Any]) -> bool:
    return any(
        isinstance(i, Tensor) or (isinstance(i, (list, tuple)) and _has_tensor(i)) for i in items
    )


def _refuse(found: str) -> Any:
    raise DTypeError(
        f"an index must be an int, a slice, None, ..., or integers or bools in a tensor, an array "
        f"or a list; found {found}"
    )


def _consumed(entry: Any) -> int:
    """How many axes of x an entry stands for."""
    if entry is None or entry is Ellipsis:
        return 0
    return entry.ndim if isinstance(entry, Tensor) and entry.dtype == bool_ else 1


def _with_ellipsis(entries: list[Any], x: Tensor) -> list[Any]:
    """The entries with full slices for the axes that the key does not name. The Ellipsis stays:
    it separates array indices even where it stands for no axis."""
    count = sum(map(_consumed, entries))
    if count > x.ndim:
        raise IndexFault(
            f"too many indices for a tensor of shape {shape_text(x.shape)}: found {count}"
        )
    dots = [i for i, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        raise IndexFault("an index can have one Ellipsis (...) only")
    at = dots[0] + 1 if dots else len(entries)
    return [*entries[:at], *[slice(None)] * (x.ndim - count), *entries[at:]]


class _Reader:
    """Goes through the entries of a key, axis by axis of x."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.axis = 0  # of x
        self.starts: list[int] = []
        self.steps: list[int] = []
        self.sizes: list[int] = []  # after slicing; the axes of x
        self.kept: list[int] = []  # the shape of the view
        self.arrays: list[_Place] = []
        self.runs = 0  # of neighbouring ints and arrays
        self.in_run = False

    def read(self, entry: Any) -> None:
        """Take one entry."""
        if isinstance(entry, Tensor):
            self._run()
            self._array(entry)
        elif isinstance(entry, int):
            self._run()
            self._int(entry)
        else:
            self.in_run = False
            if entry is None:
                self.kept.append(1)
            elif isinstance(entry, slice):
                self._slice(entry)

    def _run(self) -> None:
        self.runs += not self.in_run
        self.in_run = True

    def _part(self, start: int, step: int, size: int) -> None:
        self.starts.append(start)
        self.steps.append(step)
        self.sizes.append(size)
        self.axis += 1

    def _int(self, i: int) -> None:
        size = self.shape[self.axis]
        if not -size <= i < size:
            raise IndexFault(f"index {i} is out of range for axis {self.axis} of size {size}")
        self._part(i % size, 1, 1)

    def _slice(self, entry: slice) -> None:
        try:
            start, stop, step = entry.indices(self.shape[self.axis])
        except TypeError:
            bounds = (entry.start, entry.stop, entry.step)
            bad = next(b for b in bounds if b is not None and not hasattr(b, "__index__"))
            raise DTypeError(
                f"the bounds of a slice must be ints, found {type(bad).__name__} {bad!r:.60}"
            ) from None
        except ValueError:
            raise IndexFault("the step of a slice must not be 0") from None
        size = len(range(start, stop, step))
        self._part(start, step, size)
        self.kept.append(size)

    def _array(self, index: Tensor) -> None:
        rank = index.ndim if index.dtype == bool_ else 1
        first = len(self.kept)
        if rank == 0:
            self.kept.append(1)  # a bool of rank 0 takes (or not) a new axis of size 1
            rank = 1
        else:
            here = self.shape[self.axis : self.axis + rank]
            if index.dtype == bool_ and index.shape != here:
                raise IndexFault(
                    f"a mask of shape {shape_text(index.shape)} does not fit axes {self.axis} to "
                    f"{self.axis + rank - 1}, of shape {shape_text(here)}"
                )
            if 0 in here and index.dtype != bool_ and index.size:
                raise IndexFault(f"axis {self.axis} has size 0, so no index into it is legal")
            for size in here:
                self._part(0, 1, size)
            self.kept.extend(here)
        self.arrays.append(_Place(index, tuple(range(first, first + rank))))

    def plan(self) -> Plan:
        """What was read."""
        maps: list[ViewMap] = []
        if tuple(self.sizes) != self.shape or any(s != 1 for s in self.steps):
            maps.append(SliceMap(tuple(self.starts), tuple(self.steps), tuple(self.sizes)))
        if self.kept != self.sizes:
            maps.append(ReshapeMap(tuple(self.kept)))
        return Plan(tuple(maps), tuple(self.arrays), separated=self.runs > 1)


# --- assignment ------------------------------------------------------------------------------


def as_value(value: Any, x: Tensor) -> Tensor:
    """What is assigned to `x`, as a tensor. Python numbers keep their precision until they are cast
    to its dtype; lists are taken in it."""
    number = number_of(value)
    if number is not None:
        kind = bool_ if isinstance(number, bool) else int64 if isinstance(number, int) else float64
        return constant(number, kind)
    if isinstance(value, (list, tuple)):
        return tensor(value, dtype=x.dtype)
    return as_operand(value)


def _scattered(plan: Plan, shown: Tensor, new: Tensor) -> Tensor:
    """`shown` with the values written at the indices: the last write wins."""
    indices, order = plan.indices(), plan.result_order(shown.ndim)
    kept = [s for i, s in enumerate(shown.shape) if i not in plan.axes]
    blocks = (*indices[0].shape, *kept)
    shape = tuple(blocks[i] for i in order)
    values = _broadcast(_cast_to(new, shown), shape)
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    values = _permuted(values, inverse)
    return apply("scatter", shown, values, *indices, axes=plan.axes, checked=True)


def _cast_to(new: Tensor, x: Tensor) -> Tensor:
    return new if new.dtype == x.dtype else apply("cast", new, dtype=x.dtype)


def _is_one_value_mask(plan: Plan, shown: Tensor, new: Tensor) -> bool:
    """A single mask, and a value that does not tell its true elements apart."""
    return (
        len(plan.arrays) == 1
        and plan.arrays[0].index.dtype == bool_
        and (_value_shape(plan, shown, new) is not None)
    )


def _value_shape(plan: Plan, shown: Tensor, new: Tensor) -> tuple[int, ...] | None:
    """The shape under which a value broadcasts to `shown`: the axis of the selected elements, of
    size 1, becomes the mask's axes. None where the value has one entry an element."""
    (place,) = plan.arrays
    rank = shown.ndim - len(place.axes) + 1  # of x[mask]
    if new.ndim > rank:
        return None
    sizes = (1,) * (rank - new.ndim) + new.shape
    first = place.axes[0]
    at = 0 if plan.separated else first
    if sizes[at] != 1:
        return None
    kept = sizes[:at] + sizes[at + 1 :]
    return (*kept[:first], *(1 for _ in place.axes), *kept[first:])


def _masked(plan: Plan, shown: Tensor, new: Tensor) -> Tensor:
    """`shown` with the value where the mask is true."""
    shape = _value_shape(plan, shown, new) if len(plan.arrays) == 1 else None
    if shape is None:
        raise TraceError(
            "x[mask] = v in a jitted function takes one mask, and a value that is the same for all "
            f"elements it selects; found {len(plan.arrays)} array indices and a value of shape "
            f"{shape_text(new.shape)}; use x = treadle.where(mask, v, x) with v of the shape of x"
        )
    (place,) = plan.arrays
    sizes = [shown.shape[i] if i in place.axes else 1 for i in range(shown.ndim)]
    mask = reshape_view(place.index, tuple(sizes))
    value = _broadcast(reshape_view(_cast_to(new, shown), shape), shown.shape)
    return apply("where", mask, value, shown)
