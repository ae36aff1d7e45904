"""Connectionist temporal classification: the loss of a sequence whose places are not known.

Graves, Fernandez, Gomez and Schmidhuber (2006), section 4.1: the target with a blank before,
between and behind its labels is a chain of 2 S + 1 states; a path stays, goes on by one, or skips a
blank between two different labels. alpha[s] is the logarithm of the probability of all paths that
stand at s after t steps. It is one `treadle.scan` over the steps, and so is its gradient.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import int64, shape_text
from treadle.nn.functional.reduction import REDUCTIONS, check_some
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, flag, option
from treadle.tracer.api.creation import as_int
from treadle.tracer.control import scan
from treadle.tracer.modes import active_trace
from treadle.tracer.promote import Operand, as_operand, promote
from treadle.tracer.tensor import Tensor

Lengths = Any  # numbers of the sequences: an operand, or a list of ints

# The logarithm of a probability of 0: far below any other, and far from overflow, so that the
# gradient of what cannot happen is 0 and not infinity minus infinity.
_NEVER = -1e30


@array_function
def ctc_loss(
    log_probs: Operand,
    targets: Operand,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: Literal["none", "mean", "sum"] = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of the target sequences, over all places that their labels can have.

    `log_probs` [T, N, C] or [T, C], as `log_softmax` gives; `targets` integers [N, S], of which
    `target_lengths` [N] count, or all of them in one row [sum(target_lengths)]; `input_lengths`
    [N]: the steps that count. `blank` is the class that stands for no label. "mean" divides each
    loss by its target's length (at least 1), then takes the batch's mean.

    In a jitted function whose `target_lengths` are an argument, targets in one row cost as much as
    if each had all labels: pad them to [N, S] there.

    A target that does not fit into its steps costs infinity, or nothing with `zero_infinity`; its
    gradient is 0. The gradient is the derivative by `log_probs`; PyTorch's has exp(log_probs) added
    to it, which makes no difference behind `log_softmax`.

    Labels and lengths out of range raise CheckError, or IndexFault. Raises ShapeError, DTypeError
    or ArgumentError for operands that do not fit.
    """
    how = option("reduction", reduction, REDUCTIONS)
    scores = promote(log_probs, floating=True)[0]
    if scores.ndim not in (2, 3):
        raise ShapeError(
            f"ctc_loss takes log_probs [T, N, C] or [T, C], found {shape_text(scores.shape)}"
        )
    alone = scores.ndim == 2
    if alone:
        scores = api.expand_dims(scores, 1)
    steps, batch, classes = scores.shape
    if steps == 0:
        raise ShapeError(f"ctc_loss needs at least one step, found {shape_text(scores.shape)}")
    empty = as_int(blank, "blank")
    if not 0 <= empty < classes:
        raise ArgumentError(f"blank must be from 0 to {classes - 1}, found {empty}")
    times = _lengths("input_lengths", input_lengths, batch)
    sizes = _lengths("target_lengths", target_lengths, batch)
    known = _known(target_lengths)
    labels = _labels(targets, sizes, known, batch, empty, alone)
    api.check((times >= 1) & (times <= steps), f"an input length of ctc_loss is not in 1..{steps}")
    api.check((labels >= 0) & (labels < classes), f"a label of ctc_loss is not in 0..{classes - 1}")
    last = _forward(scores, labels, times, empty)
    losses = -_end(last, sizes)
    possible = losses < -_NEVER / 2
    never = 0.0 if flag("zero_infinity", zero_infinity) else float("inf")
    losses = api.where(api.isnan(losses) | possible, losses, never)
    if how == "mean":
        check_some(losses)
        return api.mean(losses / api.maximum(sizes, 1).astype(losses.dtype))
    if how == "sum":
        return api.sum(losses)
    return losses[0] if alone else losses


def _lengths(name: str, given: Any, batch: int) -> Tensor:
    """[N] int64. Raises ShapeError for another number of them, DTypeError for no integers."""
    found = as_operand(np.asarray(given) if isinstance(given, (tuple, list)) else given)
    if found.size and not found.dtype.is_integer:
        raise DTypeError(f"{name} of ctc_loss must be integers, found {found.dtype.name}")
    if found.ndim > 1 or found.size != batch:
        raise ShapeError(
            f"{name} of ctc_loss must be {batch} numbers, one a sequence, found shape "
            f"{shape_text(found.shape)}"
        )
    return api.reshape(found, (batch,)).astype(int64)


