"""What `attention` and `attention_grad` become where a kernel computes them, block by block.

    out, top, total = attention_forward(q, k, v[, mask[, fill]])
    dq, dk, dv = attention_backward(q, k, v[, mask[, fill]], out, top, total, ct)

`top` and `total`, [.., T], are the maximum of each query's logits and the sum of exp(logit - top)
(0 for a row of -inf): from them the backward pass computes the weights again. `out`, `top` and
`total` must be those of attention_forward on the same operands; the reference looks at q, k, v, the
mask and ct alone.

The mask lies the way the kernel reads it, keys first: [.., S or 1, T' or 1], T' being T rounded up
to whole blocks of `MASK_BLOCK` queries (what stands there beyond T is not used).

q, k, v, and in the backward pass out and ct, may be views of what the instruction is given: heads
that lie side by side in one array are read from there. Results may be laid out in another order of
their axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.attention import AttentionAttrs, gradients64, operands
from treadle.ir.ops.rules import check_count, check_dtype
from treadle.ir.ops.softmax import NEG_INF, shifted_exponentials
from treadle.ir.scalar import Kernel
from treadle.ir.types import FLOATS, Size, TensorType, bool_, shape_text

MASK_BLOCK = 64  # queries: at least as many as any target handles at a time, a power of two

View: TypeAlias = tuple[tuple[int, ...], ...]
"""((offset,), shape, strides), in elements of the operand's buffer; (): the operand as it is."""


@dataclass(frozen=True, slots=True)
class AttentionKernelAttrs(Attrs):
    """`views`: one for each of q, k, v (and out, ct); `orders`: for out, or for each of dq, dk and
    dv, which axis of [.., T, E] each axis of the result is. Empty: all as they are."""

    scale: float
    causal: bool = False
    views: tuple[View, ...] = ()
    orders: tuple[tuple[int, ...], ...] = ()


def viewed_shape(t: TensorType, view: View) -> tuple[Size, ...]:
    """The shape of an operand seen through its view."""
    return view[1] if view else t.shape


def strided_operands(name: str, count: int) -> tuple[int, ...]:
    """The numbers of the operands that have a view, of `count` operands of the op."""
    return (0, 1, 2) if name == "attention_forward" else (0, 1, 2, count - 4, count - 1)


def mask_operands(name: str, count: int) -> range:
    """The numbers of the mask and its fill, as far as they are there."""
    return range(3, count if name == "attention_forward" else count - 4)


