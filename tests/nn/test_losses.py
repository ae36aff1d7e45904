"""Losses beyond their values (which tests/torch_agreement compares): modules, mistakes, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional

ROWS = np.random.default_rng(0).normal(size=(4, 3))
LABELS = np.array([0, 2, 1, 1])

MODULES: list[tuple[Any, str, dict[str, Any], Any]] = [
    (nn.CrossEntropyLoss, "cross_entropy", {"label_smoothing": 0.1}, LABELS),
    (nn.CrossEntropyLoss, "cross_entropy", {"weight": np.array([1.0, 2.0, 0.5])}, LABELS),
    (nn.NLLLoss, "nll_loss", {"ignore_index": 1}, LABELS),
    (nn.MSELoss, "mse_loss", {"reduction": "sum"}, ROWS * 2),
    (nn.L1Loss, "l1_loss", {}, ROWS * 2),
    (nn.HuberLoss, "huber_loss", {"delta": 0.5}, ROWS * 2),
    (nn.SmoothL1Loss, "smooth_l1_loss", {"beta": 0.5}, ROWS * 2),
    (nn.BCEWithLogitsLoss, "binary_cross_entropy_with_logits",
     {"pos_weight": np.array([1.0, 2.0, 0.5])}, np.abs(np.tanh(ROWS))),
    (nn.KLDivLoss, "kl_div", {"reduction": "batchmean", "log_target": True}, ROWS * 2),
    (nn.CosineSimilarity, "cosine_similarity", {"dim": 0}, ROWS * 2 + 1),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "options", "target"), MODULES)
def test_a_loss_module_is_its_function_with_its_options(
    make: Any, name: str, options: dict[str, Any], target: Any
) -> None:
    x, y = treadle.tensor(ROWS), treadle.tensor(target)
    wanted = getattr(functional, name)(x, y, **options)
    loss = make(**options)
    np.testing.assert_array_equal(np.asarray(loss(x, y)), np.asarray(wanted))
    np.testing.assert_allclose(
        np.asarray(treadle.jit(lambda x, y: loss(x, y))(x, y)), np.asarray(wanted), rtol=1e-12
    )
    buffers = {k for k, v in options.items() if isinstance(v, np.ndarray)}
    assert set(loss.state_dict()) == buffers


def test_the_probability_at_its_end_costs_a_hundred() -> None:
    x = treadle.tensor([0.0, 1.0, 0.5])
    losses = nn.BCELoss(reduction="none")(x, treadle.tensor([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(np.asarray(losses), [100.0, 100.0, np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_the_gradient_of_a_probability_at_its_end_is_bounded_as_in_pytorch(jitted: bool) -> None:
    x = treadle.tensor([0.0, 1.0, 0.0, 1.0, 1e-30, 0.25], dtype=treadle.float64)
    y = treadle.tensor([0.0, 1.0, 1.0, 0.25, 1.0, 1.0], dtype=treadle.float64)
    slope = treadle.grad(lambda x: functional.binary_cross_entropy(x, y, reduction="sum"))
    found = (treadle.jit(slope) if jitted else slope)(x)
    np.testing.assert_allclose(
        np.asarray(found), [0.0, 0.0, -1e12, 0.75e12, -1e12, -4.0], rtol=1e-8
    )


def test_two_opposite_rows_cost_nothing_when_they_should_be_apart() -> None:
    a = treadle.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = nn.CosineEmbeddingLoss(margin=0.5, reduction="none")
    found = loss(a, treadle.tensor([[-1.0, 0.0], [1.0, 0.0]]), treadle.tensor([-1, -1]))
    np.testing.assert_allclose(np.asarray(found), [0.0, 0.5], atol=1e-6)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_out_of_range_is_a_fault(jitted: bool, label: int) -> None:
    def loss(x: Any, y: Any) -> Any:
        return functional.cross_entropy(x, y)

    run = treadle.jit(loss) if jitted else loss
    with pytest.raises(treadle.IndexFault, match=str(label)):
        run(treadle.tensor(ROWS), treadle.tensor([0, 1, label, 2]))


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_probability_out_of_range_is_a_fault(jitted: bool) -> None:
    def loss(x: Any, y: Any) -> Any:
        return functional.binary_cross_entropy(x, y)

    run = treadle.jit(loss) if jitted else loss
    with pytest.raises(treadle.CheckError, match="outside of"):
        run(treadle.tensor([0.5, 1.5]), treadle.tensor([0.0, 1.0]))


def test_ignored_rows_have_no_gradient() -> None:
    x = treadle.tensor(ROWS, requires_grad=True)
    functional.cross_entropy(x, treadle.tensor([0, -100, 1, -100])).backward()
    assert x.grad is not None
    rows = np.abs(np.asarray(x.grad)).sum(axis=1)
    assert (rows[[1, 3]] == 0).all() and (rows[[0, 2]] > 0).all()


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("name", "target"),
    [("mse_loss", np.zeros((0, 3))), ("kl_div", np.zeros((0, 3))),
     ("binary_cross_entropy", np.zeros((0, 3))), ("cross_entropy", np.zeros(0, np.int64)),
     ("cross_entropy", np.zeros((0, 3))), ("nll_loss", np.zeros(0, np.int64))],
)  # fmt: skip
def test_an_empty_batch_has_no_mean_loss(name: str, target: Any, jitted: bool) -> None:
    function = getattr(functional, name)
    x, y = treadle.zeros((0, 3)), treadle.tensor(target)
    run = treadle.jit(lambda x, y: function(x, y)) if jitted else function
    with pytest.raises(treadle.ShapeError, match="an empty batch has no mean loss"):
        run(x, y)
    assert function(x, y, reduction="sum").item() == 0
    assert function(x, y, reduction="none").size == 0


def test_mistakes_of_losses_are_named() -> None:
    x = treadle.tensor(ROWS)
    with pytest.raises(treadle.ShapeError, match=r"of one shape, found \(4, 1\) and \(4,\)"):
        functional.mse_loss(treadle.zeros((4, 1)), treadle.zeros(4))
    with pytest.raises(treadle.ShapeError, match=r"class indices of shape \(4,\), found \(3,\)"):
        functional.cross_entropy(x, treadle.tensor([0, 1, 2]))
    with pytest.raises(treadle.ShapeError, match=r"probabilities of the input's shape"):
        functional.cross_entropy(x, treadle.zeros(4))
    with pytest.raises(treadle.ShapeError, match=r"one number a class, \(3,\), found shape \(4,\)"):
        functional.cross_entropy(x, treadle.tensor(LABELS), weight=treadle.zeros(4))
    with pytest.raises(treadle.DTypeError, match="must be class indices, found"):
        functional.nll_loss(x, treadle.tensor([0.0, 1.0, 2.0, 1.0]))
    with pytest.raises(treadle.ArgumentError, match=r"did you mean 'mean'"):
        functional.cross_entropy(x, treadle.tensor(LABELS), reduction="meen")  # type: ignore[arg-type]
    with pytest.raises(treadle.ArgumentError, match="label_smoothing must be in"):
        functional.cross_entropy(x, treadle.tensor(LABELS), label_smoothing=2.0)
    with pytest.raises(treadle.ArgumentError, match="delta must be above 0"):
        functional.huber_loss(x, x, delta=0.0)
    with pytest.raises(treadle.ShapeError, match=r"takes targets of shape \(4,\)"):
        functional.cosine_embedding_loss(x, x, treadle.tensor([1, -1]))
