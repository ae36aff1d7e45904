"""Array functions that work element by element, by the names of the Array API standard.

Operands are tensors, NumPy arrays or numbers; they broadcast together and are promoted to one
dtype (see `treadle.tracer.promote`). True division and functions such as `exp` turn integers and
bools into float32. All raise ShapeError where shapes do not broadcast, DTypeError for a dtype that
the function does not take or for an operand that is not numeric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError
from treadle.ir.types import bool_, dtype_of, int64, uint8, uint32
from treadle.tracer.api.arguments import array_function, as_bool, as_float, flag
from treadle.tracer.create import clone
from treadle.tracer.execute import apply, strong
from treadle.tracer.promote import Operand, as_operand, number_of, promote
from treadle.tracer.tensor import Tensor

Unary = Callable[[Operand], Tensor]
Binary = Callable[[Operand, Operand], Tensor]


def _named(fn: Any, name: str, doc: str) -> Any:
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return array_function(fn)


# --- functions of floats ----------------------------------------------------------------------


def _float_function(op: str, doc: str) -> Unary:
    def function(x: Operand) -> Tensor:
        return apply(op, strong(as_float(x)))  # a traced float, as any float, gives float32

    found: Unary = _named(function, op, f"{doc} Integers become float32.")
    return found


sqrt = _float_function("sqrt", "The square root; NaN for negative numbers.")
rsqrt = _float_function("rsqrt", "1 / sqrt(x).")
exp = _float_function("exp", "e to the power x.")
expm1 = _float_function("expm1", "e to the power x, minus 1; accurate near 0.")
exp2 = _float_function("exp2", "2 to the power x.")
log = _float_function("log", "The natural logarithm; -inf at 0, NaN for negative numbers.")
log1p = _float_function("log1p", "The natural logarithm of 1 + x; accurate near 0.")
log2 = _float_function("log2", "The logarithm to base 2.")
sin = _float_function("sin", "The sine of x in radians.")
cos = _float_function("cos", "The cosine of x in radians.")
tanh = _float_function("tanh", "The hyperbolic tangent.")
sigmoid = _float_function("sigmoid", "1 / (1 + exp(-x)).")
softplus = _float_function("softplus", "log(1 + exp(x)).")
erf = _float_function("erf", "The error function.")
erfc = _float_function("erfc", "1 - erf(x), which keeps its digits for large x.")
erfinv = _float_function("erfinv", "The inverse of erf; infinite at -1 and 1, NaN beyond.")
silu = _float_function("silu", "x * sigmoid(x).")


# --- functions of any number ------------------------------------------------------------------


def _numeric_function(name: str, op: str, doc: str) -> Unary:
    def function(x: Operand) -> Tensor:
        return apply(op, as_operand(x))

    found: Unary = _named(function, name, doc)
    return found


abs = _numeric_function("abs", "abs", "The absolute value; the smallest integer stays itself.")
negative = _numeric_function("negative", "neg", "-x; integers wrap.")
sign = _numeric_function("sign", "sign", "-1, 0 or 1; NaN for NaN.")
relu = _numeric_function("relu", "relu", "max(x, 0); NaN stays.")


def _rounding_function(op: str, doc: str) -> Unary:
    def function(x: Operand) -> Tensor:
        found = as_operand(x)
        return apply(op, found) if found.dtype.is_float else _unchanged(found)

    found: Unary = _named(function, op, f"{doc} Integers are returned as they are.")
    return found


def _unchanged(x: Tensor) -> Tensor:
    if x.dtype == bool_:
        raise DTypeError(f"expected numbers, found {x.type}; convert it with astype")
    return x


floor = _rounding_function("floor", "The largest whole number that is at most x.")
ceil = _rounding_function("ceil", "The smallest whole number that is at least x.")
trunc = _rounding_function("trunc", "x without its fraction.")
round = _rounding_function("round", "The nearest whole number, ties to even.")


@array_function
def positive(x: Operand) -> Tensor:
    """+x: x itself."""
    return _unchanged(as_operand(x))


@array_function
def square(x: Operand) -> Tensor:
    """x * x."""
    found = as_operand(x)
    return apply("mul", found, found)


@array_function
def reciprocal(x: Operand) -> Tensor:
    """1 / x. Integers become float32."""
    return divide(1, x)


def _float_test(op: str, doc: str) -> Unary:
    def function(x: Operand) -> Tensor:
        return apply(op, strong(as_float(x)))  # a traced float, as any float, gives float32

    found: Unary = _named(function, op, f"{doc} The result is bool.")
    return found


isnan = _float_test("isnan", "Whether x is NaN.")
isinf = _float_test("isinf", "Whether x is inf or -inf.")
isfinite = _float_test("isfinite", "Whether x is neither infinite nor NaN.")


# --- functions of two operands ----------------------------------------------------------------


def _binary_function(name: str, op: str, doc: str, *, floating: bool = False) -> Binary:
    def function(x1: Operand, x2: Operand) -> Tensor:
        return apply(op, *promote(x1, x2, floating=floating))

    found: Binary = _named(function, name, doc)
    return found


add = _binary_function("add", "add", "x1 + x2; integers wrap.")
subtract = _binary_function("subtract", "sub", "x1 - x2; integers wrap.")
multiply = _binary_function("multiply", "mul", "x1 * x2; integers wrap.")
divide = _binary_function(
    "divide", "div", "x1 / x2, as floats. Integers become float32.", floating=True
)
floor_divide = _binary_function(
    "floor_divide", "floor_divide", "floor(x1 / x2). Integers: x // 0 is 0."
)
remainder = _binary_function(
    "remainder", "remainder", "x1 - floor(x1 / x2) * x2, with the sign of x2. Integers: x % 0 is 0."
)
maximum = _binary_function("maximum", "maximum", "The larger of both; NaN if either is NaN.")
minimum = _binary_function("minimum", "minimum", "The smaller of both; NaN if either is NaN.")
copysign = _binary_function(
    "copysign", "copysign", "x1 with the sign of x2. Integers become float32.", floating=True
)


@array_function
def pow(x1: Operand, x2: Operand) -> Tensor:
    """x1 to the power x2. The Python exponents 0.5, 2, 3 and -1 are computed as sqrt(x1), x1 * x1,
    x1 * x1 * x1 and 1 / x1.

    Integer tensors: a negative Python exponent raises DTypeError; negative elements of x2 give
    the true power without its fraction.
    """
    exponent = number_of(x2)
    if exponent is None or number_of(x1) is not None:
        return apply("pow", *promote(x1, x2))
    base = as_operand(x1)
    if base.dtype.is_integer and isinstance(exponent, int) and exponent < 0:
        raise DTypeError(
            f"{base.type} to the power {exponent} has fractions; convert it to float32 with astype"
        )
    return _small_power(base, exponent)


def _small_power(base: Tensor, exponent: float | int) -> Tensor:
    """Multiplications and the square root are exact to a rounding, cheap, and have derivatives
    that are simple too."""
    x, power = promote(base, exponent)
    if exponent == 2:
        return apply("mul", x, x)
    if exponent == 3:
        return apply("mul", apply("mul", x, x), x)
    if exponent == 0.5:
        return apply("sqrt", x)
    if exponent == -1:
        return divide(1, x)
    return apply("pow", x, power)


# --- comparisons ------------------------------------------------------------------------------


def _comparison(name: str, op: str, sign: str) -> Binary:
    def function(x1: Operand, x2: Operand) -> Tensor:
        if _beyond(x1, x2) or _beyond(x2, x1):
            x1, x2 = (_as_int64(x) for x in (x1, x2))
        return apply(op, *promote(x1, x2))

    found: Binary = _named(function, name, f"x1 {sign} x2, as bools.")
    return found


def _beyond(x: object, y: object) -> bool:
    """Whether x is a Python int that the narrower integer dtype of y cannot hold: comparing with
    it has an answer all the same."""
    if not isinstance(x, int) or isinstance(x, bool):
        return False
    if not isinstance(y, (Tensor, np.ndarray)):
        return False
    dtype = dtype_of(y.dtype)
    if not dtype.is_integer or dtype == int64:
        return False
    low = 0 if dtype in (uint8, uint32) else -(1 << 31)
    return not low <= x < low + (1 << dtype.bits)


def _as_int64(x: Operand) -> Operand:
    return x if isinstance(x, int) else astype(x, int64)


equal = _comparison("equal", "eq", "==")
not_equal = _comparison("not_equal", "ne", "!=")
less = _comparison("less", "lt", "<")
less_equal = _comparison("less_equal", "le", "<=")
greater = _comparison("greater", "gt", ">")
greater_equal = _comparison("greater_equal", "ge", ">=")


# --- logic and bits ---------------------------------------------------------------------------


def _logic(op: str, doc: str) -> Binary:
    def function(x1: Operand, x2: Operand) -> Tensor:
        return apply(op, as_bool(x1), as_bool(x2))

    found: Binary = _named(function, op, f"{doc} Numbers are true where they are not 0.")
    return found


logical_and = _logic("logical_and", "x1 and x2.")
logical_or = _logic("logical_or", "x1 or x2.")
logical_xor = _logic("logical_xor", "Exactly one of x1 and x2.")


@array_function
def logical_not(x: Operand) -> Tensor:
    """not x. Numbers are true where they are not 0."""
    return apply("logical_not", as_bool(x))


bitwise_and = _binary_function("bitwise_and", "bitwise_and", "x1 & x2, of integers or bools.")
bitwise_or = _binary_function("bitwise_or", "bitwise_or", "x1 | x2, of integers or bools.")
bitwise_xor = _binary_function("bitwise_xor", "bitwise_xor", "x1 ^ x2, of integers or bools.")
bitwise_invert = _numeric_function("bitwise_invert", "bitwise_not", "~x, of integers or bools.")
bitwise_left_shift = _binary_function(
    "bitwise_left_shift", "shift_left", "x1 << x2; 0 where x2 is negative or at least the width."
)
bitwise_right_shift = _binary_function(
    "bitwise_right_shift",
    "shift_right",
    "x1 >> x2, arithmetic; only sign bits where x2 is negative or at least the width.",
)


# --- choice and conversion --------------------------------------------------------------------


@array_function
def where(condition: Operand, x1: Operand, x2: Operand) -> Tensor:
    """x1 where the condition (bools) holds, else x2; all three broadcast. No gradient, and no NaN
    from one, flows into what was not chosen."""
    chosen = as_operand(condition)
    if chosen.dtype != bool_:
        raise DTypeError(f"the condition of where must be bools, found {chosen.type}")
    return apply("where", chosen, *map(strong, promote(x1, x2)))


@array_function
def clip(x: Operand, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """x limited to [min, max]; None is no limit; max wins where min is larger. NaN stays. The
    gradient of what lies at a limit is x's, as in PyTorch."""
    found: Operand = as_operand(x)
    if min is not None:
        found = where(greater_equal(found, min), found, maximum(found, min))
    if max is not None:
        found = where(less_equal(found, max), found, minimum(found, max))
    return as_operand(found)


@array_function
def astype(x: Operand, dtype: object, copy: bool = True) -> Tensor:
    """x as another dtype: floats lose their fraction and saturate as integers, NaN gives 0,
    integers wrap, bools are x != 0. `copy=False` gives x itself where the dtype is its own.

    Raises DTypeError for a dtype that Treadle lacks.
    """
    found, target, copied = as_operand(x), dtype_of(dtype), flag("copy", copy)
    if found.dtype == target and not found.weak:
        return clone(found) if copied else found
    return apply("cast", found, dtype=target)
