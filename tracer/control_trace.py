"""Loops, branches and remat in a trace: the region is traced, and an instruction made of it.

What the region reads of the program around becomes operands, what it writes there (statistics, the
counter of a generator) becomes a carry of a loop, or a result of a branch. A loop's body that
writes state is traced twice: what is written is known only afterwards, and it must enter every step
as what the step before left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from treadle.ir.control import Outs, row_type, stacked_type
from treadle.ir.custom import followed_args
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TraceError
from treadle.ir.graph import Function, Value
from treadle.ir.op import Attrs, OpDef, get_op
from treadle.ir.ops.control import ScanAttrs, SwitchAttrs
from treadle.ir.types import TensorType, int64
from treadle.tracer import tape
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located
from treadle.tracer.history import History
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes
from treadle.tracer.region import RegionTrace
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.trace import Trace

_TRACINGS = 4  # of one body: each finds more state that is written, and seldom a third does


@dataclass(frozen=True, slots=True)
class Made:
    """What a body gives: whether to go on (a loop with `until`), the carries, and rows."""

    go_on: Tensor | None
    carries: list[Tensor]
    rows: list[Tensor]


Body = Callable[[list[Tensor], list[Tensor]], Made]


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop to be traced. `arrays`: of which each step gets a row; `steps`: how many to do, an
    int64, or None for all. `names` and `row_names` are how messages call carries and rows."""

    name: str
    what: str
    body: Body
    carries: Sequence[Tensor]
    arrays: Sequence[Tensor]
    names: Sequence[str]
    row_names: Sequence[str]
    length: int | None
    reverse: bool = False
    until: bool = False
    steps: Tensor | None = None
    remat: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """A storage from outside that regions write. `history`: where it is tracked, under which."""

    cell: Cell
    histories: dict[History, Tensor]
    history: History | None


# --- loops ---------------------------------------------------------------------------------------


def trace_loop(trace: Trace, loop: Loop) -> Made:
    """The results of `loop`, as an instruction of `trace`; `go_on` is the number of steps done."""
    state: list[_State] = []
    for _ in range(_TRACINGS):
        traced = _trace_body(trace, loop, state)
        more = _written([traced.region], state)
        if not more:
            return _emit_loop(trace, loop, traced, state)
        state = more
    raise located(TraceError(f"{loop.what} writes to other tensors each time that it is traced"))


@dataclass(slots=True)
class _Body:
    region: RegionTrace
    params: list[Value]
    state_params: list[Value]
    rows: list[Value]
    made: Made


def _trace_body(trace: Trace, loop: Loop, state: Sequence[_State]) -> _Body:
    region = RegionTrace(trace, loop.name, loop.what)
    state_params = [region.carry(s.cell, s.histories, s.history is not None) for s in state]
    with region.entered():
        tracked = modes.grad
        carries = [
            as_result_of(region.entering(c.type, name, tracked, c.requires_grad), c)
            for c, name in zip(loop.carries, loop.names, strict=True)
        ]
        rows = [
            as_result_of(region.entering(row_type(x.type), name, tracked, x.requires_grad), x)
            for x, name in zip(loop.arrays, loop.row_names, strict=True)
        ]
        params = [region.content(c) for c in carries]
        inside = [region.content(x) for x in rows]
        made = loop.body(carries, rows)
    region.check_grads()
    return _Body(region, params, state_params, inside, made)


def _written(regions: Sequence[RegionTrace], known: Sequence[_State]) -> list[_State]:
    """`known` with all that the regions write besides; nothing where they write nothing else."""
    found = {s.cell: (dict(s.histories), s.history) for s in known}
    more = False
    for region in regions:
        for cell, histories in region.state().items():
            listed, history = found.get(cell, ({}, None))
            now = history or _tracked_history(region, histories)
            if cell not in found or (now is not None and history is None):
                more = True
            found[cell] = ({**listed, **histories}, now)
    return [_State(cell, h, history) for cell, (h, history) in found.items()] if more else []


def _tracked_history(region: RegionTrace, histories: dict[History, Tensor]) -> History | None:
    """The history under which what is written is tracked."""
    tracked = [h for h in histories if region.computed(h)]
    for history in tracked:
        if history.depth:
            raise located(
                TraceError(
                    f"{region.what} changes a part of a tensor that requires grad, through a "
                    "detached view of it; write to the tensor itself"
                )
            )
    return tracked[0] if tracked else None


