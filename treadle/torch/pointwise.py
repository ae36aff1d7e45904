"""Functions of each element: arithmetic, comparison, logic, rounding, exponentials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError
from treadle.torch.functions import facade
from treadle.tracer import api
from treadle.tracer.api.arguments import option
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand

_UNARY = (
    "abs", "ceil", "cos", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor", "isfinite",
    "isinf", "isnan", "log", "log1p", "log2", "logical_not", "reciprocal", "relu", "rsqrt",
    "sigmoid", "sign", "sin", "sqrt", "square", "tanh", "trunc",
)  # fmt: skip
_BINARY = {
    "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_xor": "bitwise_xor",
    "bitwise_left_shift": "bitwise_left_shift", "bitwise_right_shift": "bitwise_right_shift",
    "copysign": "copysign", "eq": "equal", "floor_divide": "floor_divide", "ge": "greater_equal",
    "gt": "greater", "le": "less_equal", "logical_and": "logical_and", "logical_or": "logical_or",
    "logical_xor": "logical_xor", "lt": "less", "ne": "not_equal", "remainder": "remainder",
}  # fmt: skip


def _unary(name: str) -> Any:
    native = getattr(api, name)

    def function(input: Any) -> Any:
        return native(input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = native.__doc__
    return facade(function)


def _binary(name: str, native: Any) -> Any:
    def function(input: Any, other: Any) -> Any:
        return native(input, other)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = native.__doc__
    return facade(function)


# Each has PyTorch's name and argument names, and the meaning of Treadle's function.
for _name in _UNARY:
    globals()[_name] = _unary(_name)
for _name, _native in _BINARY.items():
    globals()[_name] = _binary(_name, getattr(api, _native))


def _f(x: Any) -> Any:
    found = as_operand(x)
    return found if found.dtype.is_float else found.astype("float32")


# --- arithmetic ------------------------------------------------------------------------------


def _scaled(other: Any, alpha: Any) -> Any:
    return other if alpha == 1 else api.multiply(other, alpha)


@facade
def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input + alpha * other"""
    return api.add(input, _scaled(other, alpha))


@facade
def sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """input - alpha * other"""
    return api.subtract(input, _scaled(other, alpha))


@facade
def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """other - alpha * input"""
    return api.subtract(other, _scaled(input, alpha))


@facade
def mul(input: Any, other: Any) -> Any:
    """input * other"""
    return api.multiply(input, other)


@facade
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """input / other, as it is, or rounded ("trunc", "floor")."""
    if rounding_mode is None:
        return api.divide(input, other)
    if option("rounding_mode", rounding_mode, ("trunc", "floor")) == "floor":
        return api.floor_divide(input, other)
    x, y = as_operand(input), as_operand(other)
    if x.dtype.is_integer and y.dtype.is_integer:
        whole = api.floor_divide(x, y)
        short = api.logical_and(whole < 0, api.not_equal(whole * y, x))
        return whole + short.astype(whole.dtype)
    return api.trunc(api.divide(input, other))


@facade
def fmod(input: Any, other: Any) -> Any:
    """The remainder of a division rounded to zero: it has the sign of `input`."""
    x, y = as_operand(input), as_operand(other)
    rest = api.remainder(api.abs(x), api.abs(y))
    if rest.dtype.is_float:
        return api.copysign(rest, x.astype(rest.dtype))
    return api.where(x < 0, api.negative(rest), rest)


@facade
def neg(input: Any) -> Any:
    """-input"""
    return api.negative(input)


@facade
def positive(input: Any) -> Any:
    """input"""
    return as_operand(input)


@facade
def pow(input: Any, exponent: Any) -> Any:
    """input to the power `exponent`"""
    return api.pow(input, exponent)


@facade
def float_power(input: Any, exponent: Any) -> Any:
    """As `pow`, in float64."""
    return api.pow(as_operand(input).astype("float64"), exponent)


@facade
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """input + value * tensor1 * tensor2"""
    return api.add(input, _scaled(api.multiply(tensor1, tensor2), value))


@facade
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """input + value * tensor1 / tensor2"""
    return api.add(input, _scaled(api.divide(tensor1, tensor2), value))


@facade
def lerp(input: Any, end: Any, weight: Any) -> Any:
    """input + weight * (end - input)"""
    return api.add(input, api.multiply(weight, api.subtract(end, input)))


@facade
def hypot(input: Any, other: Any) -> Any:
    """sqrt(input^2 + other^2)"""
    return api.sqrt(api.add(api.square(_f(input)), api.square(_f(other))))


@facade
def xlogy(input: Any, other: Any) -> Any:
    """input * log(other), 0 where input is 0 and other is no NaN."""
    x, y = _f(input), _f(other)
    zero = api.logical_and(api.equal(x, 0), api.logical_not(api.isnan(y)))
    return api.where(zero, 0.0, api.multiply(x, api.log(api.where(zero, 1.0, y))))


