"""Canonical forms of arithmetic. Each rule is exact for every input, infinities, signed zeros and
NaN included (which NaN is not said), unless its docstring says otherwise; part of `canonicalize`.

`x + 0` is not here: -0 + 0 is +0. Nor is `x * 0`, nor `x - x`: x may be NaN.
"""

from __future__ import annotations

import numpy as np

from treadle.ir.builder import Builder
from treadle.ir.graph import Instr, Value
from treadle.ir.types import DType, int64
from treadle.passes.patterns import attr, is_number, is_power_of_two, number, splat
from treadle.passes.rewrite import RuleSet, made_by

RULES = RuleSet()

_COMMUTATIVE = (
    "add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or", "logical_xor",
    "bitwise_and", "bitwise_or", "bitwise_xor",
)  # fmt: skip
_IDEMPOTENT = ("maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or")


def _spread(b: Builder, value: Value, i: Instr) -> Value:
    """`value` in the shape of the result of `i`."""
    return b.broadcast_to(value, i.result.type.shape)


@RULES.rule(*_COMMUTATIVE)
def constant_second(b: Builder, i: Instr) -> Value | None:
    """c + x = x + c"""
    x, y = i.args
    if splat(x) is None or splat(y) is not None:
        return None
    return b.emit(i.op, (y, x), i.attrs)[0]


@RULES.rule(*_IDEMPOTENT)
def idempotent(b: Builder, i: Instr) -> Value | None:
    """max(x, x) = x"""
    x, y = i.args
    return x if x is y else None


# --- signs -------------------------------------------------------------------------------------


@RULES.rule("neg", "logical_not", "bitwise_not")
def involution(b: Builder, i: Instr) -> Value | None:
    """-(-x) = x"""
    inner = made_by(i.args[0], i.op.name)
    return inner.args[0] if inner else None


@RULES.rule("abs")
def abs_of_sign(b: Builder, i: Instr) -> Value | None:
    """|-x| = |x|, ||x|| = |x|; an unsigned -x wraps"""
    inner = made_by(i.args[0], "neg", "abs")
    if inner is None or i.result.type.dtype.kind == "u":
        return None
    return b.call("abs", inner.args[0])


@RULES.rule("sub")
def sub_of_neg(b: Builder, i: Instr) -> Value | None:
    """x - (-y) = x + y"""
    inner = made_by(i.args[1], "neg")
    return b.add(i.args[0], inner.args[0]) if inner else None


@RULES.rule("add")
def add_of_neg(b: Builder, i: Instr) -> Value | None:
    """x + (-y) = x - y"""
    x, y = i.args
    if inner := made_by(y, "neg"):
        return b.sub(x, inner.args[0])
    if inner := made_by(x, "neg"):
        return b.sub(y, inner.args[0])
    return None


@RULES.rule("mul", "div")
def product_of_negs(b: Builder, i: Instr) -> Value | None:
    """(-x) (-y) = x y, and for quotients of floats"""
    x, y = made_by(i.args[0], "neg"), made_by(i.args[1], "neg")
    return b.emit(i.op, (x.args[0], y.args[0]), i.attrs)[0] if x and y else None


@RULES.rule("mul", "div")
def neg_into_constant(b: Builder, i: Instr) -> Value | None:
    """(-x) c = x (-c), and for quotients of floats"""
    inner, c = made_by(i.args[0], "neg"), splat(i.args[1])
    if inner is None or c is None or not i.result.type.dtype.is_float:
        return None
    turned = _scalar(b, -c, i.args[1])
    return b.emit(i.op, (inner.args[0], turned), i.attrs)[0]


def _scalar(b: Builder, c: object, like: Value) -> Value:
    """The number `c` everywhere, in the shape and dtype of `like`."""
    return b.broadcast_to(b.const(c, like.type.dtype), like.type.shape)


@RULES.rule("add")
def sum_of_integers(b: Builder, i: Instr) -> Value | None:
    """(x + c) + d = x + (c + d) for integers, which wrap"""
    inner, d = made_by(i.args[0], "add"), splat(i.args[1])
    if inner is None or d is None or not i.result.type.dtype.is_integer:
        return None
    c = splat(inner.args[1])
    if c is None or inner.result.type.shape != i.result.type.shape:
        return None
    with np.errstate(over="ignore"):
        return b.add(inner.args[0], _scalar(b, c + d, i.args[1]))


# --- neutral operands --------------------------------------------------------------------------


@RULES.rule("mul", "div")
def times_one(b: Builder, i: Instr) -> Value | None:
    """x * 1 = x, x / 1 = x"""
    return _spread(b, i.args[0], i) if is_number(i.args[1], 1) else None


@RULES.rule("mul")
def times_minus_one(b: Builder, i: Instr) -> Value | None:
    """x * -1 = -x"""
    x, c = i.args
    if x.type.dtype.kind == "u" or not is_number(c, -1):
        return None
    return _spread(b, b.neg(x), i)


@RULES.rule("chain", "chain_both")
def chain_by_number(b: Builder, i: Instr) -> Value | None:
    """chain(x, c) = chain(c, x) = x * c for a finite c that is not 0"""
    for x, c in (i.args, i.args[::-1]):
        found = number(c)
        if found is not None and found != 0 and np.isfinite(found):
            return b.mul(x, c)
    return None


