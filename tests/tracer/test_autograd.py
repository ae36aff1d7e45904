"""Eager differentiation: `backward()`, `.grad`, in-place changes, `no_grad`, freed histories."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from treadle.ir.errors import DTypeError, GradientError, ShapeError
from treadle.tracer import api, tape
from treadle.tracer.create import tensor
from treadle.tracer.modes import enable_grad, is_grad_enabled, no_grad
from treadle.tracer.tensor import Tensor


def leaf(data: Any) -> Tensor:
    return tensor(np.array(data, np.float64), requires_grad=True)


def numeric(fn: Callable[[Tensor], Tensor], at: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Central differences of a scalar function, in float64."""
    found = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-6
        found[index] = (fn(tensor(at + step)).item() - fn(tensor(at - step)).item()) / 2e-6
    return found


def _in_place_then_read(x: Tensor) -> Tensor:
    y = x * 2
    y[0] = y[1].clone() * x[2]
    y *= x
    return (y * y).sum()


def _write_tracked_into_a_constant(x: Tensor) -> Tensor:
    base = tensor(np.zeros((3, 3)))
    rows = base.T
    rows[1] = x
    base[0, 0] = 5.0
    return (base * base).sum() + base[1].sum() * x[0]


def _views_of_views(x: Tensor) -> Tensor:
    y = (x + 1).reshape(3, 1)
    z = y.T.expand(4, 3)[1:, ::-1]
    return (z * z * x).sum()


def _overwritten(x: Tensor) -> Tensor:
    y = x * 3
    y.copy_(x * x)
    return y.sum()


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (x * x).sum(),
        lambda x: (x.exp() / x.exp().sum()).log().mean(),
        lambda x: (x.reshape(3, 1) @ x.reshape(1, 3)).tanh().sum(),
        lambda x: x.softmax().max() + x.var() + x.sigmoid().prod(),
        lambda x: (x[api.asarray([0, 2, 0])] * x).sum(),
        _in_place_then_read,
        _write_tracked_into_a_constant,
        _views_of_views,
        _overwritten,
    ],
)
def test_gradients_equal_finite_differences(fn: Callable[[Tensor], Tensor]) -> None:
    at = np.array([0.4, 1.3, -0.7])
    x = leaf(at)
    fn(x).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), numeric(fn, at), rtol=1e-6, atol=1e-8)


def test_gradients_of_a_linear_layer_equal_the_formulas() -> None:
    rng = np.random.default_rng(0)
    a, w, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    x, weight, bias = leaf(a), leaf(w), leaf(b)
    out = x @ weight + bias
    (out * out).sum().backward()
    ct = 2 * (a @ w + b)
    assert x.grad is not None and weight.grad is not None and bias.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), ct @ w.T)
    np.testing.assert_allclose(weight.grad.numpy(), a.T @ ct)
    np.testing.assert_allclose(bias.grad.numpy(), ct.sum(0))


def test_grad_accumulates_and_can_be_reset() -> None:
    x = leaf([1.0, 2.0])
    (x * 3).sum().backward()
    (x * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6, 6]
    x.grad = None
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    assert not x.grad.requires_grad


def test_grads_share_no_memory() -> None:
    x, y, seed = leaf([1.0]), leaf([1.0]), tensor(np.array([1.0]))
    (x + y).backward(seed)
    assert x.grad is not None and y.grad is not None
    x.grad.zero_()
    assert y.grad.tolist() == [1]
    assert seed.tolist() == [1]


def test_a_weighted_backward_takes_the_cotangent() -> None:
    x = leaf([1.0, 2.0])
    (x * x).backward(tensor(np.array([1.0, 10.0])))
    assert x.grad is not None and x.grad.tolist() == [2, 40]


def test_backward_of_a_vector_asks_for_a_gradient() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(GradientError, match=r"shape \(2,\) needs `gradient`.*test_autograd\.py"):
        (x * x).backward()
    with pytest.raises(GradientError, match="got a gradient of type"):
        (x * x).backward(tensor([1.0, 1.0]))
    with pytest.raises(GradientError, match="does not require grad"):
        tensor([1.0]).backward()


