"""A training loop for those who do not write their own: `fit`, `evaluate`, `predict`.

    history = nn.fit(model, loss, optimizer, train_loader, epochs=10, validation=test_loader,
                     metrics={"accuracy": nn.accuracy}, patience=3)

Everything between two batches is one jitted step; what it does can be read below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.nn.module import Module
from treadle.nn.optim.optimizer import Optimizer
from treadle.nn.optim.plateau import ReduceLROnPlateau
from treadle.nn.progress import Bar, Mean, Progress
from treadle.tracer import api, pytree
from treadle.tracer.api.arguments import option
from treadle.tracer.errors import located
from treadle.tracer.jit import jit
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

Loss = Callable[..., Any]  # loss(model's result, target) -> rank 0, or a dict or tuple of such
Metric = Callable[[Tensor, Any], Tensor]  # metric(model's result, target) -> rank 0
Callback = Callable[[Progress], Any]  # after each epoch; True ends the training
Losses = Mapping[str, Tensor]


def accuracy(result: Tensor, target: Tensor) -> Tensor:
    """The share of rows [N, C] whose largest element is the target's [N]."""
    return api.mean((api.argmax(result, axis=-1) == target).astype(result.dtype))


def fit(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    data: Iterable[Any],
    epochs: int = 1,
    validation: Iterable[Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    scheduler: Any = None,
    patience: int | None = None,
    monitor: str | None = None,
    mode: Literal["min", "max"] = "min",
    callbacks: Sequence[Callback] = (),
    verbose: bool = True,
) -> Progress:
    """Train `model` on the batches (inputs.., target) of `data`, `epochs` times.

    `loss` gives a tensor of rank 0, or several by name, whose sum is minimised and each of which is
    reported. After each epoch `validation` is evaluated, `scheduler` steps (one that waits for a
    plateau gets `monitor`), and `callbacks` see the Progress. The state of the epoch with the least
    `monitor` ("validation loss", or "loss" without validation), or the largest where `mode` is
    "max", is kept and restored at the end; `patience` epochs without a better one end the training.
    `verbose` shows a progress bar with the mean loss and items a second (tqdm's, where installed).

    Raises ArgumentError where `data` has no batches, TreadleError where the loss is not finite.
    """
    step, assess = _train_step(model, loss, optimizer), _evaluator(model, loss, metrics)
    progress = Progress(model, optimizer)
    watched = monitor or ("loss" if validation is None else "validation loss")
    sign = {"min": 1, "max": -1}[option("mode", mode, ("min", "max"))]
    kept: dict[str, npt.NDArray[Any]] = {}
    for epoch in range(epochs):
        model.train()
        totals = Mean()
        with Bar(data, f"epoch {epoch + 1}/{epochs}", verbose) as bar:
            for *inputs, target in data:
                size = _samples(inputs, target)
                totals.add(step(tuple(inputs), target), size)
                bar.add(size, totals)
        numbers = totals.result()
        if not numbers:
            raise located(ArgumentError("fit got no batches"))
        if not math.isfinite(numbers["loss"]):
            raise located(TreadleError(f"the loss of epoch {epoch + 1} is {numbers['loss']}"))
        if validation is not None:
            numbers |= {f"validation {k}": v for k, v in assess(validation).items()}
        progress.epochs.append(numbers)
        if verbose:
            print(f"epoch {epoch + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
        if watched not in numbers:
            raise located(ArgumentError(f"there is no {watched!r}; there are {list(numbers)}"))
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(numbers[watched])
        elif scheduler is not None:
            scheduler.step()
        if progress.best_epoch < 0 or sign * numbers[watched] < sign * progress.best:
            progress.best, progress.best_epoch = numbers[watched], epoch
            kept = {k: np.array(v.numpy()) for k, v in model.state_dict().items()}
        stops = [callback(progress) is True for callback in callbacks]
        waited = epoch - progress.best_epoch
        if any(stops) or (patience is not None and waited >= patience):
            break
    if kept:
        model.load_state_dict(kept)
    return progress


def _samples(inputs: Sequence[Any], target: Any) -> int:
    """How many samples a batch has: the first size of its first array."""
    leaves, _ = pytree.flatten((inputs, target))
    return next((x.shape[0] for x in leaves if getattr(x, "shape", ())), 1)


def evaluate(
    model: Module, loss: Loss, data: Iterable[Any], metrics: Mapping[str, Metric] | None = None
) -> dict[str, float]:
    """The mean of the losses and metrics over all samples of `data`, in evaluation mode.

    Raises ArgumentError where `data` has no batches.
    """
    return _evaluator(model, loss, metrics)(data)


def _evaluator(
    model: Module, loss: Loss, metrics: Mapping[str, Metric] | None
) -> Callable[[Iterable[Any]], dict[str, float]]:
    chosen = dict(metrics or {})

    @jit
    def step(inputs: tuple[Tensor, ...], target: Any) -> Losses:
        with no_grad():
            result = model(*inputs)
            numbers = _named(loss(result, target))
            return {**numbers, **{name: m(result, target) for name, m in chosen.items()}}

    def over(data: Iterable[Any]) -> dict[str, float]:
        totals = Mean()
        with _evaluating(model):
            for *inputs, target in data:
                totals.add(step(tuple(inputs), target), _samples(inputs, target))
        if not (found := totals.result()):
            raise located(ArgumentError("evaluate got no batches"))
        return found

    return over


def predict(model: Module, data: Iterable[Any]) -> npt.NDArray[Any]:
    """The model's results for all batches of inputs, in evaluation mode, one after the other along
    the first axis. A batch is a tensor, or a tuple of the model's inputs."""

    @jit
    def step(inputs: tuple[Tensor, ...]) -> Tensor:
        with no_grad():
            return model(*inputs)  # type: ignore[no-any-return]  # what a model gives

    with _evaluating(model):
        found = [np.array(step(b if isinstance(b, tuple) else (as_tensor(b),))) for b in data]
    if not found:
        raise located(ArgumentError("predict got no batches"))
    return np.concatenate(found)


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """In this block the model is in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _train_step(model: Module, loss: Loss, optimizer: Optimizer) -> Callable[..., Losses]:
    @jit
    def step(inputs: tuple[Tensor, ...], target: Any) -> Losses:
        optimizer.zero_grad()
        numbers = _named(loss(model(*inputs), target))
        numbers["loss"].backward()
        optimizer.step()
        return {name: value.detach() for name, value in numbers.items()}

    return step


def _named(found: Any) -> dict[str, Tensor]:
    """Losses by name, with their sum as "loss"."""
    if isinstance(found, Tensor):
        return {"loss": found}
    parts = dict(found) if isinstance(found, Mapping) else dict(enumerate(found))
    named = {str(k): v for k, v in parts.items()}
    return {"loss": sum(list(named.values())[1:], next(iter(named.values()))), **named}
