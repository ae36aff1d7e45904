"""Reductions: sum, prod, max, min, any, all over any set of axes; argmax, argmin over one.

References accumulate in the next wider float type and round once; a compiled sum has its own
documented order. An empty set of axes is the identity. max and min propagate NaN; argmax and
argmin take a NaN for the best, and the first of equals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.errors import GradientError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import (
    BOOLS,
    NUMBERS,
    ReduceAttrs,
    Values,
    reduction_rule,
    scaled,
    widened,
    with_kept_axes,
)
from treadle.ir.ops.sampling import special_floats, special_integers, uniform
from treadle.ir.scalar import ArgReduce, Reduce
from treadle.ir.types import DType, float32, float64, int32, int64, size_product, uint8

REDUCTION = frozenset({Trait.REDUCTION})


# --- samples ---------------------------------------------------------------------------------


def _float_samples(
    rng: np.random.Generator, *, low: float = -1.0, scale: float = 0.0, empty: bool = True
) -> Iterable[Sample]:
    """`scale` says how many roundings of the largest element an accumulated one may be off."""
    smooth = uniform(rng, (3, 4, 5), float64, low, 1.5)
    yield Sample((smooth,), ReduceAttrs((1,)), True, 1, scale * 4)
    yield Sample((smooth,), ReduceAttrs((0, 2), True), True, 1, scale * 15)
    row = uniform(rng, (7, 33), float32, low, 1.5)
    yield Sample((row,), ReduceAttrs((1,), True), False, 1, scale * 33)
    yield Sample((row,), ReduceAttrs(()), False)
    special = np.resize(special_floats(float32), (5, 3))
    yield Sample((special,), ReduceAttrs((0,)), False, 1, scale)
    axes = (0, 1) if empty else (0,)
    yield Sample((np.zeros((3, 0), np.float32),), ReduceAttrs(axes), False)


def _integer_samples(rng: np.random.Generator) -> Iterable[Sample]:
    for dtype in (int32, int64, uint8):
        grid = rng.choice(special_integers(dtype), (4, 17))
        yield Sample((grid,), ReduceAttrs((1,)), False)


def _bool_samples(rng: np.random.Generator) -> Iterable[Sample]:
    grid = rng.integers(0, 2, (3, 2, 3)).astype(bool)
    for attrs in (ReduceAttrs((1,)), ReduceAttrs((0, 1, 2)), ReduceAttrs((2,), True)):
        yield Sample((grid,), attrs, False)
    yield Sample((np.zeros((2, 0), bool),), ReduceAttrs((1,)), False)


# --- sum and prod ----------------------------------------------------------------------------


def _accumulated(fn: Callable[..., Any]) -> Callable[..., Array]:
    """A reference for sum or prod: integers wrap, floats accumulate wider and round once."""

    def ref(a: ReduceAttrs, x: Array) -> Array:
        if x.dtype.kind != "f":
            return np.asarray(fn(x, axis=a.axes, keepdims=a.keepdims, dtype=x.dtype))
        wide = fn(widened(x), axis=a.axes, keepdims=a.keepdims)
        return np.asarray(wide).astype(x.dtype)

    return ref


def _vjp_sum(
    o: Ops[Any], a: ReduceAttrs, args: Values, outs: Values, cts: Values
) -> tuple[Any, ...]:
    shape = o.type_of(args[0]).shape
    return (o.broadcast_to(with_kept_axes(o, cts[0], shape, a.axes), shape),)


SUM = register(
    OpDef(
        name="sum",
        maths="y = sum of x over axes; 0 for no elements; integers wrap",
        attrs=ReduceAttrs,
        infer=reduction_rule("sum", NUMBERS),
        ref=_accumulated(np.sum),
        vjp=_vjp_sum,
        lower=Reduce(lambda dtype: 0, lambda s, acc, x: s.add(acc, x)),
        traits=REDUCTION,
        samples=lambda rng: (*_float_samples(rng, scale=1), *_integer_samples(rng)),
    )
)


def _vjp_prod(
    o: Ops[Any], a: ReduceAttrs, args: Values, outs: Values, cts: Values
) -> tuple[Any, ...]:
    """Each element's cotangent is ct times the product of all OTHER elements.

    Dividing the product by the element would fail at zeros (and give wrong second derivatives
    there), so the products of the others are built in a tree: pairs are multiplied on the way up,
    and on the way down each element of a pair gets its sibling times what the pair was given.
    """
    (x,), (ct,) = args, cts
    t = o.type_of(x)
    kept = [i for i in range(t.rank) if i not in a.axes]
    count = size_product(t.shape[i] for i in a.axes)
    if not isinstance(count, int):
        raise GradientError(f"the derivative of prod needs fixed sizes along {a.axes}, found {t}")
    if count == 0:
        return (o.zeros_like(x),)
    perm = [*kept, *a.axes]
    lead = tuple(t.shape[i] for i in kept)
    rows = o.reshape(o.permute(x, perm), (*lead, count))
    others = scaled(o, o.reshape(ct, (*lead, 1)), _products_of_others(o, rows))
    moved = o.reshape(others, tuple(t.shape[i] for i in perm))
    inverse = [perm.index(i) for i in range(t.rank)]
    return (o.permute(moved, inverse),)


def _products_of_others(o: Ops[Any], rows: Any) -> Any:
    """For each element of the last axis, the product of the other elements of its row."""
    t = o.type_of(rows)
    *lead, count = t.shape
    assert isinstance(count, int)
    if count == 1:
        return o.ones_like(rows)
    if count % 2:
        pad_width = (*([0] * len(lead)), 1)
        even = o.call("pad", rows, low=(0,) * t.rank, high=pad_width, value=1.0)
        return _columns(o, _products_of_others(o, even), 0, 1, count)
    half = count // 2
    left, right = _columns(o, rows, 0, 2, half), _columns(o, rows, 1, 2, half)
    outside = _products_of_others(o, o.mul(left, right))
    pair = [o.reshape(o.mul(outside, sibling), (*lead, half, 1)) for sibling in (right, left)]
    return o.reshape(o.call("concat", *pair, axis=t.rank), t.shape)


def _columns(o: Ops[Any], rows: Any, start: int, step: int, count: int) -> Any:
    """Every step-th column from `start`."""
    *lead, _ = o.type_of(rows).shape
    zeros, ones = (0,) * len(lead), (1,) * len(lead)
    return o.call("slice", rows, starts=(*zeros, start), steps=(*ones, step), shape=(*lead, count))


PROD = register(
    OpDef(
        name="prod",
        maths="y = product of x over axes; 1 for no elements; integers wrap",
        attrs=ReduceAttrs,
        infer=reduction_rule("prod", NUMBERS),
        ref=_accumulated(np.prod),
        vjp=_vjp_prod,
        lower=Reduce(lambda dtype: 1, lambda s, acc, x: s.mul(acc, x)),
        traits=REDUCTION,
        samples=lambda rng: (*_float_samples(rng, low=0.5, scale=8), *_integer_samples(rng)),
    )
)

# --- max and min -----------------------------------------------------------------------------


def _largest(dtype: DType) -> float | int:
    return float("inf") if dtype.is_float else int(np.iinfo(dtype.dtype).max)


def _smallest(dtype: DType) -> float | int:
    return float("-inf") if dtype.is_float else int(np.iinfo(dtype.dtype).min)


def _ref_max(a: ReduceAttrs, x: Array) -> Array:
    found = np.asarray(np.max(x, axis=a.axes, keepdims=a.keepdims))
    if x.dtype.kind != "f" or not np.any(found == 0):
        return found
    # NumPy leaves open which zero it takes: +0 is the larger, as in `maximum`.
    positive = np.any((x == 0) & ~np.signbit(x), axis=a.axes, keepdims=a.keepdims)
    return np.where(found == 0, np.where(positive, 0.0, -0.0), found).astype(x.dtype)


def _ref_min(a: ReduceAttrs, x: Array) -> Array:
    return -_ref_max(a, -x) if x.dtype.kind == "f" else np.min(x, a.axes, keepdims=a.keepdims)


def _vjp_extremum(
    o: Ops[Any], a: ReduceAttrs, args: Values, outs: Values, cts: Values
) -> tuple[Any, ...]:
    """The cotangent, split evenly among the elements that equal the result (or are NaN)."""
    (x,) = args
    shape = o.type_of(x).shape
    best = with_kept_axes(o, outs[0], shape, a.axes)
    ct = with_kept_axes(o, cts[0], shape, a.axes)
    tied = o.logical_or(o.eq(x, best), o.call("isnan", x))
    count = o.sum(o.cast(tied, o.type_of(x).dtype), a.axes, keepdims=True)
    return (o.where(tied, o.div(ct, count), 0),)


MAX = register(
    OpDef(
        name="max",
        maths="y = largest x over axes; NaN if any is; ties split the derivative evenly",
        attrs=ReduceAttrs,
        infer=reduction_rule("max", NUMBERS, empty=False),
        ref=_ref_max,
        vjp=_vjp_extremum,
        lower=Reduce(_smallest, lambda s, acc, x: s.maximum(acc, x)),
        traits=REDUCTION,
        samples=lambda rng: (*_float_samples(rng, empty=False), *_integer_samples(rng)),
    )
)

MIN = register(
    OpDef(
        name="min",
        maths="y = smallest x over axes; NaN if any is; ties split the derivative evenly",
        attrs=ReduceAttrs,
        infer=reduction_rule("min", NUMBERS, empty=False),
        ref=_ref_min,
        vjp=_vjp_extremum,
        lower=Reduce(_largest, lambda s, acc, x: s.minimum(acc, x)),
        traits=REDUCTION,
        samples=lambda rng: (*_float_samples(rng, empty=False), *_integer_samples(rng)),
    )
)

# --- any and all -----------------------------------------------------------------------------

ANY = register(
    OpDef(
        name="any",
        maths="y = some x over axes is true; false for no elements",
        attrs=ReduceAttrs,
        infer=reduction_rule("any", BOOLS),
        ref=lambda a, x: np.any(x, axis=a.axes, keepdims=a.keepdims),
        vjp=NOT_DIFFERENTIABLE,
        lower=Reduce(lambda dtype: False, lambda s, acc, x: s.or_(acc, x)),
        traits=REDUCTION,
        samples=_bool_samples,
    )
)

ALL = register(
    OpDef(
        name="all",
        maths="y = every x over axes is true; true for no elements",
        attrs=ReduceAttrs,
        infer=reduction_rule("all", BOOLS),
        ref=lambda a, x: np.all(x, axis=a.axes, keepdims=a.keepdims),
        vjp=NOT_DIFFERENTIABLE,
        lower=Reduce(lambda dtype: True, lambda s, acc, x: s.and_(acc, x)),
        traits=REDUCTION,
        samples=_bool_samples,
    )
)

# --- argmax and argmin -----------------------------------------------------------------------


def _better(how: str) -> Callable[..., Any]:
    def better(s: Any, x: Any, best: Any) -> Any:
        wins = s.compare(how, x, best)
        if not s.dtype_of(x).is_float:
            return wins
        first_nan = s.and_(s.compare("ne", x, x), s.compare("eq", best, best))
        return s.or_(wins, first_nan)

    return better


def _samples_arg(rng: np.random.Generator) -> Iterable[Sample]:
    yield Sample((uniform(rng, (5, 33), float32, -1, 1),), ReduceAttrs((1,)), False)
    yield Sample((np.resize(special_floats(float64), (7, 5)),), ReduceAttrs((0,), True), False)
    yield Sample((np.full((2, 9), -np.inf, np.float32),), ReduceAttrs((1,)), False)
    yield Sample((np.array([[np.inf, np.nan, 1, np.nan]]),), ReduceAttrs((1,)), False)
    yield Sample((rng.integers(0, 3, (4, 17)).astype(np.int32),), ReduceAttrs((1,)), False)
    yield Sample((rng.choice(special_integers(uint8), 19),), ReduceAttrs((0,)), False)
    yield Sample((np.zeros((0, 5), np.float32),), ReduceAttrs((1,)), False)


def _arg_reduction(name: str, adjective: str, how: str, fn: Callable[..., Any]) -> OpDef:
    return OpDef(
        name=name,
        maths=f"y = index of the {adjective} x along the axis, the first of equals; NaN wins",
        attrs=ReduceAttrs,
        infer=reduction_rule(name, NUMBERS, int64, empty=False, single=True),
        ref=lambda a, x: np.asarray(fn(x, a.axes[0], keepdims=a.keepdims)).astype(np.int64),
        vjp=NOT_DIFFERENTIABLE,
        lower=ArgReduce(_better(how)),
        traits=REDUCTION,
        samples=_samples_arg,
    )


ARGMAX = register(_arg_reduction("argmax", "largest", "gt", np.argmax))
ARGMIN = register(_arg_reduction("argmin", "smallest", "lt", np.argmin))
