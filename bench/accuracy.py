"""Measured errors of the vector maths: `python -m treadle.bench.accuracy` prints docs/accuracy.md.

Errors are in units in the last place: |got - exact| over the spacing of the format's numbers at
the exact result. float32 is compared with float64 on two million inputs, float64 with mpmath (50
digits) on some thousands; both stratified over all exponents, and denser where a function varies.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from treadle.codegen.llvm import I64, PTR, Module, register_type, vec
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.target import Target, named
from treadle.ir.scalar import MathName
from treadle.ir.types import DType, float32, float64
from treadle.runtime.native import load

Array = npt.NDArray[Any]

# Units in the last place that the compiled functions may be off, by name and dtype.
BOUNDS: Final[dict[DType, dict[str, float]]] = {
    float32: {
        name: 2.0 if name in ("exp", "log") else 3.0 if name in ("tanh", "sigmoid") else 4.0
        for name in get_args(MathName)
    },
    float64: dict.fromkeys(get_args(MathName), 4.0),
}


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
        "pow": mp.power,
    }
    found: Callable[..., Any] = own.get(name) or getattr(mp, name)
    return found


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
    import mpmath as mp

    fn = _mp_function(name)
    errors = np.zeros(got.shape)
    with mp.workdps(50):
        for k, value in enumerate(got.tolist()):
            exact = fn(*(mp.mpf(float(x[k])) for x in xs))
            if not mp.isfinite(value) or exact == 0:
                overflow = abs(exact) >= mp.mpf(2) ** 1024 * (1 - mp.mpf(2) ** -54)
                fine = value == exact or (overflow and math.isinf(value) and value * exact > 0)
                errors[k] = 0.0 if fine else np.inf
                continue
            exponent = int(mp.floor(mp.log(abs(exact), 2)))
            spacing = mp.mpf(2) ** (max(exponent, -1022) - 52)
            errors[k] = float(abs(mp.mpf(value) - exact) / spacing)
    return errors


# --- inputs ------------------------------------------------------------------------------------

# Where each function is neither constant nor overflowing.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "exp": (-104, 89), "expm1": (-20, 89), "exp2": (-151, 129), "log": (0.2, 5),
    "log1p": (-1, 5), "log2": (0.2, 5), "sin": (-400, 400), "cos": (-400, 400), "tanh": (-10, 10),
    "sigmoid": (-105, 20), "erf": (-4.2, 4.2), "erfc": (-4.2, 10.1), "erfinv": (-1, 1),
    "softplus": (-105, 30), "pow": (0.5, 2),
}  # fmt: skip
_RANGES_DOUBLE: Final[dict[str, tuple[float, float]]] = {
    "exp": (-746, 710), "expm1": (-40, 710), "exp2": (-1076, 1025), "tanh": (-20, 20),
    "sigmoid": (-746, 40), "erf": (-6.2, 6.2), "erfc": (-6.2, 27.3), "softplus": (-746, 40),
}  # fmt: skip


def inputs(name: str, dtype: DType, count: int, seed: int = 0) -> tuple[Array, ...]:
    """Operands: a third random bit patterns, so all exponents; two thirds where it matters."""
    rng = np.random.default_rng(seed)
    first = _mixed(rng, name, dtype, count)
    if name != "pow":
        return (first,)
    second = _mixed(rng, "exponent", dtype, count)
    # A third of the bases with an exponent that brings the result near the format's limits.
    with np.errstate(all="ignore"):
        limit = 150.0 if dtype is float32 else 1075.0
        aimed = rng.uniform(-limit, limit, count) / np.log2(np.abs(first.astype(np.float64)))
        second = np.where(rng.random(count) < 0.5, aimed.astype(dtype.dtype), second)
        second = np.where(rng.random(count) < 0.1, np.rint(second), second)
    return first, np.ascontiguousarray(second, dtype.dtype)


def _mixed(rng: np.random.Generator, name: str, dtype: DType, count: int) -> Array:
    integers = np.uint32 if dtype is float32 else np.uint64
    bits = rng.integers(0, 2**dtype.bits, count, dtype=integers).view(dtype.dtype)
    low, high = _RANGES.get(name, (-20.0, 20.0))
    if dtype is float64:
        low, high = _RANGES_DOUBLE.get(name, (low, high))
    span = rng.uniform(low, high, count).astype(dtype.dtype)
    small = (rng.uniform(-1, 1, count) * 2.0 ** rng.uniform(-12, 0, count)).astype(dtype.dtype)
    if name in ("log", "log2"):
        small = small + dtype.dtype.type(1)
    kind = rng.integers(0, 3, count)
    mixed = np.where(kind == 0, bits, np.where(kind == 1, span, small))
    return np.ascontiguousarray(mixed, dtype.dtype)


def defined(name: str, *xs: Array) -> Array:
    """Which inputs have a finite mathematical value that mpmath computes in reasonable time."""
    x = xs[0]
    with np.errstate(all="ignore"):
        good = np.isfinite(x)
        if name in ("log", "log2"):
            good &= x > 0
        if name == "log1p":
            good &= x > -1
        if name == "erfinv":
            good &= np.abs(x) < 1
        if name in ("exp", "expm1", "exp2", "sigmoid", "softplus", "erfc"):
            good &= np.abs(x) < 1e4
        if name == "pow":
            exponent = xs[1].astype(np.float64)
            log = np.log2(np.abs(x.astype(np.float64)))
            good &= np.isfinite(exponent) & (x > 0) & (np.abs(log * exponent) < 1e4)
    return good


# --- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """The largest error found, and an input that has it."""

    error: float
    worst: tuple[float, ...]


def measure(name: MathName, dtype: DType, target: Target, count: int, seed: int = 0) -> Row:
    """The largest error over `count` inputs."""
    xs = inputs(name, dtype, count, seed)
    got = apply(name, target, *xs)
    if dtype is float32:
        errors = ulps(got, reference(name, *xs))
    else:
        good = defined(name, *xs)
        xs, got = tuple(x[good] for x in xs), got[good]
        errors = ulps_double(name, got, *xs)
    k = int(np.argmax(errors))
    return Row(float(errors[k]), tuple(float(x[k]) for x in xs))


_PREFACE: Final = """\
# Accuracy of compiled maths