def test_a_second_backward_needs_retain_graph() -> None:
    x = leaf([3.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [12]
    with pytest.raises(GradientError, match="a second time"):
        y.backward()
    assert x.grad.tolist() == [12]


def test_integers_and_comparisons_carry_no_gradient() -> None:
    x = leaf([1.0, -2.0])
    assert not (x > 0).requires_grad
    assert not x.astype("int64").requires_grad
    assert not x.argmax().requires_grad
    api.where(x > 0, x * 2, x * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 3]


def test_detach_shares_storage_and_stops_the_gradient() -> None:
    x = leaf([2.0])
    d = x.detach()
    assert not d.requires_grad
    (x * d).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2]
    with no_grad():
        x += 1
    assert d.tolist() == [3]


def test_a_detached_view_can_be_a_leaf_of_its_own() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    part = x[1].detach().requires_grad_()
    assert part.is_leaf
    (part[:1] * x[0]).sum().backward()
    assert part.grad is not None and part.grad.tolist() == [3, 0]
    assert x.grad is not None and x.grad.tolist() == [[3, 3], [0, 0]]


def test_clone_and_astype_pass_gradients() -> None:
    x = leaf([2.0])
    (x.clone() * x.astype("float32").astype("float64")).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [4]


# --- no_grad ---------------------------------------------------------------------------------


def test_no_grad_records_nothing_as_context_and_as_decorator() -> None:
    x = leaf([1.0])

    @no_grad()
    def outside(y: Tensor) -> Tensor:
        assert not is_grad_enabled()
        with enable_grad():
            assert (y * 2).requires_grad
        return y * 2

    assert not outside(x).requires_grad
    assert outside.__name__ == "outside"
    with no_grad():
        assert not (x * 2).requires_grad
        assert not x[0].requires_grad
    assert is_grad_enabled()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_the_grad_mode_is_each_threads_own() -> None:
    seen: list[bool] = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_leaf_is_changed_in_place_only_under_no_grad() -> None:
    x = leaf([1.0, 2.0])
    for change in (
        lambda: x.add_(1),
        lambda: x.fill_(0),
        lambda: x.__setitem__(0, 1.0),
        lambda: x[1:].mul_(2),
    ):
        with pytest.raises(GradientError, match=r"no_grad\(\).*test_autograd\.py"):
            change()
    assert x.tolist() == [1, 2]
    with no_grad():
        x += 1
        x[0] = 7.0
    assert x.tolist() == [7, 3]
    assert x.is_leaf


def test_a_view_made_under_no_grad_is_not_a_back_door() -> None:
    x = leaf([1.0, 2.0]) * 1
    w = leaf([5.0])
    with no_grad():
        v = x[:1]
    with pytest.raises(GradientError, match="made under no_grad"):
        v.copy_(w)


def test_an_untracked_change_of_a_computed_tensor_is_noticed() -> None:
    x = leaf([1.0, 2.0])
    y = x * 2
    with no_grad():
        y += 1
    with pytest.raises(GradientError, match="history no longer describes"):
        (y * 3).sum()
    assert y.detach().tolist() == [3, 5]


# --- changes in place ------------------------------------------------------------------------


def test_a_change_of_a_saved_operand_is_an_error_that_names_both_lines() -> None:
    x, w = tensor(np.array([1.0, 2.0])), leaf([3.0, 4.0])
    y = (x * w).sum()
    x += 1
    with pytest.raises(GradientError, match=r"`mul` of .*test_autograd\.py:\d+.*in place at .*:\d"):
        y.backward()
    assert w.grad is None


def test_a_change_of_what_no_derivative_needs_is_fine() -> None:
    w, x = leaf([3.0, 4.0]), tensor(np.array([1.0, 2.0]))
    y = x + w
    x += 1
    y *= 2  # overwrites an operand that only the derivative by 2 would need
    y.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [2, 2]


def test_a_change_of_a_saved_result_is_an_error() -> None:
    x = leaf([1.0])
    y = x.exp()
    y += 1
    with pytest.raises(GradientError, match="`exp`"):
        y.sum().backward()


def test_a_write_that_fails_changes_nothing() -> None:
    x = leaf([1.0, 2.0]) * 1
    version = x.cell.version
    with pytest.raises(ShapeError):
        x += tensor(np.ones((2, 2)))
    with pytest.raises(TypeError):
        x += "text"
    assert x.cell.version == version
    assert x.tolist() == [1, 2]


# --- memory ----------------------------------------------------------------------------------


def test_a_history_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        x = leaf(np.ones((4, 4)))
        middle = x.exp()
        cell = weakref.ref(middle.cell)
        total = (middle @ middle.T).sum()
        del middle
        assert cell() is not None
        total.backward()
        assert cell() is None
        again = (x.exp() * 2).sum()
        node = again.history.edge
        assert node is not None
        del again, node
    finally:
        gc.enable()


def test_a_deep_history_needs_no_deep_stack() -> None:
    x = leaf([1.0])
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1]
    del y


def test_a_call_can_bring_its_own_derivative() -> None:
    x, y = leaf([2.0]), tensor(np.array([3.0]))
    with no_grad():
        out = x * y * x
    operands = (tape.save_edge(x), tape.save_edge(y))
    tape.record_saved(operands, [out], lambda cts: [cts[0] and cts[0] * 12, None])
    assert out.requires_grad
    (out * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [24]


def test_setting_grad_is_checked() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(ShapeError):
        x.grad = tensor([1.0])
    with pytest.raises(DTypeError):
        x.grad = 3  # type: ignore[assignment]
    x.grad = tensor(np.zeros(2))
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_requires_grad_of_a_result_is_refused() -> None:
    x = leaf([1.0])
    with pytest.raises(GradientError, match="detach"):
        (x * 2).requires_grad_(False)
    assert (x * 2).detach().requires_grad_().is_leaf
