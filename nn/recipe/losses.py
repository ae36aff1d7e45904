"""Which loss a function is, what it should be at first, and what it wants from a model.

A loss is any function: which one is found by its values, on random results and the real targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TreadleError
from treadle.nn.loss import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import total
from treadle.tracer.create import tensor
from treadle.tracer.modes import no_grad

Array = npt.NDArray[Any]
Loss = Callable[..., Any]
Formula = Callable[[Array, Array], "tuple[float, ...] | None"]
Name = Literal["cross_entropy", "nll_loss", "mse_loss", "binary_cross_entropy",
               "binary_cross_entropy_with_logits", "unknown"]  # fmt: skip

_RELATIVE = 1e-3
_IGNORED = -100  # what a cross-entropy ignores unless it is told otherwise
_MODULES: dict[type[Any], Name] = {
    CrossEntropyLoss: "cross_entropy",
    NLLLoss: "nll_loss",
    MSELoss: "mse_loss",
    BCELoss: "binary_cross_entropy",
    BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A recognised loss.

    plain    without weights, smoothing and the like, so that it is 0 where the model is right
    classes  how many the results tell apart, along `axis`: 1, or the last
    """

    name: Name
    plain: bool
    classes: int = 0
    axis: int = 1


def recognised(loss: Loss, shape: tuple[int, ...], target: Array) -> Kind:
    """The kind of `loss` for results of this shape, by values."""
    with np.errstate(all="ignore"):  # of targets that are not finite
        return _recognised(loss, shape, target)


def _recognised(loss: Loss, shape: tuple[int, ...], target: Array) -> Kind:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype(np.float32)
    chances = rng.uniform(0.1, 0.9, size=shape).astype(np.float32)
    candidates: tuple[tuple[Name, Array, int, Formula], ...] = (
        ("cross_entropy", logits, 1, _cross_entropy),
        ("cross_entropy", logits, -1, _cross_entropy),
        ("nll_loss", logits, 1, _nll),
        ("nll_loss", logits, -1, _nll),
        ("mse_loss", logits, 1, lambda o, t: _by_shape(np.square, o, t)),
        ("binary_cross_entropy_with_logits", logits, 1, _bce_with_logits),
        ("binary_cross_entropy", chances, 1, _bce),
    )
    for name, result, axis, formula in candidates:
        classes = class_count(shape, axis)
        safe = in_range(target, classes)
        moved = result if axis == 1 or result.ndim < 3 else np.moveaxis(result, -1, 1)
        expected = formula(moved, safe)
        found = None if expected is None else value(loss, result, safe)
        if found is None or expected is None:
            continue
        if any(abs(found - e) <= _RELATIVE * max(abs(e), 1e-3) for e in expected):
            soft = target.dtype.kind == "f" and name != "mse_loss"
            hard = not soft or bool(np.isin(target, (0, 1)).all())
            return Kind(name, hard, classes, axis)
    known: Name = next((n for cls, n in _MODULES.items() if isinstance(loss, cls)), "unknown")
    return Kind(known, False, class_count(shape, 1))


def counted(kind: Kind, loss: Loss, samples: Samples) -> Samples:
    """The samples without those whose targets the loss ignores."""
    if kind.name not in ("cross_entropy", "nll_loss") or samples.target.dtype.kind not in "iu":
        return samples
    ignored = getattr(loss, "ignore_index", _IGNORED)
    used = (samples.target != ignored).reshape(len(samples), -1).any(axis=1)
    return samples if used.all() else samples.rows(np.flatnonzero(used))


def class_count(shape: tuple[int, ...], axis: int) -> int:
    """The classes that results of this shape tell apart; 0 for none."""
    return shape[axis] if len(shape) > 1 else 0


def in_range(target: Array, classes: int) -> Array:
    """Labels out of range as near ones that are not."""
    if target.dtype.kind not in "iu" or classes == 0:
        return target
    found: Array = np.clip(target, 0, classes - 1)
    return found


def value(loss: Loss, result: Array, target: Array) -> float | None:
    """`loss` on arrays; None where it takes no such results."""
    with no_grad():
        try:
            return float(total(loss(tensor(result), tensor(target))))
        except (TreadleError, TypeError, ValueError, IndexError, AttributeError, KeyError):
            return None  # a loss of several results, for one


# --- formulas, each in two reductions ------------------------------------------------------------


def _reductions(losses: Array) -> tuple[float, ...]:
    return float(losses.mean()), float(losses.sum())


