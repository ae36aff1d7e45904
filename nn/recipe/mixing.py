"""Samples that are mixed up: by a reshape, by a layer that takes another axis for the batch, by a
loss that compares one sample's result with another's target.

The model is looked at in evaluation mode, for batch norm mixes the samples of a training batch as
it should. The number of samples is a prime that no axis of the inputs has, so that an axis of that
size is the batch.

- The gradient of one sample's result with respect to the inputs of the others is 0.
- Where it is not, the program is interpreted twice, with one sample exchanged: the first value in
  which the change is no longer confined to that sample's place is the culprit.
- A loss adds up over samples: exchanging the input of one and the target of another changes it by
  the sum of both changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.cut import cut
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CheckError, IndexFault, TreadleError
from treadle.ir.graph import Function, Instr, Loc, Value
from treadle.ir.interpreter import interpret
from treadle.ir.types import shape_text
from treadle.nn.module import Module
from treadle.nn.recipe.losses import Loss, class_count, in_range
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.reshapes import reordered
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import (
    LookTrace,
    Program,
    arguments,
    compiled,
    layer_name,
    looking,
    tensors_in,
    total,
)
from treadle.tracer import api
from treadle.tracer.backend import CompileOptions, compiler
from treadle.tracer.create import tensor
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]

_PRIMES = (7, 11, 13, 5, 17, 19, 23, 29)
_NOISE = 1e-6  # of a sample's own gradient
_INTERACTION = 0.3  # of a sample's own effect
_MOST_ELEMENTS = 50_000_000  # that are kept to find a culprit


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The traced model, and what it gave for the samples.

    outputs    the names of the results that have a row a sample
    others     those that have places for samples along another axis, or joined with one
    complaint  what a check in the loss has found wrong
    """

    trace: LookTrace
    program: Program
    samples: Samples
    outputs: tuple[str, ...]
    others: tuple[str, ...]
    given: dict[str, Array]
    made_by: Instr | None
    complaint: str

    @property
    def result(self) -> Array | None:
        """The model's result, where it is one tensor."""
        return self.given.get("output0") if "output1" not in self.given else None

    @property
    def middle(self) -> int:
        """The sample that is followed."""
        return len(self.samples) // 2


def probe_size(samples: Samples) -> int:
    """A prime that no axis of the inputs has, and that divides none where there is a choice."""
    sizes = {s for x in (*samples.inputs, samples.target) for s in x.shape[1:]}
    free = [p for p in _PRIMES if all(s % p for s in sizes)]
    return (free or [p for p in _PRIMES if p not in sizes] or [31])[0]


def look(model: Module, loss: Loss, samples: Samples) -> Look:
    """Trace and run the model on the samples, in evaluation mode. Raises what the model raises."""
    model.eval()
    with looking(model) as trace:
        inputs = arguments(trace, samples.inputs, "input")
        (target,) = arguments(trace, [samples.target], "target")
        leaves = [x.detach().requires_grad_() if x.dtype.is_float else x for x in inputs]
        result = model(*leaves)
        outputs = tensors_in(result)
        results = {f"output{n}": x.detach() for n, x in enumerate(outputs)}
        results["loss"] = total(loss(result, target)).detach()
        made_by = _maker(trace, outputs)
        results |= _reach_of_middle(outputs, leaves, len(samples))
        function = trace.function(results)
    program, samples = compiled(trace, function), _with_safe_labels(samples, outputs)
    count = len(samples)
    rows = tuple(f"output{n}" for n, x in enumerate(outputs) if x.shape[:1] == (count,))
    spread = (n for n, x in enumerate(outputs) if any(s and s % count == 0 for s in x.shape))
    others = tuple(name for n in spread if (name := f"output{n}") not in rows)
    complaint = ""
    try:
        given = program.run(samples.named())
    except (CheckError, IndexFault) as error:
        program, complaint = _without_loss(program), str(error)
        given = {**program.run(samples.named()), "loss": np.array(np.nan)}
    return Look(trace, program, samples, rows, others, given, made_by, complaint)


def _without_loss(program: Program) -> Program:
    """The program for all results but the loss, whose checks are in the way."""
    wanted = [(r.path, r.value) for r in program.function.results if r.path != "loss"]
    part = cut(program.function, wanted)
    return Program(part, program.state, compiler().compile(part, CompileOptions()))