Largest errors found, in units in the last place (ULP), of the functions as compiled for each
target; the bound is what Treadle promises, and its tests hold every target that runs to it.
`sqrt`, `+`, `-`, `*`, `/` are the hardware's, correctly rounded; `floor`, `ceil`, `trunc`, `round`
and C's `fmod` are exact. NaN, infinities, signed zeros and subnormal inputs and results are
those of C99, and results underflow gradually.

float32 was compared with float64 on {single:,} inputs a function, float64 with mpmath (50 digits)
on {double:,}: a third of them random bit patterns, so that all exponents occur, the rest where the
function varies. Made by `python -m treadle.bench.accuracy`.
"""


_SUMS: Final = """\
## Sums and products of matrices

With u = 2^-24 (float32) or 2^-53 (float64), to first order in u:

- a sum of n numbers is off by at most (56 + log2 n) u times the sum of their sizes: runs of 32
  additions (the last one takes what is left over), then pairs; where a large array is reduced to
  a few elements, 16 partial sums of that kind;
- an element of a product of matrices, with k products in the sum, by at most (B + k / B) u times
  the sum of the products' sizes, where B, the block, is at most 320 (float32) or 224 (float64), and
  k where that is smaller. Without FMA (SSE2) each product is rounded too, for one more u.

The order is fixed by shapes and Target; see `docs/decisions/0006-the-order-of-sums.md`.
"""


def table(targets: Sequence[Target], single: int, double: int) -> str:
    """The page as Markdown."""
    lines = [_PREFACE.format(single=single, double=double)]
    for dtype, count in ((float32, single), (float64, double)):
        heads = " | ".join(t.name for t in targets)
        lines += [f"## {dtype.name}\n", f"| function | bound | {heads} |"]
        lines.append("| --- " * (len(targets) + 2) + "|")
        for name in get_args(MathName):
            found = [measure(name, dtype, t, count).error for t in targets]
            cells = " | ".join(f"{e:.2f}" for e in found)
            lines.append(f"| {name} | {BOUNDS[dtype][name]:g} | {cells} |")
        lines.append("")
    return "\n".join([*lines, _SUMS])


def main() -> None:
    """Print the page for the targets that this machine can run."""
    names = ("neon",) if named("neon").runs_here() else ("sse2", "avx2", "avx512")
    targets = [named(n) for n in names if named(n).runs_here()]
    sys.stdout.write(table(targets, 2_000_000 // 64 * 64, 8_000))


if __name__ == "__main__":
    main()