@facade
def logaddexp(input: Any, other: Any) -> Any:
    """log(exp(input) + exp(other))"""
    return api.logsumexp(api.stack(api.broadcast_arrays(input, other)), axis=0)


@facade
def logaddexp2(input: Any, other: Any) -> Any:
    """log2(2^input + 2^other)"""
    scaled = [api.multiply(x, math.log(2)) for x in api.broadcast_arrays(input, other)]
    return api.divide(api.logsumexp(api.stack(scaled), axis=0), math.log(2))


# --- limits and choices ----------------------------------------------------------------------


@facade
def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """Elements limited to [min, max]; either may be None."""
    if min is None and max is None:
        raise located(ArgumentError("clamp needs min or max"))
    return api.clip(input, min, max)


@facade
def clamp_min(input: Any, min: Any) -> Any:
    """Elements of at least `min`."""
    return api.clip(input, min, None)


@facade
def clamp_max(input: Any, max: Any) -> Any:
    """Elements of at most `max`."""
    return api.clip(input, None, max)


@facade
def maximum(input: Any, other: Any) -> Any:
    """The greater of both; NaN where either is."""
    return api.maximum(input, other)


@facade
def minimum(input: Any, other: Any) -> Any:
    """The lesser of both; NaN where either is."""
    return api.minimum(input, other)


@facade
def fmax(input: Any, other: Any) -> Any:
    """The greater of both; of a NaN and a number the number."""
    x, y = api.broadcast_arrays(input, other)
    return api.where(api.isnan(x), y, api.where(api.isnan(y), x, api.maximum(x, y)))


@facade
def fmin(input: Any, other: Any) -> Any:
    """The lesser of both; of a NaN and a number the number."""
    x, y = api.broadcast_arrays(input, other)
    return api.where(api.isnan(x), y, api.where(api.isnan(y), x, api.minimum(x, y)))


