"""How large the signals are in each layer, forward and backward: dead units, saturation, vanishing
and exploding.

One traced training step, without dropout: a zero that requires grad is added to each layer's
result, so that its gradient is the loss's with respect to that result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr
from treadle.ir.types import float64
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.nn.recipe.losses import Loss
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import (
    LookTrace,
    Program,
    arguments,
    compiled,
    is_leaf,
    layer_name,
    looking,
    set_training,
    total,
)
from treadle.nn.table import text_table
from treadle.tracer import api
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor

MOST_SAMPLES: Final = 64
_GROWN: Final = 1e3  # a root mean square, as a multiple of the inputs'
_LOST: Final = 1e-4
_VANISHED: Final = 1e-4  # a gradient, as a share of the largest of all layers
_EXPLODED: Final = 1e4
_TOLD: Final = 0.1  # of the units of a layer: from here on it is in the text
_MOSTLY: Final = 0.6  # of the units of a layer
_ALL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of one layer: the root mean square of its result, the size of the gradient with
    respect to it (nan where none comes), the size of its parameters' gradients as a share of the
    parameters' own (nan where it has none)."""

    path: str
    kind: str
    rms: float
    gradient: float
    share: float
    trained: bool


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one activation: how many never work, or hardly ever move."""

    op: str
    path: str
    line: str
    share: float


@dataclass(frozen=True, slots=True)
class Signals:
    """What one step showed. `unreached`: parameters that the loss does not depend on."""

    loss: float
    inputs: float
    layers: tuple[Layer, ...]
    units: tuple[Units, ...]
    unreached: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            (
                layer.path or "-", layer.kind, f"{layer.rms:.2e}", _number(layer.gradient),
                _number(layer.share),
            )
            for layer in self.layers
        ]  # fmt: skip
        titles = ("layer", "kind", "size", "gradient", "of weights")
        lines = [text_table(titles, rows)] if rows else []
        lines += [
            f"{u.op} in {u.path or 'the model'} ({u.line}): {u.share:.0%} of the units "
            f"{'never work' if u.op == 'relu' else 'are saturated'}"
            for u in self.units
            if u.share >= _TOLD
        ]
        return "\n".join(lines)


def _number(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.2e}"


class _Watch:
    """What is traced beside the step."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Module, Tensor, Tensor]] = []

    def hook(self, trace: LookTrace, path: str, module: Module, result: Any) -> Any:
        if not is_leaf(module):
            return None
        if isinstance(result, tuple) and result and isinstance(result[0], Tensor):
            first = self.hook(trace, path, module, result[0])
            return None if first is None else type(result)((first, *result[1:]))
        if not isinstance(result, Tensor) or not result.dtype.is_float or result.weak:
            return None
        added = api.zeros(result.shape, dtype=result.dtype).requires_grad_()
        shown = result + added
        self.calls.append((path, module, shown, added))
        return shown


def signals(model: Module, loss: Loss, samples: Samples) -> Signals:
    """One traced and compiled step on the samples. Raises what the model or the loss raises."""
    set_training(model)
    watch = _Watch()
    with looking(model, watch.hook) as trace:
        inputs = arguments(trace, samples.inputs, "input")
        (target,) = arguments(trace, [samples.target], "target")
        params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        for _, param in params:
            param.grad = None
        value = total(loss(model(*inputs), target))
        forward = list(trace.builder.instrs)
        if value.requires_grad:
            value.backward()
        with no_grad():
            results = _measured(trace, watch, value, params)
            acts = _activations(trace, forward)
            results |= {f"unit{n}": share for n, (_, share) in enumerate(acts)}
        unreached = tuple(name for name, p in params if p.grad is None)
        function = trace.function(results)
    found = _run(compiled(trace, function), samples)
    layers = _layers(watch, found, dict(params))
    units = tuple(
        Units(
            i.op.name, trace.made_in.get(i, ""), trace.line_of(i), found[f"unit{n}"]
        )
        for n, (i, _) in enumerate(acts)
    )  # fmt: skip
    return Signals(found["loss"], _rms_of(samples), layers, units, unreached)


