"""The model on a few samples, traced and run once: what the stages on mixed samples look at.

The model is looked at in evaluation mode, for batch norm mixes the samples of a training batch as
it should. The number of samples is a prime that no axis of the inputs has, so that an axis of that
size is the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.cut import cut
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CheckError, IndexFault
from treadle.ir.graph import Instr
from treadle.nn.module import Module
from treadle.nn.recipe.losses import Loss, class_count, in_range
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import (
    LookTrace,
    Program,
    arguments,
    compiled,
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


def exchanged(found: Look) -> Samples:
    """The samples with the inputs of the first in the place of the middle one."""
    order = np.arange(len(found.samples))
    order[found.middle] = 0
    moved = found.samples.rows(order)
    return Samples(moved.inputs, found.samples.target, None, 0, None)