def padded_queries(queries: int) -> int:
    """The length of a mask's rows for so many queries."""
    return -(-queries // MASK_BLOCK) * MASK_BLOCK


def ordered(shape: Sequence[Size], order: Sequence[int]) -> tuple[Size, ...]:
    """A result's shape in its order of axes."""
    return tuple(shape[axis] for axis in order) if order else tuple(shape)


# --- type rules --------------------------------------------------------------------------------


def _shapes(name: str, a: AttentionKernelAttrs, types: Sequence[TensorType]) -> list[Any]:
    """The shapes of q, k, v (and out, ct) as they are seen, checked against each other."""
    numbers = strided_operands(name, len(types))
    views = a.views or ((),) * len(numbers)
    if len(views) != len(numbers):
        raise ShapeError(f"{name} needs {len(numbers)} views, found {len(views)}")
    for n, view in zip(numbers, views, strict=True):
        check_dtype(name, types[n], FLOATS)
        if view and not (len(view) == 3 and len(view[1]) == len(view[2]) and len(view[0]) == 1):
            raise ShapeError(f"{name}: a view is ((offset,), shape, strides), found {view}")
    shapes: list[Any] = [viewed_shape(types[n], v) for n, v in zip(numbers, views, strict=True)]
    q, k, v = shapes[:3]
    fits = len(q) >= 2 and len({len(x) for x in shapes}) == 1 and q[-1] == k[-1]
    if not fits or k[-2] != v[-2] or q[:-2] != k[:-2] or q[:-2] != v[:-2]:
        listed = ", ".join(map(shape_text, (q, k, v)))
        raise ShapeError(f"{name}: q, k and v do not fit each other: {listed}")
    if 0 in (k[-2], k[-1], v[-1]):
        raise ShapeError(f"{name} needs a key and a feature, found k {k} and v {v}")
    for n in mask_operands(name, len(types)):
        if n == 4:
            check_count(f"the fill of {name}", [t for t in types[4:5] if t.rank], 0)
        elif types[n].dtype not in (bool_, types[0].dtype):
            raise ShapeError(f"{name}: a mask is bool or {types[0].dtype}, found {types[n]}")
    return shapes


def _order(a: AttentionKernelAttrs, number: int) -> tuple[int, ...]:
    return a.orders[number] if a.orders else ()


def _infer_forward(a: AttentionKernelAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if not 3 <= len(types) <= 5:
        raise ShapeError(f"attention_forward takes 3 to 5 operands, found {len(types)}")
    q, _, v = _shapes("attention_forward", a, types)
    out = types[0].with_shape(ordered((*q[:-1], v[-1]), _order(a, 0)))
    rows = types[0].with_shape(q[:-1])
    return out, rows, rows


def _infer_backward(a: AttentionKernelAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if not 7 <= len(types) <= 9:
        raise ShapeError(f"attention_backward takes 7 to 9 operands, found {len(types)}")
    q, k, v, out, ct = _shapes("attention_backward", a, types)
    rows = types[0].with_shape(q[:-1])
    if not (out == ct == (*q[:-1], v[-1])) or types[-3] != rows or types[-2] != rows:
        listed = ", ".join(map(str, types[-4:]))
        raise ShapeError(f"attention_backward: out, top, total, ct do not fit q, k, v: {listed}")
    given = enumerate((q, k, v))
    return tuple(types[0].with_shape(ordered(x, _order(a, n))) for n, x in given)


# --- references --------------------------------------------------------------------------------


def seen(array: Array, view: View) -> Array:
    """An operand through its view, as a copy."""
    if not view:
        return array
    flat = np.ascontiguousarray(array).reshape(-1)
    (offset,), shape, strides = view
    steps = [s * flat.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps).copy()


def _logical(
    name: str, a: AttentionKernelAttrs, arrays: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """q, k, v (and out, ct) through their views, and the mask with queries first, and its fill."""
    numbers = strided_operands(name, len(arrays))
    views = a.views or ((),) * len(numbers)
    found = [seen(arrays[n], view) for n, view in zip(numbers, views, strict=True)]
    mask = [arrays[n] for n in mask_operands(name, len(arrays))]
    if mask:
        mask[0] = np.swapaxes(mask[0], -1, -2)[..., : found[0].shape[-2], :]
    return found, mask


def _ordered_array(x: Array, order: Sequence[int]) -> Array:
    return np.ascontiguousarray(np.transpose(x, order)) if order else x


def _ref_forward(a: AttentionKernelAttrs, *arrays: Array) -> tuple[Array, ...]:
    (q, k, v), mask = _logical("attention_forward", a, arrays)
    logits = np.matmul(q.astype(np.float64), np.swapaxes(k, -1, -2).astype(np.float64)) * a.scale
    if mask and mask[0].dtype == np.bool_:
        logits = np.where(mask[0], logits, mask[1] if len(mask) > 1 else NEG_INF)
    elif mask:
        logits = logits + mask[0]
    if a.causal:
        logits = np.where(np.tri(*logits.shape[-2:], dtype=np.bool_), logits, NEG_INF)
    m, _, e, s = shifted_exponentials(logits, logits.ndim - 1)
    out = np.matmul(e / s, v.astype(np.float64)).astype(q.dtype)
    total = np.where(m == NEG_INF, 0, s)
    rows = [x[..., 0].astype(q.dtype) for x in (m, total)]
    return _ordered_array(out, _order(a, 0)), *rows


def _ref_backward(a: AttentionKernelAttrs, *arrays: Array) -> tuple[Array, ...]:
    (q, k, v, _, ct), mask = _logical("attention_backward", a, arrays)
    found = gradients64(AttentionAttrs(a.scale, a.causal), q, k, v, *mask, ct)
    return tuple(_ordered_array(x.astype(q.dtype), _order(a, n)) for n, x in enumerate(found))


# --- samples -----------------------------------------------------------------------------------


def _masked(rng: np.random.Generator, queries: int, keys: int, kind: str, dtype: Any) -> Any:
    """A mask as the kernel takes it: `keep`, `bias`, or one for each key (`keys`)."""
    if kind == "bias":
        return [rng.standard_normal((keys, padded_queries(queries))).astype(dtype)]
    if kind == "keys":
        keep = rng.uniform(size=(2, keys, 1)) > 0.3
        return [keep]
    keep = rng.uniform(size=(keys, padded_queries(queries))) > 0.4
    return [keep, np.array(-0.5, dtype)] if kind == "fill" else [keep] if kind else []


def _samples(rng: np.random.Generator, backward: bool) -> Iterable[Sample]:
    def sample(
        shape: Sequence[int], sizes: tuple[int, int, int, int], dtype: Any = np.float32,
        kind: str = "", **more: Any,
    ) -> Sample:  # fmt: skip
        args = operands(rng, shape, sizes, dtype)
        args += _masked(rng, sizes[0], sizes[1], kind, dtype)
        attrs = AttentionKernelAttrs(float(np.float32(sizes[2] ** -0.5)), **more)
        if backward:
            ct = rng.standard_normal((*shape, sizes[0], sizes[3])).astype(dtype)
            args += [*_ref_forward(attrs, *args), ct]
        return Sample(tuple(args), attrs, False, ulps=16, scale=16)

    for n in (1, 15, 16, 17, 33):
        yield sample((2,), (n, n, 4, 4), causal=True)
        yield sample((2,), (3, n, 7, 5))
        yield sample((2,), (n, 5, 9, 18))
    yield sample((2, 3), (70, 150, 8, 17), causal=True)
    for dtype in (np.float32, np.float64):
        for kind in ("keep", "fill", "bias", "keys"):
            yield sample((2,), (37, 21, 4, 4), dtype, kind)
    yield sample((0, 2), (3, 4, 2, 2))
    yield sample((2,), (0, 4, 2, 2))


def _viewed_samples(rng: np.random.Generator) -> Iterable[Sample]:
    """Heads side by side in one array, the result with its heads side by side too."""
    batch, rows, heads, width = 2, 19, 3, 6
    joint = rng.standard_normal((batch, rows, 3, heads, width)).astype(np.float32)
    shape, step = (batch, heads, rows, width), 3 * heads * width
    views = tuple(((n * heads * width,), shape, (rows * step, width, step, 1)) for n in range(3))
    attrs = AttentionKernelAttrs(0.5, True, views, ((0, 2, 1, 3),))
    yield Sample((joint, joint, joint), attrs, False, ulps=16, scale=16)


ATTENTION_FORWARD = register(
    OpDef(
        name="attention_forward",
        maths="attention's result, each query's largest logit m, and its sum of exp(logit - m)",
        attrs=AttentionKernelAttrs,
        infer=_infer_forward,
        ref=_ref_forward,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("attention"),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=lambda rng: [*_samples(rng, backward=False), *_viewed_samples(rng)],
    )
)

ATTENTION_BACKWARD = register(
    OpDef(
        name="attention_backward",
        maths="attention_grad by what attention_forward has left",
        attrs=AttentionKernelAttrs,
        infer=_infer_backward,
        ref=_ref_backward,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("attention_grad"),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=lambda rng: _samples(rng, backward=True),
    )
)