def _run(program: Program, samples: Samples) -> dict[str, float]:
    with np.errstate(all="ignore"):
        return {name: float(x) for name, x in program.run(samples.named()).items()}


def _measured(
    trace: LookTrace, watch: _Watch, value: Tensor, params: Sequence[tuple[str, Parameter]]
) -> dict[str, Tensor]:
    results = {"loss": value.detach().astype(float64)}
    for n, (_, _, result, added) in enumerate(watch.calls):
        results[f"rms{n}"] = _rms(result.detach())
        if added.grad is not None:
            results[f"grad{n}"] = _norm(added.grad.detach())
    for name, param in params:
        if param.grad is not None:
            results[f"of {name}"] = _norm(param.grad.detach())
    return results


def _rms(x: Tensor) -> Tensor:
    return api.sqrt(api.mean(api.square(x.astype(float64))))


def _norm(x: Tensor) -> Tensor:
    return api.sqrt(api.sum(api.square(x.astype(float64))))


def _rms_of(samples: Samples) -> float:
    floats = [x for x in samples.inputs if x.dtype.kind == "f" and x.size]
    if not floats:
        return 1.0
    return max(float(np.sqrt(np.mean(x.astype(np.float64) ** 2))) for x in floats) or 1.0


def _activations(trace: LookTrace, instrs: Sequence[Instr]) -> list[tuple[Instr, Tensor]]:
    """The instructions that can die or saturate, each with the share of units that do."""
    found = []
    for instr in instrs:
        if instr.op.name not in ("relu", "sigmoid", "tanh") or not instr.results:
            continue
        value = instr.results[0]
        if value.type.rank < 2 or not value.type.dtype.is_float:
            continue
        x = trace.new(value)
        if instr.op.name == "relu":
            found.append((instr, _dead(x)))
        else:
            low, high = (0.01, 0.99) if instr.op.name == "sigmoid" else (-0.99, 0.99)
            found.append((instr, api.mean(((x < low) | (x > high)).astype(float64))))
    return found


def _dead(x: Tensor) -> Tensor:
    """The share of units that are 0 for all samples and places. Units lie along axis 1, or, in
    [N, T, F], along either."""
    shares = []
    for axis in (1, 2) if x.ndim == 3 else (1,):
        rest = tuple(a for a in range(x.ndim) if a != axis)
        shares.append(api.mean((api.max(x, axis=rest) <= 0).astype(float64)))
    return shares[0] if len(shares) == 1 else api.maximum(*shares)


def _layers(watch: _Watch, found: dict[str, float], params: dict[str, Parameter]) -> Any:
    rows = []
    for n, (path, module, _, _) in enumerate(watch.calls):
        own = [name for name, p in params.items() if _belongs(name, path) and f"of {name}" in found]
        weights = math.sqrt(sum(_square(params[name]) for name in own))
        grads = math.sqrt(sum(found[f"of {name}"] ** 2 for name in own))
        share = grads / weights if weights else math.nan
        gradient = found.get(f"grad{n}", math.nan)
        trained = any(True for _ in module.parameters(recurse=False))
        kind = type(module).__name__
        rows.append(Layer(path, kind, found[f"rms{n}"], gradient, share, trained))
    return tuple(rows)


def _belongs(name: str, path: str) -> bool:
    return name.rpartition(".")[0] == path


def _square(param: Parameter) -> float:
    return float(np.sum(np.square(param.detach().numpy().astype(np.float64))))


# --- findings ----------------------------------------------------------------------------------


