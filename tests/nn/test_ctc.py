"""CTC beyond PyTorch's values (which tests/torch_agreement compares): its definition, forms of its
operands, what does not fit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn.functional import ctc_loss


def _by_paths(log_probs: Any, target: list[int], blank: int) -> float:
    """-log of the sum over every path of classes that becomes the target: repeats are merged, then
    blanks are taken out."""
    total = 0.0
    steps, classes = log_probs.shape
    for path in itertools.product(range(classes), repeat=steps):
        merged = [c for c, _ in itertools.groupby(path)]
        if [c for c in merged if c != blank] == target:
            total += np.exp(sum(log_probs[t, c] for t, c in enumerate(path)))
    return -float(np.log(total)) if total else float("inf")


def _scores(*shape: int) -> Any:
    x = np.random.default_rng(0).normal(size=shape)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("target", [[], [1], [1, 1], [1, 3], [3, 1, 3], [1, 1, 1], [1, 1, 1, 1]])
def test_ctc_is_the_sum_over_all_paths(target: list[int], blank: int) -> None:
    x = _scores(5, 4)
    found = ctc_loss(x, np.array(target, np.int64), 5, len(target), blank=blank, reduction="none")
    np.testing.assert_allclose(np.asarray(found), _by_paths(x, target, blank), rtol=1e-12)


def test_both_forms_of_targets_and_lengths_are_one_loss_eagerly_and_jitted() -> None:
    x, rows = _scores(7, 3, 5), np.array([[1, 2, 2], [4, -9, 99], [3, 1, -1]])
    lengths, times = [3, 1, 2], [7, 4, 5]
    joined = np.concatenate([row[:n] for row, n in zip(rows, lengths, strict=True)])
    wanted = np.asarray(ctc_loss(x, rows, times, lengths))

    @treadle.jit
    def compiled(x: Any, targets: Any, times: Any, lengths: Any) -> Any:
        return ctc_loss(x, targets, times, lengths)

    found = [
        ctc_loss(x, joined, tuple(times), np.array(lengths, np.int32)),
        compiled(x, rows, np.array(times), np.array(lengths)),
        compiled(x, joined, np.array(times), np.array(lengths)),
        nn.CTCLoss()(treadle.tensor(x), treadle.tensor(joined), times, lengths),
    ]
    for loss in found:
        np.testing.assert_allclose(np.asarray(loss), wanted, rtol=1e-12)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_target_that_does_not_fit_costs_infinity_or_nothing_and_has_no_gradient(
    jitted: bool,
) -> None:
    x = _scores(3, 2, 4)

    def loss(x: Any, zero: bool) -> Any:
        targets = np.array([[1, 1, 2], [1, 2, 0]])
        return ctc_loss(x, targets, [3, 3], [3, 2], reduction="none", zero_infinity=zero)

    def gradient(x: Any, zero: bool) -> Any:
        return treadle.grad(lambda x: treadle.sum(loss(x, zero)))(x)

    run, slopes = (treadle.jit(loss), treadle.jit(gradient)) if jitted else (loss, gradient)
    for zero, first in ((False, np.inf), (True, 0.0)):
        losses = np.asarray(run(treadle.tensor(x), zero))
        assert losses[0] == first and np.isfinite(losses[1])
        slope = np.asarray(slopes(treadle.tensor(x), zero))
        assert (slope[:, 0] == 0).all() and np.isfinite(slope).all() and slope[:, 1].any()


def test_classes_that_cannot_be_have_finite_gradients() -> None:
    x = _scores(4, 1, 3)
    x[2] = [[0.0, -np.inf, -np.inf]]
    run = treadle.value_and_grad(lambda x: ctc_loss(x, np.array([[1, 2]]), [4], [2]))
    loss, slope = run(treadle.tensor(x))
    np.testing.assert_allclose(np.asarray(loss) * 2, _by_paths(x[:, 0], [1, 2], 0))
    assert np.isfinite(np.asarray(slope)).all()


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("targets", "times", "lengths", "text"),
    [
        ([[1, 4]], [5], [2], "a label of ctc_loss is not in 0..3"),
        ([[1, -1]], [5], [2], "a label of ctc_loss is not in 0..3"),
        ([[1, 2]], [6], [2], "an input length of ctc_loss is not in 1..5"),
        ([[1, 2]], [5], [3], "a target length of ctc_loss is not in 0..2"),
        ([1, 2], [5], [1], "do not add up to the 2 targets"),
    ],
)
def test_labels_and_lengths_out_of_range_are_faults(
    targets: Any, times: Any, lengths: Any, text: str, jitted: bool
) -> None:
    def loss(x: Any, targets: Any, times: Any, lengths: Any) -> Any:
        return ctc_loss(x, targets, times, lengths)

    run = treadle.jit(loss) if jitted else loss
    operands = (_scores(5, 1, 4), *(np.array(a) for a in (targets, times, lengths)))
    with pytest.raises(treadle.CheckError, match=text):
        run(*map(treadle.tensor, operands))


def test_mistakes_of_ctc_are_named() -> None:
    x, targets = _scores(5, 2, 4), np.array([[1, 2], [3, 1]])
    with pytest.raises(treadle.ShapeError, match=r"takes log_probs \[T, N, C\] or \[T, C\]"):
        ctc_loss(x[0, 0], targets, [5, 5], [2, 2])
    with pytest.raises(treadle.ShapeError, match=r"targets \[2, S\] or \[sum of target_lengths\]"):
        ctc_loss(x, targets[:1], [5, 5], [2, 2])
    with pytest.raises(treadle.ShapeError, match="input_lengths of ctc_loss must be 2 numbers"):
        ctc_loss(x, targets, [5], [2, 2])
    with pytest.raises(treadle.DTypeError, match="targets of ctc_loss must be integers"):
        ctc_loss(x, targets * 1.0, [5, 5], [2, 2])
    with pytest.raises(treadle.DTypeError, match="target_lengths of ctc_loss must be integers"):
        ctc_loss(x, targets, [5, 5], [2.0, 2.0])
    with pytest.raises(treadle.ArgumentError, match="blank must be from 0 to 3, found 4"):
        ctc_loss(x, targets, [5, 5], [2, 2], blank=4)
    with pytest.raises(treadle.ArgumentError, match="reduction"):
        ctc_loss(x, targets, [5, 5], [2, 2], reduction="all")  # type: ignore[arg-type]
