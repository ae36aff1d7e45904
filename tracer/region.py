"""`RegionTrace`: the trace of a loop's body or of a branch, inside of another trace.

What it reads of the program around it comes in as parameters of the region, one for each value
there (`imports`); what it writes to storage from outside is found in `written` when it is over.
Whoever runs it makes an instruction of it (see `treadle.tracer.control_trace`).

A tensor from outside is tracked inside where it is outside. A leaf passes through a `variable` of
the region besides, so that a backward() inside finds it; one that goes beyond the region, through
what a step hands to the next or what was computed outside, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from treadle.ir.errors import GradientError, TraceError, TreadleError
from treadle.ir.graph import Function, Param, Result, Value
from treadle.ir.types import TensorType, type_of_array
from treadle.tracer import tape
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located
from treadle.tracer.history import History
from treadle.tracer.modes import modes
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace, reached_from

Array = npt.NDArray[Any]


class RegionTrace(Trace):
    """A trace inside of `outer`; use `entered()` around the user's function.

    what      "the body of scan", for messages
    imports   the parameter of the region for each value of `outer` that it uses
    beyond    parameters through which a derivative leaves the region; reached_back: those that a
              backward() inside has reached
    carried   storages from outside that are parameters by themselves: those that it writes
    histories the histories under which storages from outside were written, by storage
    """

    def __init__(self, outer: Trace, name: str, what: str) -> None:
        super().__init__(name, outer._resolve)
        self.outer = outer
        self.what = what
        self.imports: dict[Value, Value] = {}
        self.beyond: set[Value] = set()
        self.reached_back: set[Value] = set()
        self.carried: set[Cell] = set()
        self.histories: dict[Cell, dict[History, Tensor]] = {}
        self.taken, self.detached = outer.taken, outer.detached
        self.watched, self.hosts = outer.watched, outer.hosts
        self._alive = History()
        self._outer_leaves: dict[History, Value] = {}
        self._params: dict[Value, Param] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Inside, operations are recorded in the region."""
        before = modes.trace
        modes.trace = self
        try:
            yield
        finally:
            modes.trace = before

    # --- parameters --------------------------------------------------------------------------

    def parameter(self, type: TensorType, path: str, active: bool, beyond: bool = False) -> Value:
        """A parameter; `active`: a derivative of the program around may follow it, `beyond`: it
        does."""
        value = Value(type)
        self._params[value] = Param(value, path)
        if active and type.dtype.is_float:
            self.builder.active.add(value)
            if beyond:
                self.beyond.add(value)
        return value

    def entering(self, type: TensorType, path: str, active: bool, beyond: bool = False) -> Tensor:
        """A tensor for a parameter: what a step gets."""
        value = self.parameter(type, path, active, beyond)
        found = self.new(value)
        if active:
            self.track([found])
        return found

    def imported(self, value: Value, path: str) -> Value:
        """The parameter for a value of the program around."""
        found = self.imports.get(value)
        if found is None:
            found = self.imports[value] = self.parameter(value.type, path, False)
            if value in self.outer.builder.active:
                self.builder.active.add(found)
        return found

    def carry(self, cell: Cell, histories: dict[History, Tensor], tracked: bool) -> Value:
        """Make the storage of `cell` a parameter by itself."""
        value = self.parameter(cell.type, self._path(cell, "state"), tracked, tracked)
        self.carried.add(cell)
        self._enter(cell, value)
        for history in histories if tracked else ():
            self._computed[history] = (value, value)
        return value

    def _path(self, cell: Cell, otherwise: str) -> str:
        """A name for what is read from outside: the path by which the call finds it."""
        trace: Trace = self
        while isinstance(trace, RegionTrace):
            trace = trace.outer
        entry = trace.entry.get(cell)
        found = next((p.path for p in trace.builder.params if p.value is entry), None)
        return found if found is not None else otherwise

    # --- reading and writing -----------------------------------------------------------------

    def content(self, x: Tensor) -> Value:
        """What the cell of `x` holds now; one from outside becomes a parameter."""
        found = self.values.get(x.cell)
        if found is not None:
            return found
        value = self.outer.content(x)
        param = self.imported(value, self._path(x.cell, "outer"))
        self._enter(x.cell, param)
        return param

    def leaked(self, x: Tensor) -> TreadleError:
        return located(_left_behind(x, self))

    def array(self, array: Array) -> Tensor:
        """One that a path leads to is captured by the trace around; another is a constant."""
        if self._resolve(array) is None:
            return self.constant(array, type_of_array(array).dtype)
        with _entered(self.outer):
            return self.outer.array(array)

    def _root(self, x: Tensor) -> Value:
        history, cell = x.history, x.cell
        if history in self._computed or cell in self.carried:
            return super()._root(x)
        made_here = self._leaves.get(history)
        if made_here is not None and made_here[1] is self.values.get(cell):
            return made_here[0]  # what a derivative inside is taken by, whose operand it follows
        outside = self.outer.computed(history)
        if not outside and not history.requires_grad:
            return super()._root(x)
        content = self.values.get(cell)
        if content is not None and content is not self.entry.get(cell):
            if outside:
                raise GradientError(tape.stale_history_message(x.type, cell))
            return super()._root(x)
        value = self.imported(self.outer._root(x), self._path(cell, "outer"))
        if outside:
            self.beyond.add(value)
            return value
        known = self._outer_leaves.get(history)
        if known is None:
            known = self.builder.call("variable", value)
            self.builder.active.add(known)
            self._outer_leaves[history] = known
            self._variables.append((history, x, known))
        return known

    def write(self, x: Tensor, new: Tensor, tracked: bool) -> None:
        """As `Trace.write`; storages from outside are remembered with the history written under."""
        super().write(x, new, tracked)
        if x.cell in self.entry:
            base = Tensor(x.cell, x.maps[: x.history.depth], x.history, x.cell.type)
            self.histories.setdefault(x.cell, {})[x.history] = base

    def computed(self, history: History) -> bool:
        return history in self._computed or self.outer.computed(history)

    def knows(self, cell: Cell) -> bool:
        return cell in self.values or self.outer.knows(cell)

    # --- differentiation ---------------------------------------------------------------------

    def variables(self) -> Iterator[tuple[History, Value]]:
        """Those of the region, and the parameters that a derivative outside may follow."""
        yield from super().variables()
        for value in self._params:
            if value in self.builder.active:
                yield self._alive, value

    def grad_of(self, history: History) -> Tensor | None:
        if history in self.grads:
            return self.grads[history]
        return self.outer.grad_of(history)

    def backward(self, x: Tensor, gradient: Tensor | None, retain_graph: bool) -> None:
        reached = reached_from(self._tracked(x), self.builder.active)
        self.check_beyond(self.beyond.intersection(reached))
        self.reached_back.update(v for v in self._params if v in reached)
        super().backward(x, gradient, retain_graph)

    def check_beyond(self, reached: Collection[Value]) -> None:
        """Raises GradientError where a backward() inside has reached what is computed outside."""
        if reached:
            raise located(
                GradientError(
                    f"backward() in {self.what} reaches what was computed outside of it, or by an "
                    "earlier step; take its detach(), or differentiate the whole from outside"
                )
            )

    # --- out ---------------------------------------------------------------------------------

    def state(self) -> dict[Cell, dict[History, Tensor]]:
        """The storages from outside that hold something else than when the region began."""
        return {c: h for c, h in self.histories.items() if self.values[c] is not self.entry[c]}

    def check_grads(self) -> None:
        """Raises TraceError where `.grad` of a tensor from outside is not what it was."""
        for history, grad in self.grads.items():
            if grad is not self.outer.grad_of(history) and not _made_inside(self, history):
                raise located(
                    TraceError(
                        f"{self.what} leaves .grad of a tensor from outside changed; set it to "
                        "None at its end (optimizer.zero_grad()), or use treadle.grad"
                    )
                )

    def result(self, x: Tensor, tracked: bool) -> Value:
        """The value of a result of the region."""
        return self._operand(x, tracked)

    def state_result(self, cell: Cell, history: History | None) -> Value:
        """What a storage from outside holds now; `history`: where it is tracked, under which."""
        if history is not None and history in self._computed:
            value, content = self._computed[history]
            if content is self.values[cell]:
                return value
        return self._inactive(self.content(Tensor(cell)))

    def function(self, params: Sequence[Value], outs: Sequence[tuple[Value, str]]) -> Function:
        """The region, with its parameters in the given order."""
        known = [self._params.get(v) or Param(v, "unused") for v in params]
        results = tuple(Result(value, path) for value, path in outs)
        used: set[str] = set()
        listed = []
        for param in known:
            path, count = param.path, 1
            while path in used:
                path, count = f"{param.path} {count}", count + 1
            used.add(path)
            listed.append(Param(param.value, path))
        return Function(self.name, tuple(listed), tuple(self.builder.instrs), results)


def _made_inside(region: RegionTrace, history: History) -> bool:
    return any(h is history and t.cell.home is region for h, t, _ in region._variables)


@contextmanager
def _entered(trace: Trace) -> Iterator[None]:
    before = modes.trace
    modes.trace = trace
    try:
        yield
    finally:
        modes.trace = before


def _left_behind(x: Tensor, home: RegionTrace) -> TraceError:
    at = f", made at {x.cell.made_at}," if x.cell.made_at is not None else ""
    return TraceError(
        f"a tensor, {x.type}{at} is used outside of {home.what}, where it has no value; return it "
        "from there, or write it into a tensor that was made outside (t.copy_(..), t[i] = ..)"
    )
