"""Attention as a function."""

from __future__ import annotations

from typing import Any, cast

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import bool_, broadcast_shapes, shape_text
from treadle.nn.functional.dropout import dropout
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, flag, real
from treadle.tracer.execute import apply
from treadle.tracer.generator import Generator
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.random_draws import checked_probability
from treadle.tracer.tensor import Tensor


@array_function
def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: Tensor | Generator | None = None,
) -> Tensor:
    """softmax(scale query key^T, masked) value, without the matrix of weights in memory.

    `query` [.., T, D], `key` [.., S, D], `value` [.., S, E], floats; their batch axes broadcast;
    the result is [.., T, E]. `attn_mask` broadcasts to [.., T, S]: bools are True where a key takes
    part, floats are added. `is_causal`: query t sees keys 0 to t; there is no mask then. `scale` is
    1 / sqrt(D) unless given. A query that sees no key gets zeros. `enable_gqa`: each head of keys
    and values (axis -3) serves as many neighbouring heads of queries as their numbers say.

    `dropout_p` leaves out weights with that probability and scales the others by 1 / (1 - p), as
    `dropout` does, in every call: pass 0 outside of training. The matrix of weights is made then.
    `dropout_key` is what the draws come from: a key, a generator, or None for the default one.

    Raises ArgumentError for a probability that is not from 0 to 1, or a mask beside `is_causal`;
    ShapeError and DTypeError for operands that do not fit.
    """
    left_out = real("dropout_p", dropout_p)
    checked_probability(left_out)
    causal = flag("is_causal", is_causal)
    if causal and attn_mask is not None:
        raise ArgumentError("attn_mask must be None where is_causal is True")
    q, k, v = promote(query, key, value, floating=True)
    if min(q.ndim, k.ndim, v.ndim) < 2:
        listed = ", ".join(shape_text(x.shape) for x in (q, k, v))
        raise ShapeError(f"query, key and value need two axes or more, found {listed}")
    if flag("enable_gqa", enable_gqa):
        k, v = (_for_all_heads(x, q) for x in (k, v))
    mask = () if attn_mask is None else (_mask(attn_mask, q),)
    batch = broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, *mask)))
    q, k, v = (api.broadcast_to(x, cast(Any, (*batch, *x.shape[-2:]))) for x in (q, k, v))
    factor = _scale(scale, q)
    if left_out:
        weights = _weights(q * factor, k, mask[0] if mask else None, causal)
        return dropout(weights, left_out, key=dropout_key) @ v
    return apply("attention", q, k, v, *mask, scale=factor, causal=causal)


def _for_all_heads(x: Tensor, q: Tensor) -> Tensor:
    """Each head of `x` as often as `q` has heads for it. Raises ShapeError where that is none."""
    if min(x.ndim, q.ndim) < 3 or not x.shape[-3] or q.shape[-3] % x.shape[-3]:
        raise ShapeError(
            "enable_gqa needs heads on axis -3, those of queries a multiple of those of keys and "
            f"values, found {shape_text(q.shape)} and {shape_text(x.shape)}"
        )
    return api.repeat(x, q.shape[-3] // x.shape[-3], axis=-3)


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The matrix of weights [.., T, S]; a row that sees no key is zeros, as in the op."""
    scores = q @ api.swapaxes(k, -1, -2)
    never = float("-inf")
    if causal:
        rows, columns = scores.shape[-2:]
        seen = api.arange(columns) <= api.expand_dims(api.arange(rows), 1)
        scores = api.where(seen, scores, never)
    elif mask is not None:
        scores = api.where(mask, scores, never) if mask.dtype == bool_ else scores + mask
    return api.softmax(scores)  # which is 0 in a row of -inf


def _mask(mask: Any, q: Tensor) -> Tensor:
    found = as_operand(mask)
    if found.dtype != bool_ and not found.dtype.is_float:
        raise DTypeError(f"attn_mask must be bool or float, found {found.type}")
    return found if found.dtype == bool_ else api.astype(found, q.dtype)


def _scale(scale: float | None, q: Tensor) -> float:
    """The factor, as a number of q's dtype."""
    if scale is not None:
        found = real("scale", scale)
    elif q.shape[-1] == 0:
        found = 1.0
    else:
        found = float(q.shape[-1]) ** -0.5
    return float(q.dtype.dtype.type(found))
