"""Views alias: a write through one is seen by its base and by every other view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from treadle.ir.builder import Builder
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.graph import Result
from treadle.ir.interpreter import interpret
from treadle.ir.types import TensorType, float64
from treadle.tracer import api, views
from treadle.tracer.create import tensor
from treadle.tracer.execute import view, write
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace
from treadle.tracer.views import BroadcastMap, FlipMap, PermuteMap, ReshapeMap, SliceMap, ViewMap


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[1],
        lambda x: x[:, 1:3],
        lambda x: x[::-1, ::2],
        lambda x: x.T,
        lambda x: x.reshape(4, 3),
        lambda x: x.T[1].reshape(3, 1),
        lambda x: x[None, 1:, ..., None],
    ],
)
def test_a_write_through_a_view_is_seen_as_in_numpy(take: Callable[[Any], Any]) -> None:
    array = np.arange(12.0).reshape(3, 4)
    x = tensor(array)
    other = x.reshape(12)
    seen, part = take(x), take(array)
    assert np.array_equal(seen.numpy(), part)
    seen += 100
    part += 100
    assert np.array_equal(x.numpy(), array)
    assert np.array_equal(other.numpy(), array.reshape(12))
    x[1] = -1.0
    array[1] = -1.0
    assert np.array_equal(seen.numpy(), part)


def test_assignment_through_an_item_updates_in_place() -> None:
    x = tensor(np.arange(6.0).reshape(2, 3))
    x[0] += 1
    x[1, 2] *= 10
    assert x.tolist() == [[1, 2, 3], [3, 4, 50]]


def test_assignment_casts_and_broadcasts() -> None:
    x = tensor([[1, 2, 3], [4, 5, 6]])
    x[:, 1] = 7.9
    x[0] = tensor([[8.0, 9.0, 10.0]])
    assert x.tolist() == [[8, 9, 10], [4, 7, 6]]
    with pytest.raises(ShapeError):
        x[0] = tensor([1, 2])
    assert x.tolist() == [[8, 9, 10], [4, 7, 6]]


def test_overlapping_assignment_reads_before_it_writes() -> None:
    x = tensor([1.0, 2.0, 3.0, 4.0])
    x[1:] = x[:-1]
    assert x.tolist() == [1, 1, 2, 3]


def test_reshape_is_a_view_where_the_layout_allows_it_and_a_copy_elsewhere() -> None:
    x = tensor(np.zeros((2, 3)))
    for shown in (x.reshape(6), x[:, None].reshape(2, 3), x[:, :2].reshape(2, 1, 2)):
        assert shown.cell is x.cell
    for copied in (x.T.reshape(6), x[:, :2].reshape(4)):
        assert copied.cell is not x.cell


def test_reading_out_by_advanced_indexing_or_arithmetic_copies() -> None:
    x = tensor([1.0, 2.0, 3.0])
    for y in (x[tensor([0, 1])], x + 0, x.clone(), x.astype("float32")):
        y += 5
    assert x.tolist() == [1, 2, 3]


def test_a_broadcast_view_cannot_be_written() -> None:
    x = tensor([1.0, 2.0])
    wide = x.expand(3, 2)
    with pytest.raises(ShapeError, match=r"broadcast.*test_views\.py"):
        wide += 1
    with pytest.raises(ShapeError, match="broadcast"):
        wide[0] = 1.0
    assert x.tolist() == [1, 2]


def test_an_in_place_result_must_fit() -> None:
    x, n = tensor([1.0, 2.0]), tensor([1, 2])
    with pytest.raises(ShapeError, match="in place"):
        x += tensor([[1.0, 1.0], [2.0, 2.0]])
    with pytest.raises(DTypeError, match="in place"):
        n += 0.5
    assert x.tolist() == [1, 2]
    assert n.tolist() == [1, 2]


def test_in_place_methods_return_the_tensor() -> None:
    x = tensor([1.0, 2.0])
    assert x.add_(1) is x
    assert x.mul_(2).sub_(1).div_(tensor([3.0, 5.0])).tolist() == [1, 1]
    assert x.fill_(4).tolist() == [4, 4]
    assert x.copy_(np.array([1.0, 2.0])).tolist() == [1, 2]
    assert x.zero_().tolist() == [0, 0]


# --- random chains ---------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[ViewMap]]:
    """A base shape and maps that fit it."""
    base = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    shape, maps = base, []
    for _ in range(draw(st.integers(0, 4))):
        step = draw(st.sampled_from([_slice, _permute, _flip, _reshape]))(draw, base, maps, shape)
        if step is not None:
            maps.append(step)
            shape = step.result_type(TensorType(float64, shape)).static_shape
    return base, maps


def _slice(draw: st.DrawFn, _base: Any, _maps: Any, shape: tuple[int, ...]) -> ViewMap:
    starts, steps, sizes = [], [], []
    for size in shape:
        step = draw(st.sampled_from([1, 2, -1, -2]))
        start = draw(st.integers(0, max(size - 1, 0)))
        room = (size - 1 - start if step > 0 else start) // abs(step) + 1
        count = draw(st.integers(0, room)) if size else 0
        starts.append(start if count else 0)
        steps.append(step)
        sizes.append(count)
    return SliceMap(tuple(starts), tuple(steps), tuple(sizes))


def _permute(draw: st.DrawFn, _base: Any, _maps: Any, shape: tuple[int, ...]) -> ViewMap:
    return PermuteMap(tuple(draw(st.permutations(range(len(shape))))))


def _flip(draw: st.DrawFn, _base: Any, _maps: Any, shape: tuple[int, ...]) -> ViewMap:
    return FlipMap(tuple(i for i in range(len(shape)) if draw(st.booleans())))


def _reshape(
    draw: st.DrawFn, base: tuple[int, ...], maps: list[ViewMap], shape: tuple[int, ...]
) -> ViewMap | None:
    size = int(np.prod(shape))
    new = draw(st.sampled_from([(size,), (1, size), (*shape, 1), (size, 1, 1)]))
    fits = views.can_reshape(TensorType(float64, base), maps, new)
    return ReshapeMap(new) if fits else None


@settings(max_examples=150, deadline=None)
@given(chains())
def test_a_chain_reads_and_writes_alike_in_numpy_eagerly_and_in_ir(
    chain: tuple[tuple[int, ...], list[ViewMap]],
) -> None:
    base, maps = chain
    array = np.arange(float(np.prod(base))).reshape(base)
    shown = views.numpy_view(array, maps)
    new = -1.0 - np.arange(float(shown.size)).reshape(shown.shape)

    x = tensor(array)
    seen = view(x, *maps)
    before = np.array(seen.numpy())
    write(seen, tensor(new))

    b = Builder("f")
    value, update = b.param(x.type, "x"), b.param(seen.type, "v")
    read = views.replay(b, value, maps)
    after = views.write(b, value, maps, update)
    fn = b.finish([Result(read, "read"), Result(after, "after")])
    ir_read, ir_after = interpret(fn, [array.copy(), new])

    assert np.array_equal(before, shown)
    assert np.array_equal(ir_read, shown)
    shown[...] = new
    assert np.array_equal(x.numpy(), array)
    assert np.array_equal(ir_after, array)


@settings(max_examples=100, deadline=None)
@given(chains(), st.data())
def test_can_reshape_agrees_with_numpy(
    chain: tuple[tuple[int, ...], list[ViewMap]], data: st.DataObject
) -> None:
    base, maps = chain
    shown = views.numpy_view(np.zeros(base), maps)
    size = shown.size
    shapes = [(size,), (1, size, 1)]
    shapes += [(d, size // d) for d in (2, 3, 4) if size and size % d == 0]
    new = data.draw(st.sampled_from(shapes))
    reshaped = shown.reshape(new)
    copied = size > 0 and not np.shares_memory(reshaped, shown)
    assert views.can_reshape(TensorType(float64, base), maps, new) == (not copied)


def test_a_broadcast_chain_reads_alike() -> None:
    x = tensor([[1.0], [2.0]])
    wide = view(x, BroadcastMap((2, 3)), PermuteMap((1, 0)))
    assert wide.tolist() == [[1, 2], [1, 2], [1, 2]]
    x[0] = 5.0
    assert wide[:, 0].tolist() == [5, 5, 5]


# --- in a trace ------------------------------------------------------------------------------


def _traced(fn: Callable[..., Any], *arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    trace = Trace("f", lambda x: None)
    with trace:
        args = [trace.arg(tensor_type(a), f"x{i}") for i, a in enumerate(arrays)]
        results = fn(*args)
        values = [trace.value_of(r) for r in results]
    made = trace.finish([Result(v, f"out{i}") for i, v in enumerate(values)])
    return interpret(made, list(arrays))


def tensor_type(array: np.ndarray[Any, Any]) -> TensorType:
    return tensor_from(array).type


def tensor_from(array: np.ndarray[Any, Any]) -> Tensor:
    return tensor(array)


def test_aliasing_in_a_trace_is_that_of_eager_execution() -> None:
    def program(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        row, column, flat = x[1], x.T[2], x.reshape(12)
        row += 1
        x[0, :] = v
        column *= 2
        saved = x.clone()
        flat[::5] = -1.0
        x[:, 1] = x[:, 3]
        return x, row, column, flat, saved, x[api.asarray([0, 2])]

    a, v = np.arange(12.0).reshape(3, 4), np.array([9.0, 8.0, 7.0, 6.0])
    eager = program(tensor(a), tensor(v))
    for found, expected in zip(_traced(program, a, v), eager, strict=True):
        assert np.array_equal(found, expected.numpy())
