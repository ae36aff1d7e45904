"""The array functions of elements, reductions and networks against NumPy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from treadle.ir.errors import ArgumentError, DTypeError, IndexFault, ShapeError, TreadleError
from treadle.tracer import api
from treadle.tracer.create import tensor
from treadle.tracer.tensor import Tensor

X = np.linspace(-2.5, 2.5, 12, dtype=np.float32).reshape(3, 4)
Y = np.array([0.5, -1.5, 2, 3], np.float32)
INTS = np.array([[7, -3, 0], [5, 2, -9]], np.int32)

UNARY: dict[str, Any] = {
    "abs": np.abs, "negative": np.negative, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "round": np.round, "exp": np.exp, "expm1": np.expm1, "exp2": np.exp2,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "square": np.square, "positive": np.positive,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "reciprocal": np.reciprocal,
    "logical_not": np.logical_not, "sqrt": np.sqrt, "log": np.log, "log2": np.log2,
    "log1p": np.log1p, "relu": lambda x: np.maximum(x, 0),
    "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)), "silu": lambda x: x / (1 + np.exp(-x)),
}  # fmt: skip

BINARY: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "floor_divide": np.floor_divide, "remainder": np.remainder, "maximum": np.maximum,
    "minimum": np.minimum, "copysign": np.copysign, "equal": np.equal, "not_equal": np.not_equal,
    "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and,
    "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}  # fmt: skip


def close(found: Tensor, expected: Any) -> None:
    """Equal to NumPy's float64 result to float32's precision, of float32 or of an exact dtype."""
    np.testing.assert_allclose(found.numpy(), expected, rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("wrap", [tensor, np.asarray], ids=["tensor", "array"])
def test_functions_of_one_operand(name: str, wrap: Any) -> None:
    with np.errstate(all="ignore"):
        expected = UNARY[name](X.astype(np.float64))
    found = getattr(api, name)(wrap(X))
    assert found.dtype.name == ("bool" if expected.dtype == bool else "float32")
    close(found, expected)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("other", [Y, X, 2, 1.5, np.float64(0.5)], ids=lambda y: type(y).__name__)
def test_functions_of_two_operands(name: str, other: Any) -> None:
    function = getattr(api, name)
    close(function(tensor(X), other), BINARY[name](X, other))
    close(function(other, tensor(X)), BINARY[name](other, X))
    assert function(X, other).dtype.name in ("float32", "bool")


@pytest.mark.parametrize("name", ["add", "multiply", "floor_divide", "remainder", "maximum"])
def test_integers_stay_integers_and_division_by_zero_is_zero(name: str) -> None:
    with np.errstate(all="ignore"):
        expected = BINARY[name](INTS, INTS[::-1])
    found = getattr(api, name)(tensor(INTS), tensor(INTS[::-1].copy()))
    assert found.dtype.name == "int32"
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("name", ["exp", "sqrt", "tanh", "reciprocal", "isnan", "sigmoid"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_float_functions_of_integers_are_float32(name: str, dtype: str) -> None:
    found = getattr(api, name)(tensor([[1, 0], [1, 1]], dtype=dtype))
    assert found.dtype.name == ("bool" if name == "isnan" else "float32")


def test_true_division_of_integers_is_float32() -> None:
    found = tensor(INTS) / 2
    assert found.dtype.name == "float32"
    np.testing.assert_array_equal(found.numpy(), INTS / 2)


def test_rounding_leaves_integers_alone() -> None:
    for name in ("floor", "ceil", "trunc", "round"):
        found = getattr(api, name)(tensor(INTS))
        assert found.dtype.name == "int32"
        np.testing.assert_array_equal(found.numpy(), INTS)


def test_float64_and_promotion() -> None:
    assert (tensor(X) + tensor(Y.astype(np.float64))).dtype.name == "float64"
    assert (tensor(INTS) + 1.5).dtype.name == "float32"
    assert (tensor(INTS) + tensor(X[:1, :1])).dtype.name == "float32"
    assert api.add(1, 2).item() == 3
    assert api.exp(1.0).dtype.name == "float32"


def test_bits_and_shifts() -> None:
    a, b = np.array([12, 10, -7], np.int32), np.array([10, 3, 1], np.int32)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        found = getattr(api, name)(tensor(a), tensor(b))
        np.testing.assert_array_equal(found.numpy(), getattr(np, name)(a, b))
    np.testing.assert_array_equal(api.bitwise_invert(tensor(a)).numpy(), ~a)
    np.testing.assert_array_equal(api.bitwise_left_shift(tensor(a), 3).numpy(), a << 3)
    np.testing.assert_array_equal(api.bitwise_right_shift(tensor(a), 40).numpy(), [0, 0, -1])
    np.testing.assert_array_equal((~tensor([True, False])).numpy(), [False, True])


def test_comparison_with_an_int_that_the_dtype_cannot_hold() -> None:
    x = tensor([0, 255], dtype="uint8")
    assert (x == -1).tolist() == [False, False]
    assert (x < 300).tolist() == [True, True]
    assert api.greater(1000, np.array([3], np.uint8)).tolist() == [True]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1.0, 2.5, -2])
def test_powers_of_floats(exponent: float) -> None:
    x = np.abs(X) + 0.5
    close(tensor(x) ** exponent, x.astype(np.float64) ** exponent)
    assert (tensor(x) ** exponent).dtype.name == "float32"


def test_powers_of_integers() -> None:
    np.testing.assert_array_equal((tensor(INTS) ** 3).numpy(), INTS**3)
    np.testing.assert_array_equal((2 ** tensor([0, 3, 62])).numpy(), [1, 8, 2**62])
    close(tensor(INTS) ** 0.5, np.sqrt(INTS.astype(float), where=INTS >= 0, out=INTS * np.nan))
    with pytest.raises(DTypeError, match="has fractions; convert it to float32"):
        tensor(INTS) ** -1


def test_where_and_clip() -> None:
    np.testing.assert_array_equal(api.where(tensor(X > 0), X, 0).numpy(), np.where(X > 0, X, 0))
    np.testing.assert_array_equal(api.clip(tensor(X), -1, 1).numpy(), np.clip(X, -1, 1))
    np.testing.assert_array_equal(api.clip(tensor(X), max=Y).numpy(), np.minimum(X, Y))
    np.testing.assert_array_equal(api.clip(X).numpy(), X)
    assert api.where(True, 1, 2.5).dtype.name == "float32"
    with pytest.raises(DTypeError, match="condition of where must be bools"):
        api.where(tensor(X), X, 0)


def test_the_branch_not_taken_has_gradient_zero() -> None:
    x = tensor([-1.0, 0.0, 4.0], requires_grad=True)
    y = api.where(x > 0, api.sqrt(x) + api.log(x) + 1 / x + api.exp(100 - 1000 * x), 0)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [0, 0, 0.25 + 0.25 - 1 / 16])


def test_astype() -> None:
    x = tensor([1.7, -1.7, 300, np.nan])
    assert api.astype(x, "uint8").tolist() == [1, 0, 255, 0]
    assert api.astype(x, bool).tolist() == [True] * 4
    assert api.astype(x, "float32", copy=False) is x
    assert api.astype(x, np.float32) is not x
    with pytest.raises(DTypeError, match="float16"):
        api.astype(x, np.float16)


# --- reductions --------------------------------------------------------------------------------

AXES = [None, 0, 1, -1, (0, 2), (2, -2), (), [1]]


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min", "any", "all", "var", "std"])
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    x = np.cos(np.arange(24, dtype=np.float32)).reshape(2, 3, 4)
    axes = tuple(axis) if isinstance(axis, list) else axis
    expected = getattr(np, name)(x.astype(np.float64), axis=axes, keepdims=keepdims)
    found = getattr(api, name)(tensor(x), axis=axis, keepdims=keepdims)
    assert found.shape == expected.shape
    assert found.dtype.name == ("bool" if name in ("any", "all") else "float32")
    close(found, expected)
    close(getattr(tensor(x), name)(axis=axis, keepdims=keepdims), expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint32", "int32", "int64"])
def test_integers_are_summed_in_int64(dtype: str) -> None:
    x = tensor(np.full((40, 10), 1 if dtype == "bool" else 120).astype(dtype))
    for name in ("sum", "cumulative_sum"):
        found = getattr(api, name)(x, axis=0)
        assert found.dtype.name == "int64"
        assert int(found.numpy().max()) == 40 * (1 if dtype == "bool" else 120)
    assert api.prod(x, axis=1).dtype.name == "int64"
    assert api.sum(x, dtype="float32").dtype.name == "float32"
    assert api.mean(x).dtype.name == "float32"
    assert api.var(x).item() == 0


def test_variance_with_a_correction() -> None:
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    close(api.var(tensor(x), axis=1, correction=1), x.var(axis=1, ddof=1))
    close(api.std(tensor(x), correction=1), x.std(ddof=1))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("keepdims", [False, True])
def test_positions_of_extremes(name: str, axis: Any, keepdims: bool) -> None:
    x = np.round(np.cos(np.arange(12)) * 3).reshape(3, 4)
    found = getattr(api, name)(tensor(x), axis=axis, keepdims=keepdims)
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    assert found.dtype.name == "int64"
    np.testing.assert_array_equal(found.numpy(), expected)


def test_running_sums() -> None:
    np.testing.assert_allclose(
        api.cumulative_sum(tensor(X), axis=1).numpy(), np.cumsum(X, axis=1), rtol=1e-6
    )
    assert api.cumsum(tensor([1, 2, 3])).tolist() == [1, 3, 6]
    assert api.cumulative_sum(tensor([1, 2]), include_initial=True).tolist() == [0, 1, 3]
    with pytest.raises(ShapeError, match="rank 2 needs an axis"):
        api.cumulative_sum(tensor(X))


def test_count_nonzero() -> None:
    assert api.count_nonzero(tensor(INTS), axis=1).tolist() == [2, 3]


def test_reductions_of_nothing() -> None:
    x = tensor(np.zeros((3, 0), np.float32))
    assert api.sum(x, axis=1).tolist() == [0, 0, 0]
    assert api.all(x).item() is True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(api.mean(x).item())
    with pytest.raises(ShapeError, match="max of no elements"):
        api.max(x)
    with pytest.raises(ShapeError, match="argmin of no elements"):
        api.argmin(x)


# --- networks ----------------------------------------------------------------------------------


def test_softmax_family() -> None:
    e = np.exp(X.astype(np.float64))
    close(api.softmax(tensor(X)), e / e.sum(-1, keepdims=True))
    close(api.softmax(tensor(X), axis=0), e / e.sum(0))
    close(api.log_softmax(X), np.log(e / e.sum(-1, keepdims=True)))
    close(api.logsumexp(X), np.log(e.sum()))
    close(api.logsumexp(X, axis=0, keepdims=True), np.log(e.sum(0, keepdims=True)))
    x = np.sin(np.arange(24.0)).reshape(2, 3, 4)
    for axis in [(0, 2), (1, 2), None, 1]:
        for keep in (False, True):
            expected = np.log(np.exp(x).sum(axis=axis, keepdims=keep))
            close(api.logsumexp(tensor(x), axis=axis, keepdims=keep), expected)


def test_gelu_forms() -> None:
    from math import erf, pi, sqrt, tanh

    exact = [[v * (1 + erf(v / sqrt(2))) / 2 for v in row] for row in X.tolist()]
    close(api.gelu(X), exact)
    curve = [
        [v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 * v**3))) for v in row]
        for row in X.tolist()
    ]
    close(api.gelu(tensor(X), approximate="tanh"), curve)
    with pytest.raises(ArgumentError, match="did you mean 'tanh'"):
        api.gelu(X, approximate="tan")  # type: ignore[arg-type]


def test_erf_and_its_inverse() -> None:
    close(api.erfinv(api.erf(tensor(X, dtype="float64"))), X)


def test_layer_norm() -> None:
    x = np.sin(np.arange(24.0)).reshape(2, 3, 4)
    w, b = np.arange(12.0).reshape(3, 4), np.ones((3, 4))
    flat = x.reshape(2, 12)
    off = flat - flat.mean(1, keepdims=True)
    expected = (off / np.sqrt(flat.var(1, keepdims=True) + 1e-5)).reshape(x.shape)
    close(api.layer_norm(tensor(x), (3, 4)), expected)
    close(api.layer_norm(tensor(x), [3, 4], tensor(w), tensor(b)), expected * w + b)
    assert api.layer_norm(tensor(X), 4, weight=Y).dtype.name == "float32"
    for shape in [(4, 3), (2, 3, 4, 1), 3, ()]:
        with pytest.raises(ShapeError, match="layer_norm over"):
            api.layer_norm(tensor(x), shape)
    with pytest.raises(ShapeError, match=r"weight of layer_norm must have shape \(4,\)"):
        api.layer_norm(tensor(x), 4, weight=tensor(w))


def test_one_hot() -> None:
    found = api.one_hot(tensor([1, 0, 5]), 3)
    assert found.dtype.name == "float32"
    assert found.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert api.one_hot(2, 3, dtype="int64").tolist() == [0, 0, 1]
    for classes in (3.0, True, "3"):
        with pytest.raises(DTypeError, match="num_classes must be an int"):
            api.one_hot(tensor([1]), classes)  # type: ignore[arg-type]


def test_cross_entropy() -> None:
    labels = np.array([0, 3, 1])
    logp = X - np.log(np.exp(X.astype(np.float64)).sum(-1, keepdims=True))
    rows = -logp[np.arange(3), labels]
    close(api.cross_entropy(tensor(X), tensor(labels)), rows.mean())
    close(api.cross_entropy(X, labels, reduction="sum"), rows.sum())
    close(api.cross_entropy(X, labels, "none"), rows)
    with pytest.raises(IndexFault, match=r"found 4 \(at .*test_api_math.py"):
        api.cross_entropy(X, np.array([0, 4, 1]))
    with pytest.raises(ArgumentError, match="did you mean 'mean'"):
        api.cross_entropy(X, labels, reduction="man")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="one label a row"):
        api.cross_entropy(X, labels[:2])
    with pytest.raises(DTypeError, match="labels of cross_entropy must be integers"):
        api.cross_entropy(X, X)


def test_gradients_of_network_functions() -> None:
    x = tensor(X, requires_grad=True)
    api.cross_entropy(x, np.array([0, 3, 1])).backward()
    p = np.exp(X) / np.exp(X).sum(-1, keepdims=True)
    p[np.arange(3), [0, 3, 1]] -= 1
    assert x.grad is not None
    close(x.grad, p / 3)


# --- bad input ---------------------------------------------------------------------------------

BAD: list[tuple[Any, type[TreadleError], str]] = [
    (lambda x: api.sum(x, axis=2), ShapeError, "axis 2 is out of range for a tensor of rank 2"),
    (lambda x: api.mean(x, axis=(0, -2)), ShapeError, "name an axis twice"),
    (lambda x: api.max(x, axis=0.5), DTypeError, "axis must be an int, found float"),
    (lambda x: api.softmax(x, axis=None), DTypeError, "axis must be an int, found NoneType"),
    (lambda x: api.argmax(x, axis=-3), ShapeError, "axis -3 is out of range"),
    (lambda x: api.exp("one"), DTypeError, "found str 'one'"),
    (lambda x: api.add(x, [1, 2]), DTypeError, "found list.*treadle.tensor"),
    (lambda x: api.add(x, None), DTypeError, "found NoneType"),
    (lambda x: api.add(x, np.array(["a"])), DTypeError, "is not supported"),
    (lambda x: api.multiply(x, np.ones(3, np.float32)), ShapeError, "do not broadcast"),
    (lambda x: api.max(x > 0), DTypeError, "max takes numeric tensors.*found bool"),
    (lambda x: api.add(x > 0, x < 1), DTypeError, "add takes numeric tensors.*found bool"),
    (lambda x: api.bitwise_and(x, x), DTypeError, "bool or integer tensors, found f32"),
    (lambda x: api.floor(x > 0), DTypeError, "expected numbers, found bool"),
    (lambda x: api.add(tensor([1], dtype="uint8"), 256), DTypeError, "256 does not fit uint8"),
    (lambda x: api.sum(x, dtype="float128"), DTypeError, "float128"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_told_with_the_line(call: Any, error: type[Exception], message: str) -> None:
    x = tensor(X)
    with pytest.raises(error, match=message) as caught:
        call(x)
    assert "test_api_math.py:" in str(caught.value)
    assert str(caught.value).count("(at ") == 1
    np.testing.assert_array_equal(x.numpy(), X)


@given(
    st.lists(st.floats(-1e6, 1e6, width=64), min_size=1, max_size=12),
    st.sampled_from(["sum", "mean", "max", "min", "var", "prod"]),
)
def test_reductions_follow_numpy_on_any_values(values: list[float], name: str) -> None:
    x = np.array(values)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    found = getattr(api, name)(tensor(x)).item()
    scale = np.abs(x).max() ** (2 if name == "var" else 1)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale * x.size)
