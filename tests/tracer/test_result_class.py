"""A class of tensors may have its own class for what is computed from them: eagerly, in a trace, in
loops and branches, from compiled calls, and for gradients."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.tracer.tensor import Tensor


class Marked(Tensor):
    __slots__ = ()


Marked.result_class = Marked


def marked(*shape: int) -> Tensor:
    x = treadle.tensor(np.arange(1.0, 1 + np.prod(shape), dtype=np.float32).reshape(shape))
    x.__class__ = Marked
    return x


def assert_marked(*tensors: Any) -> None:
    assert [type(x) for x in tensors] == [Marked] * len(tensors)


def plain(x: Any, w: Any) -> tuple[Any, ...]:
    y = x @ w
    return y, 2 * x, x[0], x.T, x.detach(), x.sum(), treadle.concat([x, treadle.ones((1, 3))])


def test_results_and_views_have_the_class_that_their_operands_ask_for() -> None:
    assert_marked(*plain(marked(2, 3), treadle.ones((3, 2))))
    assert type(treadle.nn.Parameter(marked(2)) + 1) is Tensor  # Parameter says nothing of its own


def test_results_of_compiled_calls_have_the_class_that_they_have_eagerly() -> None:
    x, w = marked(2, 3), treadle.ones((3, 2))

    def checked(x: Any, w: Any) -> tuple[Any, ...]:
        assert type(x) is Marked
        found = plain(x, w)
        assert_marked(*found)
        return found

    jitted = treadle.jit(checked)
    for _ in range(8):  # the later ones without Python
        assert_marked(*jitted(x, w))
    row = treadle.jit(lambda row: (row, row + 1))
    for _ in range(8):
        assert_marked(*row(x[0]))
    assert len(jitted.specializations) == len(row.specializations) == 1


def test_a_call_with_another_class_is_compiled_anew() -> None:
    double = treadle.jit(lambda x: x * 2)
    for _ in range(8):
        assert type(double(treadle.ones((2,)))) is Tensor
        assert type(double(marked(2))) is Marked
    assert len(double.specializations) == 2


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_have_the_class_of_what_is_differentiated(compiled: bool) -> None:
    x, w = treadle.ones((2, 3)), marked(3, 2).requires_grad_()

    def step() -> Any:
        loss = (x @ w).sum()
        w.grad = None
        loss.backward()
        return loss

    run = treadle.jit(step) if compiled else step
    for _ in range(8):
        run()
        assert_marked(w.grad)
    taken = treadle.grad(lambda w: (x @ w).sum())
    assert_marked((treadle.jit(taken) if compiled else taken)(w))


def test_a_backward_pass_through_a_compiled_call_gives_the_class() -> None:
    x, w = marked(2, 3), marked(3, 2).requires_grad_()
    treadle.jit(lambda x: (x @ w).sum())(x).backward()
    assert_marked(w.grad)


@pytest.mark.parametrize("compiled", [False, True])
def test_loops_and_branches_keep_the_class(compiled: bool) -> None:
    def both(c: Any, xs: Any) -> tuple[Any, ...]:
        def step(c: Any, x: Any) -> Any:
            assert_marked(c, x)
            return c + x, c * 2

        carry, ys = treadle.scan(step, c, xs)
        chosen = treadle.cond(c.sum() > 0, lambda: c + 1, lambda: c)
        counted = treadle.while_loop(lambda c: c.sum() < 100, lambda c: c + 1, c)
        return carry, ys, chosen, counted

    assert_marked(*(treadle.jit(both) if compiled else both)(marked(3), marked(4, 3)))


def test_copies_keep_the_class() -> None:
    x = marked(2)
    assert_marked(copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), treadle.tensor(x))


def test_the_class_makes_tensors_as_the_function_does() -> None:
    for data, dtype in (
        ([1, 2], None),
        (2.5, treadle.float64),
        (np.ones((2, 3), np.float32), None),
    ):
        made, wanted = treadle.Tensor(data, dtype), treadle.tensor(data, dtype)
        assert type(made) is Tensor and made.dtype == wanted.dtype
        np.testing.assert_array_equal(made.numpy(), wanted.numpy())
    source = np.zeros(2, np.float32)
    made = treadle.Tensor(source, requires_grad=True)
    source[0] = 1
    assert made.requires_grad and made.tolist() == [0, 0]
    doubled = treadle.jit(lambda x: treadle.Tensor(x) * treadle.Tensor([2.0]))
    assert doubled(treadle.ones((2,))).tolist() == [2, 2]
    with pytest.raises(treadle.DTypeError, match="dtype float16 is not supported; Treadle has"):
        treadle.tensor(np.ones(2, np.float16))
    with pytest.raises(treadle.DTypeError, match="expected numbers, found NoneType None"):
        treadle.tensor([1, None])
    with pytest.raises(treadle.DTypeError, match="expected numbers, found strings"):
        treadle.Tensor("text")
