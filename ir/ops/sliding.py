"""Windows as axes of their own: to_windows and from_windows, which undo each other.

`axes` are the spatial axes of a tensor, S their sizes, P the numbers of windows and K the kernel's
sizes along them. The element that tap k of window p lies on is i = p * stride + k * dilation - low.
Which taps meet an element i depends on its place between two windows: they are every m-th one,
m = stride / gcd(stride, dilation), from some first one on. So tap k is the j-th of its element,
j = k // m, and there are J = ceil(K / m) such numbers. The pairs (p, k) and (i, j) name the same
meetings of an element with a tap, and the two ops move values from one naming to the other:

    to_windows     x [*J, ..S..] to y [*K, ..P..],  y[k, p] = x[j, i], `value` where i is outside
    from_windows   y [*K, ..P..] to x [*J, ..S..],  x[j, i] = y[k, p], 0 where there is no such tap

Taps come first, so that what is summed or compared over them runs along rows of the tensor. A pool
broadcasts its input over J and reduces over K; its derivative broadcasts over K and sums over J:
for each element, the windows that hold it, without any scattering.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import gcd
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, register
from treadle.ir.ops.movement import MOVEMENT, draw, int_sizes, moved
from treadle.ir.ops.rules import Values, check_axes
from treadle.ir.ops.windows import Pads, check_windows, window_counts
from treadle.ir.scalar import Index
from treadle.ir.types import Shape, Size, TensorType, shape_text


@dataclass(frozen=True, slots=True)
class ToWindowsAttrs(Attrs):
    """The spatial `axes` of a tensor without the axes of taps, and along each of them the kernel's
    size, stride, pads (low, high) and dilation; `value` stands for what lies outside."""

    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class FromWindowsAttrs(Attrs):
    """As ToWindowsAttrs; `size`: S."""

    size: Shape
    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


def _meeting(stride: int, dilation: int) -> int:
    """m: of the taps that meet one element, neighbours lie so many apart."""
    return stride // gcd(stride, dilation)


def meetings(a: Any) -> tuple[int, ...]:
    """J: how many taps may meet one element, along each axis."""
    steps = zip(a.kernel, a.stride, a.dilation, strict=True)
    return tuple(-(-k // _meeting(s, d)) for k, s, d in steps)


# --- type rules --------------------------------------------------------------------------------


def check_pool(name: str, a: Any, rank: int) -> None:
    """Raise ShapeError unless axes and windows fit a tensor of `rank` axes."""
    check_axes(name, a.axes, rank)
    if not a.axes or len(a.kernel) != len(a.axes):
        raise ShapeError(
            f"{name}: the kernel needs one size for each of axes {a.axes}, found {a.kernel}"
        )
    check_windows(name, len(a.axes), a.stride, a.padding, a.dilation)


def counts_of(name: str, a: Any, shape: Sequence[Size]) -> Shape:
    """`shape` with the numbers of windows along the spatial axes."""
    sizes = [shape[axis] for axis in a.axes]
    counts = window_counts(name, sizes, a.kernel, a.stride, a.padding, a.dilation)
    return with_sizes(a.axes, shape, counts)


def with_sizes(axes: Sequence[int], shape: Sequence[Size], sizes: Sequence[Size]) -> Shape:
    """`shape` with `sizes` along `axes`."""
    given = dict(zip(axes, sizes, strict=True))
    return tuple(given.get(axis, size) for axis, size in enumerate(shape))


def size_of_windows(name: str, a: Any, shape: Sequence[Size]) -> Shape:
    """`shape`, of windows, with the sizes `a.size` along the axes. Raises ShapeError unless just
    these windows lie on a tensor of such sizes."""
    if len(a.size) != len(a.axes) or any(isinstance(s, int) and s < 0 for s in a.size):
        raise ShapeError(f"{name}: size needs {len(a.axes)} sizes, found {shape_text(a.size)}")
    whole = with_sizes(a.axes, shape, a.size)
    if counts_of(name, a, whole) != tuple(shape):
        raise ShapeError(
            f"{name}: windows {a.kernel} on {shape_text(a.size)} make shape "
            f"{shape_text(counts_of(name, a, whole))}, found {shape_text(shape)}"
        )
    return whole


def _taps_first(name: str, x: TensorType, taps: tuple[int, ...]) -> Shape:
    """The shape behind the axes of taps."""
    if x.shape[: len(taps)] != taps:
        raise ShapeError(f"{name}: {shape_text(x.shape)} must begin with the sizes {taps}")
    return x.shape[len(taps) :]


def _infer_to(a: ToWindowsAttrs, x: TensorType) -> TensorType:
    check_pool("to_windows", a, x.rank - len(a.kernel))
    rest = _taps_first("to_windows", x, meetings(a))
    return x.with_shape((*a.kernel, *counts_of("to_windows", a, rest)))


def _infer_from(a: FromWindowsAttrs, y: TensorType) -> TensorType:
    check_pool("from_windows", a, y.rank - len(a.kernel))
    rest = _taps_first("from_windows", y, a.kernel)
    return y.with_shape((*meetings(a), *size_of_windows("from_windows", a, rest)))


# --- references --------------------------------------------------------------------------------


def padded(a: Any, x: Array, value: float, lead: int = 0) -> Array:
    """`x` with `value` around its spatial axes; `lead` axes come before those counted."""
    pads = [(0, 0)] * x.ndim
    for axis, pair in zip(a.axes, a.padding, strict=True):
        pads[lead + axis] = pair
    return np.pad(x, pads, constant_values=value)


def inside(a: Any, size: Sequence[int], rank: int) -> tuple[slice, ...]:
    """Where in the padded tensor the tensor lies."""
    found = [slice(None)] * rank
    for axis, (low, _), n in zip(a.axes, a.padding, size, strict=True):
        found[axis] = slice(low, low + n)
    return tuple(found)


def under_tap(a: Any, tap: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """Where in the padded tensor each window has this tap; `shape` is that of the windows."""
    found = [slice(None)] * len(shape)
    for axis, k, s, d in zip(a.axes, tap, a.stride, a.dilation, strict=True):
        found[axis] = slice(k * d, k * d + (shape[axis] - 1) * s + 1, s)
    return tuple(found)


def _turn(a: Any, tap: Sequence[int]) -> tuple[int, ...]:
    """j of a tap k along each axis."""
    steps = zip(tap, a.stride, a.dilation, strict=True)
    return tuple(k // _meeting(s, d) for k, s, d in steps)


def _ref_to(a: ToWindowsAttrs, x: Array) -> Array:
    rank = len(a.kernel)
    shape = int_sizes(counts_of("to_windows", a, x.shape[rank:]), "windows")
    wide = padded(a, x, a.value, rank)
    y = np.empty((*a.kernel, *shape), x.dtype)
    for tap in np.ndindex(*a.kernel):
        y[tap] = wide[_turn(a, tap)][under_tap(a, tap, shape)]
    return y


def _ref_from(a: FromWindowsAttrs, y: Array) -> Array:
    rank, size = len(a.kernel), int_sizes(a.size, "from_windows's size")
    shape = y.shape[rank:]
    whole = int_sizes(with_sizes(a.axes, shape, size), "from_windows's shape")
    wide = padded(a, np.zeros((*meetings(a), *whole), y.dtype), 0, rank)
    for tap in np.ndindex(*a.kernel):
        wide[_turn(a, tap)][under_tap(a, tap, shape)] = y[tap]
    return np.array(wide[(slice(None),) * rank + inside(a, size, len(shape))])


# --- lowering ----------------------------------------------------------------------------------


def _spatial(a: Any) -> Iterable[tuple[int, int, int, int, int, int]]:
    """(axis of taps, axis behind them, kernel, stride, low, dilation) for each spatial axis."""
    lists = zip(a.axes, a.kernel, a.stride, a.padding, a.dilation, strict=True)
    for n, (axis, k, s, (low, _), d) in enumerate(lists):
        yield n, len(a.kernel) + axis, k, s, low, d


def _chosen(s: Any, conditions: Sequence[Any], x: Any, other: Any) -> Any:
    for condition in conditions:
        x = s.select(condition, x, other)
    return x


def _lower_to(s: Any, a: ToWindowsAttrs, types: Any, index: Any, load: Any) -> Any:
    shape = types[0].static_shape
    value = s.const(a.value, types[0].dtype)
    if 0 in shape:
        return value
    where, conditions = list(index), []
    for tap, axis, kernel, stride, low, dilation in _spatial(a):
        step = _meeting(stride, dilation)
        where[tap] = index[tap] if step == 1 else s.index_divmod(index[tap], step)[0]
        if kernel <= step:
            where[tap] = s.index_const(0)
        at = s.index_sum(s.index_mul(index[axis], stride), s.index_mul(index[tap], dilation))
        at = s.index_add(at, -low)
        if a.padding[tap] != (0, 0):
            conditions.append(s.index_in(at, 0, shape[axis]))
            at = s.index_clamp(at, shape[axis])
        where[axis] = at
    return _chosen(s, conditions, load(0, tuple(where)), value)


def _lower_from(s: Any, a: FromWindowsAttrs, types: Any, index: Any, load: Any) -> Any:
    shape = types[0].static_shape
    zero = s.const(0, types[0].dtype)
    if 0 in shape:
        return zero
    where, conditions = list(index), []
    for tap, axis, kernel, stride, low, dilation in _spatial(a):
        at = s.index_add(index[axis], low)
        meet = _window_of if dilation == 1 else _dilated_window_of
        k, p, more = meet(s, at, index[tap], kernel, stride, dilation, shape[axis])
        where[tap], where[axis] = k, p
        conditions += more
    return _chosen(s, conditions, load(0, tuple(where)), zero)


def _window_of(
    s: Any, at: Any, j: Any, kernel: int, stride: int, dilation: int, count: int
) -> tuple[Any, Any, list[Any]]:
    """Tap and window that meet padded element `at` as its j-th, both clamped, and the conditions
    under which there are such: taps at // stride * j + at % stride, windows back from the last."""
    window, first = s.index_divmod(at, stride)
    k = s.index_sum(first, s.index_mul(j, stride))
    conditions = []
    if kernel % stride:
        conditions.append(s.index_in(k, 0, kernel))
        k = s.index_clamp(k, kernel)
    p = s.index_sum(window, s.index_mul(j, -1))
    conditions.append(s.index_in(p, 0, count))
    return k, s.index_clamp(p, count), conditions


