"""Running products, extremes and first-order recurrences along an axis.

`linear_scan` is y[i] = a[i] y[i-1] + b[i] with y[-1] = 0. It is closed under differentiation, and
gives `cumprod` a derivative that needs no division, so that zeros among the factors do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.movement import LENGTHS
from treadle.ir.ops.rules import NUMBERS, check_axis, check_dtype, check_same_dtype, widened
from treadle.ir.ops.scan import CumsumAttrs
from treadle.ir.scalar import Kernel
from treadle.ir.types import FLOATS, TensorType, int64, shape_text

EXPENSIVE = frozenset({Trait.EXPENSIVE})


@dataclass(frozen=True, slots=True)
class AxisAttrs(Attrs):
    """The `axis` that is run along."""

    axis: int


def _shifted(o: Ops[Any], x: Any, axis: int, reverse: bool, filling: float) -> Any:
    """Each element's predecessor along the axis (reverse: successor); `filling` has none."""
    t = o.type_of(x)
    size = t.shape[axis]
    zeros = (0,) * t.rank
    one = tuple(int(i == axis) for i in range(t.rank))
    low, high = (zeros, one) if reverse else (one, zeros)
    wide = o.call("pad", x, low=low, high=high, value=filling)
    starts = one if reverse else zeros
    shape = tuple(size if i == axis else s for i, s in enumerate(t.shape))
    return o.call("slice", wide, starts=starts, steps=(1,) * t.rank, shape=shape)


# --- linear_scan -----------------------------------------------------------------------------


def _linear_infer(a: CumsumAttrs, x: TensorType, b: TensorType) -> TensorType:
    check_dtype("linear_scan", x, FLOATS)
    check_same_dtype("linear_scan", (x, b))
    check_axis("linear_scan", a.axis, b.rank)
    if x.shape != b.shape:
        raise ShapeError(
            f"linear_scan needs factors and terms of one shape, found {shape_text(x.shape)} and "
            f"{shape_text(b.shape)}"
        )
    return b


def _linear_ref(a: CumsumAttrs, x: Array, b: Array) -> Array:
    """Step by step in the next wider dtype; rounded once."""
    factors, terms = (np.moveaxis(widened(v), a.axis, 0) for v in (x, b))
    out = np.zeros_like(terms)
    before = np.zeros(terms.shape[1:], terms.dtype)
    order = range(len(terms))
    for i in reversed(order) if a.reverse else order:
        before = factors[i] * before + terms[i]
        out[i] = before
    return np.ascontiguousarray(np.moveaxis(out, 0, a.axis)).astype(b.dtype)


