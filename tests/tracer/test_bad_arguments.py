"""What no array function takes: refused with what was found, what was expected, and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor

X = treadle.ones((2, 3))
HALF = np.zeros(2, np.float16)

CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # a float, None or a string where an axis belongs
    (lambda: treadle.flip(X, axis=0.5), treadle.DTypeError, "axis must be an int, found float"),
    (lambda: treadle.squeeze(X, axis="a"), treadle.DTypeError, "axis must be an int, found str"),
    (lambda: treadle.moveaxis(X, 0, 1.5), treadle.DTypeError, "axis must be an int, found float"),
    (lambda: treadle.expand_dims(X, axis=0.5), treadle.DTypeError, "must be an int"),
    (lambda: treadle.roll(X, 1, axis=0.5), treadle.DTypeError, "must be an int"),
    (lambda: treadle.vecdot(X, X, axis=0.5), treadle.DTypeError, "must be an int"),
    (lambda: X.permute(None), treadle.DTypeError, "must be an int, found NoneType"),
    (lambda: X.flatten(0.0), treadle.DTypeError, "must be an int, found float"),
    (lambda: X.flatten(1, 0), treadle.ShapeError, "comes before"),
    (lambda: treadle.tensordot(X, X, axes="ab"), treadle.ArgumentError, "a count or two lists"),
    # flags and numbers
    (lambda: treadle.sum(X, keepdims="yes"), treadle.DTypeError, "keepdims must be a bool"),
    (lambda: treadle.argmax(X, keepdims=X), treadle.DTypeError, "keepdims must be a bool"),
    (lambda: treadle.var(X, correction="1"), treadle.DTypeError, "correction must be a Python"),
    (lambda: treadle.layer_norm(X, 3, eps=None), treadle.DTypeError, "eps must be a Python number"),
    (lambda: treadle.arange(float("nan")), treadle.ArgumentError, "finite numbers, found start"),
    (lambda: treadle.tensor(1.0, requires_grad=1), treadle.DTypeError, "requires_grad must be"),
    # dtypes
    (lambda: treadle.zeros(2, dtype=X), treadle.DTypeError, "is not supported"),
    (lambda: X.astype("float16"), treadle.DTypeError, "'float16' is not supported"),
    (lambda: X.clone().copy_(HALF), treadle.DTypeError, "float16"),
    (lambda: treadle.jit(lambda a: a)(HALF), treadle.DTypeError, "argument a: dtype"),
    # sizes
    (lambda: treadle.ones(1 << 62), treadle.ShapeError, "more elements than memory"),
    (lambda: treadle.zeros((0, 10**30)), treadle.ShapeError, "more elements than memory"),
    (lambda: treadle.tile(X, 1 << 62), treadle.ShapeError, "more elements than memory"),
    (lambda: treadle.eye(1 << 40), treadle.ShapeError, "more elements than memory"),
    (lambda: treadle.zeros([[1], [1, 2]]), treadle.DTypeError, "a size of a shape must be an int"),
    # lists of tensors
    (lambda: treadle.concat(None), treadle.DTypeError, "a sequence of tensors, found NoneType"),
    (lambda: treadle.stack("ab"), treadle.DTypeError, "a sequence of tensors, found str"),
    # derivatives
    (lambda: treadle.grad(None), treadle.DTypeError, "expects a function, found NoneType"),
    (lambda: treadle.grad(treadle.sum, argnums=None)(X), treadle.DTypeError, "argnums must be"),
    # networks
    (lambda: treadle.nn.Linear(3, 2.0), treadle.ShapeError, "out_features must be a size"),
    (lambda: treadle.nn.Linear(3, 2)(None), treadle.DTypeError, "found NoneType None"),
    (lambda: treadle.nn.Sequential(3), treadle.DTypeError, "holds modules, found int"),
    (lambda: treadle.optim.SGD(None), treadle.DTypeError, "takes parameters"),
    (lambda: treadle.optim.Adam([X], lr=None), treadle.DTypeError, "lr must be a Python number"),
    (lambda: treadle.optim.Adam([X], lr=-1.0), treadle.ArgumentError, "lr must be at least 0"),
    (lambda: treadle.manual_seed("a"), treadle.ArgumentError, "a seed must be an int"),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_a_bad_argument_is_refused_in_words_and_at_the_users_line(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        call()
    assert f"(at {Path(__file__)}:" in str(raised.value)


def test_numpy_reductions_of_a_tensor_are_treadles() -> None:
    x = treadle.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert isinstance(np.sum(x), Tensor)  # type: ignore[call-overload]
    np.testing.assert_array_equal(np.sum(x, axis=0), [4.0, 7.0])  # type: ignore[call-overload]
    np.testing.assert_array_equal(np.max(x, axis=1), [2.0, 5.0])  # type: ignore[call-overload]
    with pytest.raises(treadle.ArgumentError, match="takes no `out`"):
        np.sum(x, out=np.zeros(()))  # type: ignore[call-overload]


@pytest.mark.parametrize("chosen", [(2.5, 0.0), (2.5, 2.5)])
def test_where_of_two_float_arguments_is_float32_as_eagerly(chosen: tuple[float, float]) -> None:
    mask = treadle.tensor([True, False, True])

    def choose(a: float, b: float) -> Tensor:
        return treadle.where(mask, a, b)

    eager, jitted = choose(*chosen), treadle.jit(choose)(*chosen)
    assert eager.dtype == jitted.dtype == treadle.float32
    np.testing.assert_array_equal(eager, jitted)


def test_pad_takes_a_constant_that_is_known_only_at_run_time() -> None:
    def padded(x: Tensor, value: float) -> Tensor:
        return treadle.pad(x, (1, 2), constant_values=value)

    jitted = treadle.jit(padded)
    for value in (2.5, -1.0):
        expected = np.pad(np.ones(3, np.float32), (1, 2), constant_values=value)
        np.testing.assert_array_equal(padded(treadle.ones(3), value), expected)
        np.testing.assert_array_equal(jitted(treadle.ones(3), value), expected)
    assert len(jitted.specializations) == 1


def test_an_option_that_a_float_argument_cannot_give_says_where_to_take_it_from() -> None:
    with pytest.raises(treadle.DTypeError, match="read the number from the closure"):
        treadle.jit(lambda x, eps: treadle.layer_norm(x, 3, eps=eps))(X, 1e-5)
