"""resample: new elements along one axis, each a weighted sum of a few old ones; and pick, which
looks elements up along one axis.

Which old ones, and their weights, are tables known when the program is built: interpolation and its
derivative, which is a resample by the turned table, so that no elements are scattered and
derivatives of any order need no further op.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, ArrayData, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.linalg import wide_product
from treadle.ir.ops.rules import Values, check_axis, check_count, check_dtype
from treadle.ir.scalar import Index
from treadle.ir.types import FLOATS, TensorType, bool_, float64, int64

_UNROLLED = 16  # terms of a sum that are written out


@dataclass(frozen=True, slots=True)
class ResampleAttrs(Attrs):
    """Element p along `axis` is the sum over t of weights[p, t] * x[index[p, t]]; a weight of 0
    leaves its element out, an infinite one too. `index` int64, `weights` float64, both [P, T]."""

    axis: int
    index: ArrayData
    weights: ArrayData


def _infer(a: ResampleAttrs, *types: TensorType) -> TensorType:
    check_count("resample", types, 1)
    (x,) = types
    check_dtype("resample", x, FLOATS)
    check_axis("resample", a.axis, x.rank)
    tables = a.index, a.weights
    if a.index.shape != a.weights.shape or len(a.index.shape) != 2 or 0 in a.index.shape[1:]:
        shapes = " and ".join(str(t.shape) for t in tables)
        raise ShapeError(f"resample needs tables of one shape [P, T], found {shapes}")
    if a.index.dtype != int64 or a.weights.dtype != float64:
        raise ShapeError(f"resample needs {int64} indices and {float64} weights, found {tables}")
    size, index = x.shape[a.axis], a.index.array()
    if not isinstance(size, int):
        raise ShapeError(f"resample along axis {a.axis} of {x} needs a fixed size")
    if index.size and (index.min() < 0 or index.max() >= size):
        raise ShapeError(
            f"resample: indices {index.min()} to {index.max()} are not inside axis {a.axis} of "
            f"size {size}"
        )
    return x.with_shape((*x.shape[: a.axis], len(index), *x.shape[a.axis + 1 :]))


def _ref(a: ResampleAttrs, x: Array) -> Array:
    wide = wide_product(x.dtype)
    index, weights = a.index.array(), a.weights.array().astype(x.dtype).astype(wide)
    column = [1] * x.ndim
    column[a.axis] = len(index)
    total: Any = 0
    for t in range(index.shape[1]):
        part = np.take(x, index[:, t], axis=a.axis).astype(wide)
        weight = weights[:, t].reshape(column)
        total = total + np.where(weight == 0, 0, part * weight)
    return np.asarray(total).astype(x.dtype)


# --- in plain ops ------------------------------------------------------------------------------


def _expand(o: Ops[Any], a: ResampleAttrs, x: Any) -> Any:
    index, weights = a.index.array(), a.weights.array()
    if index.shape[1] > _UNROLLED:
        return _reduced(o, a, x)
    total = None
    for t in range(index.shape[1]):
        part = _weighted(o, a, _picked(o, a, x, index[:, t]), weights[:, t])
        total = part if total is None else o.add(total, part)
    return total


def _picked(o: Ops[Any], a: ResampleAttrs, x: Any, index: Array) -> Any:
    """x[.., index, ..] along the axis; a slice where the indices are equally far apart."""
    steps = np.unique(np.diff(index))
    if len(index) and len(steps) <= 1 and (len(steps) == 0 or steps[0] > 0):
        shape = o.type_of(x).shape
        return o.call(
            "slice",
            x,
            starts=_at_axis(a.axis, (0,) * len(shape), int(index[0])),
            steps=_at_axis(a.axis, (1,) * len(shape), int(steps[0]) if len(steps) else 1),
            shape=_at_axis(a.axis, shape, len(index)),
        )
    return o.call("pick", x, o.const(index, int64), axis=a.axis)


def _at_axis(axis: int, numbers: Any, number: int) -> Any:
    return (*numbers[:axis], number, *numbers[axis + 1 :])


def _weighted(o: Ops[Any], a: ResampleAttrs, part: Any, weights: Array) -> Any:
    """`part` times a table's weights, 0 where these are."""
    if (weights == 1).all():
        return part
    t = o.type_of(part)
    shape = (*weights.shape, *(1,) * (t.rank - a.axis - weights.ndim))
    product = o.mul(part, o.const(weights.reshape(shape), t.dtype))
    if (weights != 0).all():
        return product
    return o.where(o.const((weights != 0).reshape(shape), bool_), product, 0)


def _reduced(o: Ops[Any], a: ResampleAttrs, x: Any) -> Any:
    """With the terms along an axis of their own."""
    index, weights = a.index.array(), a.weights.array()
    shape = o.type_of(x).shape
    found = o.call("pick", x, o.const(index.reshape(-1), int64), axis=a.axis)
    part = o.reshape(found, (*shape[: a.axis], *index.shape, *shape[a.axis + 1 :]))
    return o.sum(_weighted(o, a, part, weights), a.axis + 1)


# --- derivative --------------------------------------------------------------------------------


