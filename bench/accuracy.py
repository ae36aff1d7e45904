"""Errors of the vector maths on samples, and the bounds that Treadle promises.

Errors are in units in the last place: |got - exact| over the spacing of the format's numbers at
the exact result. float32 is compared with float64, by NumPy and the C library, and float64 with
mpmath (50 digits). `sweep` takes all inputs of a float32 function.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.bench.strata import defined, inputs
from treadle.codegen.llvm import I64, PTR, Module, register_type, vec
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.target import Target
from treadle.ir.scalar import MathName
from treadle.ir.types import DType, float32, float64
from treadle.runtime.native import load

Array = npt.NDArray[Any]

# What float64 functions may be off, at any target.
_BOUND64: Final = 4.0

# Units in the last place that compiled float32 functions may be off: (with FMA, without).
_BOUNDS32: Final[dict[str, tuple[float, float]]] = {
    "exp": (1.5, 1.5),
    "expm1": (2.0, 2.0),
    "exp2": (1.0, 1.5),
    "log": (1.0, 1.0),
    "log1p": (1.5, 1.5),
    "log2": (2.0, 2.0),
    "sin": (2.0, 2.5),
    "cos": (2.0, 2.5),
    "tanh": (3.0, 3.0),
    "sigmoid": (2.5, 2.5),
    "erf": (3.5, 3.5),
    "erfc": (4.0, 4.0),
    "erfinv": (3.5, 3.5),
    "softplus": (2.0, 2.0),
    "pow": (1.0, 1.0),
    "sqrt": (0.5, 0.5),
    "rsqrt": (1.5, 1.5),
}

# The same for composites, which are computed as their formulas say. Far out on the negative side
# the factor of the operand is an exponential: it turns the rounding of its exponent into as many
# as the exponent is large, and subnormal it has few digits left.
BOUNDS_OF_FORMULAS: Final[dict[str, float]] = {"silu": 64.0, "gelu": 256.0, "gelu-tanh": 256.0}


def bound(name: str, dtype: DType, target: Target) -> float:
    """How many units in the last place `name` may be off on a target."""
    if dtype is float64:
        return 0.5 if name == "sqrt" else _BOUND64
    if name in BOUNDS_OF_FORMULAS:
        return BOUNDS_OF_FORMULAS[name]
    return _BOUNDS32[name][not target.has_fma]


def apply(name: MathName, target: Target, *xs: Array) -> Array:
    """`name` of contiguous arrays of one float dtype, by code compiled for `target`.

    The number of elements must be a multiple of the target's lanes.
    """
    dtype = float32 if xs[0].dtype == np.float32 else float64
    lanes = target.lanes(dtype)
    elem = register_type(dtype)
    module = Module(target)
    params = [(PTR, f"x{k}") for k in range(len(xs))]
    w = module.function("apply", I64, [*params, (PTR, "out"), (I64, "n")])
    s = LlvmScalarOps(w, lanes)
    *sources, out, n = w.args
    with w.loop(0, n, lanes) as i:
        loaded = [s.element(w.load(vec(elem, lanes), w.gep(p, i, elem)), dtype) for p in sources]
        w.store(s.math(name, *loaded).val, w.gep(out, i, elem))
    w.ret(0)
    code = load(str(module), target)
    pointers = [ctypes.c_void_p] * (len(xs) + 1)
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, *pointers, ctypes.c_int64)(code.address("apply"))
    result = np.empty_like(xs[0])
    entry(*(x.ctypes.data for x in xs), result.ctypes.data, result.size)
    code.close()
    return result


def ulps(got: Array, exact: Array) -> Array:
    """Errors of float32 results against float64 ones, in float32's last place.

    Where the exact result rounds to inf, or is NaN, anything else is infinitely wrong.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        expected = exact.astype(np.float32)
        exponent = np.frexp(exact)[1].astype(np.int32) - 1
        spacing = np.ldexp(1.0, np.maximum(exponent, -126) - 23)
        error = np.abs(got.astype(np.float64) - exact) / spacing
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    plain = np.isfinite(expected) & np.isfinite(got)
    return np.where(plain, error, np.where(same, 0.0, np.inf))


# --- references --------------------------------------------------------------------------------


def _elementwise(fn: Callable[[float], float]) -> Callable[[Array], Array]:
    vectorized = np.vectorize(fn, otypes=[np.float64])
    return lambda x: np.asarray(vectorized(x))


_erf = _elementwise(math.erf)


