"""one_hot and cross_entropy: composites over class labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import NO_ATTRS, NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.checks import CHECK_INDEX, CheckIndexAttrs
from treadle.ir.ops.rules import Values, check_count, check_dtype, scaled
from treadle.ir.ops.sampling import uniform
from treadle.ir.ops.softmax import NEG_INF, below_maximum, hard_rows, log_softmax64, row_pass
from treadle.ir.types import (
    FLOATS,
    INTEGERS,
    DType,
    Size,
    TensorType,
    bool_,
    float32,
    float64,
    int64,
    shape_text,
)

# --- one_hot ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OneHotAttrs(Attrs):
    """The number of classes, and the dtype of the result."""

    depth: Size
    dtype: DType


def _infer_one_hot(a: OneHotAttrs, *types: TensorType) -> TensorType:
    check_count("one_hot", types, 1)
    check_dtype("one_hot", types[0], INTEGERS)
    if isinstance(a.depth, int) and a.depth < 0:
        raise ShapeError(f"one_hot needs a depth of at least 0, found {a.depth}")
    return TensorType(a.dtype, (*types[0].shape, a.depth))


def _expand_one_hot(o: Ops[Any], a: OneHotAttrs, labels: Any) -> Any:
    t = o.type_of(labels)
    shape = (*t.shape, a.depth)
    classes = o.iota(shape, t.rank, int64)
    column = o.reshape(o.cast(labels, int64), (*t.shape, 1))
    return o.cast(o.eq(column, classes), a.dtype)


def _ref_one_hot(a: OneHotAttrs, labels: Array) -> Array:
    assert isinstance(a.depth, int)
    hot = labels.astype(np.int64)[..., None] == np.arange(a.depth)
    return np.asarray(hot, a.dtype.dtype)


def _one_hot_samples(rng: np.random.Generator) -> Iterable[Sample]:
    yield Sample((rng.integers(0, 5, (3, 4)),), OneHotAttrs(5, float32), False)
    yield Sample((np.array([-1, 0, 4, 5, 7], np.int32),), OneHotAttrs(5, bool_), False)
    yield Sample((np.array(2, np.uint8),), OneHotAttrs(17, int64), False)
    yield Sample((np.zeros((0,), np.int64),), OneHotAttrs(3, float64), False)


ONE_HOT = register(
    OpDef(
        name="one_hot",
        maths="y[..., c] = 1 where labels[...] == c, else 0; a label out of range gives zeros",
        attrs=OneHotAttrs,
        infer=_infer_one_hot,
        ref=_ref_one_hot,
        vjp=NOT_DIFFERENTIABLE,
        expand=_expand_one_hot,
        traits=frozenset({Trait.COMPOSITE}),
        samples=_one_hot_samples,
    )
)

# --- cross_entropy ---------------------------------------------------------------------------

LABEL = "cross_entropy: label"


def _infer_cross_entropy(a: Attrs, *types: TensorType) -> TensorType:
    check_count("cross_entropy", types, 2)
    logits, labels = types
    check_dtype("cross_entropy", logits, FLOATS)
    check_dtype("cross_entropy (labels)", labels, INTEGERS)
    if logits.rank < 1 or labels.shape != logits.shape[:-1]:
        raise ShapeError(
            "cross_entropy takes logits [..., classes] and one label a row, found logits "
            f"{shape_text(logits.shape)} and labels {shape_text(labels.shape)}"
        )
    classes = logits.shape[-1]
    if not isinstance(classes, int) or classes == 0:
        raise ShapeError(f"cross_entropy needs a fixed number of classes, found logits {logits}")
    return logits.with_shape(labels.shape)


def _ref_cross_entropy(a: Attrs, logits: Array, labels: Array) -> Array:
    (index,) = CHECK_INDEX.run_ref(CheckIndexAttrs(logits.shape[-1], LABEL), (labels,))
    rows = log_softmax64(logits, logits.ndim - 1)
    picked = np.take_along_axis(rows, index[..., None], axis=-1)
    return (0.0 - picked[..., 0]).astype(logits.dtype)


def _label_indices(o: Ops[Any], labels: Any, shape: Sequence[Size]) -> list[Any]:
    """Indices of shape [..., 1] that pull each row's own class, kept like a row's maximum.

    The label is checked here, not by the gather: -1 is no class, and the message says "label".
    """
    kept = (*shape[:-1], 1)
    rows = [o.iota(kept, axis, int64) for axis in range(len(shape) - 1)]
    label = o.reshape(labels, kept)
    return [*rows, o.call("check_index", label, size=shape[-1], what=LABEL)]


def _expand_cross_entropy(o: Ops[Any], a: Attrs, logits: Any, labels: Any) -> Any:
    """log(s) - (x[label] - m), in which an infinite maximum never meets itself; the parts have
    the shape [..., 1], so that they can join the row's pass."""
    t = o.type_of(logits)
    row = row_pass(o, logits, t.rank - 1)
    index = _label_indices(o, labels, t.shape)
    axes = tuple(range(t.rank))
    picked = o.call("gather", logits, *index, axes=axes, checked=False)
    loss = o.sub(o.log(row.s), below_maximum(o, picked, row.m))
    return o.reshape(o.where(row.dead, float("inf"), loss), t.shape[:-1])


def _vjp_cross_entropy(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> Any:
    """(softmax - one_hot) ct, and 0 for a row of -inf."""
    logits, labels = args
    t = o.type_of(logits)
    axis = t.rank - 1
    ct = o.reshape(cts[0], (*t.shape[:-1], 1))
    share = o.call("softmax", logits, axis=axis)
    hot = o.call("one_hot", labels, depth=t.shape[-1], dtype=t.dtype)
    dead = o.eq(o.max(logits, axis, keepdims=True), NEG_INF)
    return o.where(dead, 0, scaled(o, ct, o.sub(share, hot))), None


def _cross_entropy_samples(rng: np.random.Generator) -> Iterable[Sample]:
    yield Sample((uniform(rng, (3, 5), float64, -2, 2), np.array([0, 4, 2])), NO_ATTRS, True, 4, 1)
    cube = uniform(rng, (2, 3, 4), float64, -2, 2)
    yield Sample((cube, rng.integers(0, 4, (2, 3)).astype(np.int32)), NO_ATTRS, True, 4, 1)
    rows = uniform(rng, (7, 33), float32, -8, 8)
    yield Sample((rows, rng.integers(0, 33, 7)), NO_ATTRS, False, 4, 1)
    hard = hard_rows()
    yield Sample((hard, np.arange(len(hard)) % hard.shape[1]), NO_ATTRS, False, 4, 1)
    yield Sample((uniform(rng, (9,), float32, -1, 1), np.array(8, np.uint8)), NO_ATTRS, False, 4, 1)
    yield Sample((np.zeros((0, 3), np.float32), np.zeros(0, np.int64)), NO_ATTRS, False)


CROSS_ENTROPY = register(
    OpDef(
        name="cross_entropy",
        maths="y[...] = logsumexp(x[..., :]) - x[..., labels[...]]; inf for a row of -inf",
        infer=_infer_cross_entropy,
        ref=_ref_cross_entropy,
        vjp=_vjp_cross_entropy,
        expand=_expand_cross_entropy,
        traits=frozenset({Trait.COMPOSITE, Trait.CAN_FAULT, Trait.EXPENSIVE}),
        samples=_cross_entropy_samples,
    )
)
