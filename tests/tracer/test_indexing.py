"""`x[key]` and `x[key] = v` against NumPy, eager and traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from treadle.ir.errors import DTypeError, GradientError, IndexFault, ShapeError, TraceError
from treadle.ir.graph import Result
from treadle.ir.interpreter import interpret
from treadle.tracer.create import tensor
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace

Array = np.ndarray[Any, Any]


def numbered(*shape: int) -> Array:
    """Elements that are all different."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def on_tensors(key: Any) -> Any:
    """A NumPy key with tensors in place of arrays."""
    if isinstance(key, tuple):
        return tuple(map(on_tensors, key))
    return tensor(key) if isinstance(key, np.ndarray) else key


def traced(fn: Any, x: Array, *others: Array) -> Array:
    """`fn(x, *others)` recorded as a Function and interpreted; fn None: x as it was left."""
    with Trace("f", lambda _: None) as trace:
        args = [trace.arg(tensor(a).type, f"x{i}") for i, a in enumerate((x, *others))]
        out = fn(*args)
        values = [trace.value_of(t) for t in (args[0], out)]
        program = trace.finish([Result(v, f"out{i}") for i, v in enumerate(values)])
    after, found = interpret(program, [x, *others])
    return after if out is args[0] else found


# --- keys ------------------------------------------------------------------------------------


@st.composite
def shapes(draw: Any, min_dims: int = 0) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(0, 4), min_size=min_dims, max_size=4)))


def slices(size: int) -> st.SearchStrategy[slice]:
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])
    return st.builds(slice, bound, bound, step)