def _dilated_window_of(
    s: Any, at: Any, j: Any, kernel: int, stride: int, dilation: int, count: int
) -> tuple[Any, Any, list[Any]]:
    """As `_window_of` for any dilation: k * dilation must equal `at` modulo the stride. Divided by
    g = gcd(stride, dilation), it can where g divides `at`, and the inverse of dilation / g modulo
    m = stride / g gives the first such k."""
    g = gcd(stride, dilation)
    m = stride // g
    reduced, rest = s.index_divmod(at, g)
    conditions = [s.index_in(rest, 0, 1)] if g > 1 else []
    k = s.index_mul(j, m)
    if m > 1:
        _, turn = s.index_divmod(reduced, m)
        _, first = s.index_divmod(s.index_mul(turn, pow(dilation // g, -1, m)), m)
        k = s.index_sum(first, k)
    if kernel % m:
        conditions.append(s.index_in(k, 0, kernel))
        k = s.index_clamp(k, kernel)
    start = s.index_sum(at, s.index_mul(k, -dilation))
    span = (count - 1) * stride + 1
    conditions.append(s.index_in(start, 0, span))
    return k, s.index_divmod(s.index_clamp(start, span), stride)[0], conditions


# --- derivatives -------------------------------------------------------------------------------


def windows_attrs(a: Any) -> dict[str, Any]:
    """What all ops over the same windows have in common."""
    return {
        "axes": a.axes, "kernel": a.kernel, "stride": a.stride, "padding": a.padding,
        "dilation": a.dilation,
    }  # fmt: skip


def sizes_along(o: Ops[Any], a: Any, x: Any, lead: int = 0) -> Shape:
    """The sizes of `x` along the spatial axes."""
    shape = o.type_of(x).shape
    return tuple(shape[lead + axis] for axis in a.axes)


def _vjp_to(o: Ops[Any], a: ToWindowsAttrs, args: Values, outs: Values, cts: Values) -> Any:
    size = sizes_along(o, a, args[0], len(a.kernel))
    return (o.call("from_windows", cts[0], size=size, **windows_attrs(a)),)


def _vjp_from(o: Ops[Any], a: FromWindowsAttrs, args: Values, outs: Values, cts: Values) -> Any:
    return (o.call("to_windows", cts[0], **windows_attrs(a), value=0.0),)


# --- samples -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WindowCase:
    """A shape, its spatial axes, and windows on them."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]


def _line(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> WindowCase:
    return WindowCase((2, size), (1,), (kernel,), (stride,), (pads,), (dilation,))


WINDOW_CASES: tuple[WindowCase, ...] = (
    _line(6, 2, 2, (0, 0), 1),
    _line(7, 3, 2, (1, 1), 1),
    _line(8, 3, 1, (0, 2), 1),
    _line(9, 3, 3, (1, 0), 2),
    _line(9, 3, 4, (2, 1), 2),
    _line(8, 2, 6, (0, 4), 4),
    _line(5, 4, 1, (2, 0), 2),
    _line(1, 1, 3, (0, 0), 1),
    WindowCase((2, 4, 5), (1, 2), (2, 3), (2, 1), ((0, 1), (1, 1)), (1, 1)),
    WindowCase((4, 3, 2), (0, 1), (2, 2), (2, 2), ((0, 0), (1, 0)), (2, 1)),
    WindowCase((0, 4), (1,), (2,), (1,), ((0, 0),), (1,)),
)


def samples_over_windows(sample: Any) -> Any:
    """Samples made by `sample(rng, case, dtype)`, which may give none for a case: small ones in
    both float types, and float32 rows around vector widths."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        listed = [*product(WINDOW_CASES, (np.float64, np.float32))]
        for size in (7, 8, 9, 15, 16, 17, 33):
            listed.append((_line(size, 3, 2, (1, 1), 1), np.float32))
            listed.append((_line(2 * size, 2, 2, (0, 0), 1), np.float32))
        for case, dtype in listed:
            found = sample(rng, case, dtype)
            if found is not None:
                yield found

    return samples


def _to_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    value = -1.5 if len(case.axes) == 1 else 0.0
    attrs = ToWindowsAttrs(**windows_attrs(case), value=value)
    return moved(attrs, draw(rng, *meetings(attrs), *case.shape, dtype=dtype))


def _from_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    size = tuple(case.shape[axis] for axis in case.axes)
    attrs = FromWindowsAttrs(size, **windows_attrs(case))
    counts = int_sizes(counts_of("from_windows", attrs, case.shape), "windows")
    return moved(attrs, draw(rng, *case.kernel, *counts, dtype=dtype))


TO_WINDOWS = register(
    OpDef(
        name="to_windows",
        maths="y[k, p] = x[j, p * stride + k * dilation - low], value outside; tap k is the j-th",
        attrs=ToWindowsAttrs,
        infer=_infer_to,
        ref=_ref_to,
        vjp=_vjp_to,
        lower=Index(_lower_to),
        traits=MOVEMENT,
        samples=samples_over_windows(_to_sample),
    )
)

FROM_WINDOWS = register(
    OpDef(
        name="from_windows",
        maths="x[j, i] = y[k, p] for i = p * stride + k * dilation - low, k the j-th tap; else 0",
        attrs=FromWindowsAttrs,
        infer=_infer_from,
        ref=_ref_from,
        vjp=_vjp_from,
        lower=Index(_lower_from),
        traits=MOVEMENT,
        samples=samples_over_windows(_from_sample),
    )
)