def _log_softmax(x: Array) -> Array:
    wide = x.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    found: Array = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def _picked(rows: Array, target: Array) -> tuple[float, ...] | None:
    if rows.ndim < 2 or target.dtype.kind not in "iu":
        return None
    if target.shape != (rows.shape[0], *rows.shape[2:]):
        return None
    return _reductions(-np.take_along_axis(rows, target[:, None].astype(np.int64), axis=1))


def _cross_entropy(x: Array, target: Array) -> tuple[float, ...] | None:
    if x.ndim > 1 and target.dtype.kind == "f" and target.shape == x.shape:
        return _reductions(-(target * _log_softmax(x)).sum(axis=1))
    return _picked(_log_softmax(x), target) if x.ndim > 1 else None


def _nll(x: Array, target: Array) -> tuple[float, ...] | None:
    return _picked(x.astype(np.float64), target)


def _by_shape(fn: Callable[[Array], Array], x: Array, target: Array) -> tuple[float, ...] | None:
    if x.shape != target.shape:
        return None
    return _reductions(fn(x.astype(np.float64) - target))


def _bce_with_logits(x: Array, target: Array) -> tuple[float, ...] | None:
    if x.shape != target.shape:
        return None
    wide = x.astype(np.float64)
    return _reductions(np.logaddexp(0, wide) - target * wide)


def _bce(x: Array, target: Array) -> tuple[float, ...] | None:
    if x.shape != target.shape:
        return None
    wide = x.astype(np.float64)
    return _reductions(-(target * np.log(wide) + (1 - target) * np.log1p(-wide)))


# --- the first loss ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """What the loss is for a model that knows nothing yet, and why."""

    value: float
    why: str


def expected(kind: Kind, loss: Loss, result: Array, target: Array) -> Expected | None:
    """The loss of a result that prefers nothing: equal logits, the mean of the targets."""
    name, even = kind.name, np.zeros_like(result)
    if name == "cross_entropy":
        return _expected(loss, even, target, f"ln({kind.classes}) for {kind.classes} equal logits")
    if name == "nll_loss":
        even = even - np.float32(math.log(kind.classes))
        return _expected(loss, even, target, f"ln({kind.classes})")
    if name == "binary_cross_entropy_with_logits":
        return _expected(loss, even, target, "ln(2) for logits of 0")
    if name == "binary_cross_entropy":
        return _expected(loss, even + np.float32(0.5), target, "ln(2) for probabilities of 1/2")
    if name == "mse_loss":
        middle = np.broadcast_to(target.mean(axis=0, keepdims=True), result.shape)
        flat = np.ascontiguousarray(middle.astype(result.dtype))
        return _expected(loss, flat, target, "the variance of the targets")
    return None


def _expected(loss: Loss, result: Array, target: Array, why: str) -> Expected | None:
    found = value(loss, result, target)
    return None if found is None or not math.isfinite(found) else Expected(found, why)


_TOO_HIGH, _TOO_LOW, _ABSURD = 2.0, 0.5, 20.0


def first_loss(
    kind: Kind, first: float, wanted: Expected | None, target: Array
) -> tuple[str, list[Finding]]:
    """What to say of the first loss."""
    if not math.isfinite(first):
        return f"the first loss is {first}", [
            Finding(
                "first-loss", "error", f"the first loss is {first}",
                fix="look at the layers' results below: which is the first that is not finite?",
            )
        ]  # fmt: skip
    if wanted is None:
        return f"the first loss is {first:.4g}; what to expect of this loss is not known", []
    text = f"the first loss is {first:.4g}; {wanted.value:.4g} is expected, {wanted.why}"
    size = max(abs(wanted.value), 1e-12)
    if first > _TOO_HIGH * size:
        severity: Literal["error", "warning"] = "error" if first > _ABSURD * size else "warning"
        return text, [Finding("first-loss", severity, text, fix=_too_high(kind, target))]
    if first < _TOO_LOW * size:
        fix = "has the model been trained already, or do the inputs hold the targets?"
        return text, [Finding("first-loss", "note", text, fix=fix)]
    return text, []


def _too_high(kind: Kind, target: Array) -> str:
    if kind.name == "mse_loss":
        mean, spread = float(target.mean()), float(target.std())
        if abs(mean) > spread:
            return (
                f"the targets have mean {mean:.4g} and deviation {spread:.4g}: normalise them, or "
                "set the bias of the last layer to the mean"
            )
        return "smaller weights in the last layer, or normalised inputs"
    return "the model starts sure of itself, and wrong: smaller weights, first in the last layer"


# --- what the loss wants -----------------------------------------------------------------------


