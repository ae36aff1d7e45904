"""Arithmetic: negation, absolute value, + - * /, floor division, remainder, larger and smaller.

All are bit for bit what NumPy computes. Integers wrap, and their division is total: x // 0 and
x % 0 are 0, MIN // -1 is MIN. Float floor division and remainder have Python's signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import NUMBERS, Values, elementwise_rule, numpy_ref, safe_divisor, scaled
from treadle.ir.ops.sampling import (
    INTEGER_SAMPLES,
    any_binary,
    any_unary,
    float_binary,
    float_unary,
    joined,
)
from treadle.ir.scalar import Scalar
from treadle.ir.types import FLOATS

ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
COMMUTATIVE = ELEMENTWISE | {Trait.COMMUTATIVE}

# --- one operand -----------------------------------------------------------------------------

NEG = register(
    OpDef(
        name="neg",
        maths="y = -x; integers wrap",
        infer=elementwise_rule("neg", 1, NUMBERS),
        ref=numpy_ref(np.negative),
        vjp=lambda o, a, args, outs, cts: (o.neg(cts[0]),),
        lower=Scalar(lambda s, a, x: s.neg(x)),
        traits=ELEMENTWISE,
        samples=joined(float_unary(-3, 3, ulps=0), any_unary(INTEGER_SAMPLES)),
    )
)


def _lower_abs(s: Any, a: Attrs, x: Any) -> Any:
    return x if s.dtype_of(x).kind == "u" else s.abs(x)


ABS = register(
    OpDef(
        name="abs",
        maths="y = |x|; the smallest integer stays; the derivative at 0 is 0",
        infer=elementwise_rule("abs", 1, NUMBERS),
        ref=numpy_ref(np.abs),
        vjp=lambda o, a, args, outs, cts: (scaled(o, cts[0], o.call("sign", args[0])),),
        lower=Scalar(_lower_abs),
        traits=ELEMENTWISE,
        samples=joined(float_unary(0.1, 3, ulps=0), any_unary(INTEGER_SAMPLES)),
    )
)


def _lower_sign(s: Any, a: Attrs, x: Any) -> Any:
    dtype = s.dtype_of(x)
    zero, one = s.const(0, dtype), s.const(1, dtype)
    if dtype.kind == "u":
        return s.select(s.compare("ne", x, zero), one, zero)
    negative = s.select(s.compare("lt", x, zero), s.const(-1, dtype), zero)
    signed = s.select(s.compare("gt", x, zero), one, negative)
    return s.select(s.compare("ne", x, x), x, signed) if dtype.is_float else signed


SIGN = register(
    OpDef(
        name="sign",
        maths="y = 1 for x > 0, -1 for x < 0, 0 for x = 0, NaN for NaN; derivative 0",
        infer=elementwise_rule("sign", 1, NUMBERS),
        ref=numpy_ref(np.sign),
        vjp=lambda o, a, args, outs, cts: (None,),
        lower=Scalar(_lower_sign),
        traits=ELEMENTWISE | {Trait.MONOTONE},
        samples=joined(float_unary(0.1, 3, ulps=0), any_unary(INTEGER_SAMPLES)),
    )
)

# --- two operands ----------------------------------------------------------------------------

_BINARY_SAMPLES = joined(float_binary(-3, 3, ulps=0), any_binary(INTEGER_SAMPLES))

ADD = register(
    OpDef(
        name="add",
        maths="z = x + y; integers wrap",
        infer=elementwise_rule("add", 2, NUMBERS),
        ref=numpy_ref(np.add),
        vjp=lambda o, a, args, outs, cts: (cts[0], cts[0]),
        lower=Scalar(lambda s, a, x, y: s.add(x, y)),
        traits=COMMUTATIVE,
        samples=_BINARY_SAMPLES,
    )
)

SUB = register(
    OpDef(
        name="sub",
        maths="z = x - y; integers wrap",
        infer=elementwise_rule("sub", 2, NUMBERS),
        ref=numpy_ref(np.subtract),
        vjp=lambda o, a, args, outs, cts: (cts[0], o.neg(cts[0])),
        lower=Scalar(lambda s, a, x, y: s.sub(x, y)),
        traits=ELEMENTWISE,
        samples=_BINARY_SAMPLES,
    )
)

MUL = register(
    OpDef(
        name="mul",
        maths="z = x * y; integers wrap",
        infer=elementwise_rule("mul", 2, NUMBERS),
        ref=numpy_ref(np.multiply),
        vjp=lambda o, a, args, outs, cts: (
            scaled(o, cts[0], args[1]),
            scaled(o, cts[0], args[0]),
        ),
        lower=Scalar(lambda s, a, x, y: s.mul(x, y)),
        traits=COMMUTATIVE,
        samples=_BINARY_SAMPLES,
    )
)


def _vjp_div(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    """ct / y and -(ct / y) x / y. Where y is 0 and ct is 0 (a guarded division) both are 0; the
    second is not written with x / y, which may overflow where ct is 0."""
    (x, y), (ct,) = args, cts
    divisor = safe_divisor(o, ct, y)
    dx = o.div(ct, divisor)
    return dx, o.neg(o.div(scaled(o, dx, x), divisor))


DIV = register(
    OpDef(
        name="div",
        maths="z = x / y, IEEE; floats only",
        infer=elementwise_rule("div", 2, FLOATS),
        ref=numpy_ref(np.divide),
        vjp=_vjp_div,
        lower=Scalar(lambda s, a, x, y: s.div(x, y)),
        traits=ELEMENTWISE,
        samples=float_binary(0.5, 3, ulps=0),
    )
)


def _lower_floor_divide(s: Any, a: Attrs, x: Any, y: Any) -> Any:
    """Python's floor division of floats, from the exact remainder.

    x - fmod(x, y) is a multiple of y, so that the quotient is a whole number up to rounding; it
    is one less where the remainder's sign is not that of y.
    """
    dtype = s.dtype_of(x)
    if not dtype.is_float:
        return s.int_div(x, y)
    zero, one = s.const(0.0, dtype), s.const(1.0, dtype)
    rem = s.fmod(x, y)
    quotient = s.div(s.sub(x, rem), y)
    lower = s.select(_signs_differ(s, rem, y, zero), s.sub(quotient, one), quotient)
    floored = s.floor(lower)
    off = s.compare("gt", s.sub(lower, floored), s.const(0.5, dtype))
    floored = s.select(off, s.add(floored, one), floored)
    ratio = s.div(x, y)
    whole = s.select(s.compare("eq", lower, zero), s.copysign(zero, ratio), floored)
    return s.select(s.compare("eq", y, zero), ratio, whole)


def _signs_differ(s: Any, rem: Any, y: Any, zero: Any) -> Any:
    """rem is not 0 and lies on the other side of 0 than y. (For a NaN either answer will do.)"""
    differ = s.xor(s.compare("lt", rem, zero), s.compare("lt", y, zero))
    return s.and_(s.compare("ne", rem, zero), differ)


def _lower_remainder(s: Any, a: Attrs, x: Any, y: Any) -> Any:
    """The remainder with the sign of y; an exact fmod, moved by y where the signs differ."""
    dtype = s.dtype_of(x)
    if not dtype.is_float:
        return s.int_rem(x, y)
    zero = s.const(0.0, dtype)
    rem = s.fmod(x, y)
    moved = s.select(_signs_differ(s, rem, y, zero), s.add(rem, y), rem)
    return s.select(s.compare("eq", rem, zero), s.copysign(zero, y), moved)


FLOOR_DIVIDE = register(
    OpDef(
        name="floor_divide",
        maths="z = floor(x / y); integers: x // 0 = 0, MIN // -1 = MIN; derivative 0",
        infer=elementwise_rule("floor_divide", 2, NUMBERS),
        ref=numpy_ref(np.floor_divide),
        vjp=lambda o, a, args, outs, cts: (None, None),
        lower=Scalar(_lower_floor_divide),
        traits=ELEMENTWISE,
        samples=joined(float_binary(-3, 3, ulps=0, kinks=True), any_binary(INTEGER_SAMPLES)),
    )
)


def _vjp_remainder(
    o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values
) -> tuple[Any, ...]:
    """x - floor(x / y) y, the floor held fixed."""
    return cts[0], o.neg(scaled(o, cts[0], o.call("floor_divide", *args)))


REMAINDER = register(
    OpDef(
        name="remainder",
        maths="z = x - floor(x / y) y, with the sign of y; integers: x % 0 = 0",
        infer=elementwise_rule("remainder", 2, NUMBERS),
        ref=numpy_ref(np.remainder),
        vjp=_vjp_remainder,
        lower=Scalar(_lower_remainder),
        traits=ELEMENTWISE,
        samples=joined(float_binary(0.7, 3, ulps=0), any_binary(INTEGER_SAMPLES)),
    )
)


def _ref_maximum(a: Attrs, x: Array, y: Array) -> Array:
    larger = np.maximum(x, y)
    if x.dtype.kind == "f":  # NumPy leaves open which zero it takes; +0 + -0 is +0
        larger = np.where((x == 0) & (y == 0), x + y, larger)
    return larger


def _ref_minimum(a: Attrs, x: Array, y: Array) -> Array:
    smaller = np.minimum(x, y)
    if x.dtype.kind == "f":
        smaller = np.where((x == 0) & (y == 0), -(-x - y), smaller)
    return smaller


def _share(o: Ops[Any], ct: Any, x: Any, y: Any, loses: Any) -> Any:
    """The cotangent of x: nothing where it loses, half at a tie, all otherwise (NaN too)."""
    won = o.where(loses, 0, ct)
    return o.where(o.eq(x, y), o.mul(ct, 0.5), won)


def _vjp_maximum(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    (x, y), (ct,) = args, cts
    return _share(o, ct, x, y, o.lt(x, y)), _share(o, ct, x, y, o.lt(y, x))


def _vjp_minimum(o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values) -> tuple[Any, ...]:
    (x, y), (ct,) = args, cts
    return _share(o, ct, x, y, o.gt(x, y)), _share(o, ct, x, y, o.gt(y, x))


def _apart(rng: np.random.Generator) -> Iterable[Sample]:
    """Operands that lie half a unit apart at least, so that no step of a stencil meets a tie."""
    x = rng.permutation(12).reshape(4, 1, 3).astype(np.float64)
    yield Sample((x, rng.permutation(12)[:5, None] + 0.5))


_EXTREMUM_SAMPLES = joined(
    _apart, float_binary(-3, 3, ulps=0, kinks=True), any_binary(INTEGER_SAMPLES)
)

MAXIMUM = register(
    OpDef(
        name="maximum",
        maths="z = max(x, y); NaN if either is; +0 over -0; at a tie half the derivative each",
        infer=elementwise_rule("maximum", 2, NUMBERS),
        ref=_ref_maximum,
        vjp=_vjp_maximum,
        lower=Scalar(lambda s, a, x, y: s.maximum(x, y)),
        traits=COMMUTATIVE,
        samples=_EXTREMUM_SAMPLES,
    )
)

MINIMUM = register(
    OpDef(
        name="minimum",
        maths="z = min(x, y); NaN if either is; -0 under +0; at a tie half the derivative each",
        infer=elementwise_rule("minimum", 2, NUMBERS),
        ref=_ref_minimum,
        vjp=_vjp_minimum,
        lower=Scalar(lambda s, a, x, y: s.minimum(x, y)),
        traits=COMMUTATIVE,
        samples=_EXTREMUM_SAMPLES,
    )
)


def _vjp_copysign(
    o: Ops[Any], a: Attrs, args: Values, outs: Values, cts: Values
) -> tuple[Any, ...]:
    """z = sign(x) x times the sign of y; at x = 0 the derivative is 0, as that of abs."""
    x, y = args
    one = o.const(1, o.type_of(y).dtype)
    return scaled(o, cts[0], o.mul(o.call("sign", x), o.call("copysign", one, y))), None


COPYSIGN = register(
    OpDef(
        name="copysign",
        maths="z = |x| with the sign bit of y; derivative 0 at x = 0, and 0 in y",
        infer=elementwise_rule("copysign", 2, FLOATS),
        ref=numpy_ref(np.copysign),
        vjp=_vjp_copysign,
        lower=Scalar(lambda s, a, x, y: s.copysign(x, y)),
        traits=ELEMENTWISE,
        samples=float_binary(0.3, 3, ulps=0),
    )
)
