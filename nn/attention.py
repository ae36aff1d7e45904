"""`MultiheadAttention`, with PyTorch's arguments, masks and `state_dict` keys."""

from __future__ import annotations

from typing import Any

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import bool_, float32, shape_text
from treadle.nn import functional, init
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.api.arguments import real
from treadle.tracer.errors import located, located_errors
from treadle.tracer.promote import as_tensor
from treadle.tracer.random_draws import checked_probability
from treadle.tracer.tensor import Tensor


class MultiheadAttention(Module):
    """Attention of `num_heads` heads side by side (Vaswani et al., 2017), between projections.

    Masks are PyTorch's for this layer: True where a key does NOT take part, or floats that are
    added. `kdim` and `vdim`: the features of keys and values where they are not `embed_dim`.
    `dropout` leaves out weights in training mode. `add_bias_kv` gives every sequence one more key
    and value, which are learned, `add_zero_attn` one more of zeros.

    Raises ArgumentError where `num_heads` does not divide `embed_dim`, or for a dropout that is not
    from 0 to 1.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: object = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise located(ArgumentError(f"num_heads {num_heads} must divide embed_dim {embed_dim}"))
        with located_errors():
            checked_probability(real("dropout", dropout))
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.batch_first = batch_first
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.in_one = self.kdim == self.vdim == embed_dim
        kind = float32 if dtype is None else dtype

        def weight(rows: int, columns: int) -> Parameter:
            return Parameter(api.zeros((rows, columns), dtype=kind))

        if self.in_one:
            self.in_proj_weight = weight(3 * embed_dim, embed_dim)
        else:
            self.q_proj_weight = weight(embed_dim, embed_dim)
            self.k_proj_weight = weight(embed_dim, self.kdim)
            self.v_proj_weight = weight(embed_dim, self.vdim)
        self.in_proj_bias = Parameter(api.zeros(3 * embed_dim, dtype=kind)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype)
        for name in ("bias_k", "bias_v"):
            param = Parameter(api.zeros((1, 1, embed_dim), dtype=kind)) if add_bias_kv else None
            setattr(self, name, param)
        self.add_zero_attn = add_zero_attn
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew: Xavier's for the input projections and the keys and values
        that are learned, biases 0."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            param = self.__dict__.get(name)
            if param is not None:
                init.xavier_uniform_(param)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for more in (self.bias_k, self.bias_v):
            if more is not None:
                init.xavier_normal_(more)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(result, weights), the former like `query`: [T, N, E], or [N, T, E] where `batch_first`,
        or [T, E].

        `key` [S, N, kdim] and `value` [S, N, vdim] likewise. `key_padding_mask` [N, S],
        `attn_mask` [T, S] or [N * heads, T, S]. The weights [N, T, S] are the heads' mean, or
        [N, heads, T, S] where not `average_attn_weights`; without `need_weights` they are None, and
        the matrix of weights is never made. `is_causal` says that `attn_mask` is the causal one; a
        mask must be there too, as in PyTorch. Raises ShapeError for operands that do not fit.
        """
        q, k, v = (as_tensor(x) for x in (query, key, value))
        alone = q.ndim == 2
        if q.ndim not in (2, 3) or not q.ndim == k.ndim == v.ndim:
            listed = ", ".join(shape_text(x.shape) for x in (q, k, v))
            raise located(ShapeError(f"query, key and value need 2 or 3 axes each, found {listed}"))
        if is_causal and attn_mask is None:
            raise located(ArgumentError("is_causal needs the causal attn_mask"))
        if alone:
            q, k, v = (api.expand_dims(x, 0) for x in (q, k, v))
        elif not self.batch_first:
            q, k, v = (api.swapaxes(x, 0, 1) for x in (q, k, v))
        q, k, v = self._projected(q, k, v)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        k, v, mask = self._with_more_keys(k, v, mask)
        weights: Tensor | None = None
        if need_weights:
            mixed, weights = self._with_weights(q, k, v, mask)
        else:
            left_out = self.dropout if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, left_out)
        joined = api.swapaxes(mixed, 1, 2).reshape((*_rows(q), self.embed_dim))
        result = self.out_proj(joined)
        if alone:
            result = result[0]
        elif not self.batch_first:
            result = api.swapaxes(result, 0, 1)
        if weights is None:
            return result, None
        shown = api.mean(weights, axis=1) if average_attn_weights else weights
        return result, shown[0] if alone else shown

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        """Each as [N, heads, length, features of a head]."""
        sizes = (self.embed_dim, self.kdim, self.vdim)
        for name, x, size in zip(("query", "key", "value"), inputs, sizes, strict=True):
            if x.shape[-1] != size:
                raise located(ShapeError(f"{name} must have {size} features, found {x.type}"))
        e = self.embed_dim
        if self.in_one:
            packed = self.in_proj_weight
            assert packed is not None
            weights: list[Any] = [packed[n * e : (n + 1) * e] for n in range(3)]
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        found = []
        for n, (x, w) in enumerate(zip(inputs, weights, strict=True)):
            b = None if self.in_proj_bias is None else self.in_proj_bias[n * e : (n + 1) * e]
            y = functional.linear(x, w, b)
            split = y.reshape((*y.shape[:2], self.num_heads, e // self.num_heads))
            found.append(api.swapaxes(split, 1, 2))
        return found

    def _mask(
        self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None
    ) -> Tensor | None:
        """Both masks as one that is added, [N or 1, heads or 1, T or 1, S]."""
        parts = []
        if attention is not None:
            found = _added(as_tensor(attention), q)
            if found.ndim == 3:
                found = found.reshape((-1, self.num_heads, *found.shape[1:]))
            parts.append(found)
        if padding is not None:
            found = _added(as_tensor(padding), q)
            parts.append(found.reshape((-1, 1, 1, found.shape[-1])))
        for part in parts:
            if part.shape[-1] != k.shape[2]:
                raise located(
                    ShapeError(f"a mask for {k.shape[2]} keys has shape {shape_text(part.shape)}")
                )
        return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _with_more_keys(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with the one that is learned and the one of zeros, seen by all."""
        one = (k.shape[0], self.num_heads, 1, k.shape[-1])
        keys, values = [k], [v]
        if self.bias_k is not None and self.bias_v is not None:
            keys.append(api.broadcast_to(self.bias_k.reshape((1, *one[1:])), one))
            values.append(api.broadcast_to(self.bias_v.reshape((1, *one[1:])), one))
        if self.add_zero_attn:
            keys.append(api.zeros(one, dtype=k.dtype))
            values.append(keys[-1])
        more = len(keys) - 1
        if not more:
            return k, v, mask
        if mask is not None:
            seen = api.zeros((*mask.shape[:-1], more), dtype=mask.dtype)
            mask = api.concat([mask, seen], axis=-1)
        return api.concat(keys, axis=2), api.concat(values, axis=2), mask

    def _with_weights(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = q @ api.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5)
        weights = api.softmax(scores if mask is None else scores + mask)
        kept = functional.dropout(weights, self.dropout, self.training and self.dropout > 0)
        return kept @ v, kept

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, dropout={self.dropout}"


def _rows(heads: Tensor) -> tuple[int, int]:
    """(N, T) of [N, heads, T, features]."""
    return heads.shape[0], heads.shape[2]


def _added(mask: Tensor, beside: Tensor) -> Tensor:
    """A mask as floats that are added to scores."""
    if mask.dtype != bool_:
        return mask.astype(beside.dtype)
    return api.where(mask, float("-inf"), 0.0).astype(beside.dtype)
