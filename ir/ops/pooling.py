"""Pools: max_pool and window_sum, with what their derivatives need.

All of them work on windows along the spatial `axes` of a tensor of any rank (see `sliding`), so
that they run on any layout. They come in two pairs, each op the derivative of the other, so that
derivatives of any order need no further op:

    window_sum   y[p] = sum over k of x[i(p, k)]    window_spread   its adjoint
    max_pool_at  y[p] = x[i(p, tap[p])]             max_pool_grad   its adjoint

max_pool gives beside each window's maximum the number of its tap, and PyTorch's choice of it: the
first of equals in row-major order, the last NaN, and the first element inside of the tensor where
all are -inf. Averages are sums of windows, divided. `ops/pooling_taps` writes them in plain ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.linalg import wide_product
from treadle.ir.ops.movement import int_sizes
from treadle.ir.ops.pooling_taps import (
    along,
    expand_max_pool,
    expand_max_pool_at,
    expand_max_pool_grad,
    expand_window_spread,
    expand_window_sum,
    first_taps,
)
from treadle.ir.ops.rules import Values, check_count, check_dtype
from treadle.ir.ops.sliding import (
    WINDOW_CASES,
    WindowCase,
    check_pool,
    counts_of,
    inside,
    padded,
    samples_over_windows,
    size_of_windows,
    sizes_along,
    under_tap,
    windows_attrs,
    with_sizes,
)
from treadle.ir.types import FLOATS, Shape, TensorType, int32, shape_text


@dataclass(frozen=True, slots=True)
class PoolAttrs(Attrs):
    """The spatial `axes`, and along each the kernel's size, stride, pads (low, high), dilation."""

    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PoolGradAttrs(Attrs):
    """As PoolAttrs; `size`: the sizes of the pooled tensor along the axes."""

    size: Shape
    axes: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


_PICKED = (*FLOATS, int32)  # taps are picked by taps where a kernel's axes come one after the other


# --- type rules --------------------------------------------------------------------------------


def _checked(name: str, a: Any, types: Sequence[TensorType], count: int) -> TensorType:
    """The type of the first operand. Raises DTypeError or ShapeError."""
    check_count(name, types, count)
    check_dtype(name, types[0], FLOATS)
    check_pool(name, a, types[0].rank)
    return types[0]


def _check_tap(name: str, tap: TensorType, shape: Shape) -> None:
    if tap.dtype != int32:
        raise DTypeError(f"{name}: taps are {int32}, found {tap}")
    if tap.shape != shape:
        raise ShapeError(f"{name}: expected taps {shape_text(shape)}, found {tap}")


def _infer_max_pool(a: PoolAttrs, *types: TensorType) -> tuple[TensorType, TensorType]:
    x = _checked("max_pool", a, types, 1)
    y = x.with_shape(counts_of("max_pool", a, x.shape))
    return y, y.with_dtype(int32)


def _infer_max_pool_at(a: PoolAttrs, *types: TensorType) -> TensorType:
    check_count("max_pool_at", types, 2)
    x = types[0]
    check_dtype("max_pool_at", x, _PICKED)
    check_pool("max_pool_at", a, x.rank)
    shape = counts_of("max_pool_at", a, x.shape)
    _check_tap("max_pool_at", types[1], shape)
    return x.with_shape(shape)


def _infer_max_pool_grad(a: PoolGradAttrs, *types: TensorType) -> TensorType:
    g = _checked("max_pool_grad", a, types, 2)
    _check_tap("max_pool_grad", types[1], g.shape)
    return g.with_shape(size_of_windows("max_pool_grad", a, g.shape))


def _infer_window_sum(a: PoolAttrs, *types: TensorType) -> TensorType:
    x = _checked("window_sum", a, types, 1)
    return x.with_shape(counts_of("window_sum", a, x.shape))


def _infer_window_spread(a: PoolGradAttrs, *types: TensorType) -> TensorType:
    g = _checked("window_spread", a, types, 1)
    return g.with_shape(size_of_windows("window_spread", a, g.shape))


# --- references --------------------------------------------------------------------------------


def _counts(a: PoolAttrs, name: str, x: Array) -> tuple[int, ...]:
    return int_sizes(counts_of(name, a, x.shape), "the numbers of windows")