def judged(model: Module, found: Signals) -> Iterator[Finding]:
    """What is wrong with these signals."""
    yield from _of_units(model, found.units)
    forward = list(_forward(model, found))
    yield from forward
    if not any(f.code == "not-finite" for f in forward):
        yield from _backward(model, found)
    if found.unreached:
        listed = ", ".join(found.unreached[:4]) + (", .." if len(found.unreached) > 4 else "")
        yield Finding(
            "no-gradient", "warning",
            f"the loss does not depend on {listed}: no gradient comes there",
            found.unreached[0].rpartition(".")[0],
            fix="is the layer used, and is there a detach(), an argmax or a comparison behind it? "
            "Freeze what is not to be trained: requires_grad_(False)",
        )  # fmt: skip


def _of_units(model: Module, units: Sequence[Units]) -> Iterator[Finding]:
    for unit in units:
        if unit.share < _MOSTLY:
            continue
        layer = layer_name(model, unit.path)
        if unit.op == "relu":
            yield Finding(
                "dead-units", "error" if unit.share >= _ALL else "warning",
                f"{unit.share:.0%} of the units of a ReLU are 0 for every sample: no gradient "
                "passes them",
                layer, unit.line,
                "look at the bias and the size of the weights before it, and at the learning rate; "
                "normalise the inputs",
            )  # fmt: skip
        else:
            yield Finding(
                "saturated", "warning",
                f"{unit.share:.0%} of the values of a {unit.op} are at its ends, where it is flat",
                layer, unit.line, "smaller weights before it, or normalised inputs",
            )  # fmt: skip


def _forward(model: Module, found: Signals) -> Iterator[Finding]:
    for layer in found.layers:
        name = layer_name(model, layer.path)
        if not math.isfinite(layer.rms):
            yield Finding(
                "not-finite", "error", "the first result that is not finite", name,
                fix="look at what comes in, and at the layer's weights",
            )  # fmt: skip
            return
    for layer in found.layers:
        name = layer_name(model, layer.path)
        size = layer.rms / found.inputs
        if size > _GROWN:
            yield Finding(
                "exploding-signal", "error",
                f"the result is {size:.1e} times the size of the inputs, and grows from layer to "
                "layer",
                name, fix="smaller weights: of variance 2 / fan_in before a ReLU, 1 / fan_in else "
                "(treadle.nn.init.kaiming_normal_), or normalisation layers",
            )  # fmt: skip
            return
    for layer in found.layers:
        if 0 < layer.rms < _LOST * found.inputs:
            yield Finding(
                "lost-signal", "warning",
                f"the result is {layer.rms / found.inputs:.1e} times the size of the inputs",
                layer_name(model, layer.path),
                fix="larger weights: of variance 2 / fan_in before a ReLU, 1 / fan_in else",
            )  # fmt: skip
            return


def _backward(model: Module, found: Signals) -> Iterator[Finding]:
    """Gradients with respect to the results of layers that are trained, in the order of calls."""
    rows = [r for r in found.layers if r.trained and not math.isnan(r.gradient)]
    if len(rows) < 2:
        return
    if not all(math.isfinite(r.gradient) for r in rows):
        bad = next(r for r in reversed(rows) if not math.isfinite(r.gradient))
        yield Finding(
            "not-finite", "error", "the gradient is not finite", layer_name(model, bad.path)
        )
        return
    last = rows[-1].gradient
    if last == 0:
        return
    vanished = [r for r in rows if 0 < r.gradient < _VANISHED * last]
    if vanished:
        worst = min(vanished, key=lambda r: r.gradient)
        yield Finding(
            "vanishing-gradient", "warning",
            f"the gradient shrinks to {worst.gradient / last:.1e} of the last layer's",
            layer_name(model, worst.path),
            fix="ReLU instead of sigmoid or tanh, normalisation layers, residual connections, "
            "larger initial weights",
        )  # fmt: skip
    exploded = [r for r in rows if r.gradient > _EXPLODED * last]
    if exploded:
        worst = max(exploded, key=lambda r: r.gradient)
        yield Finding(
            "exploding-gradient", "error",
            f"the gradient grows to {worst.gradient / last:.1e} of the last layer's",
            layer_name(model, worst.path),
            fix="smaller initial weights, normalisation layers; for recurrent layers clip it",
        )  # fmt: skip
