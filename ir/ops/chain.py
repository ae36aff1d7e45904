"""The product of the chain rule: a cotangent times a local derivative.

An element that was not chosen (the other branch of a `where`, a masked entry) has a cotangent of
exactly 0. Its local derivative may be infinite or NaN, and IEEE's 0 * inf would poison the whole
gradient. `chain` is `mul` but for that NaN. Being one op, linear in each operand and its own
derivative, it stays right in derivatives of any order, which a `where` around a product is not:
that one's derivative with respect to a cotangent that happens to be 0 would be lost.

Differentiated by the local derivative it is a product of two cotangents, the inner one and the
outer one, of which either says by a 0 that the element was not chosen: `chain_both`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.op import NO_ATTRS, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import elementwise_rule
from treadle.ir.ops.sampling import float_binary, joined
from treadle.ir.scalar import Scalar
from treadle.ir.types import FLOATS, float32, float64


def _ref(a: Attrs, ct: Array, d: Array) -> Array:
    product = np.multiply(ct, d)
    lost = np.isnan(product)
    if not lost.any():
        return product
    zero = np.asarray(0, product.dtype)
    return np.where(lost & ((ct == 0) | ((d == 0) & (ct == ct))), zero, product)


def _lower(s: Any, a: Attrs, ct: Any, d: Any) -> Any:
    product, zero = s.mul(ct, d), s.const(0.0, s.dtype_of(ct))

    def kept_or_zero() -> Any:
        infinite_times_zero = s.and_(s.compare("eq", d, zero), s.compare("eq", ct, ct))
        unwanted = s.or_(s.compare("eq", ct, zero), infinite_times_zero)
        return s.select(unwanted, zero, product)

    return s.seldom(s.compare("ne", product, product), kept_or_zero, product)


def _samples_special(rng: np.random.Generator) -> Iterable[Sample]:
    for kind in (float32, float64):
        values = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan], kind.dtype)
        yield Sample((values[:, None], values), NO_ATTRS, False)


CHAIN = register(
    OpDef(
        name="chain",
        maths="z = ct * d, but 0 for 0 * inf and inf * 0, and for 0 * NaN where ct is the 0",
        infer=elementwise_rule("chain", 2, FLOATS),
        ref=_ref,
        vjp=lambda o, a, args, outs, cts: (
            o.call("chain", cts[0], args[1]),
            o.call("chain_both", cts[0], args[0]),
        ),
        lower=Scalar(_lower),
        traits=frozenset({Trait.ELEMENTWISE}),
        samples=joined(float_binary(-3, 3, ulps=0), _samples_special),
    )
)


def _ref_both(a: Attrs, x: Array, y: Array) -> Array:
    product = np.multiply(x, y)
    lost = np.isnan(product) & ((x == 0) | (y == 0))
    return np.where(lost, np.asarray(0, product.dtype), product) if lost.any() else product


def _lower_both(s: Any, a: Attrs, x: Any, y: Any) -> Any:
    product, zero = s.mul(x, y), s.const(0.0, s.dtype_of(x))

    def kept_or_zero() -> Any:
        unwanted = s.or_(s.compare("eq", x, zero), s.compare("eq", y, zero))
        return s.select(unwanted, zero, product)

    return s.seldom(s.compare("ne", product, product), kept_or_zero, product)


CHAIN_BOTH = register(
    OpDef(
        name="chain_both",
        maths="z = x * y, but 0 where either is 0 and the other infinite or NaN",
        infer=elementwise_rule("chain_both", 2, FLOATS),
        ref=_ref_both,
        vjp=lambda o, a, args, outs, cts: (
            o.call("chain_both", cts[0], args[1]),
            o.call("chain_both", cts[0], args[0]),
        ),
        lower=Scalar(_lower_both),
        traits=frozenset({Trait.ELEMENTWISE}),
        samples=joined(float_binary(-3, 3, ulps=0), _samples_special),
    )
)
