"""Creation, manipulation and linear algebra functions against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from treadle.ir.errors import ArgumentError, DTypeError, IndexFault, ShapeError
from treadle.ir.graph import Result
from treadle.ir.interpreter import interpret
from treadle.ir.types import float32, float64, int32, int64, uint8
from treadle.tracer import api
from treadle.tracer.create import tensor
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)


def assert_same(found: Tensor, expected: Any, *, dtype: Any = None) -> None:
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype.dtype == (expected.dtype if dtype is None else dtype)
    np.testing.assert_array_equal(found.numpy(), expected)


def traced(fn: Callable[..., Tensor], *arrays: Array) -> Array:
    """`fn` recorded as a Function and interpreted."""
    with Trace("f", lambda _: None) as trace:
        args = [trace.arg(tensor(a).type, f"x{i}") for i, a in enumerate(arrays)]
        program = trace.finish([Result(trace.value_of(fn(*args)), "out")])
    (found,) = interpret(program, arrays)
    return found


def draw(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


# --- creation --------------------------------------------------------------------------------


def test_constant_tensors_have_the_default_dtypes_of_the_standard() -> None:
    assert_same(api.zeros((2, 3)), np.zeros((2, 3), np.float32))
    assert_same(api.ones(3, dtype=int32), np.ones(3, np.int32))
    assert_same(api.empty(()), np.zeros((), np.float32))
    assert_same(api.full((2,), 7), np.full(2, 7, np.int64))
    assert_same(api.full((2,), 0.5), np.full(2, 0.5, np.float32))
    assert_same(api.full((), True), np.array(True))
    assert_same(api.full((2,), 2.9, dtype=int64), np.full(2, 2))
    assert_same(api.full((2,), 0.1, dtype=float64), np.full(2, 0.1))
    assert_same(api.full((2, 2), tensor(3.0)), np.full((2, 2), 3, np.float32))


def test_like_functions_take_shape_and_dtype_from_their_operand() -> None:
    x = np.ones((2, 0, 3), np.uint8)
    for name in ("zeros_like", "ones_like"):
        assert_same(getattr(api, name)(x), getattr(np, name)(x))
    assert_same(api.full_like(x, 4), np.full_like(x, 4))
    assert_same(api.empty_like(x, dtype=float32), np.zeros(x.shape, np.float32))


def test_a_created_tensor_has_storage_of_its_own() -> None:
    value = tensor(3.0)
    for made in (api.full((), value), api.full((2,), value), api.zeros(2)):
        made += 1
    assert value.item() == 3
    assert api.zeros(2).tolist() == [0, 0]


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-7, 7).filter(bool))
def test_arange_of_ints_is_numpys(start: int, stop: int, step: int) -> None:
    assert_same(api.arange(start, stop, step), np.arange(start, stop, step))


def test_arange_and_linspace_of_floats_are_computed_in_float64() -> None:
    assert_same(api.arange(5), np.arange(5))
    assert_same(api.arange(5, dtype=float32), np.arange(5, dtype=np.float32))
    for args in ((0.0, 1.0, 0.1), (2, -1.5, -0.25), (1.0, 1.0), (0.5,)):
        assert_same(api.arange(*args), np.arange(*args).astype(np.float32))
    for args in ((0, 1, 5), (-1.5, 2.5, 7), (3, 1, 1), (0, 1, 0)):
        assert_same(api.linspace(*args), np.linspace(*args).astype(np.float32))
    assert_same(
        api.linspace(0, 1, 4, endpoint=False, dtype=float64), np.linspace(0, 1, 4, endpoint=False)
    )
    assert api.linspace(0.1, 0.7, 6, dtype=float64)[-1].item() == 0.7


@pytest.mark.parametrize("k", [-2, 0, 1, 5])
def test_matrices_with_diagonals_are_numpys(k: int) -> None:
    assert_same(api.eye(3, 4, k=k), np.eye(3, 4, k=k, dtype=np.float32))
    x = draw(2, 3, 4)
    assert_same(api.tril(x, k=k), np.tril(x, k))
    assert_same(api.triu(x, k=k), np.triu(x, k))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_meshgrid_is_numpys(indexing: Any) -> None:
    lines = [np.arange(3.0), np.arange(4.0), np.arange(2.0)]
    expected = np.meshgrid(*lines, indexing=indexing)
    for found, grid in zip(api.meshgrid(*lines, indexing=indexing), expected, strict=True):
        assert_same(found, grid)


def test_asarray_copies_only_what_is_no_tensor_of_that_dtype() -> None:
    x = tensor([1.0, 2.0])
    assert api.asarray(x) is x
    assert api.asarray(x, copy=True).cell is not x.cell
    assert_same(api.asarray([1, 2], dtype=uint8), np.array([1, 2], np.uint8))


def test_created_in_a_trace_they_are_the_same() -> None:
    x = draw(3, 3)
    np.testing.assert_array_equal(
        traced(lambda t: api.tril(t) + api.eye(3), x), np.tril(x) + np.eye(3, dtype=np.float32)
    )
    np.testing.assert_array_equal(
        traced(lambda t: api.linspace(0, 1, 3) * t + api.arange(3), x),
        np.linspace(0, 1, 3).astype(np.float32) * x + np.arange(3, dtype=np.float32),
    )


# --- manipulation ----------------------------------------------------------------------------

X = draw(2, 3, 4)

SAME_AS_NUMPY: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    ("reshape", lambda x: api.reshape(x, (3, -1)), lambda x: x.reshape(3, -1)),
    ("reshape flat", lambda x: api.reshape(x, -1), lambda x: x.reshape(-1)),
    ("permute", lambda x: api.permute_dims(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    ("permute back", lambda x: api.permute_dims(x, (-1, 1, 0)), lambda x: x.transpose(2, 1, 0)),
    ("swapaxes", lambda x: api.swapaxes(x, 0, -1), lambda x: x.swapaxes(0, -1)),
    ("matrix_transpose", api.matrix_transpose, lambda x: x.swapaxes(-1, -2)),
    ("moveaxis", lambda x: api.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    ("moveaxis 2", lambda x: api.moveaxis(x, (2, 0), (0, 1)),
     lambda x: np.moveaxis(x, (2, 0), (0, 1))),
    ("expand", lambda x: api.expand_dims(x, axis=-1), lambda x: np.expand_dims(x, -1)),
    ("expand 2", lambda x: api.expand_dims(x, axis=(0, 3)), lambda x: np.expand_dims(x, (0, 3))),
    ("squeeze", lambda x: api.squeeze(x[:1, :, :1], (0, 2)), lambda x: x[0, :, 0]),
    ("broadcast", lambda x: api.broadcast_to(x, (5, 2, 3, 4)),
     lambda x: np.broadcast_to(x, (5, 2, 3, 4))),
    ("broadcast keep", lambda x: api.broadcast_to(x[:, :1], (5, -1, 3, -1)),
     lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    ("flip", lambda x: api.flip(x, axis=(0, 2)), lambda x: np.flip(x, (0, 2))),
    ("flip all", api.flip, np.flip),
    ("concat", lambda x: api.concat([x, x[:, :1]], axis=1),
     lambda x: np.concatenate([x, x[:, :1]], 1)),
    ("concat flat", lambda x: api.concat([x, x[0]], axis=None),
     lambda x: np.concatenate([x, x[0]], None)),
    ("stack", lambda x: api.stack([x, x + 1], axis=-1), lambda x: np.stack([x, x + 1], -1)),
    ("unstack", lambda x: api.unstack(x, axis=1)[2], lambda x: x[:, 2]),
    ("split", lambda x: api.split(x, 2, axis=2)[1], lambda x: np.split(x, 2, 2)[1]),
    ("split at", lambda x: api.split(x, [1, -1], axis=2)[1], lambda x: np.split(x, [1, -1], 2)[1]),
    ("roll", lambda x: api.roll(x, 5, axis=1), lambda x: np.roll(x, 5, 1)),
    ("roll flat", lambda x: api.roll(x, -7), lambda x: np.roll(x, -7)),
    ("roll two", lambda x: api.roll(x, (1, -1), axis=(0, 2)),
     lambda x: np.roll(x, (1, -1), (0, 2))),
    ("repeat", lambda x: api.repeat(x, 3, axis=1), lambda x: np.repeat(x, 3, 1)),
    ("repeat flat", lambda x: api.repeat(x, 2), lambda x: np.repeat(x, 2)),
    ("tile", lambda x: api.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3))),
    ("tile more", lambda x: api.tile(x, (2, 1, 1, 2)), lambda x: np.tile(x, (2, 1, 1, 2))),
    ("tile fewer", lambda x: api.tile(x, 2), lambda x: np.tile(x, 2)),
    ("pad", lambda x: api.pad(x, 1), lambda x: np.pad(x, 1)),
    ("pad pairs", lambda x: api.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=-1.5),
     lambda x: np.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=-1.5)),
    ("pad both", lambda x: api.pad(x, (1, 2)), lambda x: np.pad(x, (1, 2))),
    ("take", lambda x: api.take(x, np.array([[0, -1], [2, 1]]), axis=1),
     lambda x: np.take(x, [[0, -1], [2, 1]], 1)),
    ("take flat", lambda x: api.take(x, np.array([3, -2])), lambda x: np.take(x, [3, -2])),
    ("take one", lambda x: api.take(x, np.array(1), axis=2), lambda x: np.take(x, 1, 2)),
    ("take_along_axis", lambda x: api.take_along_axis(x, np.argsort(X, 1), axis=1),
     lambda x: np.take_along_axis(x, np.argsort(X, 1), 1)),
    ("take_along_axis wide", lambda x: api.take_along_axis(x, np.array([[[1]]]), axis=1),
     lambda x: np.take_along_axis(x, np.array([[[1]]]), 1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "numpys"), [pytest.param(o, n, id=i) for i, o, n in SAME_AS_NUMPY]
)
def test_a_manipulation_is_numpys_eager_and_traced(
    ours: Callable[[Any], Any], numpys: Callable[[Any], Any]
) -> None:
    expected = numpys(X)
    assert_same(ours(tensor(X)), expected)
    np.testing.assert_array_equal(traced(ours, X), expected)


@pytest.mark.parametrize(
    "take",
    [
        lambda x: api.reshape(x, (4, 6)),
        lambda x: api.permute_dims(x, (1, 0, 2)),
        lambda x: api.matrix_transpose(x),
        lambda x: api.flip(x, axis=0),
        lambda x: api.expand_dims(x, axis=1),
        lambda x: api.split(x, 2, axis=2)[0],
        lambda x: api.unstack(x)[1],
        lambda x: api.reshape(api.permute_dims(x, (2, 0, 1)), (4, 2, 3)),
    ],
)
def test_what_only_rearranges_is_a_view(take: Callable[[Tensor], Tensor]) -> None:
    x = tensor(X)
    shown = take(x)
    shown[:] = 5.0
    assert float(api.sum(api.equal(x, 5.0))) == shown.size


def test_reshape_copies_where_it_must_or_is_told() -> None:
    x = tensor(X)
    crossed = api.permute_dims(x, (2, 1, 0))
    assert_same(api.reshape(crossed, (6, 4)), X.transpose(2, 1, 0).reshape(6, 4))
    assert api.reshape(x, (6, 4), copy=True).cell is not x.cell
    with pytest.raises(ShapeError, match="copy=False"):
        api.reshape(crossed, (6, 4), copy=False)


def test_joined_operands_are_promoted() -> None:
    joined = api.concat([np.array([1, 2]), np.array([0.5], np.float32)])
    assert_same(joined, np.array([1, 2, 0.5], np.float32))
    assert_same(api.stack([tensor(1.5), 2, tensor(3)]), np.array([1.5, 2, 3], np.float32))


def test_narrow_indices_reach_along_a_long_axis() -> None:
    x, index = np.arange(600).reshape(300, 2), np.ones((300, 1), np.uint8)
    assert_same(api.take_along_axis(x, index, axis=1), x[:, 1:])


def test_scatter_add_adds_repeated_indices_up() -> None:
    x, index = np.zeros((2, 4), np.float32), np.array([[1, 1], [-1, 0]])
    added = draw(2, 2, 2)
    expected = x.copy()
    np.add.at(expected, (slice(None), index), added)
    np.testing.assert_allclose(
        api.scatter_add(x, index, added, axis=1).numpy(), expected, rtol=1e-6
    )
    assert api.scatter_add(np.zeros(3, np.int64), np.array([0, 2, 0]), 1).tolist() == [2, 0, 1]


def test_gradients_flow_through_manipulations() -> None:
    x = tensor(X, requires_grad=True)
    weights = draw(2, 4, 3, 2)
    shaped = api.stack([api.swapaxes(x, 1, 2), api.flip(api.swapaxes(x, 1, 2), axis=0)], axis=-1)
    (shaped * weights).sum().backward()
    expected = weights[..., 0].swapaxes(1, 2) + weights[::-1, ..., 1].swapaxes(1, 2)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


# --- linear algebra --------------------------------------------------------------------------

SHAPES = [
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 1)),
    ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((2, 0), (0, 3)), ((0, 3), (3, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matmul_of_any_rank_is_numpys(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = RNG.standard_normal(left), RNG.standard_normal(right)
    expected = np.matmul(x, y)
    found = tensor(x) @ tensor(y)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(traced(api.matmul, x, y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("left", "right"), [s for s in SHAPES if 0 not in s[0]])
def test_gradients_of_matmul_are_those_of_its_sums(
    left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    """Against finite differences, which are exact for a product that is linear in each operand."""
    x, y = RNG.standard_normal(left), RNG.standard_normal(right)
    ct = RNG.standard_normal(np.matmul(x, y).shape)
    tx, ty = tensor(x, requires_grad=True), tensor(y, requires_grad=True)
    (api.matmul(tx, ty) * ct).sum().backward()
    dx, dy = RNG.standard_normal(left), RNG.standard_normal(right)
    assert tx.grad is not None and ty.grad is not None
    along_x, along_y = (np.matmul(dx, y) * ct).sum(), (np.matmul(x, dy) * ct).sum()
    np.testing.assert_allclose((tx.grad.numpy() * dx).sum(), along_x, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose((ty.grad.numpy() * dy).sum(), along_y, rtol=1e-9, atol=1e-11)


def test_products_of_other_kinds_are_numpys() -> None:
    x, y = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((4, 3, 2))
    close = {"rtol": 1e-12, "atol": 1e-12}
    for axes in (1, 0, ([1, 2], [1, 0]), ([0], [2]), ([-1, 0], [0, -1])):
        found = api.tensordot(x, y, axes=axes)
        np.testing.assert_allclose(found.numpy(), np.tensordot(x, y, axes), **close)
    np.testing.assert_allclose(api.vecdot(x, x[0]).numpy(), (x * x[0]).sum(-1), **close)
    np.testing.assert_allclose(api.vecdot(x, x, axis=-2).numpy(), (x * x).sum(-2), **close)
    np.testing.assert_allclose(api.outer(x[0, 0], y[0, 0]).numpy(), np.outer(x[0, 0], y[0, 0]))
    for left, right in ((x, y[:, 0]), (x, y[:, 0, 0]), (x[0, 0], y[:, 0, 0]), (2.0, x)):
        np.testing.assert_allclose(api.dot(left, right).numpy(), np.dot(left, right), **close)


def test_matmul_of_integers_wraps_and_mixed_dtypes_promote() -> None:
    x = np.full((2, 3), 2**30, np.int32)
    assert_same(api.matmul(x, x.T), np.matmul(x, x.T))
    mixed = api.matmul(np.ones((2, 3), np.int64), np.ones((3, 2), np.float32))
    assert_same(mixed, np.full((2, 2), 3, np.float32))


# --- refusals --------------------------------------------------------------------------------

T = tensor(X)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: api.reshape(T, (5, -1)), ShapeError, r"cannot reshape \(2, 3, 4\)"),
    (lambda: api.reshape(T, (2.0, 12)), DTypeError, "must be an int, found float 2.0"),
    (lambda: api.permute_dims(T, (0, 1)), ShapeError, "each of the 3 axes"),
    (lambda: api.permute_dims(T, (0, 0, 1)), ShapeError, "each of the 3 axes"),
    (lambda: api.squeeze(T, 1), ShapeError, "axis 1 .* its size is not 1"),
    (lambda: api.expand_dims(T, axis=5), ShapeError, "axis 5 is out of range"),
    (lambda: api.broadcast_to(T, (2, 3, 5)), ShapeError, "cannot broadcast"),
    (lambda: api.concat([]), ShapeError, "concat needs one operand or more"),
    (lambda: api.concat([T, T[0]]), ShapeError, "concat along axis 0"),
    (lambda: api.stack([T, T[0]]), ShapeError, "operands of one shape"),
    (lambda: api.split(T, 2, axis=1), ShapeError, "size 3 does not split into 2"),
    (lambda: api.pad(T, -1), ShapeError, "must be at least 0"),
    (lambda: api.pad(T, 1, mode="reflect"), ArgumentError, "reflect"),
    (lambda: api.take(T, np.array([3]), axis=1), IndexFault, "axis 1 of size 3, found 3"),
    (lambda: api.take(T, tensor([1.0]), axis=1), DTypeError, "integer indices"),
    (lambda: api.take_along_axis(T, np.array([0]), axis=1), ShapeError, "indices of rank 3"),
    (lambda: api.matmul(T, T), ShapeError, "inner sizes 4 and 3"),
    (lambda: api.matmul(T, 2.0), ShapeError, "rank 1 or more"),
    (lambda: api.matmul(T > 0, (T > 0).mT), DTypeError, "numeric"),
    (lambda: api.tensordot(T, T, axes=1), ShapeError, "must be of one size"),
    (lambda: api.outer(T, T), ShapeError, "1-D operands"),
    (lambda: api.matrix_transpose(T[0, 0]), ShapeError, "rank 2 or more"),
    (lambda: api.arange(0, 1, 0), ArgumentError, "step must not be 0"),
    (lambda: api.arange(tensor(3)), DTypeError, "must be a Python number"),
    (lambda: api.zeros((2, -1)), ShapeError, "at least 0"),
    (lambda: api.zeros(2.5), DTypeError, "must be an int"),
    (lambda: api.full((2,), 300, dtype=uint8), DTypeError, "300 does not fit uint8"),
    (lambda: api.full((2,), T), ShapeError, "rank 0"),
    (lambda: api.tril(T[0, 0]), ShapeError, "rank 2 or more"),
    (lambda: api.meshgrid(T), ShapeError, "1-D"),
    (lambda: api.meshgrid(T[0, 0], indexing="yx"), ArgumentError, "indexing"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_a_bad_argument_is_refused_at_the_users_line(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        call()
    assert "test_api_arrays.py" in str(raised.value)