def of_labels(kind: Kind, loss: Loss, target: Array) -> Iterator[Finding]:
    """Labels that the loss does not take."""
    if kind.name not in ("cross_entropy", "nll_loss") or target.dtype.kind not in "iu":
        return
    ignored = getattr(loss, "ignore_index", _IGNORED)
    labels = target[target != ignored]
    if labels.size == 0:
        yield Finding("no-labels", "error", f"all targets are {ignored}, which the loss ignores")
        return
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < kind.classes:
        used = len(np.unique(labels))
        if used < kind.classes / 2 and labels.size >= 20 * kind.classes:
            yield Finding(
                "unused-classes", "note",
                f"the model has {kind.classes} outputs, the targets {used} classes",
            )  # fmt: skip
        return
    off = low == 1 and high == kind.classes
    yield Finding(
        "label-range", "error",
        f"the labels go from {low} to {high}; for {kind.classes} outputs they are 0 to "
        f"{kind.classes - 1}",
        fix="the labels count from 1: subtract 1" if off
        else f"give the last layer {high + 1} outputs, or map the labels to 0, 1, 2, ..",
    )  # fmt: skip


_TAKES = {
    "cross_entropy": "logits: it takes their log-softmax itself",
    "binary_cross_entropy_with_logits": "logits: it takes their sigmoid itself",
    "nll_loss": "log-probabilities",
    "binary_cross_entropy": "probabilities, from 0 to 1",
}


def of_results(
    kind: Kind, result: Array, target: Array, made_by: str, layer: str, line: str
) -> Iterator[Finding]:
    """Results that do not fit the loss. `made_by`: the op that they come from."""
    name = kind.name
    if name in ("cross_entropy", "binary_cross_entropy_with_logits"):
        act = made_by if made_by in ("softmax", "sigmoid", "relu", "tanh") else ""
        if not act and name == "cross_entropy" and _are_shares(result, kind.axis):
            act = "softmax"
        if act:
            severity: Literal["error", "warning"]
            severity = "error" if act in ("softmax", "sigmoid") else "warning"
            yield Finding(
                f"{act}-before-loss", severity,
                f"{name} takes {_TAKES[name]}; what comes has gone through {act}, so that it "
                "learns slowly and can never be sure",
                layer, line, f"leave {act} out in training; apply it to what is shown to people",
            )  # fmt: skip
    elif name == "nll_loss" and not _are_log_shares(result, kind.axis):
        yield Finding(
            "no-log-softmax", "error",
            f"nll_loss takes {_TAKES[name]}; the exponentials of the results do not add up to 1",
            layer, line, "end the model with LogSoftmax, or take cross_entropy",
        )  # fmt: skip
    elif name == "binary_cross_entropy" and (result.min() < 0 or result.max() > 1):
        yield Finding(
            "no-sigmoid", "error",
            f"binary_cross_entropy takes {_TAKES[name]}; the results go from {result.min():.3g} to "
            f"{result.max():.3g}",
            layer, line, "take binary_cross_entropy_with_logits",
        )  # fmt: skip
    elif name == "mse_loss":
        yield from _out_of_reach(target, made_by, layer, line)
    if "binary" in name and (target.min() < 0 or target.max() > 1):
        yield Finding(
            "label-range", "error",
            f"{name} takes targets from 0 to 1; they go from {target.min():.4g} to "
            f"{target.max():.4g}",
        )  # fmt: skip


_REACH = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, math.inf),
          "softmax": (0.0, 1.0)}  # fmt: skip


def _out_of_reach(target: Array, made_by: str, layer: str, line: str) -> Iterator[Finding]:
    low, high = _REACH.get(made_by, (-math.inf, math.inf))
    if target.size and (target.min() < low - 0.01 or target.max() > high + 0.01):
        yield Finding(
            "out-of-reach", "error",
            f"the model ends with {made_by}, which gives {low:g} to {high:g}; the targets go from "
            f"{target.min():.4g} to {target.max():.4g}",
            layer, line, f"leave {made_by} out, or scale the targets",
        )  # fmt: skip


def _are_shares(x: Array, axis: int) -> bool:
    if x.ndim < 2 or x.shape[axis] < 2 or x.min() < 0:
        return False
    return bool(np.abs(x.sum(axis=axis, dtype=np.float64) - 1).max() < 1e-4)


def _are_log_shares(x: Array, axis: int) -> bool:
    if x.ndim < 2:
        return True
    return bool(np.abs(np.exp(x.astype(np.float64)).sum(axis=axis) - 1).max() < 1e-3)