def _erfinv(x: Array) -> Array:
    """Newton's method on erf in float64, from a formula good to two digits."""
    with np.errstate(all="ignore"):
        size = np.minimum(np.abs(x), 1 - 1e-12)
        log = np.log1p(-size * size)
        a = 2 / (np.pi * 0.147) + log / 2
        y = np.sqrt(np.sqrt(a * a - log / 0.147) - a)
        for _ in range(4):
            y = y - (_erf(y) - size) * (np.sqrt(np.pi) / 2) * np.exp(y * y)
        y = np.where(np.abs(x) < 1e-8, np.abs(x) * (np.sqrt(np.pi) / 2), y)
        y = np.where(np.abs(x) == 1, np.inf, np.where(np.abs(x) < 1, y, np.nan))
    return np.copysign(y, x)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_REFERENCES: Final[dict[str, Callable[..., Array]]] = {
    "exp": np.exp, "expm1": np.expm1, "exp2": np.exp2, "log": np.log, "log1p": np.log1p,
    "log2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "sigmoid": _sigmoid,
    "erf": _erf, "erfc": _elementwise(math.erfc), "erfinv": _erfinv, "softplus": _softplus,
    "pow": np.power,
}  # fmt: skip


def reference(name: str, *xs: Array) -> Array:
    """The exact result of float32 inputs, as float64."""
    with np.errstate(all="ignore"):
        return _REFERENCES[name](*(x.astype(np.float64) for x in xs))


def _mp_function(name: str) -> Callable[..., Any]:
    import mpmath as mp

    own: dict[str, Callable[..., Any]] = {
        "exp2": lambda x: mp.mpf(2) ** x,
        "log2": lambda x: mp.log(x) / mp.log(2),
        "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
        "softplus": lambda x: mp.log1p(mp.exp(-abs(x))) + max(x, mp.mpf(0)),
        "erfinv": _mp_erfinv,
        "pow": _mp_power,
    }
    found: Callable[..., Any] = own.get(name) or getattr(mp, name)
    return found


def _mp_power(x: Any, y: Any) -> Any:
    """A negative base has a whole exponent, and the sign by whether that is odd."""
    import mpmath as mp

    size = mp.power(abs(x), y)
    return -size if x < 0 and y % 2 == 1 else size


def _mp_erfinv(x: Any) -> Any:
    """Halley's method on erf, or on erfc, which keeps its digits near x = 1."""
    import mpmath as mp

    size, rest = abs(x), 1 - abs(x)
    y = mp.mpf(float(_erfinv(np.array([float(min(size, mp.mpf(1) - mp.mpf(2) ** -36))]))[0]))
    for _ in range(30):
        off = mp.erfc(y) - rest if size > 0.5 else size - mp.erf(y)
        step = off * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
        step = step / (1 - y * step)
        y += step
        if abs(step) <= abs(y) * mp.mpf(10) ** -40:
            break
    return mp.sign(x) * y


def ulps_double(name: str, got: Array, *xs: Array) -> Array:
    """Errors of finite float64 results, one by one, against mpmath with 50 digits."""
    return _places_off(got, _exactly(name, xs))


def _exactly(name: str, xs: Sequence[Array]) -> list[Any]:
    """The results as numbers of mpmath."""
    import mpmath as mp

    fn = _mp_function(name)
    with mp.workdps(50):
        return [
            fn(*map(mp.mpf, operands)) for operands in zip(*(x.tolist() for x in xs), strict=True)
        ]


def _places_off(got: Array, exact: Sequence[Any]) -> Array:
    import mpmath as mp

    errors = np.zeros(got.shape)
    with mp.workdps(50):
        for k, (value, wanted) in enumerate(zip(got.tolist(), exact, strict=True)):
            if not mp.isfinite(value) or wanted == 0:
                overflow = abs(wanted) >= mp.mpf(2) ** 1024 * (1 - mp.mpf(2) ** -54)
                fine = value == wanted or (overflow and math.isinf(value) and value * wanted > 0)
                errors[k] = 0.0 if fine else np.inf
                continue
            spacing = mp.ldexp(1, max(mp.frexp(wanted)[1] - 1, -1022) - 52)
            errors[k] = float(abs(mp.mpf(value) - wanted) / spacing)
    return errors


# --- measuring ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """The largest error found, and an input that has it."""

    error: float
    worst: tuple[float, ...]


def measure(name: MathName, dtype: DType, target: Target, count: int, seed: int = 0) -> Row:
    """The largest error of the code for a target over `count` inputs."""
    return measure_function(name, dtype, lambda *xs: apply(name, target, *xs), count, seed)


def measure_function(
    name: MathName, dtype: DType, fn: Callable[..., Array], count: int, seed: int = 0
) -> Row:
    """The largest error of `fn` as `name`, over the same inputs."""
    xs, good, exact = _samples(name, dtype, count, seed)
    got = fn(*xs)
    errors = ulps(got, exact) if dtype is float32 else _places_off(got[good], exact)
    k = int(np.argmax(errors))
    return Row(float(errors[k]), tuple(float(x[good][k]) for x in xs))


@cache
def _samples(
    name: MathName, dtype: DType, count: int, seed: int
) -> tuple[tuple[Array, ...], Any, Any]:
    """(operands, those of them that are compared, the exact results of these)."""
    xs = inputs(name, dtype, count, seed)
    if dtype is float32:
        return xs, slice(None), reference(name, *xs)
    good = defined(name, *xs)
    return xs, good, _exactly(name, [x[good] for x in xs])
