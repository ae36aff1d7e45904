"""attention and its gradient: softmax(scale q k^T, masked) v, composites that stay whole.

    logits[.., t, s] = scale * sum_d q[.., t, d] k[.., s, d]
    with a float mask      logits + mask
    with a bool mask       where(mask, logits, fill)      (True: keep; fill is -inf unless given)
    causal                 where(s <= t, .., -inf)
    out[.., t, e] = sum_s softmax(logits)[.., t, s] v[.., s, e]

softmax is the one of `treadle.ir.ops.softmax`: a row of -inf gives 0, k entries of +inf share 1/k,
NaN makes its row NaN. `attention_grad` takes the cotangent of `out` and gives those of q, k, v; it
computes the weights P again from q and k, so that nothing of shape [.., T, S] has to be kept:

    dP = ct v^T,  dS = P (dP - rowsum(dP P)), 0 where a bool mask is False
    dq = scale dS k,  dk = scale dS^T q,  dv = P^T ct

Both expand into matmul and softmax; `treadle.passes.attention` has them computed by a kernel where
there is one. The derivative of `attention_grad`, and that by a mask, are written in plain ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import Values, check_dtype, check_same_dtype, scaled
from treadle.ir.ops.softmax import NEG_INF, shifted_exponentials
from treadle.ir.types import FLOATS, TensorType, bool_, broadcast_shapes, int64, shape_text


@dataclass(frozen=True, slots=True)
class AttentionAttrs(Attrs):
    """`scale` multiplies the products of queries and keys; `causal`: query t sees keys 0 to t."""

    scale: float
    causal: bool = False


# --- type rules --------------------------------------------------------------------------------


def _checked(name: str, types: Sequence[TensorType]) -> TensorType:
    """The type of the result. `types`: q, k, v, and perhaps a mask and what fills it."""
    if not 3 <= len(types) <= 5:
        raise ShapeError(f"{name} takes q, k, v, perhaps a mask and its fill, found {len(types)}")
    q, k, v = types[:3]
    for t in (q, k, v):
        check_dtype(name, t, FLOATS)
        if t.rank < 2:
            raise ShapeError(f"{name} needs q, k and v of rank 2 or more, found {t}")
    check_same_dtype(name, (q, k, v))
    if q.shape[:-2] != k.shape[:-2] or q.shape[:-2] != v.shape[:-2]:
        listed = ", ".join(shape_text(t.shape) for t in (q, k, v))
        raise ShapeError(f"{name}: q, k and v must have the same batch axes, found {listed}")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(
            f"{name}: q {shape_text(q.shape)} and k {shape_text(k.shape)} must have one last size"
        )
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"{name}: k {shape_text(k.shape)} and v {shape_text(v.shape)} must have as many rows"
        )
    if k.shape[-2] == 0:
        raise ShapeError(f"{name} over no keys: k is {k}")
    _check_mask(name, q, (*q.shape[:-1], k.shape[-2]), types[3:])
    return q.with_shape((*q.shape[:-1], v.shape[-1]))


def _check_mask(
    name: str, q: TensorType, logits: tuple[Any, ...], extra: Sequence[TensorType]
) -> None:
    if not extra:
        return
    mask = extra[0]
    if mask.dtype not in (bool_, q.dtype):
        raise DTypeError(f"{name}: a mask is bool or {q.dtype} as q is, found {mask}")
    if broadcast_shapes(logits, mask.shape) != logits:
        raise ShapeError(f"{name}: the mask {mask} does not broadcast to {shape_text(logits)}")
    if len(extra) == 2 and (mask.dtype != bool_ or extra[1] != TensorType(q.dtype, ())):
        raise ShapeError(
            f"{name}: the fill of a bool mask is a {q.dtype}[], found {extra[1]} with {mask}"
        )


def _infer(a: AttentionAttrs, *types: TensorType) -> TensorType:
    return _checked("attention", types)


def _infer_grad(a: AttentionAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    out = _checked("attention_grad", types[:-1])
    if types[-1] != out:
        raise ShapeError(f"attention_grad: the cotangent must be {out}, found {types[-1]}")
    return types[:3]


# --- references, in float64 --------------------------------------------------------------------


def weights64(a: AttentionAttrs, q: Array, k: Array, *mask: Array) -> Array:
    """softmax(logits)."""
    logits = np.matmul(q.astype(np.float64), np.swapaxes(k, -1, -2).astype(np.float64)) * a.scale
    if mask:
        fill = mask[1].astype(np.float64) if len(mask) > 1 else NEG_INF
        is_bool = mask[0].dtype == np.bool_
        logits = np.where(mask[0], logits, fill) if is_bool else logits + mask[0]
    if a.causal:
        logits = np.where(np.tri(*logits.shape[-2:], dtype=np.bool_), logits, NEG_INF)
    if logits.size == 0:
        return np.asarray(logits)
    _, _, e, s = shifted_exponentials(logits, logits.ndim - 1)
    return np.asarray(e / s)


def _ref(a: AttentionAttrs, q: Array, k: Array, v: Array, *mask: Array) -> Array:
    found = np.matmul(weights64(a, q, k, *mask), v.astype(np.float64))
    return np.asarray(found.astype(q.dtype))


def gradients64(a: AttentionAttrs, *args: Array) -> tuple[Array, Array, Array]:
    """The cotangents of q, k and v in float64; the last argument is that of the result."""
    q, k, v, *mask, ct = (x if x.dtype == np.bool_ else x.astype(np.float64) for x in args)
    p = weights64(a, q, k, *mask)
    dp = np.matmul(ct, np.swapaxes(v, -1, -2))
    ds = p * (dp - np.sum(dp * p, axis=-1, keepdims=True))
    if mask and mask[0].dtype == np.bool_:
        ds = np.where(mask[0], ds, 0)
    ds = np.where(p == 0, 0, ds) * a.scale
    turned = np.swapaxes(ds, -1, -2)
    return np.matmul(ds, k), np.matmul(turned, q), np.matmul(np.swapaxes(p, -1, -2), ct)


def _ref_grad(a: AttentionAttrs, *args: Array) -> tuple[Array, ...]:
    return tuple(x.astype(args[0].dtype) for x in gradients64(a, *args))


# --- in plain ops ------------------------------------------------------------------------------


def _weights(o: Ops[Any], a: AttentionAttrs, q: Any, k: Any, mask: Values) -> Any:
    """softmax(logits): the same instructions in the forward and the backward pass."""
    logits = o.mul(o.matmul(q, o.transpose(k)), a.scale)
    if mask:
        is_bool = o.type_of(mask[0]).dtype == bool_
        fill = mask[1] if len(mask) > 1 else NEG_INF
        logits = o.where(mask[0], logits, fill) if is_bool else o.add(logits, mask[0])
    shape = o.type_of(logits).shape
    if a.causal:
        query, key = (o.iota(shape[-2:], axis, int64) for axis in (0, 1))
        logits = o.where(o.le(key, query), logits, NEG_INF)
    return o.call("softmax", logits, axis=len(shape) - 1)


def _expand(o: Ops[Any], a: AttentionAttrs, q: Any, k: Any, v: Any, *mask: Any) -> Any:
    return o.matmul(_weights(o, a, q, k, mask), v)


def _softmax_ct(o: Ops[Any], p: Any, ct: Any) -> Any:
    """What softmax's derivative makes of `ct`: P (ct - rowsum(ct P)). It is symmetric in them."""
    mean = o.sum(scaled(o, ct, p), -1, keepdims=True)
    return scaled(o, o.sub(ct, mean), p)


