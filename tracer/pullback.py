"""An eager `backward()` through a compiled call.

A specialization with results that depend on tensors that require grad is compiled as two native
functions: the forward one gives residuals besides the results, and the backward one takes these
and the cotangents. Each call is recorded in the eager history as one node. What was used up by a
`backward()` inside the function is not recorded: differentiating it again is the same error as
without jit.

A derivative of higher order needs the derivative itself as a differentiable function: the traced
function with a `gradient` instruction behind it, from the inputs as they were at the call. It is
compiled when it is first asked for, and recorded in the history in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Loc, Result, Value
from treadle.ir.op import NO_ATTRS, Trait, get_op, must_run
from treadle.tracer import tape
from treadle.tracer.backend import CompileOptions, Executable, compiler
from treadle.tracer.cell import Cell
from treadle.tracer.history import Node, Saved
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes
from treadle.tracer.recorder import Recording, Source
from treadle.tracer.residuals import split
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import reached_from

Array = npt.NDArray[Any]
Pull = Callable[[Sequence["Tensor | None"]], Sequence["Tensor | None"]]


def plan(recording: Recording, options: CompileOptions, threads: int | None) -> Pullback | None:
    """What to record at each call; None where no result is differentiable from outside."""
    made = [*enumerate(recording.fresh)]
    tracked = [_Output(True, n) for n, f in made if f.role == "tracked"]
    outputs = [f.value for _, f in made if f.role == "tracked" and f.value is not None]
    dead = [_Output(True, n) for n, f in made if f.role == "spent"]
    dead += [_Output(True, n, True, f.written) for n, f in made if f.role == "stale"]
    for write in recording.tracked:
        if write.role == "tracked":
            tracked.append(_Output(False, write.position))
            outputs.append(write.value)
        else:
            dead.append(_Output(False, write.position, stale=write.role == "stale"))
    if not tracked and not dead:
        return None
    reached = {v for y in outputs for v in reached_from(y)}
    leaves: dict[int, list[Value]] = {}
    for value, position in recording.variables:
        if value in reached:
            leaves.setdefault(position, []).append(value)
    variables = [tuple(values) for values in leaves.values()]
    differentiable = _Differentiable(recording.function, outputs, variables, options, threads)
    return Pullback(differentiable, tuple(leaves), tracked, dead)


@dataclass(frozen=True, slots=True)
class _Output:
    """A differentiable output of a call: a fresh tensor, or a tensor from outside (by position)
    that was written to. `stale`: its history is no longer that of its values, since `written`."""

    fresh: bool
    position: int
    stale: bool = False
    written: Loc | None = None

    def of(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Tensor:
        return _owner(fresh[self.position] if self.fresh else found[self.position])


class _Differentiable:
    """A traced function, what of its results is differentiated, and by which of its values.

    `variables` has for each operand the `variable` instructions' results that stand for it.
    """

    def __init__(
        self,
        function: Function,
        outputs: Sequence[Value],
        variables: Sequence[tuple[Value, ...]],
        options: CompileOptions,
        threads: int | None,
        order: int = 1,
    ) -> None:
        self.function = function
        self.order = order
        self.outputs = outputs
        self.variables = variables
        self.options = options
        self.threads = threads
        self._derivative: _Differentiable | None = None
        self._executable: Executable | None = None

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The results of the function itself."""
        if self._executable is None:
            self._executable = compiler().compile(self.function, self.options)
        return _run(self._executable, arrays, self.threads)

    def joint(self) -> Function:
        """The function, with one cotangent an output as further parameters and one gradient an
        operand as further results."""
        builder, cotangents = self._builder(self.function.name)
        gradients = self._gradients(builder, cotangents)
        return builder.finish([*self.function.results, *gradients])

    def derivative(self) -> _Differentiable:
        """The gradients alone, as a function that is differentiable in turn: by the operands and
        by the cotangents."""
        if self._derivative is None:
            builder, cotangents = self._builder(f"{self.function.name}_backward")
            given = [builder.call("variable", ct) for ct in cotangents]
            results = self._gradients(builder, given)
            self._derivative = _Differentiable(
                builder.finish(results),
                [r.value for r in results],
                [*self.variables, *((value,) for value in given)],
                self.options,
                self.threads,
                self.order + 1,
            )
        return self._derivative

    def _builder(self, name: str) -> tuple[Builder, list[Value]]:
        fn = self.function
        builder = Builder(name)
        for param in fn.params:
            builder.keep_param(param)
        cotangents = [
            builder.param(y.type, f"cotangent {self.order}.{n}") for n, y in enumerate(self.outputs)
        ]
        used = {arg for instr in fn.instrs for arg in instr.args}
        for instr in fn.instrs:
            done = must_run(instr.op, instr.attrs) and used.isdisjoint(instr.results)
            if name == fn.name or not done:  # a derivative does not print and check again
                builder.append(instr)
        return builder, cotangents

    def _gradients(self, builder: Builder, cotangents: Sequence[Value]) -> list[Result]:
        xs = [v for variables in self.variables for v in variables]
        op = get_op("gradient")
        attrs = op.attrs(outputs=len(self.outputs))  # type: ignore[call-arg]
        grads = iter(builder.emit(op, (*self.outputs, *cotangents, *xs), attrs))
        results: list[Result] = []
        for variables in self.variables:
            total = next(grads)
            for _ in variables[1:]:
                total = builder.add(total, next(grads))
            results.append(Result(total, f"gradient {len(results)}"))
        return results

    def pull(self, inputs: Sequence[Array], operands: tuple[Saved, ...]) -> Pull:
        """The cotangents of the operands from those of the outputs; recorded in the history where
        that is on."""

        def pull(cts: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            given = self.cotangents(cts)
            arrays = [*inputs, *(_contiguous(ct) for ct in given)]
            derivative = self.derivative()
            made = [Tensor(Cell.of(out)) for out in derivative.run(arrays)]
            if modes.grad:
                saved = (*operands, *map(tape.save_edge, given))
                tape.record_saved(saved, made, derivative.pull(arrays, saved))
            return made

        return pull

    def cotangents(self, cts: Sequence[Tensor | None]) -> list[Tensor]:
        """Zeros where none has arrived."""
        return [
            Tensor(Cell.of(np.zeros(y.type.static_shape, y.type.dtype.dtype))) if ct is None else ct
            for y, ct in zip(self.outputs, cts, strict=True)
        ]


@dataclass(slots=True)
class SavedInputs:
    """The inputs of one call, safe from later writes, and the ends of their histories."""

    arrays: list[Array]
    operands: tuple[Saved, ...]


@dataclass(frozen=True, slots=True)
class _Reach:
    """What one output depends on: instructions between it and the variables, and operands."""

    instrs: frozenset[Instr]
    operands: frozenset[int]


def _reach(output: Value, variables: Sequence[tuple[Value, ...]]) -> _Reach:
    values = reached_from(output)
    made = (v.producer for v in values)
    instrs = frozenset(i for i in made if i is not None and not i.op.has(Trait.BARRIER))
    operands = (n for n, vs in enumerate(variables) if any(v in values for v in vs))
    return _Reach(instrs, frozenset(operands))


class _Call:
    """One call in the history. A backward pass uses up what its outputs depend on; others may
    still be differentiated, as if each operation of the function had been recorded."""

    def __init__(self, pullback: Pullback, saved: SavedInputs, residuals: Sequence[Array]) -> None:
        self.pullback = pullback
        self.saved = saved
        self.residuals = residuals
        self.loc = user_location()
        self._given: set[int] = set()  # the outputs of the pass that is running
        self._spent: set[Instr] = set()
        self._left = set(range(len(pullback.tracked)))

    def pull(self, cts: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        self._given = {n for n, ct in enumerate(cts) if ct is not None}
        instrs, operands = self.pullback.reached(self._given)
        if not self._spent.isdisjoint(instrs):
            raise tape.second_time("a compiled call", self.loc)
        found = self.pullback.pull(self.saved, self.residuals, cts)
        return [x if n in operands else None for n, x in enumerate(found)]

    def spend(self) -> bool:
        """The pass is over: what it went through is used up. Whether nothing is left."""
        self._spent |= self.pullback.reached(self._given)[0]
        self._left -= self._given
        return all(not self._spent.isdisjoint(self.pullback.reached((n,))[0]) for n in self._left)


class Pullback:
    """The derivative of one specialization.

    `forward` is the function to compile for the call itself; its results beyond those of the
    traced function are residuals.
    """

    def __init__(
        self,
        differentiable: _Differentiable,
        positions: Sequence[int],
        tracked: Sequence[_Output],
        dead: Sequence[_Output],
    ) -> None:
        self.differentiable = differentiable
        self.positions = positions
        self.tracked = tracked
        self.dead = dead
        fn = differentiable.function
        self.forward = fn
        self._spent_node = Node(None, NO_ATTRS, (), (), None)
        self._spent_node.free()
        self._backward: Executable | None = None
        self._reach = [_reach(y, differentiable.variables) for y in differentiable.outputs]
        if positions:
            joint = compiler().differentiated(differentiable.joint())
            self._split = split(joint, len(fn.params), len(fn.results))
            self.forward = self._split.forward

    def save(
        self, found: Sequence[Any], sources: Sequence[Source], arrays: Sequence[Array]
    ) -> SavedInputs | None:
        """The inputs as they are now: storages are pinned, arrays of the user copied. None where
        backward() can never reach this call."""
        operands = tuple(tape.save_edge(_owner(found[p])) for p in self.positions)
        if all(operand.edge is None for operand in operands):
            return None
        kept = [_pinned(s, found[s.position], a) for s, a in zip(sources, arrays, strict=True)]
        return SavedInputs(kept, operands)

    def record(
        self,
        found: Sequence[Any],
        fresh: Sequence[Tensor],
        saved: SavedInputs | None,
        residuals: Sequence[Array],
    ) -> None:
        """Add the call to the history of its results."""
        for output in self.dead:
            x = output.of(found, fresh)
            version = x.cell.version - 1 if output.stale else x.cell.version
            x.cell.written_at = output.written or x.cell.written_at
            x.history.made_by((self._spent_node, 0), version)
        if saved is not None:
            results = [output.of(found, fresh) for output in self.tracked]
            call = _Call(self, saved, residuals)
            tape.record_saved(saved.operands, results, call.pull, call.spend)

    def pull(
        self, saved: SavedInputs, residuals: Sequence[Array], cts: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None]:
        """The cotangents of the operands from those of the outputs."""
        if modes.grad:
            return self.differentiable.pull(saved.arrays, saved.operands)(cts)
        given = [_contiguous(ct) for ct in self.differentiable.cotangents(cts)]
        inputs = [saved.arrays[n] for n in self._split.inputs]
        arrays = [*inputs, *residuals, *given]
        outs = _run(self.backward(), arrays, self.differentiable.threads)
        return [Tensor(Cell.of(out)) for out in outs]

    def reached(self, outputs: Iterable[int]) -> tuple[set[Instr], set[int]]:
        """The instructions that some outputs depend on, and the numbers of the operands."""
        found = [self._reach[n] for n in outputs]
        return {i for r in found for i in r.instrs}, {n for r in found for n in r.operands}

    def backward(self) -> Executable:
        """The compiled backward function."""
        if self._backward is None:
            options = self.differentiable.options
            self._backward = compiler().compile(self._split.backward, options)
        return self._backward


def _run(executable: Executable, arrays: Sequence[Array], threads: int | None) -> list[Array]:
    """Run on arrays that others may hold."""
    given = list(arrays)
    for param, _ in executable.in_place:
        given[param] = given[param].copy()
    return executable.run(given, threads)


def _owner(x: Tensor) -> Tensor:
    """The tensor whose history `x` has: itself, or what it is a view of."""
    depth = x.history.depth
    if len(x.maps) == depth:
        return x
    type_ = x.cell.type
    for step in x.maps[:depth]:
        type_ = step.result_type(type_)
    return Tensor(x.cell, x.maps[:depth], x.history, type_)


def _contiguous(x: Tensor) -> Array:
    return np.asarray(x.array(), order="C")


def _pinned(source: Source, value: Any, array: Array) -> Array:
    """The array with its present content, whatever is written to its owner later."""
    if source.kind == "cell":
        return np.asarray(value.cell.export())
    return array if source.kind == "float" else np.array(array, order="C")
