"""Element operations as compiled: total, and NumPy's where NumPy defines them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from vector_kernels import TARGETS, run

from treadle.codegen.scalar_llvm import Element, LlvmScalarOps
from treadle.codegen.target import Target
from treadle.ir.op import NO_ATTRS, get_op
from treadle.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)

Array = npt.NDArray[Any]

_SPECIAL = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.5,
    1e-40,
    -1e-310,
    np.inf,
    -np.inf,
    np.nan,
    3e9,
    -3e9,
]
_SPECIAL += [1e30, -1e30, 255.7, 256.0, -1.0, 2.0**31, 2.0**63, -(2.0**63), 1.8446744073709552e19]

pytestmark = pytest.mark.parametrize("target", TARGETS)


def _floats(dtype: DType, seed: int = 0) -> Array:
    """512 numbers: special ones, all magnitudes, halves of integers."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=200) * 10.0 ** rng.uniform(-30, 30, 200)
    halves = np.rint(rng.normal(size=512 - 200 - len(_SPECIAL)) * 20) / 2
    with np.errstate(over="ignore"):
        return rng.permutation(np.concatenate([_SPECIAL, wide, halves])).astype(dtype.dtype)


def _integers(dtype: DType, seed: int = 0) -> Array:
    """512 numbers: small ones, extreme ones, any."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype.dtype)
    edges = np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], dtype.dtype)
    small = rng.integers(0 if info.min == 0 else -9, 9, 240, dtype.dtype)
    anything = rng.integers(info.min, info.max, 240, dtype.dtype, endpoint=True)
    return rng.permutation(np.concatenate([edges.repeat(4), small, anything, edges[:4], edges[2:]]))


def _values(dtype: DType, seed: int = 0) -> Array:
    if dtype is bool_:
        return np.random.default_rng(seed).random(512) < 0.5
    return _floats(dtype, seed)[:512] if dtype.is_float else _integers(dtype, seed)[:512]


def _same(got: Array, expected: Array) -> None:
    """Equal, the signs of zeros included."""
    np.testing.assert_array_equal(got, expected)
    if expected.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


def _widths(target: Target, dtype: DType) -> list[int]:
    """Scalar code, the target's own width, and twice that."""
    return [1, target.lanes(dtype), 2 * target.lanes(dtype)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "rint", "abs", "neg", "sqrt"])
def test_unary_float_operations_are_numpys(target: Target, dtype: DType, name: str) -> None:
    x = _floats(dtype)
    reference = {"neg": np.negative}.get(name) or getattr(np, name)
    with np.errstate(invalid="ignore"):
        expected = reference(x)
    for lanes in _widths(target, dtype):
        got = run(target, lanes, lambda s, a: getattr(s, name)(a), dtype, x)
        _same(got, expected)


_BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "copysign": np.copysign, "fmod": np.fmod,
}  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", _BINARY)
def test_binary_float_operations_are_numpys(target: Target, dtype: DType, name: str) -> None:
    x, y = _floats(dtype), _floats(dtype, 1)
    with np.errstate(all="ignore"):
        expected = _BINARY[name](x, y)
    for lanes in _widths(target, dtype):
        _same(run(target, lanes, lambda s, a, b: getattr(s, name)(a, b), dtype, x, y), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25, 3.4e38])
def test_fmod_is_exact_for_any_ratio(target: Target, scale: float) -> None:
    rng = np.random.default_rng(3)
    x = (rng.uniform(-1, 1, 4096) * scale).astype(np.float32)
    y = rng.uniform(-1, 1, 4096) * 10.0 ** rng.uniform(-44, 5, 4096)
    y = y.astype(np.float32)
    with np.errstate(invalid="ignore"):
        expected = np.fmod(x, y)
    lanes = target.lanes(float32)
    _same(run(target, lanes, lambda s, a, b: s.fmod(a, b), float32, x, y), expected)


def _pairs(dtype: DType) -> tuple[Array, Array]:
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40], dtype.dtype)
    x, y = (np.ascontiguousarray(g.ravel()) for g in np.meshgrid(special, special))
    return x, y


