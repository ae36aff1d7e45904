"""What no draw takes is refused with what was found and the user's line; empty shapes are fine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import ArgumentError, DTypeError, ShapeError, random
from treadle.nn.functional import dropout

K = random.key(0)
X = treadle.ones((2, 3))

CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # bounds
    (lambda: random.uniform(K, (3,), 2.0, 1.0), ArgumentError, "low must be below high, found 2.0"),
    (lambda: random.uniform(K, (3,), 1.0, 1.0), ArgumentError, "low must be below high"),
    (lambda: random.uniform(K, (3,), 0.0, float("inf")), ArgumentError, "must be finite"),
    (lambda: random.uniform(K, (3,), float("nan"), 1.0), ArgumentError, "must be finite"),
    (lambda: random.randint(K, (3,), 5, 5), ArgumentError, "low must be below high, found 5 and 5"),
    (lambda: treadle.randint(5, 2, (3,)), ArgumentError, "low must be below high, found 5 and 2"),
    (lambda: treadle.randint(0, (3,)), ArgumentError, "low must be below high, found 0 and 0"),
    (lambda: random.truncated_normal(K, 1.0, 1.0, (3,)), ArgumentError, "lower must be below"),
    (lambda: random.normal(K, (3,), 0.0, -1.0), ArgumentError, "std must be at least 0"),
    (lambda: random.normal(K, (3,), 0.0, float("nan")), ArgumentError, "std must be at least 0"),
    # probabilities
    (lambda: random.bernoulli(K, 1.5, (3,)), ArgumentError, "from 0 to 1, found 1.5"),
    (lambda: dropout(X, -0.1), ArgumentError, "from 0 to 1, found -0.1"),
    (lambda: dropout(X, float("nan")), ArgumentError, "from 0 to 1, found nan"),
    (lambda: treadle.nn.Dropout(2.0), ArgumentError, "from 0 to 1, found 2.0"),
    (lambda: dropout(X, 0.5, training=1), DTypeError, "training must be a bool"),
    # shapes
    (lambda: treadle.rand(2, -1), ShapeError, r"at least 0, found \(2, -1\)"),
    (lambda: treadle.randn(2.5), DTypeError, "a size of a shape must be an int"),
    (lambda: random.uniform(K, (3,), X, 2.0), ShapeError, r"\(2, 3\), does not broadcast"),
    (lambda: random.normal(K, (4,), X), ShapeError, r"\(2, 3\), does not broadcast"),
    (lambda: treadle.randperm(-1), ArgumentError, "0 numbers or more, found -1"),
    (lambda: random.permutation(K, treadle.tensor(1.0)), ShapeError, "axis 0"),
    (lambda: random.permutation(K, X, axis=2), ShapeError, "axis 2 is out of range"),
    (lambda: random.split(K, -1), ArgumentError, "at least 0, found -1"),
    (lambda: random.categorical(K, treadle.zeros((3, 0))), ShapeError, "something to choose from"),
    (lambda: random.categorical(K, X, shape=(3,)), ShapeError, "does not broadcast"),
    (lambda: treadle.multinomial(X, 4), ShapeError, "4 without replacement exceeds"),
    (lambda: treadle.multinomial(X, 0), ArgumentError, "at least 1, found 0"),
    (lambda: treadle.multinomial(treadle.ones((1, 1, 2)), 1), ShapeError, r"\[n\] or \[m, n\]"),
    # dtypes
    (lambda: treadle.rand(3, dtype="int64"), DTypeError, "must be float32 or float64, found int64"),
    (lambda: random.randint(K, (3,), 0, 2, dtype="float32"), DTypeError, "integers, found dtype"),
    (lambda: random.randint(K, (3,), 0, 300, dtype="uint8"), DTypeError, "does not fit uint8"),
    (lambda: random.randint(K, (3,), 0, 2**64), DTypeError, "does not fit int64"),
    (lambda: random.randint(K, (3,), 0.5, 2), DTypeError, "randint's low must be an int"),
    (lambda: treadle.bernoulli(treadle.tensor([1, 0])), DTypeError, "a float tensor, found i64"),
    # keys, generators, seeds
    (lambda: random.uniform(3, (2,)), DTypeError, "expected a key .* found int 3"),
    (lambda: random.uniform(treadle.zeros(2), (2,)), DTypeError, r"expected a key .* f32\[2\]"),
    (lambda: random.uniform(random.split(K), (2,)), ShapeError, r"shape \(2,\), found \(2, 2\)"),
    (lambda: random.fold_in(K, 0.5), DTypeError, "an integer of rank 0"),
    (lambda: random.fold_in(3, 0), DTypeError, "expected a key"),
    (lambda: treadle.rand(3, generator=K), ArgumentError, "must be a treadle.Generator"),
    (lambda: treadle.rand(3, generator=np.random.default_rng()), ArgumentError, "Generator, found"),
    (lambda: random.key(-1), ArgumentError, "at least 0 and below"),
    (lambda: random.key(2**64), ArgumentError, "at least 0 and below"),
    (lambda: treadle.Generator(1.5), ArgumentError, "a seed must be an int"),
    (lambda: treadle.manual_seed(True), ArgumentError, "a seed must be an int"),
    (lambda: treadle.Generator().set_state(X), DTypeError, r"an int64 tensor, found f32\[2, 3\]"),
    (lambda: treadle.Generator().set_state([1, 2]), DTypeError, "an int64 tensor, found list"),
    (lambda: treadle.Generator().set_state(random.split(K)), ShapeError, r"shape \(2,\)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), CALLS)
def test_it_is_refused_at_the_users_line(
    call: Callable[[], Any], kind: type[Exception], text: str
) -> None:
    before = random.default_generator.get_state().numpy()
    with pytest.raises(kind, match=text) as caught:
        call()
    line = inspect.getsourcelines(call)[1]
    assert f"test_arguments.py:{line}" in str(caught.value)
    with pytest.raises(kind, match=text):
        treadle.jit(call)()
    np.testing.assert_array_equal(random.default_generator.get_state().numpy(), before)


def test_empty_shapes_and_rank_0() -> None:
    for draw in (treadle.rand, treadle.randn):
        assert draw(0, 3).shape == (0, 3)
        assert draw().shape == ()
        assert treadle.jit(draw)(4, 0).shape == (4, 0)
    assert treadle.randint(5, (0,)).shape == (0,)
    assert treadle.randperm(0).shape == (0,)
    assert random.categorical(K, treadle.zeros((0, 3))).shape == (0,)
    assert dropout(treadle.zeros((0, 4))).shape == (0, 4)
    assert random.permutation(K, treadle.zeros((0, 4))).shape == (0, 4)


def test_bounds_and_probabilities_of_a_call_are_not_compiled_in() -> None:
    @treadle.jit
    def scaled(key: treadle.Tensor, low: float, high: float, p: float) -> Any:
        x = random.uniform(key, (500,), low, high)
        return x, random.bernoulli(random.fold_in(key, 1), p, (500,))

    for low, high, p in ((0.0, 1.0, 0.5), (-5.0, -4.0, 0.1), (3.0, 9.0, 1.0)):
        x, kept = scaled(K, low, high, p)
        assert low <= x.min() < x.max() <= high
        assert abs(float(kept.astype("float32").mean()) - p) < 0.1
    assert len(scaled.specializations) == 1


def test_tensors_as_bounds_broadcast_and_have_gradients() -> None:
    low = treadle.tensor([[0.0], [10.0]]).requires_grad_(True)
    x = random.uniform(K, (2, 100), low, low.detach() + 1)
    assert ((x >= low) & (x <= low + 1)).all()
    x.sum().backward()
    even = random.uniform(K, (2, 100)).numpy()
    expected = (1 - even).sum(1, keepdims=True)
    np.testing.assert_allclose(low.grad.numpy(), expected, rtol=1e-5)  # type: ignore[union-attr]
    std = treadle.tensor([1.0, 2.0, 3.0]).requires_grad_(True)
    random.normal(K, (3,), 0.0, std).sum().backward()
    np.testing.assert_allclose(std.grad.numpy(), random.normal(K, (3,)).numpy())  # type: ignore[union-attr]


def test_dtypes_and_shapes_are_those_asked_for() -> None:
    assert treadle.rand(2).dtype == treadle.float32
    assert treadle.randn((2, 3), dtype="float64").dtype == treadle.float64
    assert treadle.rand_like(treadle.ones(3, dtype="float64")).dtype == treadle.float64
    assert treadle.randn_like(treadle.ones(3, dtype="int32")).dtype == treadle.float32
    assert treadle.randint(5, (3,)).dtype == treadle.int64
    assert treadle.randint(0, 5, (3,), dtype="uint32").dtype == treadle.uint32
    assert treadle.randperm(4, dtype="int32").dtype == treadle.int32
    assert treadle.normal(0.0, 1.0, (3, 4)).shape == (3, 4)
    assert treadle.normal(treadle.zeros((3, 1)), treadle.ones(4)).shape == (3, 4)
    assert treadle.normal().shape == ()
    assert random.bernoulli(K, 0.5, (2, 2)).dtype == treadle.bool
    assert treadle.multinomial(X, 2).shape == (2, 2)
    assert treadle.multinomial(treadle.ones(4), 9, replacement=True).shape == (9,)