def _kept(o: Ops[Any], mask: Values, x: Any) -> Any:
    """0 where a bool mask has put its fill."""
    if not mask or o.type_of(mask[0]).dtype != bool_:
        return x
    return o.where(mask[0], x, 0)


def _expand_grad(o: Ops[Any], a: AttentionAttrs, *args: Any) -> tuple[Any, ...]:
    q, k, v, *mask, ct = args
    p = _weights(o, a, q, k, mask)
    ds = _kept(o, mask, _softmax_ct(o, p, o.matmul(ct, o.transpose(v))))
    ds = o.mul(ds, a.scale)
    dq, dk = o.matmul(ds, k), o.matmul(o.transpose(ds), q)
    return dq, dk, o.matmul(o.transpose(p), ct)


# --- derivatives -------------------------------------------------------------------------------


def _mask_cts(o: Ops[Any], mask: Values, ds: Any) -> tuple[Any, ...]:
    """The cotangents of a mask and of its fill from that of the logits behind them."""
    if not mask:
        return ()
    t = o.type_of(mask[0])
    if t.dtype != bool_:
        return (o.unbroadcast(ds, t.shape),)
    filled = (o.sum(o.where(mask[0], 0, ds)),) if len(mask) > 1 else ()
    return (None, *filled)


def _vjp(o: Ops[Any], a: AttentionAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """q, k and v get theirs from attention_grad. The mask's is the one of the logits, [.., T, S],
    in plain ops, which vanish where nobody asks for it."""
    q, k, v, *mask = args
    found = o.call_multi("attention_grad", *args, cts[0], scale=a.scale, causal=a.causal)
    if not any(o.type_of(m).dtype.is_float for m in mask):
        return (*found, *(None for _ in mask))
    p = _weights(o, a, q, k, mask)
    ds = _softmax_ct(o, p, o.matmul(cts[0], o.transpose(v)))
    return (*found, *_mask_cts(o, mask, ds))


def _vjp_grad(o: Ops[Any], a: AttentionAttrs, args: Values, outs: Values, cts: Values) -> Any:
    """With cotangents x, y, z of dq, dk, dv, and J the derivative of softmax (symmetric):

    G = scale (x k^T + q y^T) where kept        the cotangent of dS = J dP
    dP gets H = J G, and P gets R = ct z^T + G (dP - rowsum(dP P)) - rowsum(G P) dP
    the logits get U = J R;  ct gets P z + H v,  v gets H^T ct
    q gets scale (dS y + U k),  k gets scale (dS^T x + U^T q), dS and U where kept
    """
    q, k, v, *mask, ct = args
    x, y, z = cts
    p = _weights(o, a, q, k, mask)
    dp = o.matmul(ct, o.transpose(v))
    ds = o.mul(_kept(o, mask, _softmax_ct(o, p, dp)), a.scale)
    g = o.add(o.matmul(x, o.transpose(k)), o.matmul(q, o.transpose(y)))
    g = o.mul(_kept(o, mask, g), a.scale)
    h = _softmax_ct(o, p, g)
    below = o.sub(dp, o.sum(scaled(o, dp, p), -1, keepdims=True))
    r = o.add(o.matmul(ct, o.transpose(z)), o.mul(g, below))
    r = o.sub(r, o.mul(o.sum(scaled(o, g, p), -1, keepdims=True), dp))
    u = _softmax_ct(o, p, r)
    inner = o.mul(_kept(o, mask, u), a.scale)
    return (
        o.add(o.matmul(ds, y), o.matmul(inner, k)),
        o.add(o.matmul(o.transpose(ds), x), o.matmul(o.transpose(inner), q)),
        o.matmul(o.transpose(h), ct),
        *_mask_cts(o, mask, u),
        o.add(o.matmul(p, z), o.matmul(h, v)),
    )


# --- samples -----------------------------------------------------------------------------------


def operands(
    rng: np.random.Generator, shape: Sequence[int], sizes: tuple[int, int, int, int], dtype: Any
) -> list[Array]:
    """q, k, v for batch axes `shape` and sizes T, S, D, E."""
    t, s, d, e = sizes
    return [
        rng.standard_normal((*shape, *inner)).astype(dtype) for inner in ((t, d), (s, d), (s, e))
    ]


def _samples(rng: np.random.Generator, grad: bool) -> Iterable[Sample]:
    def sample(
        shape: Sequence[int], sizes: tuple[int, int, int, int], dtype: Any = np.float32,
        mask: Sequence[Array] = (), causal: bool = False, differentiable: bool = False,
    ) -> Sample:  # fmt: skip
        args = [*operands(rng, shape, sizes, dtype), *mask]
        if grad:
            args.append(rng.standard_normal((*shape, sizes[0], sizes[3])).astype(dtype))
        attrs = AttentionAttrs(float(np.float32(max(sizes[2], 1) ** -0.5)), causal)
        return Sample(tuple(args), attrs, differentiable, ulps=16, scale=16)

    keep = np.array([[True, False, True], [True, True, False]])
    fill = np.array(-0.5)
    for mask in ((), (keep,), (keep, fill), (rng.standard_normal((2, 1, 3)),)):
        yield sample((2,), (2, 3, 2, 2), np.float64, mask, differentiable=True)
    yield sample((), (3, 2, 1, 2), np.float64, causal=True, differentiable=True)
    for t in (1, 7, 16, 17, 33):
        yield sample((2, 2), (t, t + 1, 5, 6), causal=t % 2 == 1)
    yield sample((0,), (3, 4, 2, 2))
    yield sample((2,), (0, 4, 2, 2))
    dead = np.array([[False] * 9] + [[True] * 9] * 8)
    yield sample((3,), (9, 9, 4, 4), mask=(dead,))
    yield sample((), (9, 9, 4, 4), np.float64, (dead, np.array(np.inf)))


_COMPOSITE = frozenset({Trait.COMPOSITE, Trait.EXPENSIVE})

ATTENTION = register(
    OpDef(
        name="attention",
        maths="y = softmax(scale q k^T with mask, causal or not) v",
        attrs=AttentionAttrs,
        infer=_infer,
        ref=_ref,
        vjp=_vjp,
        expand=_expand,
        traits=_COMPOSITE,
        samples=lambda rng: _samples(rng, grad=False),
    )
)

ATTENTION_GRAD = register(
    OpDef(
        name="attention_grad",
        maths="the cotangents of attention's q, k and v for that of its result",
        attrs=AttentionAttrs,
        infer=_infer_grad,
        ref=_ref_grad,
        vjp=_vjp_grad,
        expand=_expand_grad,
        traits=_COMPOSITE,
        samples=lambda rng: _samples(rng, grad=True),
    )
)
