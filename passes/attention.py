"""Attention written out becomes the composite, and the composite a kernel where one pays.

    %1: f32[8, 4, 9] = permute(%k, perm=(0, 2, 1))
    %2: f32[8, 9, 9] = matmul(%q, %1)
    %3: f32[8, 9, 9] = mul(%2, %scale)            ->   %5: f32[8, 9, 4] = attention(%q, %k, %v, ..)
    %4: f32[8, 9, 9] = softmax(%3, axis=2)
    %5: f32[8, 9, 4] = matmul(%4, %v)

`recognize` runs behind stabilize, which has made the softmax, and before autodiff, so that the
gradient is attention's as well. It takes softmax(x) v where nobody else uses the softmax, and x is
q k^T (for any layout of k), scaled by numbers, then perhaps under masks:

  - where(c, s, fill) and where(c, fill, s), fill being one number or a value of one element. A
    condition that is known and keeps key s for query t where s <= t, with a fill of -inf, is causal;
    any other is a bool mask.
  - s + b for a b that broadcasts to s: a float mask.

A second mask is taken where the order of both does not matter; scores that are scaled after they
were masked are left alone.

`claim` runs behind autodiff. What has fixed sizes and at least `FEWEST` queries is computed by
attention_forward and attention_backward, which keep nothing of shape [.., T, S]; the forward pass
that a backward pass repeats is merged with the first by cse. Everything else stays a composite, for
expand: a few queries fill no vector, and their scores are no large matrix.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Level, Value, uses
from treadle.ir.op import must_run
from treadle.ir.ops.attention_kernels import padded_queries
from treadle.ir.types import Shape
from treadle.passes import dce
from treadle.passes.copier import Copier, Shared
from treadle.passes.manager import Pass, PassContext
from treadle.passes.patterns import number
from treadle.passes.rewrite import RuleSet, made_by, rewrite

NEG_INF = float("-inf")
FEWEST = 8  # queries
_REACH = 64  # instructions that a known condition may take to compute
_LARGEST = 1 << 24  # elements of one that is computed here

# --- recognize ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """The parts of a softmax's operand while it is taken apart, outermost first."""

    shape: Shape
    causal: bool = False
    keep: Value | None = None
    flipped: bool = False  # it is the negation of `keep` that keeps
    fill: Value | float = NEG_INF
    bias: Value | None = None
    scale: float = 1.0

    @property
    def is_masked(self) -> bool:
        return self.keep is not None or self.bias is not None


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with attention as a composite wherever it is written out."""
    users, outputs = uses(fn), set(fn.outputs)
    copier = Copier(fn)
    regions = Shared(lambda region: run(region, ctx))
    fired = False
    for instr in fn.instrs:
        current = copier.renewed(instr, regions.of(instr))
        found = None
        if instr.op.name == "matmul" and _is_private(instr.args[0], users, outputs):
            with copier.builder.at(instr.loc):
                found = _attention(copier.builder, current)
        if found is None:
            copier.put(instr, current)
            continue
        copier.replace(instr.result, found)
        ctx.fired("attention", instr.loc, "softmax(scale q k^T, masked) v = attention(q, k, v)")
        fired = True
    done = copier.finish()
    return dce.sweep(done) if fired else done


def _is_private(value: Value, users: Mapping[Value, Sequence[Instr]], outputs: set[Value]) -> bool:
    return value not in outputs and len(users.get(value, ())) == 1


def _attention(b: Builder, product: Instr) -> Value | None:
    """The composite for softmax(..) v, if `product` is that."""
    weights, v = product.args
    softmax = made_by(weights, "softmax")
    if softmax is None or not weights.type.dtype.is_float:
        return None
    shape = weights.type.shape
    attrs: Any = softmax.attrs
    if attrs.axis != len(shape) - 1 or shape[:-2] != product.result.type.shape[:-2]:
        return None
    if any(not isinstance(size, int) for size in shape):
        return None
    parts = _Found(shape)
    scores = _unmasked(softmax.args[0], parts)
    inner = _unscaled(scores, parts) if scores is not None else None
    if inner is None or inner.result.type.shape[-2:] != shape[-2:]:
        return None
    return _build(b, parts, inner, v)


def _unmasked(x: Value, parts: _Found) -> Value | None:
    """The scores below all masks; None where a mask is of no known form."""
    for _ in range(_REACH):
        if made := made_by(x, "where"):
            inner = _choice(made, parts)
        elif (made := made_by(x, "add")) and not parts.is_masked:
            inner = _added(made, parts)
        else:
            return x
        if inner is None or inner.type.rank > len(parts.shape):
            return None
        x = inner
    return None


def _choice(made: Instr, parts: _Found) -> Value | None:
    """where(c, s, fill): the s, with the mask noted."""
    c, yes, no = made.args
    for inner, other, flipped in ((yes, no, False), (no, yes, True)):
        fill = _one_number(other)
        if fill is None or not _leads_to_scores(inner):
            continue
        if fill == NEG_INF and _is_causal(c, parts.shape, flipped):
            # Inside a mask with another fill, or below a bias, it would not be the last word.
            if parts.bias is not None or (parts.keep is not None and parts.fill != NEG_INF):
                return None
            parts.causal = True
            return inner
        if parts.is_masked:
            return None
        parts.keep, parts.flipped, parts.fill = c, flipped, fill
        return inner
    return None


def _added(made: Instr, parts: _Found) -> Value | None:
    """s + bias: the s, with the bias noted."""
    for inner, other in (made.args, made.args[::-1]):
        if inner.type == made.result.type and _leads_to_scores(inner):
            parts.bias = other
            return inner
    return None


def _one_number(value: Value) -> Value | float | None:
    """What fills a masked place: a known number, or a value of one element."""
    known = number(value)
    if known is not None:
        return float(known)
    while made := made_by(value, "broadcast_to", "reshape"):
        value = made.args[0]
    return value if value.type.size == 1 else None


def _leads_to_scores(value: Value) -> bool:
    """Is there a product below scales and masks?"""
    for _ in range(_REACH):
        made = made_by(value, "matmul", "mul", "div", "where", "add")
        if made is None:
            return False
        if made.op.name == "matmul":
            return True
        inner = [a for a in made.args if a.type.rank >= 2 and number(a) is None]
        inner = [a for a in inner if made_by(a, "matmul", "mul", "div", "where", "add")]
        if len(inner) != 1:
            return False
        (value,) = inner
    return False


def _unscaled(scores: Value, parts: _Found) -> Instr | None:
    """The product of which `scores` is a multiple, with the factor noted."""
    scores = _without_factors(scores, parts)
    return made_by(scores, "matmul")


def _without_factors(x: Value, parts: _Found) -> Value:
    while made := made_by(x, "mul", "div"):
        for inner, other in (made.args, made.args[::-1]):
            factor = number(other)
            if factor is not None and inner.type == made.result.type:
                break
        else:
            return x
        if made.op.name == "div" and (inner is not made.args[0] or factor == 0):
            return x
        found = parts.scale / factor if made.op.name == "div" else parts.scale * factor
        if not np.isfinite(found):
            return x
        parts.scale, x = float(found), inner
    return x


def _build(b: Builder, parts: _Found, product: Instr, v: Value) -> Value:
    q, k = _without_factors(product.args[0], parts), _transposed(b, product.args[1])
    batch = parts.shape[:-2]
    q, k, v = (b.broadcast_to(x, (*batch, *x.type.shape[-2:])) for x in (q, k, v))
    dtype = q.type.dtype
    mask: list[Value] = []
    if parts.bias is not None:
        mask = [parts.bias]
    elif parts.keep is not None:
        mask = [b.logical_not(parts.keep) if parts.flipped else parts.keep]
        fill = parts.fill
        if isinstance(fill, Value):
            mask.append(b.reshape(fill, ()))
        elif fill != NEG_INF:
            mask.append(b.const(fill, dtype))
    scale = float(dtype.dtype.type(parts.scale))
    return b.call("attention", q, k, v, *mask, scale=scale, causal=parts.causal)


def _transposed(b: Builder, kt: Value) -> Value:
    """k of k^T."""
    rank = kt.type.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    made = made_by(kt, "permute")
    attrs: Any = made.attrs if made else None
    return made.args[0] if made and attrs.perm == swap else b.permute(kt, swap)


# --- known conditions --------------------------------------------------------------------------


def _is_causal(condition: Value, shape: Shape, flipped: bool) -> bool:
    """Does it keep (`flipped`: mask) key s for query t where s <= t, for all heads?"""
    sizes = condition.type.shape
    if sizes[-2:] != shape[-2:] or any(size != 1 for size in sizes[:-2]):
        return False
    known = _evaluated(condition)
    if known is None:
        return False
    kept: npt.NDArray[Any] = np.tri(*known.shape[-2:], dtype=bool)
    return bool(np.array_equal(known.reshape(kept.shape), kept ^ flipped))


def _evaluated(value: Value) -> npt.NDArray[Any] | None:
    """The array of a value that depends on no parameter, if that is little work."""
    needed: list[Instr] = []
    seen: set[Instr] = set()
    work = [value]
    while work:
        here = work.pop()
        made = here.producer
        if made is None or made.regions or must_run(made.op, made.attrs):
            return None
        if not all(isinstance(size, int) for size in here.type.shape):
            return None
        if prod(here.type.static_shape) > _LARGEST or len(seen) > _REACH:
            return None
        if made not in seen:
            seen.add(made)
            needed.append(made)
            work.extend(made.args)
    arrays: dict[Value, npt.NDArray[Any]] = {}

    def array_of(instr: Instr) -> None:
        found = instr.op.run_ref(instr.attrs, [arrays[a] for a in instr.args])
        arrays.update(zip(instr.results, found, strict=True))

    left = needed
    while left:  # a few instructions: operands first
        ready = [i for i in left if all(a in arrays for a in i.args)]
        for instr in ready:
            array_of(instr)
        left = [i for i in left if i not in ready]
    return arrays[value]


# --- claim -------------------------------------------------------------------------------------

RULES = RuleSet()


def claim(fn: Function, ctx: PassContext) -> Function:
    """`fn` with kernels for the attention that one pays for."""
    return rewrite(fn, lambda i: RULES.of(i.op.name), ctx)


@RULES.rule("attention")
def attention_by_kernel(b: Builder, i: Instr) -> Value | None:
    """attention(q, k, v) = the result of attention_forward(q, k, v)"""
    return _forward(b, i)[0] if _pays(i) else None


@RULES.rule("attention_grad")
def gradient_by_kernel(b: Builder, i: Instr) -> tuple[Value, ...] | None:
    """attention_grad(.., ct) = attention_backward(.., attention_forward(..), ct)"""
    if not _pays(i):
        return None
    attrs: Any = i.attrs
    q, k, v, *mask, ct = i.args
    left = _forward(b, i)
    turned = _turned(b, q, mask)
    scale, causal = attrs.scale, attrs.causal
    return b.call_multi(
        "attention_backward", q, k, v, *turned, *left, ct, scale=scale, causal=causal
    )


def _pays(i: Instr) -> bool:
    sizes = [size for a in i.args for size in a.type.shape]
    if not all(isinstance(size, int) for size in sizes):
        return False
    q, v = i.args[0].type.static_shape, i.args[2].type.static_shape
    return q[-2] >= FEWEST and q[-1] > 0 and v[-1] > 0


def _forward(b: Builder, i: Instr) -> tuple[Value, ...]:
    attrs: Any = i.attrs
    given = i.args if i.op.name == "attention" else i.args[:-1]
    q, k, v, *mask = given
    turned = _turned(b, q, mask)
    scale, causal = attrs.scale, attrs.causal
    return b.call_multi("attention_forward", q, k, v, *turned, scale=scale, causal=causal)


def _turned(b: Builder, q: Value, mask: Sequence[Value]) -> list[Value]:
    """The mask with keys first and whole blocks of queries, as the kernel reads it."""
    if not mask:
        return []
    m, *fill = mask
    shape = (1,) * (2 - m.type.rank) + m.type.shape
    turned = b.transpose(b.reshape(m, shape))
    queries = q.type.static_shape[-2]
    if shape[-2] == 1:
        return [turned, *fill]
    more = (0,) * (len(shape) - 1) + (padded_queries(queries) - queries,)
    if any(more):
        turned = b.call("pad", turned, low=(0,) * len(shape), high=more, value=0)
    return [turned, *fill]


RECOGNIZE = Pass("attention", run, requires=Level.TRACED, ensures=Level.TRACED)
CLAIM = Pass("claim", claim, requires=Level.TRACED, ensures=Level.TRACED)