@st.composite
def basic_keys(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Ints, slices, None and at most one Ellipsis."""
    named = draw(st.integers(0, len(shape)))
    at = draw(st.none() | st.integers(0, named))
    axes = list(range(named))
    if at is not None:
        axes = [*range(at), *range(len(shape) - (named - at), len(shape))]
    key: list[Any] = []
    for i, axis in enumerate(axes):
        if i == at:
            key.append(Ellipsis)
        choices = [slices(shape[axis])]
        if shape[axis]:
            choices.append(st.integers(-shape[axis], shape[axis] - 1))
        key.append(draw(st.one_of(choices)))
        if draw(st.integers(0, 5)) == 0:
            key.append(None)
    if at is not None and at == len(axes):
        key.append(Ellipsis)
    return tuple(key)


@st.composite
def array_keys(draw: Any, shape: tuple[int, ...], masks: bool = True) -> tuple[Any, ...]:
    """As `basic_keys`, with integer arrays (of shapes that broadcast) or one mask in it."""
    key = list(draw(basic_keys(shape)))
    axis_of: dict[int, int] = {}
    before = [i for i, k in enumerate(key) if k is not None and k is not Ellipsis]
    count = len(before)
    dots = key.index(Ellipsis) if Ellipsis in key else len(key)
    for number, i in enumerate(before):
        axis_of[i] = number if i < dots else len(shape) - (count - number)
    assume(axis_of)
    picked = draw(st.lists(st.sampled_from(sorted(axis_of)), min_size=1, unique=True))
    if masks and draw(st.integers(0, 3)) == 0:
        size = shape[axis_of[picked[0]]]
        key[picked[0]] = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
        return tuple(key)
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,)]))
    for i in picked:
        size = shape[axis_of[i]]
        own = draw(st.sampled_from([common, common[-1:], tuple(1 for _ in common)]))
        if size == 0:  # only an array without elements is a legal index
            own = (0,)
            assume(0 in common)
        index = st.integers(-max(size, 1), max(size - 1, 0))
        total = int(np.prod(own, dtype=int))
        key[i] = np.array(draw(st.lists(index, min_size=total, max_size=total)), int).reshape(own)
    return tuple(key)


KEYED = shapes().flatmap(lambda s: st.tuples(st.just(s), basic_keys(s)))
ARRAY_KEYED = shapes(1).flatmap(lambda s: st.tuples(st.just(s), array_keys(s)))
INTEGER_KEYED = shapes(1).flatmap(lambda s: st.tuples(st.just(s), array_keys(s, masks=False)))


# --- reading ---------------------------------------------------------------------------------


@given(KEYED)
@settings(max_examples=300, deadline=None)
def test_a_basic_key_reads_what_numpy_reads(case: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    np.testing.assert_array_equal(tensor(x)[key].numpy(), x[key])


@given(ARRAY_KEYED)
@settings(max_examples=400, deadline=None)
def test_an_array_key_reads_what_numpy_reads(case: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    found = tensor(x)[on_tensors(key)].numpy()
    assert found.shape == x[key].shape
    np.testing.assert_array_equal(found, x[key])


@given(INTEGER_KEYED)
@settings(max_examples=100, deadline=None)
def test_a_traced_read_is_the_eager_one(case: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    np.testing.assert_array_equal(traced(lambda t: t[on_tensors(key)], x), x[key])


def test_a_mask_of_several_axes_reads_what_numpy_reads() -> None:
    x = numbered(2, 3, 4)
    mask = x[..., 0] % 3 == 0
    for key in (mask, (mask, slice(1, 3)), (mask, 1), (Ellipsis, x[0] > 5), (0, x[0] > 5), x > 7):
        np.testing.assert_array_equal(tensor(x)[on_tensors(key)].numpy(), x[key])


@pytest.mark.parametrize("key", [True, False, (True, slice(None), 1), np.True_])
def test_a_bool_alone_takes_or_leaves_the_whole(key: Any) -> None:
    x = numbered(2, 3)
    np.testing.assert_array_equal(tensor(x)[key].numpy(), x[key])


def test_lists_tensors_and_small_integers_are_indices() -> None:
    x = numbered(4, 3)
    for key in ([2, 0], [[0, 1], [2, 3]], [], [True, False, True, False], ([1, 2], [0, 2])):
        np.testing.assert_array_equal(tensor(x)[key].numpy(), x[key])
    np.testing.assert_array_equal(tensor(x)[np.array([3, 1], np.uint8)].numpy(), x[[3, 1]])
    np.testing.assert_array_equal(tensor(x)[[tensor(2), tensor(0)]].numpy(), x[[2, 0]])
    assert tensor(x)[np.int64(1), tensor(2)].item() == x[1, 2]


def test_a_basic_read_is_a_view_and_an_array_read_a_copy() -> None:
    x = tensor(numbered(3, 4))
    row, columns, picked = x[1], x[:, ::-2], x[[0, 2]]
    x[1, 3] = 99
    assert row[3].item() == columns[1, 0].item() == 99
    picked[0] = -1
    assert x[0, 0].item() == 0


# --- writing ---------------------------------------------------------------------------------


def assert_same_assignment(x: Array, key: Any, value: Any) -> None:
    expected, found = x.copy(), tensor(x)
    expected[key] = value
    found[on_tensors(key)] = value
    np.testing.assert_array_equal(found.numpy(), expected)


@given(KEYED, st.data())
@settings(max_examples=200, deadline=None)
def test_a_basic_key_writes_what_numpy_writes(case: Any, data: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    assert_same_assignment(x, key, -1.0)
    assert_same_assignment(x, key, -1 - numbered(*x[key].shape))
    if x[key].ndim:
        assert_same_assignment(x, key, -1 - numbered(*x[key].shape[1:]))


@given(ARRAY_KEYED)
@settings(max_examples=300, deadline=None)
def test_an_array_key_writes_what_numpy_writes(case: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    assert_same_assignment(x, key, -1.0)
    assert_same_assignment(x, key, -1 - numbered(*x[key].shape))


@given(INTEGER_KEYED)
@settings(max_examples=100, deadline=None)
def test_a_traced_write_is_the_eager_one(case: Any) -> None:
    shape, key = case
    x = numbered(*shape)
    value = -1 - numbered(*x[key].shape)

    def assign(t: Tensor, v: Tensor) -> Tensor:
        t[on_tensors(key)] = v
        return t

    expected = x.copy()
    expected[key] = value
    np.testing.assert_array_equal(traced(assign, x, value), expected)


@pytest.mark.parametrize("at", [(), (0,), (Ellipsis, slice(None, None, -1))])
def test_a_traced_mask_assignment_is_a_where(at: tuple[Any, ...]) -> None:
    x, v = numbered(2, 3, 4), np.array([[-1, -2, -3, -4]], np.float32)
    mask = x[0, :, 0] > 3
    key = (*at, mask) if at == (0,) else mask[:2]

    def assign(t: Tensor, m: Tensor, value: Tensor) -> Tensor:
        t[(*at, m) if at == (0,) else m] = value
        return t

    m, value = (mask, v) if at == (0,) else (mask[:2], v)
    expected = x.copy()
    expected[key] = value
    np.testing.assert_array_equal(traced(assign, x, m, value), expected)


def test_a_write_through_repeated_indices_keeps_the_last() -> None:
    x = tensor(np.zeros(3, np.float32))
    x[[1, 1, 2, 1]] = tensor([1.0, 2.0, 3.0, 4.0])
    assert x.tolist() == [0, 4, 3]


def test_a_write_through_an_array_of_a_view_reaches_the_base() -> None:
    x = numbered(3, 4)
    t = tensor(x)
    t[1:, ::2][:, [1]] = -1.0
    x[1:, ::2][:, [1]] = -1
    np.testing.assert_array_equal(t.numpy(), x)


def test_an_operator_in_place_on_an_array_key_writes_back() -> None:
    x = numbered(4, 2)
    t = tensor(x)
    t[[3, 0]] *= 10
    x[[3, 0]] *= 10
    np.testing.assert_array_equal(t.numpy(), x)


def test_an_assigned_value_is_cast_without_losing_precision_first() -> None:
    x = tensor(np.zeros(2))
    x[0] = 0.1
    assert x.tolist() == [0.1, 0.0]
    assert x.fill_(0.1).tolist() == x.copy_([0.1, 0.1]).tolist() == [0.1, 0.1]
    whole = tensor([1, 2, 3])
    whole[:] = 2.9
    whole[1] = float("nan")
    assert whole.tolist() == [2, 0, 2]


# --- gradients -------------------------------------------------------------------------------


def test_gradients_flow_to_what_a_key_reads() -> None:
    x = tensor(numbered(3, 4), requires_grad=True)
    (x[1, ::-2] * tensor([1.0, 10.0])).sum().backward()
    (x[[2, 2, 0], [0, 0, 1]] * tensor([1.0, 2.0, 5.0])).sum().backward()
    expected = np.zeros((3, 4))
    expected[1, 3], expected[1, 1], expected[2, 0], expected[0, 1] = 1, 10, 3, 5
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_of_repeated_writes_only_the_last_has_a_gradient() -> None:
    v = tensor([1.0, 2.0, 3.0], requires_grad=True)
    base = tensor([1.0, 1.0, 1.0], requires_grad=True)
    x = base * 2
    x[[0, 2, 0]] = v
    (x * tensor([1.0, 10.0, 100.0])).sum().backward()
    assert v.grad is not None and base.grad is not None
    assert v.grad.tolist() == [0, 100, 1]
    assert base.grad.tolist() == [0, 20, 0]


def test_a_leaf_that_requires_grad_is_not_written() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    for key in (0, [0, 1], np.array([True, False])):
        with pytest.raises(GradientError, match="changed in place"):
            x[key] = 5.0
    assert x.tolist() == [1, 2]


# --- bad keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (3, IndexFault, "index 3 is out of range for axis 0 of size 3"),
        ((0, -5), IndexFault, "index -5 is out of range for axis 1 of size 4"),
        ((0, 0, 0), IndexFault, r"too many indices for a tensor of shape \(3, 4\): found 3"),
        ((Ellipsis, 0, Ellipsis), IndexFault, "one Ellipsis"),
        (1.0, DTypeError, "found float 1.0"),
        ("a", DTypeError, "found str 'a'"),
        (slice(0, 2.0), DTypeError, "bounds of a slice must be ints, found float 2.0"),
        (slice(None, None, 0), IndexFault, "step of a slice must not be 0"),
        ([0.0, 1.0], DTypeError, "found an array of float64"),
        (np.array([0.5]), DTypeError, "found an array of float64"),
        ([[0, 1], [2]], DTypeError, "differ in length"),
        (np.array([True, False]), IndexFault, r"mask of shape \(2,\) does not fit"),
        ([0, 3], IndexFault, "axis 0 of size 3, found 3"),
        (([0], [-5]), IndexFault, "axis 1 of size 4, found -5"),
        (([0, 1], [0, 1, 2]), ShapeError, "do not broadcast"),
    ],
)
def test_a_bad_key_is_refused_by_reads_and_writes_alike(
    key: Any, error: type[Exception], message: str
) -> None:
    x = tensor(numbered(3, 4))
    with pytest.raises(error, match=message) as raised:
        x[key]
    assert "test_indexing.py" in str(raised.value)
    with pytest.raises(error, match=message):
        x[key] = 0.0
    np.testing.assert_array_equal(x.numpy(), numbered(3, 4))


def test_a_float_tensor_is_no_index() -> None:
    with pytest.raises(DTypeError, match="found a tensor of float32"):
        tensor(numbered(3))[tensor([1.0])]


def test_an_index_into_an_empty_axis_is_refused() -> None:
    with pytest.raises(IndexFault, match="axis 0 has size 0"):
        tensor(numbered(0, 2))[[0]]


def test_a_value_that_does_not_broadcast_is_refused() -> None:
    x = tensor(numbered(3, 4))
    for key in (0, [0, 1], numbered(3, 4) > 5):
        with pytest.raises(ShapeError):
            x[key] = np.zeros(3, np.float32)
    np.testing.assert_array_equal(x.numpy(), numbered(3, 4))


def test_a_mask_in_a_trace_names_where() -> None:
    x = numbered(3)
    with pytest.raises(TraceError, match=r"treadle\.where"):
        traced(lambda t: t[t > 1], x)

    def assign(t: Tensor) -> Tensor:
        t[t > 0] = tensor([5.0, 6.0])
        return t

    with pytest.raises(TraceError, match=r"treadle\.where"):
        traced(assign, x)