def _ref_max_pool(a: PoolAttrs, x: Array) -> tuple[Array, Array]:
    shape = _counts(a, "max_pool", x)
    sizes, counts = ([s[axis] for axis in a.axes] for s in (x.shape, shape))
    wide = padded(a, x, -np.inf)
    best = np.full(shape, -np.inf, x.dtype)
    taps = np.broadcast_to(along(a, first_taps(a, sizes, counts), x.ndim), shape).copy()
    for number, tap in enumerate(np.ndindex(*a.kernel)):
        here = wide[under_tap(a, tap, shape)]
        wins = (here > best) | np.isnan(here)
        best = np.where(wins, here, best)
        taps = np.where(wins, np.int32(number), taps)
    return best, taps


def _ref_max_pool_at(a: PoolAttrs, x: Array, taps: Array) -> Array:
    wide, found = padded(a, x, 0), np.zeros(taps.shape, x.dtype)
    for number, tap in enumerate(np.ndindex(*a.kernel)):
        found = np.where(taps == number, wide[under_tap(a, tap, taps.shape)], found)
    return found


def _ref_window_sum(a: PoolAttrs, x: Array) -> Array:
    shape = _counts(a, "window_sum", x)
    wide = padded(a, x.astype(wide_product(x.dtype)), 0)
    found = np.zeros(shape, wide.dtype)
    for tap in np.ndindex(*a.kernel):
        found += wide[under_tap(a, tap, shape)]
    return found.astype(x.dtype)


def _spread(a: PoolGradAttrs, g: Array, taps: Array | None) -> Array:
    """Each window's value added to all of its elements, or to the one that its tap lies on."""
    size = int_sizes(a.size, "the pooled tensor's size")
    kind = wide_product(g.dtype)
    wide = padded(a, np.zeros(with_sizes(a.axes, g.shape, size), kind), 0)  # type: ignore[arg-type]
    for number, tap in enumerate(np.ndindex(*a.kernel)):
        wide[under_tap(a, tap, g.shape)] += g if taps is None else np.where(taps == number, g, 0)
    return np.asarray(wide[inside(a, size, g.ndim)]).astype(g.dtype)


# --- derivatives -------------------------------------------------------------------------------


def _vjp_max_pool(o: Ops[Any], a: PoolAttrs, args: Values, outs: Values, cts: Values) -> Any:
    size = sizes_along(o, a, args[0])
    return (o.call("max_pool_grad", cts[0], outs[1], size=size, **windows_attrs(a)),)


def _vjp_max_pool_at(o: Ops[Any], a: PoolAttrs, args: Values, outs: Values, cts: Values) -> Any:
    size = sizes_along(o, a, args[0])
    return o.call("max_pool_grad", cts[0], args[1], size=size, **windows_attrs(a)), None


def _vjp_max_pool_grad(
    o: Ops[Any], a: PoolGradAttrs, args: Values, outs: Values, cts: Values
) -> Any:
    return o.call("max_pool_at", cts[0], args[1], **windows_attrs(a)), None


def _vjp_window_sum(o: Ops[Any], a: PoolAttrs, args: Values, outs: Values, cts: Values) -> Any:
    size = sizes_along(o, a, args[0])
    return (o.call("window_spread", cts[0], size=size, **windows_attrs(a)),)


def _vjp_window_spread(
    o: Ops[Any], a: PoolGradAttrs, args: Values, outs: Values, cts: Values
) -> Any:
    return (o.call("window_sum", cts[0], **windows_attrs(a)),)


# --- samples -----------------------------------------------------------------------------------


def _attrs(case: WindowCase) -> PoolAttrs:
    return PoolAttrs(**windows_attrs(case))


def _grad_attrs(case: WindowCase) -> PoolGradAttrs:
    return PoolGradAttrs(tuple(case.shape[axis] for axis in case.axes), **windows_attrs(case))


