"""Can the model learn at all: one sample, ten, then all; and is its input of any use?

The step (forward, backward) is compiled once, for a batch of 20: one sample is there 20 times, ten
are there twice. Parameters are copies, and Adam is here, in NumPy: nothing of the user's is written
to. Dropout rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Value
from treadle.nn.module import Module
from treadle.nn.recipe.losses import Kind, Loss
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import (
    Program,
    arguments,
    compiled,
    looking,
    set_training,
    total,
)

Array = npt.NDArray[Any]
Batches = Callable[[int], Samples]

BATCH: Final = 20
RATES: Final = (1e-2, 1e-3, 1e-1, 1e-4)
_FITTED: Final = 0.05  # of the first loss, one sample
_FITTED_TEN: Final = 0.3
_USEFUL: Final = 0.98  # of the loss without inputs, above which these are of no use
_BETAS: Final = (0.9, 0.999)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The compiled step: a loss, and gradients of parameters that are its state."""

    program: Program
    params: dict[str, Value]

    def initial(self) -> dict[str, Array]:
        """Copies of the parameters as they are."""
        return {name: np.array(self.program.state[v]) for name, v in self.params.items()}

    def run(self, params: dict[str, Array], samples: Samples) -> tuple[float, dict[str, Array]]:
        """The loss and the gradients, by name."""
        other = {self.params[name]: array for name, array in params.items()}
        found = self.program.run(samples.named(), other)
        return float(found["loss"]), {name: found[name] for name in params}


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """One training: the losses, the learning rate, the parameters at its end, and whether it was
    cut short for want of time."""

    losses: tuple[float, ...]
    rate: float
    params: dict[str, Array]
    cut_short: bool = False

    @property
    def least(self) -> float:
        finite = [x for x in self.losses if math.isfinite(x)]
        return min(finite, default=math.inf)

    @property
    def end(self) -> float:
        """The mean of the last third."""
        last = self.losses[-max(len(self.losses) // 3, 1) :]
        return float(np.mean(last)) if last else math.inf


def prepared(model: Module, loss: Loss, samples: Samples) -> Step | None:
    """The step; None where there is nothing to train."""
    set_training(model)
    some = samples.cycled(BATCH)
    with looking(model) as trace:
        inputs = arguments(trace, some.inputs, "input")
        (target,) = arguments(trace, [some.target], "target")
        params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        for _, param in params:
            param.grad = None
        value = total(loss(model(*inputs), target))
        if not value.requires_grad:
            return None
        value.backward()
        results = {"loss": value.detach()}
        results |= {name: p.grad.detach() for name, p in params if p.grad is not None}
        function = trace.function(results)
        contents = {
            name: trace.entry[p.cell] for name, p in params if name in results and not p.maps
        }
    used = {p.value for p in function.params}
    known = {name: value for name, value in contents.items() if value in used}
    return Step(compiled(trace, function), known) if known else None


def train(
    step: Step, batches: Batches, steps: int, rate: float, until: float, deadline: float
) -> Course:
    """Adam from the initial parameters, until the loss is at most `until`."""
    params = step.initial()
    means = {n: np.zeros(p.shape) for n, p in params.items()}
    squares = {n: np.zeros(p.shape) for n, p in params.items()}
    losses: list[float] = []
    for t in range(1, steps + 1):
        found, grads = step.run(params, batches(t - 1))
        losses.append(found)
        if not math.isfinite(found) or found <= until:
            break
        if time.monotonic() > deadline:
            return Course(tuple(losses), rate, params, True)
        for name, g in grads.items():
            means[name] += (1 - _BETAS[0]) * (g - means[name])
            squares[name] += (1 - _BETAS[1]) * (g * g - squares[name])
            mean, square = means[name] / (1 - _BETAS[0] ** t), squares[name] / (1 - _BETAS[1] ** t)
            params[name] = (params[name] - rate * mean / (np.sqrt(square) + 1e-8)).astype(g.dtype)
    return Course(tuple(losses), rate, params)


def overfit(
    step: Step, samples: Samples, kind: Kind, count: int, steps: int, deadline: float
) -> tuple[Course, float]:
    """The best of a few learning rates on the first `count` samples, and the loss to come to."""
    some = samples.cycled(BATCH, count)
    first, _ = step.run(step.initial(), some)
    wanted = _wanted(first, kind, count)
    best: Course | None = None
    for rate in RATES:
        course = train(step, lambda _: some, steps, rate, wanted, deadline)
        if best is None or course.least < best.least:
            best = course
        if best.least <= wanted or course.cut_short:
            break
    assert best is not None
    return best, wanted


def _wanted(first: float, kind: Kind, count: int) -> float:
    """A loss that is 0 in the end comes near it; of others only that they fall is known."""
    share = _FITTED if count == 1 else _FITTED_TEN
    if kind.plain:
        return share * first
    return first - 0.1 * abs(first)


def judged(course: Course, wanted: float, count: int) -> Iterator[Finding]:
    """What a training on few samples shows."""
    what = "one sample" if count == 1 else f"{count} samples"
    if course.least <= wanted or course.cut_short:
        return
    yield Finding(
        f"cannot-overfit-{'one' if count == 1 else 'ten'}", "error",
        f"{len(course.losses)} steps on {what} bring the loss from {course.losses[0]:.4g} to "
        f"{course.least:.4g} at best ({wanted:.4g} was to be reached)",
        fix="look at the other findings first; else: do targets belong to these inputs, does every "
        "layer get a gradient, is the model large enough?",
    )  # fmt: skip


def unmoved(step: Step, course: Course) -> Iterator[Finding]:
    """Parameters that a training has not changed at all."""
    before = step.initial()
    still = [n for n, p in course.params.items() if p.tobytes() == before[n].tobytes()]
    if still and len(course.losses) > 2:
        listed = ", ".join(still[:4]) + (", .." if len(still) > 4 else "")
        yield Finding(
            "no-gradient", "warning", f"the gradient of {listed} is 0 in every step",
            still[0].rpartition(".")[0],
            fix="dead units before or behind, or a result that is multiplied by 0?",
        )  # fmt: skip


def shuffled(samples: Samples, seed: int) -> Batches:
    """Batch after batch of the samples in one random order after the other."""
    rng = np.random.default_rng(seed)
    orders: list[Array] = []

    def batch(n: int) -> Samples:
        while sum(map(len, orders)) < (n + 1) * BATCH:
            orders.append(rng.permutation(len(samples)))
        flat = np.concatenate(orders)
        return samples.rows(flat[n * BATCH : (n + 1) * BATCH])

    return batch


def without_inputs(samples: Samples) -> Samples:
    """The samples with inputs of zeros."""
    blank = tuple(np.zeros_like(x) for x in samples.inputs)
    return Samples(blank, samples.target, samples.total, samples.batch, samples.shuffles)


def compared(real: Course, blank: Course) -> Iterator[Finding]:
    """A training with inputs beside one without."""
    if real.cut_short or blank.cut_short or not math.isfinite(blank.end):
        return
    gained = blank.end - real.end
    if gained > (1 - _USEFUL) * abs(blank.end):
        return
    yield Finding(
        "no-better-than-baseline", "warning",
        f"{len(real.losses)} steps end at a loss of {real.end:.4g}; without any input they end at "
        f"{blank.end:.4g}",
        fix="do the targets belong to these inputs (one shuffle for both)? Do they follow from "
        "them at all? Is the learning rate right?",
    )  # fmt: skip