def _emit_loop(trace: Trace, loop: Loop, body: _Body, state: Sequence[_State]) -> Made:
    region, tracked = body.region, modes.grad
    with region.entered():
        outs: list[tuple[Value, str]] = []
        if body.made.go_on is not None:
            outs.append((region.result(body.made.go_on, False), "go on"))
        outs += _outputs(region, body.made.carries, loop.names, tracked)
        outs += [(region.state_result(s.cell, s.history), "state") for s in state]
        ys = _outputs(
            region, body.made.rows, [f"y{n}" for n in range(len(body.made.rows))], tracked
        )
        outs += ys
    params = [*region.imports.values(), *body.params, *body.state_params, *body.rows]
    function = region.function(params, outs)
    carries = len(body.params) + len(state)
    attrs = ScanAttrs(
        len(region.imports), carries, loop.length, loop.reverse, loop.steps is not None, loop.until
    )
    trace.builder.loc = user_location()
    args = [trace.value_of(loop.steps)] if loop.steps is not None else []
    args += region.imports
    args += [_entering(trace, c) for c in loop.carries]
    args += [_entering_state(trace, s) for s in state]
    args += [_entering(trace, x) for x in loop.arrays]
    types = [TensorType(int64)] if loop.until else []
    types += [v.type for v, _ in outs[int(loop.until) : int(loop.until) + carries]]
    types += [stacked_type(v.type, loop.length or 0) for v, _ in ys]
    reach, moving = _reach_of_loop(trace, function, attrs, args)
    region.check_beyond(region.reached_back & set(body.params) & moving)
    values = _emit(trace, get_op("scan"), args, attrs, types, [function], reach)
    out: Outs[Value] = Outs(
        values[0] if loop.until else None,
        values[int(loop.until) : int(loop.until) + carries],
        values[int(loop.until) + carries :],
    )
    _leave_state(trace, state, out.carries[len(body.params) :])
    done = trace.new(out.first) if out.first is not None else None
    finals = _results(trace, out.carries[: len(body.params)], body.made.carries)
    rows = _results(trace, out.arrays, body.made.rows)
    return Made(done, _track(trace, finals, reach), _track(trace, rows, reach))


def _results(trace: Trace, values: Sequence[Value], inside: Sequence[Tensor]) -> list[Tensor]:
    """Tensors for results of a region, of the classes that they have inside."""
    return [as_result_of(trace.new(v), x) for v, x in zip(values, inside, strict=True)]


def _outputs(
    region: RegionTrace, tensors: Sequence[Tensor], names: Sequence[str], tracked: bool
) -> list[tuple[Value, str]]:
    return [(region.result(t, tracked), n) for t, n in zip(tensors, names, strict=True)]


def _reach_of_loop(
    trace: Trace, region: Function, a: ScanAttrs, args: Sequence[Value]
) -> tuple[set[int], set[Value]]:
    """Which results, and which parameters, depend on something that a derivative would follow."""
    inner = args[int(a.steps) :]
    moving = {p for p, v in zip(region.inputs, inner, strict=True) if v in trace.builder.active}
    first = int(a.until)
    pairs = list(
        zip(
            region.inputs[a.consts : a.consts + a.carries],
            region.outputs[first : first + a.carries],
            strict=True,
        )
    )
    while True:
        reached = _followed(region, moving)
        more = {p for p, out in pairs if out in reached and p not in moving}
        if not more:
            return {n for n, v in enumerate(region.outputs) if v in reached}, moving
        moving |= more


def _followed(region: Function, moving: Iterable[Value]) -> set[Value]:
    """The values of a region that depend on `moving` in a way that a derivative would follow."""
    reached = set(moving)
    for instr in region.instrs:
        if tape.differentiable(instr.op) and not reached.isdisjoint(followed_args(instr)):
            reached.update(r for r in instr.results if r.type.dtype.is_float)
    return reached


# --- branches ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Branches:
    """Regions of which one runs. `agree` compares what they give, as tensors, and may convert."""

    op: str
    names: Sequence[str]
    whats: Sequence[str]
    functions: Sequence[Callable[[], list[Tensor]]]
    agree: Callable[[list[RegionTrace], list[list[Tensor]]], list[list[Tensor]]]