def _with_safe_labels(samples: Samples, outputs: Sequence[Tensor]) -> Samples:
    """Labels that are out of range for a result [N, C, ..] as near ones that are not: here only
    the order of samples matters."""
    target = samples.target
    shape = outputs[0].shape if len(outputs) == 1 else ()
    axis = next((a for a in (1, -1) if _without(shape, a) == target.shape), None)
    if axis is None or class_count(shape, axis) == 0:
        return samples
    safe = in_range(target, class_count(shape, axis))
    return Samples(samples.inputs, safe, samples.total, samples.batch, samples.shuffles)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:1] + shape[2:] if axis == 1 else shape[:-1]


def _maker(trace: LookTrace, outputs: Sequence[Tensor]) -> Instr | None:
    """What computed the model's only result, shapes aside."""
    if len(outputs) != 1:
        return None
    made = trace.value_of(outputs[0]).producer
    while made is not None and made.op.name in ("reshape", "variable", "stop_gradient", "cast"):
        made = made.args[0].producer
    return made


def _reach_of_middle(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], count: int
) -> dict[str, Tensor]:
    """For each float input, by sample: the greatest derivative of the middle sample's results."""
    rng = np.random.default_rng(0)
    parts = []
    for x in outputs:
        if x.dtype.is_float and x.requires_grad and x.shape[:1] == (count,):
            weights = tensor(rng.normal(size=x.shape[1:]).astype(x.dtype.dtype))
            parts.append(api.sum(x[count // 2] * weights))
    if not parts:
        return {}
    sum(parts[1:], parts[0]).backward()
    found = {}
    for n, x in enumerate(inputs):
        if x.requires_grad and x.grad is not None:
            rest = tuple(range(1, x.ndim))
            sizes = api.abs(x.grad.detach())
            found[f"reach{n}"] = api.max(sizes, axis=rest) if rest else sizes
    return found


# --- samples that depend on each other -----------------------------------------------------------


def mixed(model: Module, found: Look) -> Iterator[Finding]:
    """Samples whose results depend on other samples' inputs, and what makes them."""
    others = _others(found)
    if not others:
        return
    culprit = _culprit(found)
    spread = ", ".join(map(str, others[:6])) + (", .." if len(others) > 6 else "")
    said = f"the result of sample {found.middle} of {len(found.samples)} depends on the inputs of "
    said += f"samples {spread}"
    if culprit is None:
        yield Finding("mixed-samples", "error", f"{said}; what mixes them was not found")
        return
    layer = layer_name(model, found.trace.made_in.get(culprit, ""))
    line = found.trace.line_of(culprit)
    if culprit.op.name == "batch_norm":
        yield Finding(
            "mixed-samples", "warning",
            f"{said}: this batch norm has no running statistics and takes the batch's in "
            "evaluation mode, too",
            layer, line, "track_running_stats=True",
        )  # fmt: skip
        return
    yield Finding(
        "mixed-samples", "error", f"{said}; `{culprit.op.name}` mixes them: {_types(culprit)}",
        layer, line, _advice(culprit, found, _batch_first(model, found, culprit)),
    )  # fmt: skip


def _others(found: Look) -> list[int]:
    """The other samples that the middle one's result depends on."""
    reaches = [r for name, r in found.given.items() if name.startswith("reach")]
    own = found.middle
    seen: set[int] = set()
    for reach in reaches:
        limit = _NOISE * float(reach[own])
        seen |= {int(n) for n in np.flatnonzero(reach > limit) if n != own}
    known = bool(reaches) and any(r[own] > 0 for r in reaches)
    if seen or (known and not found.others):
        return sorted(seen)
    return _others_by_exchange(found)


def _others_by_exchange(found: Look) -> list[int]:
    """As `_others`, without derivatives: which results change where one sample is exchanged. The
    other way round, but as good."""
    after = found.program.run(exchanged(found).named())
    changed: set[int] = set()
    for name in found.outputs:
        rows = _differs(found.given[name], after[name]).reshape(len(found.samples), -1).any(axis=1)
        changed |= {int(n) for n in np.flatnonzero(rows)}
    for name in found.others:  # whose places are whose cannot be told where they are mixed
        if not keeps_apart(
            _differs(found.given[name], after[name]), len(found.samples), found.middle
        ):
            changed |= set(range(len(found.samples)))
    return sorted(changed - {found.middle})


def _differs(a: Array, b: Array) -> Array:
    """Where two arrays differ; NaN equals NaN."""
    found: Array = a != b
    return found & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else found


def exchanged(found: Look) -> Samples:
    """The samples with the inputs of the first in the place of the middle one."""
    order = np.arange(len(found.samples))
    order[found.middle] = 0
    moved = found.samples.rows(order)
    return Samples(moved.inputs, found.samples.target, None, 0, None)


# --- the culprit -------------------------------------------------------------------------------


def _culprit(found: Look) -> Instr | None:
    """The first instruction whose operands keep samples apart and whose result does not."""
    fn = found.program.function
    needed = [r.value for r in fn.results if r.path in (*found.outputs, *found.others)]
    values = _on_the_way(fn, needed)
    if sum(int(np.prod(v.type.static_shape)) for v in values) > _MOST_ELEMENTS:
        return None
    part = cut(fn, [(str(n), v) for n, v in enumerate(values)])
    before, after = _interpreted(found, part, found.samples), None
    if before is not None:
        after = _interpreted(found, part, exchanged(found))
    if before is None or after is None:
        return None
    apart = {p.value: True for p in fn.params}
    count, own = len(found.samples), found.middle
    for value, x, y in zip(values, before, after, strict=True):
        made = value.producer
        apart[value] = keeps_apart(_differs(x, y), count, own)
        if made is not None and not apart[value] and all(apart.get(a, True) for a in made.args):
            return made
    return None


def _on_the_way(fn: Function, wanted: Sequence[Value]) -> list[Value]:
    """All values that `wanted` needs, in the program's order."""
    needed, found = set(wanted), []
    for instr in reversed(fn.instrs):
        if not needed.isdisjoint(instr.results):
            needed.update(instr.args)
            found += list(reversed(instr.results))
    return found[::-1]


def _interpreted(found: Look, part: Function, samples: Samples) -> list[Array] | None:
    arrays = samples.named()
    state = found.program.state
    given = [arrays[p.path] if p.path in arrays else state[p.value] for p in part.params]
    try:
        return interpret(part, given)
    except TreadleError:
        return None  # an instruction that only compiled code can run


def keeps_apart(changed: Array, count: int, own: int) -> bool:
    """Whether the elements that changed are all in the place of sample `own` of `count`: along some
    axis their number, by some divisor, is that sample's."""
    if not changed.any():
        return True
    for axis, size in enumerate(changed.shape):
        if size % count:
            continue
        rest = tuple(a for a in range(changed.ndim) if a != axis)
        places = np.flatnonzero(changed.any(axis=rest))
        inner = size // count
        for step in range(1, inner + 1):
            if inner % step == 0 and bool(((places // step) % count == own).all()):
                return True
    return False


def _types(instr: Instr) -> str:
    ins = [shape_text(a.type.shape) for a in instr.args]
    return f"{' and '.join(ins[:2])} to {shape_text(instr.results[0].type.shape)}"


def _batch_first(model: Module, found: Look, culprit: Instr) -> bool:
    """Whether the layer of `culprit`, or one around it, takes the batch for its second axis."""
    path = found.trace.made_in.get(culprit, "")
    layers = dict(model.named_modules())
    around = [path.rsplit(".", n)[0] for n in range(path.count(".") + 1)]
    return any(getattr(layers.get(p), "batch_first", None) is False for p in around)


def _advice(culprit: Instr, found: Look, second: bool) -> str:
    if second:
        return "the layer takes [T, N, F]: batch_first=True for [N, T, F], or exchange the axes"
    if culprit.op.name == "reshape":
        x, y = culprit.args[0].type.static_shape, culprit.results[0].type.static_shape
        meant = reordered(x, y)
        if meant is None:
            return _unjoined(x, y, len(found.samples)) or "split the axis as it was joined"
        return f"a permute is meant: {meant.code}"
    if culprit.op.name in ("scan", "while_loop"):
        return "the steps go along the axis of the samples: exchange the axes before"
    return "keep the axis of the samples apart, or exchange axes before"


def _unjoined(x: tuple[int, ...], y: tuple[int, ...], count: int) -> str | None:
    """What was meant where the axis of samples and others, joined before, was split in another
    order: the sizes in the order in which they were joined, then a permute."""
    at = next((n for n, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), None)
    if at is None or len(y) != len(x) + 1 or count not in y[at : at + 2]:
        return None
    split = (*y[:at], y[at + 1], y[at], *y[at + 2 :])
    axes = (*range(at), at + 1, at, *range(at + 2, len(y)))
    return f"a permute is meant: x.reshape({shape_text(split)}).permute_dims({shape_text(axes)})"


# --- reshapes that the user wrote ----------------------------------------------------------------


def reshapes(model: Module, found: Look) -> Iterator[Finding]:
    """Reshapes in the user's code whose results have their inputs' axes in another order."""
    told: set[tuple[Loc | None, str]] = set()
    for instr in found.trace.reshapes:
        x, y = instr.args[0].type.static_shape, instr.results[0].type.static_shape
        meant = reordered(x, y)
        layer = layer_name(model, found.trace.made_in.get(instr, ""))
        if meant is None or (instr.loc, layer) in told:
            continue
        told.add((instr.loc, layer))
        yield Finding(
            "reshape", "warning",
            f"a reshape from {shape_text(x)} to {shape_text(y)}: the sizes are the input's in "
            "another order, the elements are not",
            layer, found.trace.line_of(instr), f"a permute is meant: {meant.code}",
        )  # fmt: skip


# --- results and targets that do not belong together ---------------------------------------------


def misaligned(loss: Loss, found: Look) -> Iterator[Finding]:
    """A loss that compares the result of one sample with the target of another."""
    if getattr(loss, "weight", None) is not None:
        return  # all targets together say what the mean is taken over
    own, *far = (_interaction(found, k) for k in _from(found.middle, len(found.samples)))
    noise = 1e-5 * abs(float(found.given["loss"]))
    if max(far) <= max(_INTERACTION * own, noise):
        return
    shapes = ""
    if found.result is not None:
        shapes = (
            f": results {shape_text(found.result.shape)}, targets "
            f"{shape_text(found.samples.target.shape)}"
        )
    yield Finding(
        "misaligned-targets", "warning",
        "the loss compares the result of one sample with the target of another" + shapes,
        fix="results and targets must have one shape and one order: look for a broadcast of [N, 1] "
        "with [N], and for axes joined in another order",
    )  # fmt: skip


def _from(first: int, count: int) -> list[int]:
    return [first, *(k for k in range(count) if k != first)]


def _interaction(found: Look, place: int) -> float:
    """How much exchanging the middle sample's input and the target at `place` changes the loss
    beyond the sum of both changes; 0 where all targets are equal."""
    rows = [t.tobytes() for t in found.samples.target]
    source = next((n for n, row in enumerate(rows) if row != rows[place]), None)
    if source is None:
        return 0.0
    order = np.arange(len(rows))
    order[place] = source
    samples, moved = found.samples, exchanged(found)
    old, new = samples.target, samples.target[order]

    def loss(inputs: Samples, target: Array) -> float:
        return float(found.program.run({**inputs.named(), "target0": target})["loss"])

    return abs(loss(moved, new) - loss(moved, old) - loss(samples, new) + loss(samples, old))


def ignored(found: Look) -> Iterator[Finding]:
    """A model that ignores its input, a loss that ignores the result or the targets."""
    samples, moved = found.samples, exchanged(found)
    after = found.program.run(moved.named())
    first = float(found.given["loss"])
    if found.outputs and all(_rows_are_equal(found.given[n]) for n in found.outputs):
        if not _inputs_are_equal(samples):
            yield Finding(
                "ignores-input", "error", "the model gives the same for every sample",
                fix="is the input used, and does a layer before the end still tell samples apart? "
                "(the table of layers shows dead ones)",
            )  # fmt: skip
    elif float(after["loss"]) == first and any(
        bool((after[n] != found.given[n]).any()) for n in found.outputs
    ):
        yield Finding(
            "loss-ignores-result", "error", "the loss is the same whatever the model gives",
            fix="compute the loss from the model's result, without argmax() or comparisons between",
        )  # fmt: skip
    turned = samples.rows(np.roll(np.arange(len(samples)), 1)).target
    again = found.program.run({**samples.named(), "target0": turned})
    if float(again["loss"]) == first and turned.tobytes() != samples.target.tobytes():
        yield Finding(
            "loss-ignores-target", "warning", "the loss is the same whatever the targets are",
            fix="right for a model that learns without targets; else use them in the loss",
        )  # fmt: skip


def _rows_are_equal(x: Array) -> bool:
    if len(x) < 2 or x.size == 0:
        return False
    scale = float(np.abs(x).max()) if x.dtype.kind == "f" else 0.0
    wide = x.astype(np.float64)
    return bool(np.abs(wide - wide[:1]).max() <= 1e-7 * scale)


def _inputs_are_equal(samples: Samples) -> bool:
    return all(bool((x == x[:1]).all()) for x in samples.inputs)
