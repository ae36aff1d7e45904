"""Views: index maps from a base to the values that a view shows.

A tensor is a cell and a chain of maps. Each map is one movement op, so that reading a view
replays the chain as instructions, history nodes, or NumPy views, and writing through it turns the
new values into an update of the base:

    replay(o, value)            the view's value from its base's
    write(o, base, new)         the base's value after `new` was written through the view
    numpy(array)                the NumPy view; eager aliasing is NumPy's

`o` is an `Ops`, so the same three lines serve a trace and the eager history.

How `x[key]` meets this (`treadle.tracer.indexing` implements both):

    indexing.getitem(x, key) -> Tensor        basic keys: `view(x, SliceMap(...), ...)`, from
                                              `treadle.tracer.execute`; array keys: a gather
    indexing.setitem(x, key, value) -> None   basic keys: `copy_into(view(x, ...), value)`;
                                              array keys: a scatter, then `write(x, result)`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Attrs, get_op
from treadle.ir.types import Shape, TensorType, shape_text

Array = npt.NDArray[Any]
H = TypeVar("H")


@dataclass(frozen=True, slots=True)
class ViewMap:
    """One movement op as a view. Equal maps show the same elements of the same base."""

    op: ClassVar[str]

    def attrs(self) -> Attrs:
        """The attributes of the op."""
        raise NotImplementedError

    def replay(self, o: Ops[H], value: H) -> H:
        """What the view shows of `value`."""
        (out,) = o.emit(get_op(self.op), (value,), self.attrs())
        return out

    def write(self, o: Ops[H], base: H, new: H) -> H:
        """`base` with `new` in the place that the view shows."""
        raise NotImplementedError

    def numpy(self, array: Array) -> Array:
        """A NumPy view, never a copy."""
        raise NotImplementedError

    def result_type(self, base: TensorType) -> TensorType:
        """Raises ShapeError where the map does not fit `base`."""
        (found,) = get_op(self.op).infer_types(self.attrs(), (base,))
        return found

    def dense(self) -> bool:
        """True where the view shows every element of its base, in whatever order."""
        return True


@dataclass(frozen=True, slots=True)
class SliceMap(ViewMap):
    """Elements start + i * step along each axis; steps may be negative."""

    op: ClassVar[str] = "slice"
    starts: tuple[int, ...]
    steps: tuple[int, ...]
    shape: Shape

    def attrs(self) -> Attrs:
        return get_op("slice").attrs(starts=self.starts, steps=self.steps, shape=self.shape)  # type: ignore[call-arg]

    def write(self, o: Ops[H], base: H, new: H) -> H:
        return o.call("slice_update", base, new, starts=self.starts, steps=self.steps)

    def numpy(self, array: Array) -> Array:
        key = []
        for start, step, size in zip(self.starts, self.steps, self.shape, strict=True):
            assert isinstance(size, int)
            stop: int | None = start + size * step
            if stop is not None and stop < 0:
                stop = None  # a negative step that runs through element 0
            key.append(slice(start, stop, step) if size else slice(0, 0))
        return array[tuple(key)]

    def dense(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class PermuteMap(ViewMap):
    """Result axis i is base axis perm[i]."""

    op: ClassVar[str] = "permute"
    perm: tuple[int, ...]

    def attrs(self) -> Attrs:
        return get_op("permute").attrs(perm=self.perm)  # type: ignore[call-arg]

    def write(self, o: Ops[H], base: H, new: H) -> H:
        inverse = sorted(range(len(self.perm)), key=self.perm.__getitem__)
        return o.permute(new, inverse)

    def numpy(self, array: Array) -> Array:
        return array.transpose(self.perm)


@dataclass(frozen=True, slots=True)
class ReshapeMap(ViewMap):
    """The same elements in row-major order under another shape."""

    op: ClassVar[str] = "reshape"
    shape: Shape

    def attrs(self) -> Attrs:
        return get_op("reshape").attrs(shape=self.shape)  # type: ignore[call-arg]

    def write(self, o: Ops[H], base: H, new: H) -> H:
        return o.reshape(new, o.type_of(base).shape)

    def numpy(self, array: Array) -> Array:
        return array.reshape(_ints(self.shape))


@dataclass(frozen=True, slots=True)
class FlipMap(ViewMap):
    """Elements in reverse order along `axes`."""

    op: ClassVar[str] = "flip"
    axes: tuple[int, ...]

    def attrs(self) -> Attrs:
        return get_op("flip").attrs(axes=self.axes)  # type: ignore[call-arg]

    def write(self, o: Ops[H], base: H, new: H) -> H:
        return self.replay(o, new)

    def numpy(self, array: Array) -> Array:
        return np.flip(array, self.axes)


@dataclass(frozen=True, slots=True)
class BroadcastMap(ViewMap):
    """One element shown in several places; such a view cannot be written."""

    op: ClassVar[str] = "broadcast_to"
    shape: Shape

    def attrs(self) -> Attrs:
        return get_op("broadcast_to").attrs(shape=self.shape)  # type: ignore[call-arg]

    def write(self, o: Ops[H], base: H, new: H) -> H:
        raise ShapeError(f"cannot write through a broadcast to {shape_text(self.shape)}")

    def numpy(self, array: Array) -> Array:
        return np.broadcast_to(array, _ints(self.shape))

    def dense(self) -> bool:
        return False


Maps = tuple[ViewMap, ...]


def _ints(shape: Shape) -> tuple[int, ...]:
    return tuple(int(s) for s in shape)  # type: ignore[arg-type]


def broadcast_map(maps: Maps) -> BroadcastMap | None:
    """The first map of the chain that makes the view read-only."""
    return next((m for m in maps if isinstance(m, BroadcastMap)), None)


def replay(o: Ops[H], value: H, maps: Sequence[ViewMap]) -> H:
    """What the end of the chain shows of `value`."""
    for step in maps:
        value = step.replay(o, value)
    return value


def write(o: Ops[H], base: H, maps: Sequence[ViewMap], new: H) -> H:
    """`base` after `new` was written through the chain."""
    shown = [base]
    for step in maps[:-1]:
        shown.append(step.replay(o, shown[-1]))
    for step, under in zip(reversed(maps), reversed(shown), strict=True) if maps else ():
        new = step.write(o, under, new)
    return new


def numpy_view(array: Array, maps: Sequence[ViewMap]) -> Array:
    """The NumPy view that the chain shows of `array`."""
    for step in maps:
        array = step.numpy(array)
    return array


def can_reshape(base: TensorType, maps: Sequence[ViewMap], new: Shape) -> bool:
    """Whether what the chain shows of a contiguous base can be shown under the shape `new`
    without a copy. The element counts must agree."""
    if not maps:
        return True
    if not base.is_static or any(not isinstance(s, int) for s in new):
        return False
    laid_out = np.lib.stride_tricks.as_strided(  # strides without memory: nothing is read
        np.empty(0, np.uint8), base.static_shape, _row_major(base.static_shape), writeable=False
    )
    shown = numpy_view(laid_out, maps)
    return _splits(_chunks(shown.shape, shown.strides), _ints(new))


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def _chunks(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Sizes of the runs of axes that are evenly spaced when read as one axis, outermost first."""
    chunks: list[int] = []
    outer_stride = 0
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if chunks and outer_stride == stride * size:
            chunks[-1] *= size
        else:
            chunks.append(size)
        outer_stride = stride
    return chunks


def _splits(chunks: list[int], new: Sequence[int]) -> bool:
    """Whether the axes `new` divide each of `chunks` without straddling two."""
    if 0 in new:
        return True
    left = 1
    rest = list(chunks)
    for size in reversed(new):
        if size == 1:
            continue
        if left == 1:
            left = rest.pop()
        if left % size:
            return False
        left //= size
    return True