def trace_branches(trace: Trace, branches: Branches, index: Tensor | None) -> list[Tensor]:
    """The results, as an instruction of `trace`."""
    regions: list[RegionTrace] = []
    given: list[list[Tensor]] = []
    for name, what, function in zip(
        branches.names, branches.whats, branches.functions, strict=True
    ):
        region = RegionTrace(trace, name, what)
        with region.entered():
            given.append(function())
        region.check_grads()
        regions.append(region)
    given = branches.agree(regions, given)
    state = _written(regions, ())
    outs: list[list[tuple[Value, str]]] = []
    for region, tensors in zip(regions, given, strict=True):
        with region.entered():
            names = [f"out{n}" for n in range(len(tensors))]
            listed = _outputs(region, tensors, names, modes.grad)
            listed += [(_state_of_branch(region, s), "state") for s in state]
            outs.append(listed)
    imported = list(dict.fromkeys(v for region in regions for v in region.imports))
    bodies = [
        region.function([_parameter(region, v) for v in imported], listed)
        for region, listed in zip(regions, outs, strict=True)
    ]
    args = ([trace.value_of(index)] if index is not None else []) + imported
    op = get_op(branches.op)
    attrs = SwitchAttrs(len(regions)) if index is not None else Attrs()
    types = [v.type for v, _ in outs[0]]
    reach: set[int] = set()
    for body in bodies:
        active = trace.builder.active
        moving = (p for p, v in zip(body.inputs, imported, strict=True) if v in active)
        followed = _followed(body, moving)
        reach |= {n for n, v in enumerate(body.outputs) if v in followed}
    trace.builder.loc = user_location()
    values = _emit(trace, op, args, attrs, types, bodies, reach)
    count = len(given[0])
    _leave_state(trace, state, values[count:])
    return _track(trace, _results(trace, values[:count], given[0]), reach)


def _parameter(region: RegionTrace, value: Value) -> Value:
    """The parameter for a value of the program around, whether the region uses it or not."""
    found = region.imports.get(value)
    return found if found is not None else Value(value.type)


def _state_of_branch(region: RegionTrace, state: _State) -> Value:
    """What a storage holds when the branch ends, which it need not have touched."""
    if state.history is None:
        return region.state_result(state.cell, None)
    if state.history in region._computed:
        return region.state_result(state.cell, state.history)
    return region.result(state.histories[state.history], True)


# --- what both share -----------------------------------------------------------------------------


def _entering(trace: Trace, x: Tensor) -> Value:
    """An operand, cut off from the variables that it depends on where nothing is tracked."""
    return trace._operand(x, True) if modes.grad else trace._inactive(trace.value_of(x))


def _entering_state(trace: Trace, state: _State) -> Value:
    """What a storage holds before the loop."""
    if state.history is not None:
        return trace._operand(state.histories[state.history], True)
    return trace._inactive(trace.content(Tensor(state.cell)))


def _leave_state(trace: Trace, state: Sequence[_State], values: Sequence[Value]) -> None:
    """The storages hold what the region has left in them."""
    loc = trace.builder.loc
    for s, value in zip(state, values, strict=True):
        trace.content(Tensor(s.cell))  # one that nobody has read yet becomes a parameter
        trace._set(s.cell, value, loc)
        if s.history is not None and (value in trace.builder.active or trace.computed(s.history)):
            trace._computed[s.history] = (value, value)
        if isinstance(trace, RegionTrace) and s.cell in trace.entry:
            trace.histories.setdefault(s.cell, {}).update(s.histories)


def _emit(
    trace: Trace,
    op: OpDef,
    args: Sequence[Value],
    attrs: Attrs,
    types: Sequence[TensorType],
    regions: Sequence[Function],
    reach: set[int],
) -> tuple[Value, ...]:
    """The instruction; of its results only those in `reach` count as differentiable."""
    values = trace.builder.emit_typed(op, args, attrs, types, regions)
    trace.builder.active.difference_update(v for n, v in enumerate(values) if n not in reach)
    return values


def _track(trace: Trace, tensors: Iterable[Tensor], reach: set[int]) -> list[Tensor]:
    """Mark as recorded what a derivative would follow."""
    listed = list(tensors)
    if modes.grad:
        trace.track([t for t in listed if trace.content(t) in trace.builder.active])
    return listed
