"""What a tensor is, how it is made, promoted, printed, and led out to NumPy and Python."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.types import DTYPES, bool_, float32, float64, int32, int64, uint8, uint32
from treadle.tracer import api
from treadle.tracer.create import tensor
from treadle.tracer.promote import promote, promote_types, result_dtype
from treadle.tracer.tensor import Tensor


def test_python_numbers_take_the_default_dtypes() -> None:
    assert tensor(1.5).dtype == float32
    assert tensor([1, 2]).dtype == int64
    assert tensor([True, False]).dtype == bool_
    assert tensor([1, 2.5]).dtype == float32
    assert tensor([]).dtype == float32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_keep_their_dtype(dtype: Any) -> None:
    array = np.ones((2, 3), dtype.dtype)
    made = tensor(array)
    assert made.dtype == dtype
    assert made.shape == (2, 3)
    assert np.array_equal(made.numpy(), array)


def test_tensor_copies_its_data() -> None:
    array = np.zeros(3, np.float32)
    made = tensor(array)
    array[0] = 7
    assert made.tolist() == [0, 0, 0]
    again = tensor(made)
    made.fill_(5)
    assert again.tolist() == [0, 0, 0]


def test_a_list_of_tensors_is_stacked() -> None:
    made = tensor([[tensor(1.0), 2.0], [3.0, tensor(4.0)]])
    assert made.tolist() == [[1, 2], [3, 4]]
    assert made.dtype == float32


@pytest.mark.parametrize(
    "data", [[[1, 2], [3]], "text", ["a"], 1j, None, object(), 2**70, np.zeros(2, np.int16)]
)
def test_data_that_is_not_numeric_is_refused_with_the_users_line(data: Any) -> None:
    with pytest.raises(DTypeError, match=r"test_tensor\.py:\d+\)$"):
        tensor(data)


def test_a_given_dtype_casts_as_astype_does() -> None:
    assert tensor([1.7, float("nan"), 1e20], dtype="int32").tolist() == [1, 0, 2**31 - 1]
    assert tensor(np.array([300]), dtype="uint8").tolist() == [44]
    assert tensor(np.array([1.5], np.float16), dtype="float32").tolist() == [1.5]
    with pytest.raises(DTypeError, match="300 does not fit uint8"):
        tensor([1, 300], dtype="uint8")
    with pytest.raises(DTypeError, match="float8"):
        tensor([1], dtype="float8")


def test_requires_grad_is_for_floats_only() -> None:
    with pytest.raises(DTypeError, match="only float tensors"):
        tensor([1, 2], requires_grad=True)


# --- promotion -------------------------------------------------------------------------------


@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_promotion_is_commutative_and_holds_both(a: Any, b: Any) -> None:
    found = promote_types(a, b)
    assert found == promote_types(b, a)
    assert promote_types(found, a) == found
    if a.is_float == b.is_float:  # NumPy agrees among integers and among floats
        assert found.dtype == np.promote_types(a.dtype, b.dtype)
    else:
        assert found == (a if a.is_float else b)


def test_unsigned_with_signed_gives_a_type_that_holds_both() -> None:
    assert promote_types(uint32, int32) == int64
    assert promote_types(uint8, int32) == int32


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        (float32, 1, float32), (float32, 1.5, float32), (float64, 1.5, float64),
        (int32, 1, int32), (uint8, 1, uint8), (int32, 1.5, float32), (int64, 0.5, float32),
        (bool_, 1, int64), (bool_, 0.5, float32), (bool_, True, bool_), (int32, True, int32),
    ],
)  # fmt: skip
def test_python_numbers_are_weak(dtype: Any, number: Any, expected: Any) -> None:
    x = tensor(np.ones(2, dtype.dtype))
    assert result_dtype(x, number) == expected
    assert result_dtype(number, x) == expected
    assert {t.dtype for t in promote(x, number)} == {expected}


def test_numpy_scalars_count_as_numbers_and_arrays_of_rank_0_as_arrays() -> None:
    x = tensor([1.0, 2.0])
    assert (x * np.float64(2.0)).dtype == float32
    assert (x * np.array(2.0)).dtype == float64
    assert (x * np.sqrt(2)).dtype == float32


def test_an_integer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DTypeError, match="300 does not fit uint8"):
        tensor(np.ones(2, np.uint8)) + 300


def test_division_of_integers_is_float32() -> None:
    assert (tensor([1, 2]) / tensor([2, 4])).dtype == float32
    assert (tensor([1, 2]) / 2).tolist() == [0.5, 1.0]


# --- operators -------------------------------------------------------------------------------

_OPERATORS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
}


@pytest.mark.parametrize("name", _OPERATORS)
def test_operators_equal_numpys_also_reflected_and_with_arrays_on_the_left(name: str) -> None:
    op = _OPERATORS[name]
    a = np.array([[1.5, 2.0, 3.25]])
    b = np.array([[0.5], [2.0]])
    x, y = tensor(a), tensor(b)
    expected = op(a, b)
    for found in (op(x, y), op(a, y), op(x, b)):
        assert isinstance(found, Tensor)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)
    for left in (2.0, np.float64(2.0)):
        found = op(left, x)
        assert isinstance(found, Tensor)
        np.testing.assert_allclose(found.numpy(), op(2.0, a), rtol=1e-15)


def test_bitwise_operators_equal_numpys() -> None:
    a, b = np.array([12, 5, 7]), np.array([10, 3, 1])
    x, y = tensor(a), tensor(b)
    assert (x & y).tolist() == (a & b).tolist()
    assert (x | y).tolist() == (a | b).tolist()
    assert (x ^ 6).tolist() == (a ^ 6).tolist()
    assert (6 ^ x).tolist() == (6 ^ a).tolist()
    assert (x << y).tolist() == (a << b).tolist()
    assert (x >> y).tolist() == (a >> b).tolist()
    assert (~x).tolist() == (~a).tolist()


def test_matmul_operator_also_with_an_array_on_the_left() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    assert np.array_equal((tensor(a) @ tensor(b)).numpy(), a @ b)
    assert np.array_equal((a @ tensor(b)).numpy(), a @ b)


def test_an_unknown_operand_is_left_to_the_other_side() -> None:
    class Other:
        def __radd__(self, other: Any) -> str:
            return "mine"

    assert tensor([1.0]) + Other() == "mine"  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError):
        tensor([1.0]) + "text"
    assert (tensor([1.0]) == None) is False  # noqa: E711


def test_shapes_that_do_not_broadcast_name_the_users_line() -> None:
    with pytest.raises(ShapeError, match=r"do not broadcast.*test_tensor\.py:\d+\)$"):
        tensor([1.0, 2.0]) + tensor([1.0, 2.0, 3.0])


def test_methods_stand_for_functions() -> None:
    a = np.array([[0.5, 1.5, 4.0], [2.0, 8.0, 1.0]])
    x = tensor(a)
    np.testing.assert_allclose(x.exp().numpy(), np.exp(a), rtol=1e-15)
    np.testing.assert_allclose(x.sum(axis=1, keepdims=True).numpy(), a.sum(1, keepdims=True))
    np.testing.assert_allclose(x.mean().numpy(), a.mean())
    np.testing.assert_allclose(x.var(axis=0).numpy(), a.var(0))
    np.testing.assert_allclose(x.std(axis=0, correction=1).numpy(), a.std(0, ddof=1))
    assert x.argmax(axis=1).tolist() == a.argmax(1).tolist()
    assert x.max().item() == 8.0
    assert x.min(axis=0).tolist() == a.min(0).tolist()
    np.testing.assert_allclose(x.softmax().numpy().sum(-1), [1, 1])
    np.testing.assert_allclose(x.softmax(axis=0).numpy(), api.softmax(x, axis=0).numpy())
    np.testing.assert_allclose(x.cumsum(1).numpy(), a.cumsum(1))
    assert x.clip(1, 2).tolist() == a.clip(1, 2).tolist()
    assert x.reshape(3, 2).shape == x.reshape((3, -1)).shape == (3, 2)
    assert np.array_equal(x.T.numpy(), a.T)
    assert np.array_equal(x.mT.numpy(), a.T)
    assert x.flatten().tolist() == a.ravel().tolist()
    assert x.unsqueeze(1).shape == (2, 1, 3)
    assert x.unsqueeze(1).squeeze().shape == (2, 3)
    assert x.unsqueeze(0).expand(4, 2, 3).shape == (4, 2, 3)
    assert x.transpose(0, 1).shape == (3, 2)
    assert x.permute(1, 0).shape == (3, 2)
    assert x.astype(int32).dtype == int32
    assert (abs(-x) == x).all().item() is True


# --- out -------------------------------------------------------------------------------------


def test_numpy_is_read_only_and_keeps_its_values_when_the_tensor_is_written() -> None:
    x = tensor([1.0, 2.0, 3.0])
    out = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 9
    x += 1
    assert out.tolist() == [1, 2, 3]
    assert x.tolist() == [2, 3, 4]


def test_a_write_goes_to_the_same_memory_once_no_export_lives() -> None:
    x = tensor([1.0, 2.0, 3.0])
    before = x.array().ctypes.data
    part = x.numpy()[1:]
    assert x.cell.pinned
    del part
    assert not x.cell.pinned
    x += 1
    assert x.array().ctypes.data == before


def test_a_view_of_an_exported_view_still_pins_the_buffer() -> None:
    x = tensor(np.arange(6.0).reshape(2, 3))
    kept = x.T.numpy()[1:].T
    gc.collect()
    x.zero_()
    assert kept.tolist() == [[1, 2], [4, 5]]
    assert x.sum().item() == 0


def test_asarray_is_a_view_and_converts_on_request() -> None:
    x = tensor([1.5, 2.5])
    assert np.shares_memory(np.asarray(x), x.array())
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    own = np.array(x)
    assert own.flags.writeable
    assert not np.shares_memory(own, x.array())


def test_single_elements_lead_to_python() -> None:
    assert float(tensor(2.5)) == 2.5
    assert int(tensor([3])) == 3
    assert bool(tensor([[True]])) is True
    assert tensor(2.5).item() == 2.5
    assert [10, 20, 30][tensor(1)] == 20  # type: ignore[call-overload]
    with pytest.raises(ShapeError, match="one element"):
        float(tensor([1.0, 2.0]))
    with pytest.raises(DTypeError, match="index must be an integer"):
        [1, 2][tensor(1.0)]  # type: ignore[call-overload]


def test_len_and_iteration_are_over_the_first_axis() -> None:
    x = tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    with pytest.raises(ShapeError):
        len(tensor(1.0))
    with pytest.raises(ShapeError):
        iter(tensor(1.0))
    assert 3.0 in x
    assert 7.0 not in x


def test_repr_tells_what_the_elements_do_not() -> None:
    assert repr(tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert repr(tensor([1, 2])) == "tensor([1, 2])"
    assert repr(tensor([1.0], dtype=float64)) == "tensor([1.], dtype=float64)"
    assert repr(tensor(1.0, requires_grad=True)) == "tensor(1., requires_grad=True)"
    assert repr(tensor(np.zeros((0, 3)))) == "tensor([], shape=(0, 3), dtype=float64)"
    assert "shape=(30, 30)" in repr(tensor(np.zeros((30, 30))))
    assert f"{tensor(1.23456):.2f}" == "1.23"
    assert f"{tensor([1.0])}" == "tensor([1.])"


def test_tensors_hash_by_identity() -> None:
    x, y = tensor([1.0]), tensor([1.0])
    assert {x: "x", y: "y"}[x] == "x"


def test_copies_and_pickles_are_leaves_of_their_own() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    for made in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert made.tolist() == [1, 2]
        assert made.requires_grad
        assert made.is_leaf
        assert made.cell is not x.cell
