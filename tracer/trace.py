"""`Trace`: a run of a Python function that writes an IR Function instead of computing.

What a trace learns it keeps to itself: the value that each cell holds, which histories became
tracked, which `.grad` was set. Tensors from outside are never touched, so that a trace that
raises leaves everything as it was; whoever runs the trace writes back what it has found.

How differentiation is written down: where a tensor that requires grad is used by an operation in
grad mode, a leaf passes through a `variable`, and an untracked value that depends on one passes
through `stop_gradient`; `backward()` becomes a `gradient` with respect to the variables. What is
computed untracked needs neither, so an optimiser's step is plain arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Builder
from treadle.ir.custom import followed_args
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import GradientError, TraceError, TreadleError
from treadle.ir.graph import Function, Instr, Loc, Result, Value
from treadle.ir.op import ArrayData, Attrs, OpDef, get_op
from treadle.ir.types import DType, TensorType, check_addressable, type_of_array
from treadle.tracer import reads, tape, views
from treadle.tracer.cell import Cell
from treadle.tracer.errors import concrete_error, leak_error, unreachable_error, where_made
from treadle.tracer.execute import is_weak
from treadle.tracer.history import History
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes, no_grad
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.views import Maps

Array = npt.NDArray[Any]
Resolve = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """Something from outside that the traced function read: a `state` parameter.

    Its value is the whole content of `source.cell` where `source` is a tensor (which may be a
    view of it), or the array.
    """

    source: Tensor | Array
    path: str
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class _CapturedArray:
    """A captured NumPy array (kept, so that its id stays its own) and what it held when read."""

    array: Array
    before: Array
    path: str
    tensor: Tensor

    def check(self) -> None:
        if self.array.tobytes() != self.before.tobytes():
            raise TraceError(
                f"the jitted function changes the NumPy array {self.path} in place, which a "
                "compiled call could not repeat; make it a tensor (treadle.tensor)"
            )


class Trace:
    """One trace; use it as a context manager around the call of the user's function.

    `resolve(x)` gives the path of an eager tensor or NumPy array from outside, by which later
    calls find it, or None. A view made inside the trace is not itself reachable: `resolve` must
    compare cells (`x.cell`), not tensors.

    values      what each cell holds now; missing: the cell was not used
    entry       what each cell from outside held when the trace began
    captures    what was read from outside, in order
    grads       `.grad` that the trace has set, by history, where the leaf is from outside or not
    grad_reads  entering `.grad` that the trace has read, by history: it depends on these
    """

    def __init__(self, name: str, resolve: Resolve) -> None:
        self.name = name
        self.builder = _TraceBuilder(name)
        self.values: dict[Cell, Value] = {}
        self.entry: dict[Cell, Value] = {}
        self.captures: list[Capture] = []
        self.grads: dict[History, Tensor | None] = {}
        self.grad_reads: dict[History, Tensor | None] = {}
        self.written: dict[Cell, Loc | None] = {}
        self.taken: set[reads.Position] = set()  # where arrays were taken in
        self.given: set[Cell] = set()  # of arguments that have a tensor of their own here
        self.detached: set[History] = set()  # made by detach()
        self.watched: set[str] = set()  # names that watch() was given, asked for or not
        self.hosts: list[Any] = []  # functions of callbacks, by number
        self._resolve = resolve
        self._arrays: dict[int, _CapturedArray] = {}
        self._computed: dict[History, tuple[Value, Value]] = {}  # value, and the cell's then
        self._leaves: dict[History, tuple[Value, Value]] = {}  # variable, and the cell's then
        self._variables: list[tuple[History, Tensor, Value]] = []
        self._stopped: dict[Value, Value] = {}
        self._shown: dict[tuple[Value, Maps], Value] = {}
        self._spent: set[Instr] = set()

    def __enter__(self) -> Self:
        if modes.trace is not None:
            raise TraceError("a trace is running on this thread already; an inner jit is inlined")
        modes.trace = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        modes.trace = None

    # --- what comes in -----------------------------------------------------------------------

    def arg(self, type: TensorType, path: str, weak: bool = False) -> Tensor:
        """A new tensor for an argument. `weak`: it stands for a Python float (rank 0, float64)."""
        found = self.new(self.builder.param(type, path), weak)
        self.given.add(found.cell)
        return found

    def bind(self, tensor: Tensor, path: str) -> Tensor:
        """Make the cell of an eager tensor an argument, so that the function may be given the
        caller's own tensor and aliases keep their meaning. Returns the tensor."""
        cell = tensor.cell
        if cell.home is not None and cell.home is not self:
            raise leak_error(tensor, cell.made_at, "as an argument")
        if cell not in self.values:
            self._enter(cell, self.builder.param(cell.type, path))
        return tensor

    def _enter(self, cell: Cell, value: Value) -> None:
        self.values[cell] = self.entry[cell] = value

    def array(self, array: Array) -> Tensor:
        """A NumPy array from outside: a state parameter where a path leads to it; one that the
        function has just made is a constant, with the values that it has now.

        Raises TraceError where the function changed a captured array since it was first read.
        """
        position = reads.here()
        if position is not None:
            self.taken.add(position)
        known = self._arrays.get(id(array))
        if known is not None:
            known.check()
            return known.tensor
        type = type_of_array(array)
        path = self._resolve(array)
        if path is None:
            return self.constant(array, type.dtype)
        value = self.builder.param(type, path, "state")
        self.captures.append(Capture(array, path, value))
        found = self.new(value)
        self._arrays[id(array)] = _CapturedArray(array, array.copy(), path, found)
        return found

    def constant(self, value: Any, dtype: DType) -> Tensor:
        """A number or an array that the function has made."""
        with np.errstate(over="ignore"):
            data = ArrayData.of(np.asarray(value, dtype.dtype))
        self.builder.loc = user_location()
        return self.new(self.builder.call("const", data=data))

    def new(self, value: Value, weak: bool = False) -> Tensor:
        """A tensor with a cell of its own that holds `value`."""
        made_at = value.producer.loc if value.producer is not None else None
        cell = Cell.traced(value.type, self, made_at)
        self.values[cell] = value
        return Tensor(cell, weak=weak)

    def owns(self, x: Tensor) -> bool:
        """Whether the function made the tensor: a result, or the detach() of anything."""
        made = x.cell.home is self and x.cell not in self.given
        return made or x.history in self.detached

    # --- reading -----------------------------------------------------------------------------

    def content(self, x: Tensor) -> Value:
        """What the whole cell of `x` holds now; a cell from outside becomes a state parameter."""
        found = self.values.get(x.cell)
        if found is not None:
            return found
        if x.cell.home is not None:
            raise x.cell.home.leaked(x)
        path = self._resolve(x)
        if path is None:
            raise unreachable_error(x)
        value = self.builder.param(x.cell.type, path, "state")
        self.captures.append(Capture(x, path, value))
        self._enter(x.cell, value)
        return value

    def leaked(self, x: Tensor) -> TreadleError:
        """The error for the use, in another trace, of a tensor that was made in this one."""
        return leak_error(x, x.cell.made_at, "in another trace")

    def knows(self, cell: Cell) -> bool:
        """Whether the trace has a value for `cell`."""
        return cell in self.values

    def value_of(self, x: Tensor) -> Value:
        """What `x` shows now, as plain data: for results."""
        return self._replay(self.content(x), x.maps)

    def _replay(self, value: Value, maps: Maps) -> Value:
        for count in range(len(maps), 0, -1):  # the longest part that is known already
            known = self._shown.get((value, maps[:count]))
            if known is not None:
                break
        else:
            count, known = 0, value
        for i in range(count, len(maps)):
            known = maps[i].replay(self.builder, known)
            self._shown[(value, maps[: i + 1])] = known
        return known

    def show(self, x: Tensor) -> None:
        """Replay the maps of a new view now, so that they carry the line that made it."""
        self.builder.loc = user_location()
        if modes.grad and x.requires_grad:
            self._tracked(x)
        else:
            self.value_of(x)

    def _operand(self, x: Tensor, tracked: bool) -> Value:
        """`x` as an operand of an op that is itself `tracked` or not."""
        if not tracked:
            return self.value_of(x)
        if x.requires_grad:
            return self._tracked(x)
        return self._replay(self._inactive(self.content(x)), x.maps)

    def _inactive(self, value: Value) -> Value:
        """`value` cut off from the variables that it depends on, if any."""
        if value not in self.builder.active:
            return value
        if value not in self._stopped:
            self._stopped[value] = self.builder.call("stop_gradient", value)
        return self._stopped[value]

    def _tracked(self, x: Tensor) -> Value:
        """What a tensor that requires grad shows, connected with its history."""
        return self._replay(self._root(x), x.maps[x.history.depth :])

    def _root(self, x: Tensor) -> Value:
        history, content = x.history, self.content(x)
        made = self._computed.get(history)
        if made is not None:
            if made[1] is not content:
                raise GradientError(tape.stale_history_message(x.type, x.cell))
            return made[0]
        if not history.requires_grad:  # an untracked base of which a part is being written
            return self._replay(self._inactive(content), x.maps[: history.depth])
        variable = self._leaves.get(history)
        if variable is not None and variable[1] is content:
            return variable[0]
        raw = self._replay(self._inactive(content), x.maps[: history.depth])
        return self._add_variable(x, raw)

    def _add_variable(self, x: Tensor, raw: Value) -> Value:
        value = self.builder.call("variable", raw)
        self.builder.active.add(value)
        self._leaves[x.history] = (value, self.content(x))
        self._variables.append((x.history, x, value))
        return value

    def computed(self, history: History) -> bool:
        """Whether an op of this trace made the values, tracked."""
        return history in self._computed

    def computed_value(self, history: History) -> tuple[Value, bool]:
        """The values that ops of this trace made for `history`; whether the storage still holds
        them (it may have been written under no_grad since)."""
        value, content = self._computed[history]
        return value, any(v is content for v in self.values.values())

    # --- operations --------------------------------------------------------------------------

    def apply(self, op: OpDef, operands: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
        """Record `op`; its results are new tensors. Raises ShapeError or DTypeError."""
        types = op.infer_types(attrs, [t.type for t in operands])  # before anything is recorded
        check_addressable(types)
        self.builder.loc = user_location()
        tracked = modes.grad and any(t.requires_grad for t in operands) and tape.differentiable(op)
        args = [self._operand(t, tracked) for t in operands]
        values = self.builder.emit_typed(op, args, attrs, types)
        weak = is_weak(op, operands)
        results = tuple(self.new(v, weak and v.type.dtype.is_float) for v in values)
        if tracked:
            self.track(results)
        return results

    def track(self, results: Sequence[Tensor]) -> None:
        """Mark tensors of this trace as recorded results of what they depend on."""
        for result in results:
            if result.dtype.is_float:
                value = self.content(result)
                self._computed[result.history] = (value, value)

    def write(self, x: Tensor, new: Tensor, tracked: bool) -> None:
        """Replace what `x` shows: its cell's value becomes an update of the present one."""
        loc = self.builder.loc = user_location()
        depth = x.history.depth
        content = self.content(x)
        value = self._operand(new, tracked)
        if not tracked:
            self._set(x.cell, views.write(self.builder, content, x.maps, value), loc)
            return
        inner = value
        if len(x.maps) > depth:  # a part: the rest of the base stays
            inner = views.write(self.builder, self._root(x), x.maps[depth:], value)
        self._set(x.cell, views.write(self.builder, content, x.maps[:depth], inner), loc)
        self._computed[x.history] = (inner, self.values[x.cell])

    def _set(self, cell: Cell, value: Value, loc: Loc | None) -> None:
        self.values[cell] = value
        self.written[cell] = loc

    # --- differentiation ---------------------------------------------------------------------

    def grad_of(self, history: History) -> Tensor | None:
        """`.grad` as the traced function sees it."""
        if history in self.grads:
            return self.grads[history]
        self.grad_reads[history] = history.grad
        return history.grad

    def set_grad(self, history: History, grad: Tensor | None) -> None:
        """Set `.grad`; the leaf itself is not touched."""
        self.grads[history] = grad

    def backward(self, x: Tensor, gradient: Tensor | None, retain_graph: bool) -> None:
        """Emit `gradient` with respect to the variables that reach `x`; add to their `.grad`."""
        self.builder.loc = user_location()
        root = self._tracked(x)
        # not through gradients that nobody outside of their function can differentiate
        reached = reached_from(root, self.builder.active)
        self._spend(reached, retain_graph)
        found = [(h, t, v) for h, t, v in self._variables if v in reached and not h.variable]
        outside = next((t for h, t, _ in found if not h.leaf), None)
        if outside is not None:
            raise GradientError(
                f"backward() in a jitted function reaches a tensor, {outside.type}, that was "
                "computed outside of it; take its detach(), or compute it inside"
            )
        ct = self.value_of(gradient) if gradient is not None else self.builder.ones_like(root)
        with no_grad():
            values = self.gradient(root, ct, [v for _, _, v in found])
            for (history, _, _), value in zip(found, values, strict=True):
                have, more = self.grad_of(history), as_result_of(self.new(value), x)
                self.grads[history] = more if have is None else have + more

    def is_spent(self, reached: Collection[Value]) -> bool:
        """Whether a backward() has used up part of what was computed."""
        return any(v.producer in self._spent for v in reached if v.producer is not None)

    def _spend(self, reached: Collection[Value], retain_graph: bool) -> None:
        """A second backward through one instruction is refused, as it is eagerly."""
        made = [v.producer for v in reached if v in self.builder.active]
        walked = [i for i in made if i is not None and i.op.name != "variable"]
        again = next((i for i in walked if i in self._spent), None)
        if again is not None:
            raise GradientError(
                f"backward() reaches {where_made(again.results[0]).removeprefix('made by ')} a "
                "second time, and its saved values are freed after the first; call "
                "backward(retain_graph=True) before"
            )
        if not retain_graph:
            self._spent.update(walked)

    def gradient(self, y: Value, ct: Value, xs: Sequence[Value]) -> Sequence[Value]:
        """The `gradient` instruction: one value an x."""
        if not xs:
            return ()
        op = get_op("gradient")
        attrs = op.attrs(outputs=1)  # type: ignore[call-arg]
        return self.builder.emit(op, (y, ct, *xs), attrs)

    def variable(self, x: Tensor, connected: bool) -> Tensor:
        """`x` as an argument to differentiate: the same storage under a history of its own;
        `connected` with the history of `x`, so that outer derivatives pass through."""
        self.builder.loc = user_location()
        if connected and x.requires_grad:
            raw = self._tracked(x)
        else:
            raw = self._operand(x.detach(), tracked=True)
        history = History.of_variable(len(x.maps), None)
        found = as_result_of(Tensor(x.cell, x.maps, history, x.type, x.weak), x)
        self._add_variable(found, raw)
        return found

    def variables(self) -> Iterator[tuple[History, Value]]:
        """Every `variable` so far, with the history of the leaf or argument that it stands for."""
        return ((h, v) for h, _, v in self._variables)

    def variables_of(self, history: History) -> list[Value]:
        """The values under which a variable was read: one for each content that it had."""
        return [v for h, v in self.variables() if h is history]

    def tracked_value(self, x: Tensor) -> Value:
        """What `x` shows, connected with its history."""
        return self._tracked(x)

    # --- out ---------------------------------------------------------------------------------

    def origin(self, x: Tensor) -> str:
        """Where the value of `x` came from, for people."""
        value = self.values.get(x.cell)
        return where_made(value) if value is not None else "from outside"

    def concrete_error(self, x: Tensor, what: str, kind: str) -> TreadleError:
        """The error for asking a traced tensor for its value."""
        if x.cell.home is not None and x.cell.home is not self:
            return leak_error(x, x.cell.made_at, "in another trace")
        return concrete_error(what, kind, x, self.value_of(x))

    def finish(self, results: Sequence[Result]) -> Function:
        """The Function, with its arguments before its state. Raises TraceError where the traced
        function changed a captured NumPy array."""
        for captured in self._arrays.values():
            captured.check()
        fn = self.builder.finish(results)
        ordered = sorted(fn.params, key=lambda p: p.kind == "state")
        return Function(fn.name, tuple(ordered), fn.instrs, fn.results)


class _TraceBuilder(Builder):
    """Knows which values depend on a variable in a way that a derivative would follow."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active: set[Value] = set()

    def emit_typed(
        self,
        op: OpDef,
        args: Sequence[Value],
        attrs: Attrs,
        types: Sequence[TensorType],
        regions: Sequence[Function] = (),
    ) -> tuple[Value, ...]:
        results = super().emit_typed(op, args, attrs, types, regions)
        if tape.differentiable(op) and not self.active.isdisjoint(args):
            self.active.update(r for r in results if r.type.dtype.is_float)
        return results


def reached_from(root: Value, within: Collection[Value] | None = None) -> dict[Value, None]:
    """The values that `root` depends on in a way that a derivative would follow, `root` first;
    only those `within`, if that is given."""
    reached: dict[Value, None] = {root: None}
    stack = [root]
    while stack:
        made = stack.pop().producer
        if made is None or not tape.differentiable(made.op):
            continue
        for arg in followed_args(made):
            if arg not in reached and (within is None or arg in within):
                reached[arg] = None
                stack.append(arg)
    return reached