@RULES.rule("sub")
def minus_zero(b: Builder, i: Instr) -> Value | None:
    """x - 0 = x"""
    return _spread(b, i.args[0], i) if is_number(i.args[1], 0.0) else None


@RULES.rule("add")
def plus_negative_zero(b: Builder, i: Instr) -> Value | None:
    """x + -0 = x; for integers x + 0 = x"""
    x, y = i.args
    neutral = -0.0 if x.type.dtype.is_float else 0
    return _spread(b, x, i) if is_number(y, neutral) else None


@RULES.rule("mul")
def integer_times_zero(b: Builder, i: Instr) -> Value | None:
    """x * 0 = 0 for integers"""
    if not i.result.type.dtype.is_integer or not is_number(i.args[1], 0):
        return None
    return _spread(b, i.args[1], i)


@RULES.rule("logical_and", "logical_or", "logical_xor")
def logic_with_constant(b: Builder, i: Instr) -> Value | None:
    """x and True = x, x and False = False, x or False = x, x or True = True, x xor False = x"""
    x, y = i.args
    c = number(y)
    if c is None or (i.op.name == "logical_xor" and c):
        return None
    keeps_x = bool(c) == (i.op.name == "logical_and")
    return _spread(b, x if keeps_x else y, i)


# --- powers and quotients ----------------------------------------------------------------------


@RULES.rule("div")
def div_by_power_of_two(b: Builder, i: Instr) -> Value | None:
    """x / c = x * (1 / c) for c a power of two, whose reciprocal is exact"""
    x, y = i.args
    c = number(y)
    if c is None or not i.result.type.dtype.is_float or not is_power_of_two(float(c)):
        return None
    return b.mul(x, _scalar(b, 1.0 / float(c), y))


@RULES.rule("pow")
def pow_small_integer(b: Builder, i: Instr) -> Value | None:
    """x^1 = x, x^0 = 1, x^2 = x x, x^-1 = 1 / x: exact, or as exact as arithmetic is

    x^3 = (x x) x has one more rounding than pow. Not x^0.5: the square root of -0 is -0, and
    (-inf)^0.5 is inf.
    """
    x, y = i.args
    n = number(y)
    is_float = x.type.dtype.is_float
    if n == 0:
        return _spread(b, b.const(1, x.type.dtype), i)
    if n is None or n not in (-1, 1, 2, 3) or (n == -1 and not is_float):
        return None
    x = _spread(b, x, i)
    if n == 1:
        return x
    if n == -1:
        return b.div(1.0, x)
    square = b.mul(x, x)
    return square if n == 2 else b.mul(square, x)


# --- choices -----------------------------------------------------------------------------------


@RULES.rule("where")
def where_decided(b: Builder, i: Instr) -> Value | None:
    """where(True, x, y) = x, where(False, x, y) = y, where(c, x, x) = x"""
    c, x, y = i.args
    if x is y:
        return _spread(b, x, i)
    decided = number(c)
    if decided is None:
        return None
    return _spread(b, x if decided else y, i)


@RULES.rule("where")
def where_not(b: Builder, i: Instr) -> Value | None:
    """where(not c, x, y) = where(c, y, x)"""
    c, x, y = i.args
    inner = made_by(c, "logical_not")
    return b.where(inner.args[0], y, x) if inner else None


@RULES.rule("where")
def where_of_where(b: Builder, i: Instr) -> Value | None:
    """where(c, where(c, x, _), y) = where(c, x, y), and where(c, x, where(c, _, y)) likewise"""
    c, x, y = i.args
    yes, no = made_by(x, "where"), made_by(y, "where")
    if yes and yes.args[0] is c:
        x = yes.args[1]
    if no and no.args[0] is c:
        y = no.args[2]
    if x is i.args[1] and y is i.args[2]:
        return None
    return _spread(b, b.where(c, x, y), i)


@RULES.rule("logical_not")
def not_of_equality(b: Builder, i: Instr) -> Value | None:
    """not (x == y) = x != y; not the orderings, since all are false for NaN"""
    inner = made_by(i.args[0], "eq", "ne")
    if inner is None:
        return None
    other = b.ne if inner.op.name == "eq" else b.eq
    return other(*inner.args)


# --- casts -------------------------------------------------------------------------------------


@RULES.rule("cast")
def cast_to_same(b: Builder, i: Instr) -> Value | None:
    """x as its own dtype = x"""
    x = i.args[0]
    return x if x.type == i.result.type else None


@RULES.rule("cast")
def cast_of_cast(b: Builder, i: Instr) -> Value | None:
    """(x as A) as B = x as B, where A holds every x and converts to B as x does"""
    inner = made_by(i.args[0], "cast")
    if inner is None:
        return None
    x, middle, last = inner.args[0], inner.result.type.dtype, attr(i, "dtype")
    if not _holds(middle, x.type.dtype):
        return None
    same_way = middle.kind == x.type.dtype.kind or {middle.kind, x.type.dtype.kind} == {"u", "i"}
    # From a float, integers saturate; from an integer they wrap. All else is alike.
    if same_way or not last.is_integer or x.type.dtype.kind == "b" or last == x.type.dtype:
        return b.cast(x, last)
    return None


def _holds(wide: DType, narrow: DType) -> bool:
    """Every value of `narrow` is one of `wide`; NumPy calls int64 to float64 safe, it rounds."""
    if narrow == int64 and wide.is_float:
        return False
    return bool(np.can_cast(narrow.dtype, wide.dtype, casting="safe"))
