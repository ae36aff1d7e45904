"""What ops promise for the inputs that formulas alone get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from treadle.ir.errors import DTypeError, GradientError, IndexFault, ShapeError
from treadle.ir.eval_ops import NumpyOps
from treadle.ir.op import get_op
from treadle.ir.ops.cast import cast_array
from treadle.ir.types import (
    DTYPES,
    INTEGERS,
    Dim,
    TensorType,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)  # fmt: skip

O = NumpyOps()  # noqa: E741  what rules call it
INF, NAN = np.inf, np.nan


def ref(name: str, *args: Any, **attrs: Any) -> np.ndarray:
    op = get_op(name)
    (found,) = op.run_ref(op.attrs(**attrs), [np.asarray(a) for a in args])
    return found


def expanded(name: str, *args: Any, **attrs: Any) -> np.ndarray:
    op = get_op(name)
    assert op.expand is not None
    with np.errstate(all="ignore"):
        return np.asarray(op.expand(O, op.attrs(**attrs), *(np.asarray(a) for a in args)))


def gradient(name: str, ct: Any, *args: Any, **attrs: Any) -> tuple[Any, ...]:
    op = get_op(name)
    arrays = [np.asarray(a) for a in args]
    outs = op.run_ref(op.attrs(**attrs), arrays)
    assert callable(op.vjp)
    found = op.vjp(O, op.attrs(**attrs), arrays, outs, (np.broadcast_to(ct, outs[0].shape),))
    return tuple(found)


# --- rows that are infinite, masked or not numbers ---------------------------------------------

HARD = np.array(
    [[-INF, -INF, -INF], [INF, 1, INF], [NAN, 0, 1], [1e38, -1e38, 3e38], [-INF, 2, 2]], np.float32
)


@pytest.mark.parametrize("run", [ref, expanded])
def test_softmax_conventions(run: Any) -> None:
    third = [[0, 0, 0], [0.5, 0, 0.5], [NAN, NAN, NAN], [0, 0, 1], [0, 0.5, 0.5]]
    np.testing.assert_array_equal(run("softmax", HARD, axis=1), third)
    half = -np.log(np.float32(2))
    logs = [[-INF] * 3, [half, -INF, half], [NAN] * 3, [1e38 - 3e38, -INF, 0], [-INF, half, half]]
    np.testing.assert_allclose(run("log_softmax", HARD, axis=1), np.float32(logs), rtol=1e-6)
    sums = [-INF, INF, NAN, 3e38, 2 + np.log(2)]
    np.testing.assert_allclose(run("logsumexp", HARD, axis=1), np.float32(sums), rtol=1e-6)


@pytest.mark.parametrize("run", [ref, expanded])
def test_cross_entropy_conventions(run: Any) -> None:
    labels = np.array([0, 0, 0, 0, 1])
    found = run("cross_entropy", HARD, labels)
    np.testing.assert_allclose(found, np.float32([INF, np.log(2), NAN, 2e38, np.log(2)]), rtol=1e-6)


def test_a_row_of_minus_infinity_has_gradient_zero() -> None:
    ct = np.ones((5, 3), np.float32)
    for name in ("softmax", "log_softmax"):
        (found,) = gradient(name, ct, HARD, axis=1)
        np.testing.assert_array_equal(found[0], 0)
    (found,) = gradient("logsumexp", ct[:, 0], HARD, axis=1)
    np.testing.assert_array_equal(found[0], 0)
    found, none = gradient("cross_entropy", ct[:, 0], HARD, np.zeros(5, np.int64))
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], [-0.5, 0, 0.5])
    assert none is None


@given(
    st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=9),
    st.floats(-10, 10, width=32),
)
def test_softmax_sums_to_one_and_ignores_a_shift(row: list[float], shift: float) -> None:
    x = np.array([row], np.float32)
    for run in (ref, expanded):
        y = run("softmax", x, axis=1)
        np.testing.assert_allclose(y.sum(), 1, rtol=1e-6)
    z = np.float64(x) + shift
    np.testing.assert_allclose(
        ref("softmax", z, axis=1), ref("softmax", np.float64(x), axis=1), atol=1e-7
    )


@pytest.mark.parametrize("run", [ref, expanded])
@pytest.mark.parametrize("label", [3, -1, -3, 2**40])
def test_a_label_out_of_range_faults_and_names_it(run: Any, label: int) -> None:
    with pytest.raises(IndexFault, match=rf"cross_entropy: label out of range .* 3, found {label}"):
        run("cross_entropy", HARD, np.array([0, 1, label, 2, 0]))


@pytest.mark.parametrize("run", [ref, expanded])
def test_activations_of_infinity_are_their_limits(run: Any) -> None:
    x = np.array([-INF, INF, NAN], np.float32)
    for name, attrs in [("gelu", {}), ("gelu", {"approximate": True}), ("silu", {})]:
        found = run(name, x, **attrs)
        np.testing.assert_array_equal(found, [0, INF, NAN])
    np.testing.assert_array_equal(ref("relu", x), [0, INF, NAN])
    np.testing.assert_array_equal(ref("softplus", x), [0, INF, NAN])


def test_activation_gradients_are_finite_at_the_ends_of_the_range() -> None:
    x = np.array([-INF, -3e38, -1e20, 1e20, 3e38, INF], np.float32)
    for name, attrs in [("gelu", {}), ("gelu", {"approximate": True}), ("silu", {})]:
        (found,) = gradient(name, np.float32(1), x, **attrs)
        np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 1])


# --- derivatives where there is a choice -------------------------------------------------------


def test_subgradients_are_as_documented() -> None:
    zero = np.zeros(1)
    assert gradient("abs", 1.0, zero)[0] == 0
    assert gradient("relu", 1.0, zero)[0] == 0
    assert gradient("sqrt", 1.0, zero)[0] == INF
    assert gradient("maximum", 1.0, zero, zero) == (0.5, 0.5)
    assert gradient("minimum", 1.0, zero, zero) == (0.5, 0.5)
    np.testing.assert_array_equal(
        gradient("max", 1.0, [[1.0, 3, 3], [NAN, 1, NAN]], axes=(1,))[0],
        [[0, 0.5, 0.5], [0.5, 0, 0.5]],
    )


def test_powers_have_no_nan_where_the_value_is_fine() -> None:
    x = np.array([0.0, 0.0, 0.0, -2.0, -2.0, 3.0])
    y = np.array([0.0, 1.0, 2.0, 2.0, -1.0, 0.0])
    dx, dy = gradient("pow", np.ones(6), x, y)
    np.testing.assert_array_equal(dx, [0, 1, 0, -4, -0.25, 0])
    np.testing.assert_allclose(dy, [0, 0, 0, 0, 0, np.log(3)])
    assert gradient("pow", 1.0, [0.0], [0.5])[0] == INF


def test_prod_has_the_derivative_of_the_others_at_zeros() -> None:
    x = np.array([[2.0, 0, 3, 5, 7], [0, 1, 0, 2, 4], [1, 2, 3, 4, 5]])
    (found,) = gradient("prod", np.ones(3), x, axes=(1,))
    np.testing.assert_allclose(found, [[0, 210, 0, 0, 0], [0, 0, 0, 0, 0], [120, 60, 40, 30, 24]])


def test_a_guarded_singularity_stays_out_of_the_gradient() -> None:
    """d where(x > 0, f(x), 0) is 0 at 0, for every f that is singular there."""
    x = np.array([0.0, -1.0])
    for name in ("sqrt", "rsqrt", "log", "log2"):
        np.testing.assert_array_equal(gradient(name, np.zeros(2), x)[0], 0)
    huge = np.array([1e5])
    for name in ("exp", "expm1", "exp2"):
        np.testing.assert_array_equal(gradient(name, np.zeros(1), huge)[0], 0)
    for part in gradient("div", np.zeros(2), np.ones(2), np.zeros(2)):
        np.testing.assert_array_equal(part, 0)


def test_only_the_pass_computes_a_gradient() -> None:
    with pytest.raises(GradientError, match="autodiff"):
        ref("gradient", 1.0, 1.0, 1.0, outputs=1)


# --- integers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_division_is_total(dtype: Any) -> None:
    info = np.iinfo(dtype.dtype)
    x = np.array([info.max, info.min, 7], dtype.dtype)
    zero = np.zeros(3, dtype.dtype)
    np.testing.assert_array_equal(ref("floor_divide", x, zero), 0)
    np.testing.assert_array_equal(ref("remainder", x, zero), 0)
    if info.min < 0:
        minus = np.full(3, -1, dtype.dtype)
        np.testing.assert_array_equal(ref("floor_divide", x, minus), [-info.max, info.min, -7])
        np.testing.assert_array_equal(ref("remainder", x, minus), 0)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-40, 70))
def test_shifts_out_of_range_shift_everything_out(x: int, by: int) -> None:
    left = ref("shift_left", np.int32(x), np.int32(by))
    right = ref("shift_right", np.int32(x), np.int32(by))
    inside = 0 <= by < 32
    wrapped = (x << by) % 2**32 if inside else 0
    assert int(left) == wrapped - 2**32 * (wrapped >= 2**31)
    assert int(right) == (x >> by if inside else (-1 if x < 0 else 0))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-5, 40))
def test_integer_powers_wrap_and_truncate(x: int, y: int) -> None:
    found = int(ref("pow", np.int32(x), np.int32(y)))
    if y >= 0:
        expected = (x**y + 2**31) % 2**32 - 2**31
    else:
        expected = 0 if abs(x) != 1 else x ** (-y)
    assert found == expected


@given(st.floats(width=32) | st.floats(-(2.0**65), 2.0**65, width=32))
def test_casts_saturate_and_nan_is_zero(value: float) -> None:
    for dtype in (uint8, uint32, int32, int64):
        found = int(cast_array(np.float32(value).reshape(1), dtype)[0])
        info = np.iinfo(dtype.dtype)
        if np.isnan(value):
            assert found == 0
        elif np.isinf(value):
            assert found == (info.max if value > 0 else info.min)
        else:
            assert found == min(max(int(value), info.min), info.max)


def test_casts_to_bool_ask_for_zero() -> None:
    found = cast_array(np.array([NAN, 0.0, -0.0, 0.3, -INF]), DTYPES[0])
    assert found.tolist() == [True, False, False, True, True]


# --- signs of zero, NaN ------------------------------------------------------------------------


def test_maximum_prefers_plus_zero() -> None:
    plus, minus = np.array([0.0, -0.0, 0.0, -0.0]), np.array([0.0, 0.0, -0.0, -0.0])
    assert np.signbit(ref("maximum", plus, minus)).tolist() == [False, False, False, True]
    assert np.signbit(ref("minimum", plus, minus)).tolist() == [False, True, True, True]
    rows = np.array([[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0]])
    assert np.signbit(ref("max", rows, axes=(1,))).tolist() == [False, False, True]
    assert np.signbit(ref("min", rows, axes=(1,))).tolist() == [True, True, True]


def test_nan_wins_every_reduction() -> None:
    x = np.array([[1.0, NAN, 3], [NAN, NAN, -INF], [1, 2, 2]])
    np.testing.assert_array_equal(ref("max", x, axes=(1,)), [NAN, NAN, 2])
    np.testing.assert_array_equal(ref("min", x, axes=(1,)), [NAN, NAN, 1])
    np.testing.assert_array_equal(ref("argmax", x, axes=(1,)), [1, 0, 1])
    np.testing.assert_array_equal(ref("argmin", x, axes=(1,)), [1, 0, 0])


# --- type rules --------------------------------------------------------------------------------


def test_reductions_of_nothing() -> None:
    empty = TensorType(float32, (3, 0))
    for name in ("max", "min", "argmax", "argmin"):
        op = get_op(name)
        with pytest.raises(ShapeError, match=f"{name} of no elements"):
            op.infer_types(op.attrs(axes=(1,)), [empty])
    assert ref("sum", np.zeros((3, 0)), axes=(1,)).tolist() == [0, 0, 0]
    assert ref("prod", np.zeros((3, 0)), axes=(1,)).tolist() == [1, 1, 1]
    assert np.isnan(ref("mean", np.zeros((3, 0)), axes=(1,))).all()


def test_axes_are_ascending_and_in_range() -> None:
    op = get_op("sum")
    for axes in [(2,), (-1,), (1, 0), (0, 0)]:
        with pytest.raises(ShapeError, match="sum: ax"):
            op.infer_types(op.attrs(axes=axes), [TensorType(float32, (2, 3))])
    with pytest.raises(ShapeError, match="exactly one axis"):
        get_op("argmax").infer_types(
            get_op("argmax").attrs(axes=(0, 1)), [TensorType(float32, (2, 3))]
        )


def test_composites_infer_and_expand_with_a_symbolic_row_count() -> None:
    from treadle.ir.builder import Builder

    n = Dim.of("n")
    x = TensorType(float32, (n, 7))
    for name, attrs in [
        ("softmax", {"axis": 1}), ("log_softmax", {"axis": 1}), ("logsumexp", {"axis": 1}),
        ("mean", {"axes": (0,)}), ("var", {"axes": (0,), "correction": 1.0}),
        ("layer_norm", {"axes": (1,)}), ("gelu", {}), ("silu", {}),
    ]:  # fmt: skip
        op = get_op(name)
        b = Builder()
        result = op.expand(b, op.attrs(**attrs), b.param(x, "x"))  # type: ignore[misc]
        assert (result.type,) == op.infer_types(op.attrs(**attrs), [x])
    labels = TensorType(int64, (n,))
    b = Builder()
    op = get_op("cross_entropy")
    losses = op.expand(b, op.attrs(), b.param(x, "x"), b.param(labels, "y"))  # type: ignore[misc]
    assert losses.type == TensorType(float32, (n,))


def test_mismatches_name_what_was_found_and_expected() -> None:
    def infer(name: str, *types: TensorType, **attrs: Any) -> None:
        op = get_op(name)
        op.infer_types(op.attrs(**attrs), types)

    f, i = TensorType(float32, (2, 3)), TensorType(int32, (2,))
    with pytest.raises(DTypeError, match=r"exp takes float tensors.*found i32\[2\].*astype"):
        infer("exp", i)
    with pytest.raises(DTypeError, match=r"add must have one dtype, found f32\[2, 3\], f64\[2\]"):
        infer("add", f, TensorType(float64, (2,)))
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2,\) do not broadcast"):
        infer("mul", f, TensorType(float32, (2,)))
    with pytest.raises(ShapeError, match=r"one label a row, found logits \(2, 3\) and labels \(3,"):
        infer("cross_entropy", f, TensorType(int64, (3,)))
    with pytest.raises(DTypeError, match=r"labels\) takes integer tensors, found f32"):
        infer("cross_entropy", f, TensorType(float32, (2,)))
    with pytest.raises(DTypeError, match="condition of where takes bool"):
        infer("where", f, f, f)
    with pytest.raises(DTypeError, match=r"logical_and takes bool tensors, found f32\[2, 3\]"):
        infer("logical_and", f, f)