@facade
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`. With a condition only: `nonzero` of it, as
    one tensor an axis."""
    if input is None and other is None:
        from treadle.torch.indexing import nonzero

        return nonzero(condition, as_tuple=True)
    return api.where(condition, input, other)


@facade
def nan_to_num(input: Any, nan: float | None = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """NaN and infinities replaced; None: by the greatest and least finite number."""
    x = _f(input)
    limits = np.finfo(x.dtype.dtype)
    x = api.where(api.isnan(x), 0.0 if nan is None else nan, x)
    x = api.where(api.equal(x, math.inf), float(limits.max) if posinf is None else posinf, x)
    return api.where(api.equal(x, -math.inf), float(limits.min) if neginf is None else neginf, x)


@facade
def heaviside(input: Any, values: Any) -> Any:
    """0 below 0, `values` at 0, 1 above."""
    x = as_operand(input)
    return api.where(api.equal(x, 0), values, (x > 0).astype(x.dtype))


@facade
def threshold(input: Any, threshold: float, value: float) -> Any:
    """`input` where it is above `threshold`, else `value`."""
    x = as_operand(input)
    return api.where(x > threshold, x, value)


# --- rounding and signs ----------------------------------------------------------------------


@facade
def round(input: Any, *, decimals: int = 0) -> Any:
    """The nearest multiple of 10^-decimals; halves go to the even one."""
    if decimals == 0:
        return api.round(input)
    scale = 10.0**decimals
    return api.divide(api.round(api.multiply(input, scale)), scale)


@facade
def frac(input: Any) -> Any:
    """input - trunc(input)"""
    return api.subtract(input, api.trunc(input))


@facade
def signbit(input: Any) -> Any:
    """Whether the sign is minus, that of -0.0 too."""
    x = as_operand(input)
    return api.copysign(api.ones_like(x), x) < 0 if x.dtype.is_float else x < 0


@facade
def sgn(input: Any) -> Any:
    """The sign: -1, 0 or 1."""
    return api.sign(input)


# --- exponentials and circles ----------------------------------------------------------------


@facade
def log10(input: Any) -> Any:
    """The logarithm to base 10."""
    return api.divide(api.log(input), math.log(10))


@facade
def logit(input: Any, eps: float | None = None) -> Any:
    """log(x / (1 - x)), for x limited to [eps, 1 - eps]."""
    x = _f(input)
    x = x if eps is None else api.clip(x, eps, 1 - eps)
    return api.log(x) - api.log1p(-x)


@facade
def tan(input: Any) -> Any:
    """sin(x) / cos(x)"""
    return api.divide(api.sin(input), api.cos(input))


@facade
def sinh(input: Any) -> Any:
    """(exp(x) - exp(-x)) / 2"""
    x = _f(input)
    return 0.5 * (api.expm1(x) - api.expm1(-x))


@facade
def cosh(input: Any) -> Any:
    """(exp(x) + exp(-x)) / 2"""
    x = _f(input)
    return 0.5 * (api.exp(x) + api.exp(-x))


@facade
def asinh(input: Any) -> Any:
    """The inverse of sinh."""
    x = _f(input)
    size = api.abs(x)
    return api.sign(x) * api.log1p(size + size * size / (1 + api.sqrt(size * size + 1)))


@facade
def acosh(input: Any) -> Any:
    """The inverse of cosh."""
    above = _f(input) - 1
    return api.log1p(above + api.sqrt(above * (above + 2)))


@facade
def atanh(input: Any) -> Any:
    """The inverse of tanh."""
    x = _f(input)
    return 0.5 * (api.log1p(x) - api.log1p(-x))


@facade
def sinc(input: Any) -> Any:
    """sin(pi x) / (pi x), 1 at 0."""
    x = _f(input)
    angle = api.where(api.equal(x, 0), 1.0, x * math.pi)
    return api.where(api.equal(x, 0), 1.0, api.sin(angle) / angle)


@facade
def deg2rad(input: Any) -> Any:
    """Degrees as radians."""
    return api.multiply(input, math.pi / 180)


@facade
def rad2deg(input: Any) -> Any:
    """Radians as degrees."""
    return api.multiply(input, 180 / math.pi)


@facade
def softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along `dim`"""
    return api.softmax(input if dtype is None else api.astype(input, dtype), axis=dim)


@facade
def log_softmax(input: Any, dim: int, dtype: Any = None) -> Any:
    """log(softmax(x)) along `dim`"""
    return api.log_softmax(input if dtype is None else api.astype(input, dtype), axis=dim)


# --- tests -----------------------------------------------------------------------------------


@facade
def isposinf(input: Any) -> Any:
    """Whether elements are inf."""
    return api.equal(input, math.inf)


@facade
def isneginf(input: Any) -> Any:
    """Whether elements are -inf."""
    return api.equal(input, -math.inf)


@facade
def isclose(
    input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """|input - other| <= atol + rtol * |other|, or both the same infinity."""
    x, y = api.broadcast_arrays(input, other)
    near = api.abs(x - y) <= atol + rtol * api.abs(y)
    if x.dtype.is_float and y.dtype.is_float:
        near = api.logical_and(near, api.logical_and(api.isfinite(x), api.isfinite(y)))
        if equal_nan:
            near = api.logical_or(near, api.logical_and(api.isnan(x), api.isnan(y)))
    return api.logical_or(near, api.equal(x, y))


@facade
def allclose(
    input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether all elements are close; a Python bool, so not in a compiled function."""
    return bool(api.all(isclose(input, other, rtol, atol, equal_nan)))


@facade
def equal(input: Any, other: Any) -> bool:
    """Whether both have one shape and equal elements; a Python bool."""
    x, y = as_operand(input), as_operand(other)
    return x.shape == y.shape and bool(api.all(api.equal(x, y)))


# Other names of PyTorch's for the same. (`absolute is abs`.)
ALIASES = {
    "absolute": "abs", "arccosh": "acosh", "arcsinh": "asinh", "arctanh": "atanh",
    "bitwise_not": None, "clip": "clamp", "divide": "div", "expit": "sigmoid", "fix": "trunc",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "multiply": "mul",
    "negative": "neg", "not_equal": "ne", "subtract": "sub", "true_divide": None,
}  # fmt: skip
for _alias, _of in ALIASES.items():
    if _of is not None:
        globals()[_alias] = globals()[_of]
bitwise_not = _unary("bitwise_invert")


@facade
def true_divide(input: Any, other: Any) -> Any:
    """input / other"""
    return api.divide(input, other)


# Which of these a tensor has as methods that write over it, with a trailing underscore.
IN_PLACE = (
    "abs", "absolute", "add", "addcdiv", "addcmul", "bitwise_and", "bitwise_not", "bitwise_or",
    "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "copysign", "cos", "cosh",
    "div", "divide", "erf", "exp", "exp2", "expm1", "floor", "floor_divide", "fmod", "frac",
    "float_power", "heaviside", "hypot", "lerp",
    "log", "log10", "log1p", "log2", "logical_not", "logit", "mul", "multiply",
    "nan_to_num", "neg", "negative", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt",
    "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "sub", "subtract", "tan", "tanh",
    "threshold", "trunc", "xlogy",
)  # fmt: skip

__all__ = [
    *_UNARY, *_BINARY, *ALIASES, "acosh", "add", "addcdiv", "addcmul", "allclose", "asinh",
    "atanh", "clamp", "clamp_max", "clamp_min", "cosh", "deg2rad", "div", "equal", "float_power",
    "fmax", "fmin", "fmod", "frac", "heaviside", "hypot", "isclose", "isneginf", "isposinf",
    "lerp", "log10", "log_softmax", "logaddexp", "logaddexp2", "logit", "maximum", "minimum",
    "mul", "nan_to_num", "neg", "positive", "pow", "rad2deg", "round", "rsub", "sgn", "signbit",
    "sinc", "sinh", "softmax", "sub", "tan", "threshold", "where", "xlogy",
]  # fmt: skip