def _apart(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> Array:
    """Numbers of which no two are near each other, so that the maximum has a derivative."""
    return (rng.permutation(prod(shape)).reshape(shape) / 4 - 3).astype(dtype)


def _windows_shape(case: WindowCase) -> tuple[int, ...]:
    return int_sizes(counts_of("pool", case, case.shape), "windows")


def _taps_of(rng: np.random.Generator, case: WindowCase) -> Array:
    """Taps of windows as a max_pool finds them."""
    return _ref_max_pool(_attrs(case), _apart(rng, case.shape, np.float64))[1]


def _max_pool_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    return Sample((_apart(rng, case.shape, dtype),), _attrs(case), dtype is np.float64)


def _ties(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    values = [1.0, 1.0, -np.inf, -np.inf, -np.inf, np.inf, np.nan, -0.0, 0.0]
    return Sample((rng.choice(values, case.shape).astype(dtype),), _attrs(case), False)


def _max_pool_samples(rng: np.random.Generator) -> Iterable[Sample]:
    yield from _and_large(_max_pool_sample)(rng)
    yield from _and_large(_ties)(rng)
    for kernel, padding in (((33,), ((4, 9),)), ((40,), ((20, 0),))):
        long = WindowCase((2, 50), (1,), kernel, (3,), padding, (1,))
        yield _ties(rng, long, np.float32)
    for size in (2, 5):
        pads = ((size // 2, 0), (size // 2, 1))
        lowest = np.full((1, 6, 7), -np.inf, np.float32)
        yield Sample((lowest,), PoolAttrs((1, 2), (size, size), (1, 1), pads, (1, 1)), False)


def _at_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    if dtype is np.int32:
        x: Array = rng.integers(-9, 9, case.shape).astype(np.int32)
    else:
        x = rng.standard_normal(case.shape).astype(dtype)
    return Sample((x, _taps_of(rng, case)), _attrs(case), dtype is np.float64)


def _at_samples(rng: np.random.Generator) -> Iterable[Sample]:
    yield from _and_large(_at_sample)(rng)
    for case in WINDOW_CASES:
        yield _at_sample(rng, case, np.int32)


def _max_grad_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    g = rng.standard_normal(_windows_shape(case)).astype(dtype)
    return Sample((g, _taps_of(rng, case)), _grad_attrs(case), dtype is np.float64, 1, 4)


def _sum_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    x = rng.standard_normal(case.shape).astype(dtype)
    return Sample((x,), _attrs(case), dtype is np.float64, 1, 8)


def _spread_sample(rng: np.random.Generator, case: WindowCase, dtype: Any) -> Sample:
    g = rng.standard_normal(_windows_shape(case)).astype(dtype)
    return Sample((g,), _grad_attrs(case), dtype is np.float64, 1, 8)


_LARGE = WindowCase((2, 40), (1,), (35,), (1,), ((3, 30),), (1,))
_PARTED = WindowCase((6, 2, 7), (0, 2), (4, 5), (1, 2), ((2, 1), (1, 2)), (1, 1))


def _and_large(sample: Any) -> Any:
    """The usual samples, and some of kernels that are too large to be unrolled at once."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        yield from samples_over_windows(sample)(rng)
        for case in (_LARGE, _PARTED):
            yield sample(rng, case, np.float64)
            yield sample(rng, case, np.float32)

    return samples


# --- definitions -------------------------------------------------------------------------------

COMPOSITE = frozenset({Trait.COMPOSITE})

MAX_POOL = register(
    OpDef(
        name="max_pool",
        maths="y[p] = max over taps k of x[i(p, k)], and the number of the tap that has it",
        attrs=PoolAttrs,
        infer=_infer_max_pool,
        ref=_ref_max_pool,
        vjp=_vjp_max_pool,
        expand=expand_max_pool,
        traits=COMPOSITE,
        samples=_max_pool_samples,
    )
)

MAX_POOL_AT = register(
    OpDef(
        name="max_pool_at",
        maths="y[p] = x[i(p, tap[p])], 0 outside",
        attrs=PoolAttrs,
        infer=_infer_max_pool_at,
        ref=_ref_max_pool_at,
        vjp=_vjp_max_pool_at,
        expand=expand_max_pool_at,
        traits=COMPOSITE,
        samples=_at_samples,
    )
)

MAX_POOL_GRAD = register(
    OpDef(
        name="max_pool_grad",
        maths="x[i] = sum of g[p] over windows p with i(p, tap[p]) = i",
        attrs=PoolGradAttrs,
        infer=_infer_max_pool_grad,
        ref=lambda a, g, taps: _spread(a, g, taps),
        vjp=_vjp_max_pool_grad,
        expand=expand_max_pool_grad,
        traits=COMPOSITE,
        samples=_and_large(_max_grad_sample),
    )
)

WINDOW_SUM = register(
    OpDef(
        name="window_sum",
        maths="y[p] = sum over taps k of x[i(p, k)], 0 outside",
        attrs=PoolAttrs,
        infer=_infer_window_sum,
        ref=_ref_window_sum,
        vjp=_vjp_window_sum,
        expand=expand_window_sum,
        traits=COMPOSITE,
        samples=_and_large(_sum_sample),
    )
)

WINDOW_SPREAD = register(
    OpDef(
        name="window_spread",
        maths="x[i] = sum of g[p] over windows p that hold i, once a tap",
        attrs=PoolGradAttrs,
        infer=_infer_window_spread,
        ref=lambda a, g: _spread(a, g, None),
        vjp=_vjp_window_spread,
        expand=expand_window_spread,
        traits=COMPOSITE,
        samples=_and_large(_spread_sample),
    )
)
