"""Can the model learn at all: one sample, ten, then all; and is its input of any use?

The step (forward, backward, Adam) is compiled once, for a batch of 20: one sample is there 20
times, ten are there twice. It takes parameters and moments and gives new ones, so that nothing of
the user's is written to. Dropout rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CheckError, IndexFault
from treadle.ir.graph import Value
from treadle.ir.types import TensorType, float64
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.recipe.losses import Kind, Loss
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import (
    LookTrace,
    Program,
    arguments,
    compiled,
    looking,
    set_training,
    total,
)
from treadle.tracer import api
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]
Batches = Callable[[int], Samples]

BATCH: Final = 20
RATES: Final = (1e-2, 1e-3, 1e-1, 1e-4)
_FITTED: Final = 0.05  # of the first loss, one sample
_FITTED_TEN: Final = 0.3
_USEFUL: Final = 0.98  # of the loss without inputs, above which these are of no use
_BETAS: Final = (0.9, 0.999)
_FEWEST: Final = 30  # steps from which on a training is compared with the baseline


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The compiled step: it gives a loss and the parameters and moments after it."""

    program: Program
    params: dict[str, Value]

    def initial(self) -> dict[str, Array]:
        """The parameters as they are; not to be written to."""
        return {name: self.program.state[v] for name, v in self.params.items()}

    def start(self) -> dict[str, Array]:
        """Parameters and moments before the first step, by the names of the results."""
        found = {}
        for name, array in self.initial().items():
            found[name] = array
            found[f"mean {name}"] = found[f"square {name}"] = np.zeros_like(array)
        return found

    def loss(self, samples: Samples) -> float:
        """The loss before any step."""
        return self.run(self.start(), samples, 0.0, 1)[0]

    def run(
        self, now: dict[str, Array], samples: Samples, rate: float, count: int
    ) -> tuple[float, dict[str, Array]]:
        """The loss, and what is in the place of `now` after the step of that number."""
        numbers = np.array([rate / (1 - _BETAS[0] ** count), 1 - _BETAS[1] ** count])
        other = {value: now[name] for name, value in self.params.items()}
        found = self.program.run({**now, **samples.named(), "numbers": numbers}, other)
        return float(found.pop("loss")), found


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """One training: the losses, the learning rate, the parameters at its end, how long it took,
    and whether it was cut short for want of time."""

    losses: tuple[float, ...]
    rate: float
    params: dict[str, Array]
    seconds: float
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
        reached = [(n, p) for n, p in params if p.grad is not None]
        numbers = trace.arg(TensorType(float64, (2,)), "numbers")
        results = {"loss": value.detach()}
        with no_grad():
            for name, param in reached:
                results |= _updated(trace, name, param, numbers)
        function = trace.function(results)
        known = {name: trace.entry[p.cell] for name, p in reached}
    return Step(compiled(trace, function), known) if known else None


def _updated(trace: LookTrace, name: str, param: Parameter, numbers: Tensor) -> dict[str, Tensor]:
    """Kingma and Ba (2015): the parameter and its moments after one step. `numbers`: the rate over
    the first correction, the second correction."""
    rate, correction = (numbers[n].astype(param.dtype) for n in range(2))
    mean, square = (trace.arg(param.type, f"{kind} {name}") for kind in ("mean", "square"))
    assert param.grad is not None
    grad = param.grad.detach()
    mean = mean + (1 - _BETAS[0]) * (grad - mean)
    square = square + (1 - _BETAS[1]) * (grad * grad - square)
    moved = param.detach() - rate * mean / (api.sqrt(square / correction) + 1e-8)
    return {name: moved, f"mean {name}": mean, f"square {name}": square}


def train(
    step: Step, batches: Batches, steps: int, rate: float, until: float, deadline: float
) -> Course:
    """Adam from the initial parameters, until the loss is at most `until`."""
    now = step.start()
    losses: list[float] = []
    begun = time.monotonic()
    cut_short = False
    for count in range(1, steps + 1):
        try:
            found, after = step.run(now, batches(count - 1), rate, count)
        except (CheckError, IndexFault):
            found, after = math.inf, now  # a check in the loss, of what has diverged
        losses.append(found)
        if not math.isfinite(found) or found <= until:
            break
        now = after
        cut_short = time.monotonic() > deadline
        if cut_short:
            break
    params = {name: now[name] for name in step.params}
    return Course(tuple(losses), rate, params, time.monotonic() - begun, cut_short)


def overfit(
    step: Step, samples: Samples, kind: Kind, count: int, steps: int, deadline: float
) -> tuple[Course, float]:
    """The best of a few learning rates on the first `count` samples, and the loss to come to."""
    some = samples.cycled(BATCH, count)
    wanted = _wanted(step.loss(some), kind, count)
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


def judged(course: Course, wanted: float, kind: Kind, count: int) -> Iterator[Finding]:
    """What a training on few samples shows. Classes can be told apart by any model that works; of
    other losses it depends on what the model leaves out by design."""
    classes = kind.name in ("cross_entropy", "nll_loss") and kind.plain
    what = "one sample" if count == 1 else f"{count} samples"
    if course.least <= wanted or course.cut_short:
        return
    yield Finding(
        f"cannot-overfit-{'one' if count == 1 else 'ten'}", "error" if classes else "warning",
        f"{len(course.losses)} steps on {what} bring the loss from {course.losses[0]:.4g} to "
        f"{course.least:.4g} at best ({wanted:.4g} was to be reached)",
        fix="look at the other findings first; else: do targets belong to these inputs, does every "
        "layer get a gradient, is the model large enough?",
    )  # fmt: skip


def unmoved(step: Step, course: Course) -> Iterator[Finding]:
    """Layers of which a training has changed no parameter at all."""
    before = step.initial()
    layers: dict[str, list[str]] = {}
    for name in before:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    still = [
        name
        for names in layers.values()
        if all(course.params[n].tobytes() == before[n].tobytes() for n in names)
        for name in names
    ]
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


def affordable(courses: Sequence[Course], steps: int, seconds: float) -> int:
    """How many steps each of two trainings may take in so many seconds, as far as others tell; 0
    for too few."""
    taken = sum(len(c.losses) for c in courses)
    each = sum(c.seconds for c in courses) / taken
    count = min(steps, int(seconds / (2 * each + 1e-9)))
    return count if count >= min(_FEWEST, steps) else 0


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
