"""`check`: the stages of the recipe, one after the other, within a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from treadle.ir.errors import ArgumentError
from treadle.nn.module import Module
from treadle.nn.recipe import (
    alignment,
    data_look,
    learning,
    losses,
    mixing,
    picture,
    probe,
    samples,
    signals,
)
from treadle.nn.recipe.holding import left_as_it_was
from treadle.nn.recipe.report import Finding, Report, Section, ordered
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import has_batch_norm, layer_name
from treadle.tracer.errors import located
from treadle.tracer.modes import active_trace

T = TypeVar("T")

_FOR_DATA = 0.2  # of the time
_HIGHEST_RATE = 1e-2  # of the training on all samples
_MOST_ELEMENTS = 4_000_000  # of the inputs of one step


def check(
    model: Module,
    loss: losses.Loss,
    data: Any,
    *,
    seconds: float = 60.0,
    steps: int = 200,
    seed: int = 0,
    ignore: Collection[str] = (),
) -> Report:
    """Look for the mistakes that make a network train badly, before it is trained; `print` the
    result. After Karpathy, "A Recipe for Training Neural Networks" (2019).

    `data`: a DataLoader, a Dataset, a list of batches, or a pair of arrays (inputs, targets); the
    first axis counts samples. `loss`: any function of (result, targets), as `fit` takes it.

    It looks at the data; compares the first loss with what chance gives; follows the size of
    signals and gradients through the layers; finds samples that are mixed up and reshapes where a
    permute was meant; overfits one sample, then ten; and trains on all for a while, beside a
    training whose inputs are zeros.

    It ends after about `seconds` (a stage that has begun compiles to its end) and takes at most
    `steps` steps for each training and learning rate. `ignore`: codes of findings to leave out.

    The model, its modes and gradients, the loader and the random state are bitwise as before, also
    where an error is raised: ArgumentError for unusable arguments, and whatever the model or the
    loss raises for such data.
    """
    if not isinstance(model, Module):
        raise located(ArgumentError(f"model must be a Module, found {type(model).__name__}"))
    if not callable(loss):
        raise located(ArgumentError(f"loss must be a function, found {type(loss).__name__}"))
    if not seconds > 0 or not isinstance(steps, int) or steps < 1:
        raise located(
            ArgumentError(f"seconds and steps must be above 0, found {seconds!r} and {steps!r}")
        )
    if active_trace() is not None:
        raise located(ArgumentError("check() runs outside of jitted functions"))
    with left_as_it_was(model, loss, data):
        return _Check(model, loss, seconds, steps, seed).run(data, frozenset(ignore))


class _Check:
    def __init__(
        self, model: Module, loss: losses.Loss, seconds: float, steps: int, seed: int
    ) -> None:
        self.model, self.loss, self.seconds = model, loss, seconds
        self.steps, self.seed = steps, seed
        self.start = time.monotonic()
        self.deadline = self.start + seconds
        self.findings: list[Finding] = []
        self.sections: list[Section] = []
        self.skipped: list[str] = []

    def run(self, data: Any, ignore: frozenset[str]) -> Report:
        shown = self._stages(data)
        parameters = sum(p.size for p in self.model.parameters())
        name = f"{type(self.model).__name__}, {parameters:,} parameters"
        left = ordered(f for f in self.findings if f.code not in ignore)
        seconds = time.monotonic() - self.start
        return Report(name, left, tuple(self.sections), tuple(self.skipped), seconds, shown)

    def _stages(self, data: Any) -> Samples:
        found = self._stage("data", lambda: self._data(data))
        mixed = self._stage("samples", lambda: self._mixing(found))
        kind = losses.Kind("unknown", False)
        if mixed.result is not None:
            kind = losses.recognised(self.loss, mixed.result.shape, mixed.samples.target)
            self._note(losses.of_labels(kind, self.loss, found.target))
            self._note(self._of_results(kind, mixed, found))
        if stop := self._blocking():
            self.skipped.append(f"layers, learning: {stop}")
            return found.rows(range(min(len(found), picture.MOST)))
        used = losses.counted(kind, self.loss, found)
        self._late("first loss and layers", lambda: self._layers(used, mixed, kind))
        self._late("learning", lambda: self._learning(used, kind))
        return found.rows(range(min(len(found), picture.MOST)))

    def _blocking(self) -> str:
        """What makes numbers useless, if anything does."""
        wrong = ("not-finite", "label-range", "no-labels", "loss-fails")
        found = next((f for f in self.findings if f.code in wrong), None)
        return "" if found is None else f"{found.code} first"

    def _late(self, title: str, stage: Callable[[], tuple[str, None]]) -> None:
        if time.monotonic() > self.deadline:
            self.skipped.append(f"{title}: the {self.seconds:g} s were over")
            return
        self._stage(title, stage)

    def _stage(self, title: str, stage: Callable[[], tuple[str, T]]) -> T:
        start = time.monotonic()
        text, found = stage()
        self.sections.append(Section(title, text, time.monotonic() - start))
        return found

    def _note(self, findings: Iterable[Finding]) -> None:
        self.findings += findings

    # --- the stages --------------------------------------------------------------------------

    def _data(self, data: Any) -> tuple[str, Samples]:
        found = samples.read(data, _FOR_DATA * self.seconds)
        text, findings = data_look.look(found)
        self._note(findings)
        return text, found

    def _mixing(self, found: Samples) -> tuple[str, probe.Look]:
        size = probe.probe_size(found)
        try:
            look = probe.look(self.model, self.loss, found.cycled(size))
        except Exception as error:
            error.add_note(f"while check() gave the model a batch of {size} samples")
            raise
        before = len(self.findings)
        self._note(mixing.mixed(self.model, look))
        self._note(mixing.reshapes(self.model, look))
        if look.complaint:
            self._note([Finding("loss-fails", "error", f"the loss refuses it: {look.complaint}")])
        if not self._blocking():
            if len(self.findings) == before:
                self._note(alignment.misaligned(self.loss, look))
            self._note(alignment.ignored(look))
        text = f"{len(look.samples)} samples, in evaluation mode"
        if has_batch_norm(self.model):
            text += "; in training batch norm mixes the samples of a batch, as it should"
        return text, look

    def _of_results(self, kind: losses.Kind, look: probe.Look, found: Samples) -> Iterable[Finding]:
        """What of the model's results does not fit the loss."""
        made, op, layer = look.made_by, "", ""
        assert look.result is not None
        if made is not None:
            op, layer = made.op.name, layer_name(self.model, look.trace.made_in.get(made, ""))
        line = look.trace.line_of(made)
        return losses.of_results(kind, look.result, found.target, op, layer, line)

    def _layers(self, found: Samples, mixed: probe.Look, kind: losses.Kind) -> tuple[str, None]:
        size = sum(int(x[0].size) for x in found.inputs)
        count = min(signals.MOST_SAMPLES, max(8, _MOST_ELEMENTS // max(size, 1)))
        some = found.cycled(max(2, min(count, len(found))))
        seen = signals.signals(self.model, self.loss, some)
        first = f"the first loss is {seen.loss:.4g}"
        if mixed.result is not None:
            shape = (len(some), *mixed.result.shape[1:])
            even = mixed.result[:1].repeat(len(some), axis=0).reshape(shape)
            wanted = losses.expected(kind, self.loss, even, some.target)
            first, findings = losses.first_loss(kind, seen.loss, wanted, some.target)
            self._note(findings)
        self._note(signals.judged(self.model, seen))
        return f"loss: {kind.name}; {first}\n{seen}", None

    def _learning(self, found: Samples, kind: losses.Kind) -> tuple[str, None]:
        step = learning.prepared(self.model, self.loss, found)
        if step is None:
            text = "there is nothing to train: no parameter requires grad, or none is reached"
            self._note([Finding("nothing-to-train", "warning", text)])
            return text, None
        lines, courses = [], []
        for count in dict.fromkeys((1, min(10, len(found)))):
            course, wanted = learning.overfit(step, found, kind, count, self.steps, self.deadline)
            courses.append(course)
            lines.append(_told(course, "one sample" if count == 1 else f"{count} samples"))
            self._note(learning.judged(course, wanted, kind, count))
        self._note(learning.unmoved(step, courses[-1]))
        if len(found) < learning.BATCH:
            self.skipped.append(f"all samples, baseline: fewer than {learning.BATCH} samples")
            return "\n".join(lines), None
        steps = learning.affordable(courses, self.steps, self.deadline - time.monotonic())
        if steps == 0:
            self.skipped.append(f"all samples, baseline: the {self.seconds:g} s were over")
            return "\n".join(lines), None
        rate = min(courses[-1].rate, _HIGHEST_RATE)
        whole, blank = (
            learning.train(
                step, learning.shuffled(data, self.seed), steps, rate, -math.inf, math.inf
            )
            for data in (found, learning.without_inputs(found))
        )
        lines.append(_told(whole, "all samples"))
        lines.append(_told(blank, "the same without inputs"))
        self._note(learning.compared(whole, blank))
        return "\n".join(lines), None


def _told(course: learning.Course, what: str) -> str:
    text = f"{what}: loss {course.losses[0]:.4g} to {course.end:.4g} in {len(course.losses)} steps"
    text += f" (Adam, rate {course.rate:g}; least {course.least:.4g})"
    return text + (", cut short" if course.cut_short else "")