def _known(given: Any) -> int | None:
    """The largest length, where it is a number and not a value of a trace."""
    if isinstance(given, Tensor) and active_trace() is not None:
        return None
    return int(np.asarray(given).max(initial=0))


def _labels(
    targets: Operand, sizes: Tensor, known: int | None, batch: int, blank: int, alone: bool
) -> Tensor:
    """[N, S] int64, blanks behind a target's end. Raises ShapeError or DTypeError."""
    found = as_operand(targets)
    if found.size and not found.dtype.is_integer:
        raise DTypeError(f"targets of ctc_loss must be integers, found {found.dtype.name}")
    if found.ndim not in (1, 2) or (found.ndim == 2 and found.shape[0] != batch):
        raise ShapeError(
            f"ctc_loss takes targets [{batch}, S] or [sum of target_lengths], found "
            f"{shape_text(found.shape)}"
        )
    found = found.astype(int64)
    in_a_row = found.ndim == 1 and not alone
    if found.ndim == 1 and alone:
        found = api.expand_dims(found, 0)
    count = found.shape[-1]
    longest = max(0, min(known, count)) if in_a_row and known is not None else count
    api.check(
        (sizes >= 0) & (sizes <= longest), f"a target length of ctc_loss is not in 0..{longest}"
    )
    place = api.arange(longest)
    if in_a_row:
        api.check(
            api.sum(sizes) == count,
            f"the target lengths of ctc_loss do not add up to the {count} targets",
        )
        if not count:
            return api.zeros((batch, 0), dtype=int64)
        starts = api.expand_dims(api.cumsum(sizes) - sizes, 1)
        found = api.take(found, api.clip(starts + place, 0, count - 1))
    return api.where(place < api.expand_dims(sizes, 1), found, blank)


def _forward(scores: Tensor, labels: Tensor, times: Tensor, blank: int) -> Tensor:
    """alpha [N, 2 S + 1] after each sequence's last step."""
    batch, size = labels.shape
    states = 2 * size + 1
    blanks = api.full((batch, size), blank, dtype=int64)
    pairs = api.reshape(api.stack([blanks, labels], axis=-1), (batch, 2 * size))
    chain = api.concat([pairs, api.full((batch, 1), blank, dtype=int64)], axis=1)
    wide = api.broadcast_to(api.expand_dims(chain, 0), (scores.shape[0], batch, states))
    seen = api.maximum(api.take_along_axis(scores, wide, axis=2), _NEVER)
    # A step by two is one over a blank, between labels that differ.
    skips = _shifted(chain, 2, blank) != chain
    begins = api.arange(states) < 2
    first = api.where(begins, seen[0], _NEVER)

    def step(alpha: Tensor, row: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        now, here = row
        by_one = _shifted(alpha, 1, _NEVER)
        by_two = api.where(skips, _shifted(alpha, 2, _NEVER), _NEVER)
        moved = api.maximum(_sum_of_three(alpha, by_one, by_two) + here, _NEVER)
        return api.where(api.expand_dims(now < times, 1), moved, alpha), None

    rows = (api.arange(1, scores.shape[0]), seen[1:])
    return first if scores.shape[0] == 1 else scan(step, first, rows)[0]


def _shifted(x: Tensor, by: int, filling: float) -> Tensor:
    """`x` [N, L] moved to the right along its last axis."""
    front = api.full((x.shape[0], min(by, x.shape[1])), filling, dtype=x.dtype)
    return api.concat([front, x[:, : max(x.shape[1] - by, 0)]], axis=1)


def _sum_of_three(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """log(exp(a) + exp(b) + exp(c)); the largest is only a scale, without a gradient."""
    top = api.maximum(api.maximum(a, b), c).detach()
    return top + api.log(api.exp(a - top) + api.exp(b - top) + api.exp(c - top))


def _end(alpha: Tensor, sizes: Tensor) -> Tensor:
    """The logarithm of the probability that each sequence ends at its last label or the blank
    behind it."""
    last = api.expand_dims(2 * sizes, 1)
    blank = api.take_along_axis(alpha, last, axis=1)
    label = api.take_along_axis(alpha, api.maximum(last - 1, 0), axis=1)
    label = api.where(last > 0, label, _NEVER)
    top = api.maximum(blank, label).detach()
    found = top + api.log(api.exp(blank - top) + api.exp(label - top))
    return api.squeeze(found, axis=1)