def _maximum(x: Array, y: Array, largest: bool) -> Array:
    """IEEE 754-2019: NaN wins, and +0 is above -0."""
    pick = np.maximum if largest else np.minimum
    result = pick(x, y)
    zeros = (x == 0) & (y == 0)
    either = np.signbit(x) & np.signbit(y) if largest else np.signbit(x) | np.signbit(y)
    return np.where(zeros, np.where(either, -0.0, 0.0), result).astype(x.dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_maximum_and_minimum_order_zeros_and_keep_nan(target: Target, dtype: DType) -> None:
    x, y = _pairs(dtype)
    for lanes in sorted({1, 2, 4, 8, *_widths(target, dtype)}):
        got = run(target, lanes, lambda s, a, b: s.maximum(a, b), dtype, x, y)
        _same(got, _maximum(x, y, True))
        got = run(target, lanes, lambda s, a, b: s.minimum(a, b), dtype, x, y)
        _same(got, _maximum(x, y, False))


@pytest.mark.parametrize("bound", [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_extreme_with_a_constant_is_the_same_function(
    target: Target, bound: float, swapped: bool
) -> None:
    x = _pairs(float32)[0]
    for largest, name in ((True, "maximum"), (False, "minimum")):

        def write(s: LlvmScalarOps, a: Element, name: str = name) -> Element:
            c = s.const(bound, float32)
            return getattr(s, name)(c, a) if swapped else getattr(s, name)(a, c)  # type: ignore[no-any-return]

        got = run(target, target.lanes(float32), write, float32, x)
        _same(got, _maximum(x, np.full_like(x, bound), largest))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_division_rounds_down_and_is_total(target: Target, dtype: DType) -> None:
    x, y = _integers(dtype), _integers(dtype, 1)
    with np.errstate(all="ignore"):
        quotient = np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(dtype.dtype)
    info = np.iinfo(dtype.dtype)
    if info.min < 0:
        overflow = (x == info.min) & (y == -1)
        quotient = np.where(overflow, info.min, quotient)
    with np.errstate(over="ignore"):
        rest = np.where(y == 0, 0, x - quotient * y).astype(dtype.dtype)
    for lanes in _widths(target, dtype):
        got = run(target, lanes, lambda s, a, b: s.int_div(a, b), dtype, x, y)
        np.testing.assert_array_equal(got, quotient)
        got = run(target, lanes, lambda s, a, b: s.int_rem(a, b), dtype, x, y)
        np.testing.assert_array_equal(got, rest)


_INTEGER: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "and_": np.bitwise_and, "or_": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", _INTEGER)
def test_binary_integer_operations_wrap_as_numpys(target: Target, dtype: DType, name: str) -> None:
    x, y = _integers(dtype), _integers(dtype, 1)
    expected = _INTEGER[name](x, y)
    for lanes in _widths(target, dtype):
        got = run(target, lanes, lambda s, a, b: getattr(s, name)(a, b), dtype, x, y)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", ["neg", "abs", "not_"])
def test_unary_integer_operations_wrap_as_numpys(target: Target, dtype: DType, name: str) -> None:
    x = _integers(dtype)
    reference = {"neg": np.negative, "abs": np.abs, "not_": np.invert}[name]
    with np.errstate(over="ignore"):
        expected = reference(x)
    got = run(target, target.lanes(dtype), lambda s, a: getattr(s, name)(a), dtype, x)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_shift_out_of_range_is_an_infinite_shift(target: Target, dtype: DType) -> None:
    x = _integers(dtype)
    y = np.resize(np.array([0, 1, 3, 7, 8, 31, 32, 63, 64, 200], np.int64), x.shape)
    if dtype.kind == "i":
        y = np.where(np.arange(y.size) % 5 == 4, -y, y)
    y = y.astype(dtype.dtype)
    big = [int(v) for v in x]
    amounts = [int(v) for v in y]
    inside = [0 <= n < dtype.bits for n in amounts]
    left = [v << n if ok else 0 for v, n, ok in zip(big, amounts, inside, strict=True)]
    right = [v >> (n if ok else 64) for v, n, ok in zip(big, amounts, inside, strict=True)]
    wrapped = np.array([v % 2**dtype.bits for v in left], np.uint64).astype(dtype.dtype)
    for lanes in (1, target.lanes(dtype)):
        got = run(target, lanes, lambda s, a, b: s.shift_left(a, b), dtype, x, y)
        np.testing.assert_array_equal(got, wrapped)
        got = run(target, lanes, lambda s, a, b: s.shift_right(a, b), dtype, x, y)
        np.testing.assert_array_equal(got, np.array(right, dtype.dtype))


@pytest.mark.parametrize("how", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_comparisons_are_numpys(target: Target, dtype: DType, how: Any) -> None:
    x, y = _values(dtype), _values(dtype, 1)
    y = np.where(np.arange(y.size) % 3 == 0, x, y)
    got = run(target, target.lanes(float32), lambda s, a, b: s.compare(how, a, b), bool_, x, y)
    np.testing.assert_array_equal(got, getattr(operator, how)(x, y))


def _cast(x: Array, dtype: DType) -> Array:
    """The documented cast: floats saturate and NaN is 0, integers wrap."""
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        with np.errstate(over="ignore"):
            return (x != 0) if dtype is bool_ else x.astype(dtype.dtype)
    info = np.iinfo(dtype.dtype)
    result = []
    for v in x.tolist():
        whole = 0 if v != v else v
        whole = info.max if whole >= info.max else info.min if whole <= info.min else int(whole)
        result.append(whole)
    return np.array(result, dtype.dtype)


@pytest.mark.parametrize("new", DTYPES, ids=str)
@pytest.mark.parametrize("old", DTYPES, ids=str)
def test_casts_are_total(target: Target, old: DType, new: DType) -> None:
    x = _values(old)
    for lanes in (1, target.lanes(float32)):
        _same(run(target, lanes, lambda s, a: s.cast(a, new), new, x), _cast(x, new))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_select_takes_each_lane_by_its_own_condition(target: Target, dtype: DType) -> None:
    x, y, c = _values(dtype), _values(dtype, 1), _values(bool_, 2)
    got = run(target, target.lanes(float32), lambda s, *e: s.select(*e), dtype, c, x, y)
    _same(got, np.where(c, x, y))


def test_bools_compute_logic(target: Target) -> None:
    x, y = _values(bool_), _values(bool_, 1)
    pairs: dict[str, Array] = {"and_": x & y, "or_": x | y, "xor": x ^ y, "maximum": x | y}
    for name, expected in pairs.items():
        got = run(target, 16, lambda s, a, b, n=name: getattr(s, n)(a, b), bool_, x, y)
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(run(target, 16, lambda s, a: s.not_(a), bool_, x), ~x)


def test_uniform_elements_meet_vectors(target: Target) -> None:
    x = _floats(float32)

    def write(s: LlvmScalarOps, a: Element) -> Element:
        two = s.add(s.const(1, float32), s.const(1, float32))
        assert two.is_uniform
        half = s.div(s.const(1, float32), two)
        positive = s.compare("gt", two, half)
        return s.select(positive, s.mul(two, a), s.const(7, float32))

    _same(run(target, target.lanes(float32), write, float32, x), 2 * x)


def test_a_product_and_a_sum_are_not_contracted_unless_asked(target: Target) -> None:
    x = np.full(64, 1 + 2.0**-12, np.float32)

    def write(s: LlvmScalarOps, a: Element) -> Element:
        return s.sub(s.mul(a, a), s.mul(a, a))

    got = run(target, target.lanes(float32), write, float32, x)
    np.testing.assert_array_equal(got, np.zeros(64, np.float32))


@pytest.mark.parametrize("dtype", [int32, int64, uint8, uint32], ids=str)
@pytest.mark.parametrize("wrap", [False, True])
def test_an_element_as_an_index_is_wrapped_checked_and_clamped(
    target: Target, dtype: DType, wrap: bool
) -> None:
    size = 100
    x = _integers(dtype)
    faults = []

    def write(s: LlvmScalarOps, a: Element) -> Element:
        return s.from_index(s.index_of(a, size, wrap, "index"), int64)

    got = run(
        target, target.lanes(float32), write, int64, x, on_fault=lambda *seen: faults.append(seen)
    )
    values = [int(v) for v in x]
    values = [v + size if wrap and v < 0 else v for v in values]
    np.testing.assert_array_equal(got, np.clip(np.array(values, object), 0, size - 1).astype("i8"))
    assert [f[0] for f in faults] == ["index"]


def test_the_fault_hook_sees_the_lanes_out_of_range(target: Target) -> None:
    x = np.array([0, 9, 10, -10, -11, 2**31 - 1, -(2**31), 5] * 8, np.int32)
    lanes = target.lanes(float32)

    def write(s: LlvmScalarOps, a: Element) -> Element:
        seen: list[Element] = []
        s.on_fault = lambda text, bad, value: seen.append(s.element(bad, bool_))
        s.index_of(a, 10, True, "index")
        return seen[0]

    got = run(target, lanes, write, bool_, x)
    np.testing.assert_array_equal(got, (x < -10) | (x >= 10))


def test_float64_uniform_maths_is_scalar_code(target: Target) -> None:
    x = _floats(float64)

    def write(s: LlvmScalarOps, a: Element) -> Element:
        return s.mul(a, s.math("exp", s.const(0, float64)))

    _same(run(target, target.lanes(float64), write, float64, x), x)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_seldom_holds_is_computed_for_any_lane_in_which_it_does(
    dtype: DType, lanes: int, target: Target
) -> None:
    """One lane, whichever, all lanes, or none; the others keep their value."""
    width = 16
    x = np.arange(1, (width + 2) * width + 1).astype(dtype.dtype).reshape(width + 2, width)
    x[np.arange(width), np.arange(width)] *= -1
    x[width] *= -1

    def fn(s: LlvmScalarOps, x: Element) -> Element:
        zero = s.const(0.0, dtype)
        return s.seldom(s.compare("lt", x, zero), lambda: s.mul(x, s.const(8.0, dtype)), x)

    got = run(target, lanes, fn, dtype, x.ravel()).reshape(x.shape)
    np.testing.assert_array_equal(got, np.where(x < 0, x * 8, x))


@pytest.mark.parametrize("uniform", ["cond", "then", "both"])
def test_what_seldom_holds_may_be_the_same_in_all_lanes(uniform: str, target: Target) -> None:
    x = np.arange(-32, 32, dtype=np.float32)

    def fn(s: LlvmScalarOps, x: Element) -> Element:
        one, two = s.const(1.0, float32), s.const(2.0, float32)
        cond = s.compare("lt", one, two) if uniform != "then" else s.compare("lt", x, one)
        return s.seldom(cond, lambda: s.mul(x, two) if uniform == "cond" else two, x)

    want = {"cond": x * 2, "then": np.where(x < 1, 2, x), "both": np.full_like(x, 2)}[uniform]
    np.testing.assert_array_equal(run(target, 4, fn, float32, x), want)


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("name", ["chain", "chain_both"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_chain_rules_product_drops_its_nan_in_one_lane_alone(
    dtype: DType, name: str, lanes: int, target: Target
) -> None:
    op = get_op(name)
    special = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan], dtype.dtype)
    x, y = (v.ravel() for v in np.meshgrid(special, special))
    left, right = (np.full((len(x), 16), 3.0, dtype.dtype) for _ in range(2))
    for k in range(len(x)):
        left[k, k % 16], right[k, k % 16] = x[k], y[k]

    def fn(s: LlvmScalarOps, a: Element, b: Element) -> Element:
        found: Element = op.lower.fn(s, NO_ATTRS, a, b)  # type: ignore[union-attr]
        return found

    got = run(target, lanes, fn, dtype, left.ravel(), right.ravel()).reshape(left.shape)
    with np.errstate(invalid="ignore"):
        want = op.ref(NO_ATTRS, left, right)
    np.testing.assert_array_equal(got, want)
    is_number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[is_number]), np.signbit(want[is_number]))
