"""Norms of vectors, by the Array API standard, with a derivative where they have a kink.

At the zero vector a norm has no derivative; 0 is taken, of first and of higher order, the
subgradient that a minimiser expects. The formulas are written so that nothing infinite arises on
the way: where a sum of powers is 0, the root is not taken of it.
"""

from __future__ import annotations

import math
from typing import Any

from treadle.ir.errors import ArgumentError
from treadle.tracer.api.arguments import Axis, array_function, as_float_tensor
from treadle.tracer.api.elementwise import abs, pow, where
from treadle.tracer.api.reductions import max, min, root_or_zero, sum
from treadle.tracer.promote import Operand
from treadle.tracer.tensor import Tensor


@array_function
def vector_norm(
    x: Operand, /, axis: Axis = None, keepdims: bool = False, ord: float = 2.0
) -> Tensor:
    """The norm over axes (None: all, as one vector). Integers become float32.

    `ord`: 2 Euclidean; 1 the sum of absolute values; inf and -inf the largest and the smallest;
    0 how many are not 0; any other p: (sum |x|^p)^(1/p). The derivative at a vector of zeros is 0.
    Squares are summed as they are: beyond 1e19 in float32 the norm is inf, below 1e-19 it is 0.
    Raises ArgumentError for an `ord` that is not a number.
    """
    found = as_float_tensor(x)
    if isinstance(ord, bool) or not isinstance(ord, (int, float)) or math.isnan(ord):
        raise ArgumentError(f"ord must be a number, or 'fro' in norm, found {ord!r:.60}")
    if ord == 2:
        return root_or_zero(sum(found * found, axis=axis, keepdims=keepdims))
    size = abs(found)
    if ord == 0:
        return sum((size != 0).astype(found.dtype), axis=axis, keepdims=keepdims)
    if ord == 1:
        return sum(size, axis=axis, keepdims=keepdims)
    if math.isinf(ord):
        return (max if ord > 0 else min)(size, axis=axis, keepdims=keepdims)
    return _root(sum(_power(size, float(ord)), axis=axis, keepdims=keepdims), float(ord))


@array_function
def norm(x: Operand, ord: float | str = 2.0, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """As `vector_norm`, with NumPy's order of arguments: `norm(x)` is the Euclidean norm of all
    elements, which `ord="fro"` (of a matrix: Frobenius' norm) is another name of. The derivative at
    zeros is 0. Raises ArgumentError for another `ord`."""
    power: Any = 2.0 if ord == "fro" else ord
    return vector_norm(x, axis=axis, keepdims=keepdims, ord=power)


def _root(total: Tensor, p: float) -> Tensor:
    """total^(1/p), with derivatives of 0 where the total is 0."""
    none = total == 0
    safe = where(none, 1.0, total)
    return where(none, 0.0 if p > 0 else math.inf, pow(safe, 1 / p))


def _power(size: Tensor, p: float) -> Tensor:
    """|x|^p, with derivatives of 0 at 0."""
    none = size == 0
    return where(none, 0.0 if p > 0 else math.inf, pow(where(none, 1.0, size), p))
