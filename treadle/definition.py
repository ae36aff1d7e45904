"""Define first, run later, with variables that functions share.

    w = treadle.tensor(np.zeros(3), requires_grad=True)
    with treadle.define() as d:
        x = d.input("x", "f64[3]")
        loss = ((x * w).sum() - 1) ** 2
        loss.backward()
        step = treadle.function([x], loss, updates={w: w - 0.1 * w.grad})
    step([1.0, 2.0, 3.0])        # the loss; w has moved

Inside the block nothing runs: operations build a program. `function` takes of it what its outputs
need. Tensors from outside are shared: every function reads what they hold when it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from treadle.graph import fitting, run_on_copies
from treadle.ir.cut import cut
from treadle.ir.errors import ArgumentError, DTypeError, ShapeError, TraceError
from treadle.ir.graph import Function, Value
from treadle.ir.parser import parse_arguments
from treadle.ir.types import TensorType, shape_text
from treadle.tracer.backend import CompileOptions, compiler
from treadle.tracer.errors import located, located_errors
from treadle.tracer.modes import modes, no_grad
from treadle.tracer.promote import promote
from treadle.tracer.shapes import set_aside
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace

Updates = Mapping[Tensor, Any] | Iterable[tuple[Tensor, Any]]
Outputs = Tensor | Sequence[Tensor]


class Definition(Trace):
    """The program of a `define` block. It may be entered again and goes on."""

    def __init__(self) -> None:
        numbers = count()
        super().__init__("defined", lambda _: f"shared{next(numbers)}")

    def input(self, name: str, spec: str | TensorType) -> Tensor:
        """A symbolic argument: `spec` is a TensorType, or a text such as "f32[2, 3]".

        Raises TraceError outside of the block.
        """
        if modes.trace is not self:
            raise located(TraceError("inputs are declared inside of their define block"))
        type = parse_arguments(spec)[0] if isinstance(spec, str) else spec
        if not isinstance(type, TensorType):
            raise located(ArgumentError(f"{spec!r:.40} is no type such as 'f32[2, 3]'"))
        return self.arg(type, name)

    def __str__(self) -> str:
        return str(self.finish(()))


def define() -> Definition:
    """A block in which operations are written down instead of run; see this module's head."""
    return Definition()


class Defined:
    """A compiled function of a definition; see `function`."""

    def __init__(
        self,
        program: Function,
        inputs: Sequence[str],
        shared: Mapping[str, Any],
        updates: Sequence[Tensor],
        single: bool,
    ) -> None:
        self.program = program
        self._inputs, self._shared, self._updates = tuple(inputs), dict(shared), tuple(updates)
        self._single = single
        with set_aside():
            self._executable = compiler().compile(program, CompileOptions())

    def __call__(self, *arrays: Any) -> Tensor | list[Tensor] | None:
        """The outputs, after which the shared variables hold their updates.

        Raises ArgumentError for another number of arrays, ShapeError or DTypeError for what does
        not fit, and what a run finds (IndexFault, CheckError): then nothing is updated.
        """
        with located_errors(), set_aside(), no_grad():
            if len(arrays) != len(self._inputs):
                listed = ", ".join(self._inputs) or "no arguments"
                raise ArgumentError(f"the function takes {listed}; found {len(arrays)} arguments")
            given = dict(zip(self._inputs, arrays, strict=True))
            buffers = []
            for param in self.program.params:
                source: Any = given.get(param.path)
                if param.path not in given:
                    source = self._shared[param.path]
                    source = source.cell.buffer if isinstance(source, Tensor) else source
                buffers.append(fitting(param.path, source, param.value.type))
            found = run_on_copies(self._executable, buffers)
            outputs = len(found) - len(self._updates)
            for target, value in zip(self._updates, found[outputs:], strict=True):
                target.copy_(value)
        if self._single:
            return found[0]
        return found[:outputs] or None

    def __str__(self) -> str:
        return str(self.program)


def function(
    inputs: Sequence[Tensor],
    outputs: Outputs | None = None,
    updates: Updates = (),
    givens: Mapping[Tensor, Any] | None = None,
) -> Defined:
    """A compiled function of `inputs` that gives `outputs` (one, several or none).

    `updates`: shared tensors with the values that they have after each call. `givens`: values of
    the definition, inputs too, with what stands in their place, another value of it or an array.
    What neither outputs nor updates need is left out; `str` of the function shows the program.

    Raises ArgumentError where an input is no input of a definition or is missing, ShapeError and
    DTypeError where an update or a given has another type than what it replaces.
    """
    with located_errors():
        single = isinstance(outputs, Tensor)
        listed = [outputs] if isinstance(outputs, Tensor) else list(outputs or ())
        pairs = list(updates.items() if isinstance(updates, Mapping) else updates)
        definition = _definition([*inputs, *listed, *(v for _, v in pairs)])
        before, modes.trace = modes.trace, definition
        try:
            return _function(definition, inputs, listed, pairs, dict(givens or {}), single)
        finally:
            modes.trace = before


def _function(
    definition: Definition,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    updates: Sequence[tuple[Tensor, Any]],
    givens: Mapping[Tensor, Any],
    single: bool,
) -> Defined:
    replaced: dict[Value, Value] = {}
    for old, new in givens.items():
        by = promote(old, new)[1]  # a number takes the dtype of what it stands for
        _check_type("a given", old, by)
        replaced[definition.value_of(old)] = definition.value_of(by)
    fetch = [(f"out{n}" if n or not single else "out", definition.value_of(x))
             for n, x in enumerate(outputs)]  # fmt: skip
    for n, (target, new) in enumerate(updates):
        if not isinstance(target, Tensor) or target.cell.home is not None or target.maps:
            raise ArgumentError("updates are for whole shared tensors, made outside of the block")
        value = promote(target, new)[1]
        _check_type("an update", target, value)
        fetch.append((f"update{n}", definition.value_of(value)))
    whole = definition.finish(())
    paths = {p.value: p.path for p in whole.params if p.kind == "arg"}
    names = [_input_name(paths, definition, x) for x in inputs]
    program = cut(whole, fetch, given=replaced)
    missing = [p.path for p in program.params if p.kind == "arg" and p.path not in names]
    if missing:
        raise ArgumentError(f"the outputs need {', '.join(missing)}, which is no input or given")
    shared = {c.path: c.source for c in definition.captures}
    return Defined(program, names, shared, [t for t, _ in updates], single)


def _definition(tensors: Iterable[Any]) -> Definition:
    """The definition that these belong to: the one they were made in, or the block around."""
    for x in tensors:
        if isinstance(x, Tensor) and isinstance(x.cell.home, Definition):
            return x.cell.home
    if isinstance(modes.trace, Definition):
        return modes.trace
    raise ArgumentError("neither inputs nor outputs are of a define block")


def _input_name(paths: Mapping[Value, str], definition: Definition, x: Any) -> str:
    if isinstance(x, Tensor) and x.cell.home is definition:
        name = paths.get(definition.content(x))
        if name is not None:
            return name
    raise ArgumentError("an input is what d.input() gave; anything else can be replaced by givens")


def _check_type(what: str, old: Tensor, new: Tensor) -> None:
    if old.shape != new.shape:
        raise ShapeError(
            f"{what} for a tensor of shape {shape_text(old.shape)} has {shape_text(new.shape)}"
        )
    if old.dtype != new.dtype:
        raise DTypeError(f"{what} for a tensor of {old.dtype.name} is {new.dtype.name}")
