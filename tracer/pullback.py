"""An eager `backward()` through a compiled call.

Where a call gives results that depend on tensors that require grad, it is recorded in the eager
history as one node. When `backward()` reaches the node, a second compiled function runs: the traced
function again with one `gradient` instruction at its end, from the inputs as they were at the
call. What was used up by a `backward()` inside the function is not recorded: differentiating it
again is the same error as without jit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Builder
from treadle.ir.errors import GradientError
from treadle.ir.graph import Function, Result, Value
from treadle.ir.op import NO_ATTRS, Trait, get_op
from treadle.tracer import tape
from treadle.tracer.backend import CompileOptions, Executable, Finished, compiler
from treadle.tracer.cell import Cell
from treadle.tracer.escapes import FreshTensor
from treadle.tracer.history import Node
from treadle.tracer.modes import modes
from treadle.tracer.recorder import Recording, Source
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import reached_from

Array = npt.NDArray[Any]
Pull = Callable[[Sequence["Tensor | None"]], Sequence["Tensor | None"]]


def plan(recording: Recording) -> Pullback | None:
    """What to record at each call; None where no result is differentiable from outside."""
    tracked = [n for n, f in enumerate(recording.fresh) if f.role == "tracked"]
    spent = [n for n, f in enumerate(recording.fresh) if f.role == "spent"]
    if not tracked and not spent:
        return None
    return Pullback(recording, tracked, spent)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A tensor to differentiate by: the variables that stand for it, where it is fetched."""

    position: int
    variables: tuple[Value, ...]


class Pullback:
    """The derivative of one specialization, compiled when it is first needed."""

    def __init__(self, recording: Recording, tracked: Sequence[int], spent: Sequence[int]) -> None:
        self.function = recording.function
        self.options = CompileOptions()
        self.threads: int | None = None
        self.tracked = tracked
        self.spent = spent
        outputs: list[FreshTensor] = [recording.fresh[n] for n in tracked]
        self.outputs = [f.value for f in outputs]
        reached = {v for y in self.outputs for v in reached_from(y)}
        leaves: dict[int, list[Value]] = {}
        for value, position in recording.variables:
            if value in reached:
                leaves.setdefault(position, []).append(value)
        self.leaves = [_Leaf(p, tuple(vs)) for p, vs in leaves.items()]
        self._executable: Executable | None = None
        self._spent_node = Node(None, NO_ATTRS, (), (), None)
        self._spent_node.free()

    def save(
        self, found: Sequence[Any], sources: Sequence[Source], arrays: Sequence[Array]
    ) -> list[Array] | None:
        """The inputs as they are now, safe from later writes: storages are pinned, arrays of the
        user copied. None where backward() can never reach this call."""
        if not self.leaves or not any(_wants_grad(found[leaf.position]) for leaf in self.leaves):
            return None
        return [_pinned(s, found[s.position], a) for s, a in zip(sources, arrays, strict=True)]

    def record(
        self, found: Sequence[Any], fresh: Sequence[Tensor], saved: list[Array] | None
    ) -> None:
        """Add the call to the history of its results."""
        for n in self.spent:
            fresh[n].history.made_by((self._spent_node, 0), fresh[n].cell.version)
        if saved is not None and self.tracked:
            operands = [_owner(found[leaf.position]) for leaf in self.leaves]
            results = [fresh[n] for n in self.tracked]
            tape.record_call(operands, results, self._pull(saved))

    def _pull(self, saved: Sequence[Array]) -> Pull:
        def pull(cts: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            if modes.grad:
                raise GradientError(
                    "a derivative of higher order through a compiled call; take it inside of the "
                    "jitted function, or around it with treadle.grad"
                )
            given = [
                np.zeros(y.type.static_shape, y.type.dtype.dtype) if ct is None else ct.array()
                for y, ct in zip(self.outputs, cts, strict=True)
            ]
            arrays = [*saved, *(np.asarray(g, order="C") for g in given)]
            executable = self.executable()
            for param, _ in executable.in_place:
                arrays[param] = arrays[param].copy()
            try:
                outs = executable.run(arrays, self.threads)
            except Finished as stop:
                raise stop.interrupt from None
            return [Tensor(Cell.of(out)) for out in outs]

        return pull

    def executable(self) -> Executable:
        """The compiled derivative."""
        if self._executable is None:
            self._executable = compiler().compile(self.derivative(), self.options)
        return self._executable

    def derivative(self) -> Function:
        """The traced function with the gradient of its results as results: parameters as before,
        then one cotangent an output; one result a leaf."""
        fn = self.function
        builder = Builder(f"{fn.name}_backward")
        for param in fn.params:
            builder.keep_param(param)
        cts = [builder.param(y.type, f"ct[{n}]") for n, y in enumerate(self.outputs)]
        used = {arg for instr in fn.instrs for arg in instr.args}
        for instr in fn.instrs:
            done = instr.op.has(Trait.EFFECT) and used.isdisjoint(instr.results)
            if not done:  # the call has printed and checked already
                builder.append(instr)
        xs = [v for leaf in self.leaves for v in leaf.variables]
        op = get_op("gradient")
        attrs = op.attrs(outputs=len(self.outputs))  # type: ignore[call-arg]
        grads = iter(builder.emit(op, (*self.outputs, *cts, *xs), attrs))
        results: list[Result] = []
        for leaf in self.leaves:
            total = next(grads)
            for _ in leaf.variables[1:]:
                total = builder.add(total, next(grads))
            results.append(Result(total, f"grad[{len(results)}]"))
        return builder.finish(results)


def _owner(x: Tensor) -> Tensor:
    """The tensor whose history `x` has: itself, or what it is a view of."""
    depth = x.history.depth
    if len(x.maps) == depth:
        return x
    type_ = x.cell.type
    for step in x.maps[:depth]:
        type_ = step.result_type(type_)
    return Tensor(x.cell, x.maps[:depth], x.history, type_)


def _wants_grad(x: Tensor) -> bool:
    return bool(x.requires_grad)


def _pinned(source: Source, value: Any, array: Array) -> Array:
    """The array with its present content, whatever is written to its owner later."""
    if source.kind == "cell":
        return np.asarray(value.cell.export())
    return array if source.kind == "float" else np.array(array, order="C")