def _linear_vjp(o: Ops[Any], a: CumsumAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """s[i] = ct[i] + a[i+1] s[i+1] is the cotangent of b[i]; that of a[i] is s[i] y[i-1]."""
    x, _ = args
    ahead = _shifted(o, x, a.axis, not a.reverse, 0.0)
    s = o.call("linear_scan", ahead, cts[0], axis=a.axis, reverse=not a.reverse)
    return o.mul(s, _shifted(o, outs[0], a.axis, a.reverse, 0.0)), s


def _linear_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(shape: tuple[int, ...], axis: int, reverse: bool, dtype: Any) -> Sample:
        x = rng.uniform(-1, 1, shape).astype(dtype)
        b = rng.standard_normal(shape).astype(dtype)
        attrs = CumsumAttrs(axis, reverse)
        return Sample((x, b), attrs, dtype is np.float64, ulps=4, scale=8)

    for reverse in (False, True):
        for size in LENGTHS:
            yield sample((3, size), 0, reverse, np.float32)
            yield sample((3, size), 1, reverse, np.float32)
        for axis in range(3):
            yield sample((2, 3, 4), axis, reverse, np.float64)


LINEAR_SCAN = register(
    OpDef(
        name="linear_scan",
        maths="y[i] = a[i] * y[i-1] + b[i] along axis, y[-1] = 0 (reverse: y[i+1])",
        attrs=CumsumAttrs,
        infer=_linear_infer,
        ref=_linear_ref,
        vjp=_linear_vjp,
        lower=Kernel("running"),
        traits=EXPENSIVE,
        samples=_linear_samples,
    )
)

# --- cumprod ---------------------------------------------------------------------------------


def _cumprod_infer(a: AxisAttrs, x: TensorType) -> TensorType:
    check_dtype("cumprod", x, NUMBERS)
    check_axis("cumprod", a.axis, x.rank)
    return x


def _cumprod_ref(a: AxisAttrs, x: Array) -> Array:
    """Floats are multiplied in the next wider dtype and each product rounded once."""
    wide = widened(x) if x.dtype.kind == "f" else x
    return np.cumprod(wide, axis=a.axis, dtype=wide.dtype).astype(x.dtype, order="C")


def _cumprod_vjp(o: Ops[Any], a: AxisAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """dx[j] = (product before j) s[j], where s[j] = ct[j] + x[j+1] s[j+1] sums what later
    products make of x[j]: no division by what may be 0."""
    (x,) = args
    ahead = _shifted(o, x, a.axis, True, 0.0)
    s = o.call("linear_scan", ahead, cts[0], axis=a.axis, reverse=True)
    return (o.mul(_shifted(o, outs[0], a.axis, False, 1.0), s),)


def _cumprod_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(x: Array, axis: int) -> Sample:
        return Sample((x,), AxisAttrs(axis), x.dtype == np.float64, ulps=24, scale=0)

    for size in LENGTHS:
        yield sample(rng.uniform(0.5, 1.5, (3, size)).astype(np.float32), 0)
        yield sample(rng.uniform(0.5, 1.5, (3, size)).astype(np.float32), 1)
    for axis in range(3):
        yield sample(rng.uniform(-1.5, 1.5, (2, 3, 4)), axis)
    yield sample(np.array([[1.5, 0.0, -2.0, 0.5], [2.0, 0.0, 0.0, 3.0]]), 1)
    for dtype in (np.int32, np.int64, np.uint8, np.uint32):
        x = rng.integers(0, 200, (2, 9)).astype(dtype)
        yield Sample((x,), AxisAttrs(1), differentiable=False)


CUMPROD = register(
    OpDef(
        name="cumprod",
        maths="y[.., i, ..] = product of x[.., j, ..] for j <= i",
        attrs=AxisAttrs,
        infer=_cumprod_infer,
        ref=_cumprod_ref,
        vjp=_cumprod_vjp,
        lower=Kernel("running"),
        traits=EXPENSIVE,
        samples=_cumprod_samples,
    )
)

# --- cummax, cummin --------------------------------------------------------------------------


def _extreme_rule(name: str) -> Any:
    def infer(a: AxisAttrs, x: TensorType) -> tuple[TensorType, ...]:
        check_dtype(name, x, NUMBERS)
        check_axis(name, a.axis, x.rank)
        return x, x.with_dtype(int64)

    return infer


def _extreme_ref(larger: bool) -> Any:
    def ref(a: AxisAttrs, x: Array) -> tuple[Array, Array]:
        line = np.moveaxis(x, a.axis, 0)
        values, places = np.zeros_like(line), np.zeros(line.shape, np.int64)
        for i, new in enumerate(line):
            old = values[i - 1] if i else new
            beats = (new >= old) if larger else (new <= old)
            taken = beats | np.isnan(new)
            values[i] = np.where(taken, new, old)
            places[i] = np.where(taken, i, places[i - 1] if i else 0)
        back = (np.ascontiguousarray(np.moveaxis(v, 0, a.axis)) for v in (values, places))
        return next(back), next(back)

    return ref


def _extreme_vjp(o: Ops[Any], a: AxisAttrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """Each cotangent goes to the element that was the extreme."""
    zeros = o.zeros_like(args[0])
    return (o.call("add_along", zeros, cts[0], outs[1], axis=a.axis, checked=False),)


def _extreme_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for size in LENGTHS:
        x = rng.standard_normal((3, size)).astype(np.float32)
        yield Sample((x,), AxisAttrs(0), differentiable=False)
        yield Sample((x,), AxisAttrs(1), differentiable=False)
    for axis in range(3):
        yield Sample((rng.permutation(24).reshape(2, 3, 4).astype(np.float64),), AxisAttrs(axis))
    odd = np.array([1.0, np.inf, np.nan, 2.0, -np.inf, -0.0, 0.0, np.nan, 1.0], np.float32)
    yield Sample((odd[rng.integers(0, 9, (4, 9))],), AxisAttrs(1), differentiable=False)
    yield Sample((odd[rng.integers(0, 9, (9, 40))],), AxisAttrs(0), differentiable=False)
    for dtype in (np.int32, np.int64, np.uint8, np.uint32):
        x = rng.integers(0, 200, (2, 9)).astype(dtype)
        yield Sample((x,), AxisAttrs(1), differentiable=False)


def _extreme(name: str, larger: bool) -> OpDef:
    word = "largest" if larger else "smallest"
    return register(
        OpDef(
            name=name,
            maths=f"y, i = the {word} of x[.., j, ..] for j <= i (NaN: from there on), and its "
            "last place",
            attrs=AxisAttrs,
            infer=_extreme_rule(name),
            ref=_extreme_ref(larger),
            vjp=_extreme_vjp,
            lower=Kernel("running"),
            traits=EXPENSIVE,
            samples=_extreme_samples,
        )
    )


CUMMAX = _extreme("cummax", larger=True)
CUMMIN = _extreme("cummin", larger=False)