def turned(index: Array, weights: Array, size: int) -> tuple[Array, Array]:
    """The tables of the adjoint: for each old element the new ones that it is part of, filled up
    with weights of 0."""
    rows: list[dict[int, float]] = [{} for _ in range(size)]
    for (p, t), i in np.ndenumerate(index):
        if weights[p, t] != 0:
            rows[i][p] = rows[i].get(p, 0.0) + float(weights[p, t])
    most = max((len(row) for row in rows), default=0) or 1
    back, shares = np.zeros((size, most), np.int64), np.zeros((size, most))
    for i, row in enumerate(rows):
        back[i, : len(row)] = list(row)
        back[i, len(row) :] = max(row, default=0)  # near the others, so that loads stay together
        shares[i, : len(row)] = list(row.values())
    return back, shares


def _vjp(o: Ops[Any], a: ResampleAttrs, args: Values, outs: Values, cts: Values) -> Any:
    t = o.type_of(args[0])
    size = t.shape[a.axis]
    assert isinstance(size, int)
    index, weights = a.index.array(), a.weights.array()
    if not len(index):
        return (o.zeros_like(args[0]),)
    back, shares = (ArrayData.of(table) for table in turned(index, weights, size))
    return (o.call("resample", cts[0], axis=a.axis, index=back, weights=shares),)


# --- samples -----------------------------------------------------------------------------------


def _samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(shape: tuple[int, ...], axis: int, new: int, terms: int, dtype: Any) -> Sample:
        index = rng.integers(0, max(shape[axis], 1), (new, terms))
        weights = rng.uniform(0.5, 1.5, (new, terms)) * (rng.uniform(size=(new, terms)) < 0.8)
        attrs = ResampleAttrs(axis, ArrayData.of(index), ArrayData.of(weights))
        x = rng.standard_normal(shape).astype(dtype)
        return Sample((x,), attrs, dtype is np.float64, ulps=2, scale=4)

    for shape, axis, new, terms in [
        ((2, 5), 1, 7, 2), ((5, 2), 0, 3, 1), ((2, 4, 3), 1, 4, 3), ((3, 2), 1, 5, 20),
        ((1,), 0, 1, 1),
    ]:  # fmt: skip
        yield sample(shape, axis, new, terms, np.float64)
        yield sample(shape, axis, new, terms, np.float32)
    for size in (1, 7, 8, 15, 16, 17, 33):
        yield sample((3, 9), 1, size, 2, np.float32)
        yield sample((9, size), 0, 4, 2, np.float32)
    yield sample((0, 4), 1, 3, 2, np.float64)
    yield sample((3, 4), 1, 0, 2, np.float32)


# --- pick --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PickAttrs(Attrs):
    """The `axis` along which elements are looked up."""

    axis: int


def _infer_pick(a: PickAttrs, *types: TensorType) -> TensorType:
    check_count("pick", types, 2)
    x, index = types
    check_axis("pick", a.axis, x.rank)
    check_dtype("pick (the index)", index, (int64,))
    if index.rank != 1 or (x.shape[a.axis] == 0 and index.shape != (0,)):
        raise ShapeError(f"pick along axis {a.axis} of {x} needs a list of indices, found {index}")
    return x.with_shape(_at_axis(a.axis, x.shape, index.shape[0]))  # type: ignore[arg-type]


def _lower_pick(s: Any, a: PickAttrs, types: Any, index: Any, load: Any) -> Any:
    size = types[0].static_shape[a.axis]
    if size == 0:
        return s.const(0, types[0].dtype)  # no element is ever asked for
    at = s.index_of(load(1, (index[a.axis],)), size, wrap=False, fault="")
    return load(0, _at_axis(a.axis, tuple(index), at))


def _vjp_pick(o: Ops[Any], a: PickAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """Only of programs that use it as it is: `resample` has a derivative that scatters nothing."""
    x, index = args
    t = o.type_of(x)
    front = (a.axis, *(i for i in range(t.rank) if i != a.axis))
    inside = o.minimum(o.maximum(index, 0), o.const(t.static_shape[a.axis] - 1, int64))
    ct = o.permute(cts[0], front)
    return o.call("scatter_add", o.zeros_like(x), ct, inside, axes=(a.axis,), checked=False), None


def _samples_pick(rng: np.random.Generator) -> Iterable[Sample]:
    for shape, axis, new in [
        ((2, 5), 1, 7), ((5, 2), 0, 3), ((2, 4, 3), 1, 6), ((4,), 0, 0), ((0, 3), 1, 2),
        *(((3, 9), 1, size) for size in (1, 7, 8, 15, 16, 17, 33)),
    ]:  # fmt: skip
        for dtype in (np.float64, np.float32):
            x = rng.standard_normal(shape).astype(dtype)
            index = rng.integers(-1, shape[axis] + 1, new)
            yield Sample((x, index), PickAttrs(axis), dtype is np.float64)
    yield Sample((rng.integers(0, 9, (3, 4)), np.array([3, 3, 0])), PickAttrs(1), False)


PICK = register(
    OpDef(
        name="pick",
        maths="y[.., p, ..] = x[.., index[p], ..]; an index outside is moved to the nearest end",
        attrs=PickAttrs,
        infer=_infer_pick,
        ref=lambda a, x, index: np.take(x, index, a.axis, mode="clip"),
        vjp=_vjp_pick,
        lower=Index(_lower_pick),
        traits=frozenset({Trait.MOVEMENT}),
        samples=_samples_pick,
    )
)

RESAMPLE = register(
    OpDef(
        name="resample",
        maths="y[.., p, ..] = sum over t of weights[p, t] * x[.., index[p, t], ..]",
        attrs=ResampleAttrs,
        infer=_infer,
        ref=_ref,
        vjp=_vjp,
        expand=_expand,
        traits=frozenset({Trait.COMPOSITE}),
        samples=_samples,
    )
)
