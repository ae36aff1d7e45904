"""Vector maths: within its documented bounds, and C99's at every special value."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, get_args

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from vector_kernels import TARGETS, run

from treadle.bench.accuracy import (
    apply,
    bound,
    measure,
    reference,
    ulps,
    ulps_double,
)
from treadle.bench.strata import defined, inputs
from treadle.codegen.llvm import I64, PTR, Module, register_type, vec
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.scalar import MathName
from treadle.ir.types import FLOATS, DType, float32, float64
from treadle.runtime.native import assembly

Array = npt.NDArray[Any]

_FUNCTIONS: tuple[MathName, ...] = get_args(MathName)
_UNARY = [name for name in _FUNCTIONS if name != "pow"]
_COUNT = 2_000_000 // 64 * 64

on_all_targets = pytest.mark.parametrize("target", TARGETS)
on_both_formats = pytest.mark.parametrize("dtype", FLOATS, ids=str)


@cache
def _exact(name: MathName) -> tuple[tuple[Array, ...], Array]:
    xs = inputs(name, float32, _COUNT)
    return xs, reference(name, *xs)


@on_all_targets
@pytest.mark.parametrize("name", _FUNCTIONS)
def test_float32_is_within_its_bound_on_two_million_inputs(name: MathName, target: Target) -> None:
    xs, exact = _exact(name)
    errors = ulps(apply(name, target, *xs), exact)
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound(name, float32, target), [x[worst] for x in xs]


@on_all_targets
@pytest.mark.parametrize("name", _FUNCTIONS)
def test_float64_is_within_its_bound(name: MathName, target: Target) -> None:
    row = measure(name, float64, target, 4096)
    assert row.error <= bound(name, float64, target), row.worst


def test_the_measure_notices_an_error_of_one_place() -> None:
    exact = np.array([1.0, 1e-45, 3e38, np.inf, np.nan, 0.0])
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    assert ulps(rounded, exact).max() <= 0.5
    off = np.nextafter(rounded, np.float32(-1))
    assert (ulps(off, exact)[:3] >= 0.5).all()
    assert np.isinf(ulps(off, exact)[3])
    doubled = np.array([math.exp(1.0)])
    assert ulps_double("exp", doubled, np.ones(1))[0] <= 1
    assert ulps_double("exp", np.nextafter(doubled, 9), np.ones(1))[0] >= 0.5
    assert defined("log", np.array([-1.0, 1.0, np.nan])).tolist() == [False, True, False]


def _specials(dtype: DType) -> Array:
    info = np.finfo(dtype.dtype)
    tiny, least, eps = float(info.tiny), float(info.smallest_subnormal), float(info.eps)
    positive = [0.0, np.inf, 1, 0.5, 2, 3, 2.5, 700, 1000, 1e5, 1e6, 1e22, tiny, least, 7 * least]
    positive += [eps, 1 + eps, 1 - eps / 2, float(info.max), 88, 103.5]
    return np.array([np.nan, *positive, *(-p for p in positive)], dtype.dtype)


def _padded(x: Array, fill: float = 0.5) -> Array:
    return np.concatenate([x, np.full(-x.size % 64, fill, x.dtype)])


def _mp_value(name: str, x: float) -> float:
    """The function in 60 digits, rounded to float64; the limits at infinities and poles."""
    with mpmath.workdps(60):
        m = mpmath.mpf(x)
        own = {
            "exp2": lambda: mpmath.mpf(2) ** m,
            "log2": lambda: mpmath.log(m, 2),
            "sigmoid": lambda: 1 / (1 + mpmath.exp(-m)) if m > -1e6 else mpmath.mpf(0),
            "softplus": lambda: mpmath.log1p(mpmath.exp(-abs(m))) + max(m, 0),
        }
        value = own[name]() if name in own else getattr(mpmath, name)(m)
        return float(value)


_AT_INFINITY: dict[str, tuple[float, float]] = {
    "exp": (0, np.inf), "expm1": (-1, np.inf), "exp2": (0, np.inf), "log": (np.nan, np.inf),
    "log1p": (np.nan, np.inf), "log2": (np.nan, np.inf), "sin": (np.nan, np.nan),
    "cos": (np.nan, np.nan), "tanh": (-1, 1), "sigmoid": (0, 1), "erf": (-1, 1), "erfc": (2, 0),
    "erfinv": (np.nan, np.nan), "softplus": (0, np.inf),
}  # fmt: skip


def _expected(name: str, x: float) -> float:
    if x != x:
        return x
    if math.isinf(x):
        return _AT_INFINITY[name][x > 0]
    if x == 0 and name in ("expm1", "log1p", "sin", "tanh", "erf", "erfinv"):
        return x
    lowest = {"log": 0, "log2": 0, "log1p": -1}.get(name)
    if lowest is not None and x <= lowest:
        return -np.inf if x == lowest else np.nan
    if name == "erfinv" and abs(x) >= 1:
        return math.copysign(np.inf, x) if abs(x) == 1 else np.nan
    if name == "erfc" and abs(x) > 1000:
        return 0 if x > 0 else 2
    if name in ("exp", "exp2", "expm1") and x > 1100:
        return np.inf
    if name in ("exp", "exp2", "expm1", "softplus", "sigmoid") and x < -1100:
        return -1 if name == "expm1" else 0
    return _mp_value(name, x)


@on_all_targets
@on_both_formats
@pytest.mark.parametrize("name", _UNARY)
def test_special_values_are_c99s(name: MathName, dtype: DType, target: Target) -> None:
    x = _specials(dtype)
    got = apply(name, target, _padded(x))[: x.size]
    wide = np.array([_expected(name, float(v)) for v in x])
    with np.errstate(over="ignore"):
        expected = wide.astype(dtype.dtype)
    exact = ~np.isfinite(expected) | (expected == 0)
    np.testing.assert_array_equal(got[exact], expected[exact])
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])
    off = np.abs(got[~exact].astype(np.float64) - wide[~exact])
    with np.errstate(over="ignore"):  # what is above the largest number
        place = np.spacing(np.abs(expected[~exact]))
    assert (off <= bound(name, dtype, target) * place).all()


@on_all_targets
@on_both_formats
def test_pow_has_all_special_cases_of_c99(dtype: DType, target: Target) -> None:
    special = _specials(dtype)
    x, y = (_padded(np.ascontiguousarray(g.ravel()), 1) for g in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), y.astype(np.float64)).astype(dtype.dtype)
    got = apply("pow", target, x, y)
    exact = ~np.isfinite(expected) | (expected == 0)
    np.testing.assert_array_equal(got[exact], expected[exact])
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])
    np.testing.assert_array_max_ulp(got[~exact], expected[~exact], 4)


@on_all_targets
@on_both_formats
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_huge_arguments_keep_all_digits(name: MathName, dtype: DType, target: Target) -> None:
    rng = np.random.default_rng(5)
    top = np.log2(np.finfo(dtype.dtype).max)
    x = (rng.uniform(1, 2, 512) * 2.0 ** rng.integers(15, int(top), 512)).astype(dtype.dtype)
    # The float64 that comes closest to a multiple of pi/2 of all.
    x[0] = 6381956970095103.0 * 2.0**797 if dtype is float64 else 16367173.0 * 2.0**72
    x[1::2] *= -1
    got = apply(name, target, x)
    fn = getattr(mpmath, name)
    with mpmath.workdps(400):
        exact = [fn(mpmath.mpf(float(v))) for v in x]
        # mpmath's precision is relative to what it sums: 400 digits hold the largest float64.
        wide = np.array([float(e) for e in exact])
    off = np.abs(got.astype(np.longdouble) - wide.astype(np.longdouble))
    assert (off <= bound(name, dtype, target) * np.spacing(np.abs(wide.astype(dtype.dtype)))).all()


@on_all_targets
@on_both_formats
def test_results_stay_inside_the_functions_range(dtype: DType, target: Target) -> None:
    rng = np.random.default_rng(1)
    peaks = np.pi / 2 * rng.integers(-40, 40, 65536) + rng.normal(size=65536) * 1e-3
    for name in ("sin", "cos"):
        assert np.abs(apply(name, target, peaks.astype(dtype.dtype))).max() <= 1
    x = np.linspace(-40, 40, 65536).astype(dtype.dtype)
    for name in ("tanh", "erf"):
        assert np.abs(apply(name, target, x)).max() <= 1
    sigmoid = apply("sigmoid", target, x)
    assert sigmoid.min() >= 0
    assert sigmoid.max() <= 1


@on_all_targets
@on_both_formats
@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", 0, 1), ("exp2", 0, 1), ("exp2", 10, 1024), ("exp2", -3, 0.125), ("cos", 0, 1),
        ("log", 1, 0), ("log2", 1, 0), ("log2", 1024, 10), ("log2", 0.125, -3), ("sigmoid", 0, 0.5),
    ],
)  # fmt: skip
def test_what_is_exact_comes_out_exact(
    name: MathName, x: float, y: float, dtype: DType, target: Target
) -> None:
    assert apply(name, target, np.full(64, x, dtype.dtype)).tolist() == [y] * 64


@on_all_targets
@on_both_formats
def test_whole_powers_of_small_integers_are_exact(dtype: DType, target: Target) -> None:
    bases = np.tile(np.arange(-8, 8, dtype=dtype.dtype), 8)
    powers = np.repeat(np.arange(8, dtype=dtype.dtype), 16)
    np.testing.assert_array_equal(apply("pow", target, bases, powers), bases**powers)


@on_all_targets
@on_both_formats
@pytest.mark.parametrize("name", _UNARY)
def test_code_of_any_width_keeps_the_bound(name: MathName, dtype: DType, target: Target) -> None:
    x = inputs(name, dtype, 4096, seed=1)[0]
    expected = apply(name, target, x)
    for lanes in (1, 2 * target.lanes(dtype)):
        got = run(target, lanes, lambda s, a: s.math(name, a), dtype, x)
        # Scaling by 2^n rounds subnormal results once or twice, as the instructions allow.
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        numbers = np.isfinite(expected)
        np.testing.assert_array_max_ulp(got[numbers], expected[numbers], 1)


@pytest.mark.parametrize("name", _FUNCTIONS)
@pytest.mark.parametrize("family", NAMES)
@on_both_formats
def test_every_family_gets_vector_code_without_library_calls(
    name: MathName, family: str, dtype: DType
) -> None:
    target = named(family)
    module = Module(target)
    w = module.function("f", I64, [(PTR, "x")])
    s = LlvmScalarOps(w, target.lanes(dtype))
    x = s.element(w.load(vec(register_type(dtype), s.lanes), w.args[0]), dtype)
    result = s.math(name, x, x) if name == "pow" else s.math(name, x)
    w.store(result.val, w.args[0])
    w.ret(0)
    calls = [
        line.split()[-1].partition("@")[0]
        for line in assembly(str(module), target).splitlines()
        if line.split()[:1] and line.split()[0] in ("call", "callq", "bl", "jmp")
    ]
    library = [c for c in calls if not c.startswith((".L", "treadle.", '"treadle.', "_treadle."))]
    assert library == []
