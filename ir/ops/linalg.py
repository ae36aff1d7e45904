"""Matrix products of the TRACED and CORE levels: `matmul`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.scalar import Kernel
from treadle.ir.types import TensorType, bool_, broadcast_shapes, shape_text, size_product


def _matmul_infer(a: Attrs, x: TensorType, y: TensorType) -> TensorType:
    if x.dtype != y.dtype or x.dtype is bool_:
        raise DTypeError(
            f"matmul needs two operands of one numeric dtype, found {x.dtype} and {y.dtype}"
        )
    if x.rank < 2 or y.rank < 2:
        raise ShapeError(
            "matmul needs operands of rank 2 or more, found shapes "
            f"{shape_text(x.shape)} and {shape_text(y.shape)}"
        )
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(
            f"matmul of {shape_text(x.shape)} and {shape_text(y.shape)}: the inner sizes "
            f"{x.shape[-1]} (last axis of the left) and {y.shape[-2]} (last but one of the right) "
            "must be equal"
        )
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return x.with_shape((*batch, x.shape[-2], y.shape[-1]))


def wide_product(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which a reference adds up products: float32 is summed in float64 and rounded
    once, so that the reference is the truth to which compiled sums are compared."""
    return np.dtype(np.float64) if dtype == np.float32 else dtype


def _matmul_ref(a: Attrs, x: Array, y: Array) -> Array:
    wide = wide_product(x.dtype)
    product: Array = np.matmul(x.astype(wide), y.astype(wide))
    return product.astype(x.dtype)


def _matmul_vjp(o: Any, a: Attrs, args: Any, outs: Any, cts: Any) -> tuple[Any, ...]:
    """dx = ct y^T and dy = x^T ct, summed over the batch axes that were broadcast.

    A right operand of rank 2 (a weight) meets every row of every batch, so its gradient is ONE
    product of flattened operands, not a product a batch and a sum. The same for a left operand of
    rank 2 would need its rows apart, so it takes the general way.
    """
    (x, y), (ct,) = args, cts
    tx, ty, tc = o.type_of(x), o.type_of(y), o.type_of(ct)
    dx = o.unbroadcast(o.matmul(ct, o.transpose(y)), tx.shape)
    if ty.rank == 2 and tx.rank > 2:
        rows = size_product(tx.shape[:-1])
        flat_x = o.reshape(x, (rows, tx.shape[-1]))
        flat_ct = o.reshape(ct, (rows, tc.shape[-1]))
        return dx, o.matmul(o.transpose(flat_x), flat_ct)
    return dx, o.unbroadcast(o.matmul(o.transpose(x), ct), ty.shape)


def _matmul_samples(rng: np.random.Generator) -> Iterable[Sample]:
    def sample(left: tuple[int, ...], right: tuple[int, ...], dtype: Any = np.float32) -> Sample:
        x = rng.standard_normal(left).astype(dtype)
        y = rng.standard_normal(right).astype(dtype)
        return Sample((x, y), differentiable=dtype == np.float64, ulps=2, scale=8)

    for n in (0, 1, 3, 4, 5, 8, 15, 16, 17):
        yield sample((3, n), (n, 2))
        yield sample((2, 5), (5, n))
        yield sample((n, 3), (3, 4))
    for dtype in (np.float32, np.float64):
        yield sample((4, 5), (5, 3), dtype)
        yield sample((2, 3, 4), (4, 5), dtype)
        yield sample((3, 4), (2, 4, 5), dtype)
        yield sample((2, 3, 4), (2, 4, 5), dtype)
        yield sample((1, 3, 4), (3, 4, 5), dtype)
        yield sample((2, 1, 3, 4), (3, 4, 5), dtype)
    for kind in (np.int32, np.int64, np.uint8, np.uint32):
        x = rng.integers(0, 100, (3, 4)).astype(kind)
        yield Sample((x, x.T.copy()), differentiable=False)


MATMUL = register(
    OpDef(
        name="matmul",
        maths="y[.., i, j] = sum_k a[.., i, k] * b[.., k, j]",
        infer=_matmul_infer,
        ref=_matmul_ref,
        vjp=_matmul_vjp,
        lower=Kernel("matmul"),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=_matmul_samples,
    )
)
