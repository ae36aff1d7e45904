"""Recording: one run of a Python function under a trace, and all that a call must do afterwards.

The function runs once with traced values in place of its arguments. What it returned, which
storages it changed and what it bound to other values become results of the IR Function, together
with recipes for putting them where the Python function would have. The user's objects are as
before when the recording ends, also where it raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from typing import Any, Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, TraceError
from treadle.ir.graph import Function, Result, Value
from treadle.ir.types import TensorType, float64, type_of_array
from treadle.tracer import pytree
from treadle.tracer.cell import Cell
from treadle.tracer.effects import Change, How, Snapshot
from treadle.tracer.errors import located
from treadle.tracer.escapes import Escapes, FreshTensor
from treadle.tracer.guards import GuardPlan
from treadle.tracer.history import History
from treadle.tracer.items import MISSING, Item, Tree
from treadle.tracer.modes import modes
from treadle.tracer.moving import Caches, Moving, generators_in
from treadle.tracer.outside import Outside
from treadle.tracer.randomness import RandomState
from treadle.tracer.reads import only_read_by_trace
from treadle.tracer.recipes import Recipe
from treadle.tracer.signature import Parameters
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.trace import Trace, reached_from
from treadle.tracer.walk import instance_dict

SourceKind = Literal["cell", "view", "array", "float"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the array of a parameter comes from: the fetched value at `position`.

    cell: a tensor's whole storage; view: what a tensor shows; array: a NumPy array; float: a
    Python number.
    """

    kind: SourceKind
    position: int


@dataclass(frozen=True, slots=True)
class Write:
    """New content for a storage: result `result` goes to the tensor at `position`, into its cell
    as a whole or (`view`) through its index maps."""

    position: int
    result: int
    view: bool


@dataclass(frozen=True, slots=True)
class TrackedWrite:
    """The tensor at `position` from outside now holds `value`, from which backward() outside goes
    on through the call. `role`: tracked; spent (a backward() inside has used it up); stale (it
    was written again under no_grad, so that its history is no longer that of its values)."""

    position: int
    value: Value
    role: Literal["tracked", "spent", "stale"]


@dataclass(frozen=True, slots=True)
class GradWrite:
    """`.grad` of the fetched tensor at `position`, or (`fresh`) of a leaf that the call made."""

    position: int
    fresh: bool
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Binding:
    """An attribute, item, element list or closure variable of a container bound anew: see
    `treadle.tracer.effects.Change` for `how` and `key`.

    `target` is the container where it is always the same object (a class, a closure cell, a
    module's globals); else `position` fetches it. A `recipe` of None: deleted.
    """

    how: How
    key: Any
    position: int | None
    target: Any
    recipe: Recipe | None


@dataclass(slots=True)
class Recording:
    """A traced call."""

    function: Function
    sources: tuple[Source, ...]
    plan: GuardPlan
    output: Recipe
    fresh: tuple[FreshTensor, ...]
    writes: tuple[Write, ...]
    grads: tuple[GradWrite, ...]
    bindings: tuple[Binding, ...]
    tracked: tuple[TrackedWrite, ...]
    variables: tuple[tuple[Value, int], ...]  # of a variable: the fetched tensor it stands for
    trace: Trace


class Fetches:
    """The items whose values a call needs, each with a position."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._positions: dict[int, int] = {}

    def of(self, item: Item) -> int:
        found = self._positions.get(item.number)
        if found is None:
            found = self._positions[item.number] = len(self.items)
            self.items.append(item)
        return found


def record(
    fn: Callable[..., Any], parameters: Parameters, roots: Sequence[Any], tree: Tree, name: str
) -> Recording:
    """Trace one call. Raises what the function raises, and TraceError for what a trace cannot
    follow; all objects are then as before."""
    try:
        return _Recorder(fn, parameters, roots, tree, name).run()
    except _TrackedView:
        return _Recorder(fn, parameters, roots, tree, name, whole=True).run()


class _TrackedView(Exception):
    """Something that requires grad was written through a view that stands for itself alone: it
    has to stand for its base."""


@dataclass(slots=True)
class _Input:
    """An argument's leaf: its item, the tensor that stands for it, its value at the start."""

    item: Item
    tensor: Tensor
    start: Value
    kind: SourceKind


@dataclass(slots=True)
class _Recorder:
    fn: Callable[..., Any]
    parameters: Parameters
    roots: Sequence[Any]
    tree: Tree
    name: str
    whole: bool = False  # views among the arguments stand for their bases
    fetches: Fetches = field(default_factory=Fetches)
    trace: Trace = field(init=False)
    inputs: list[_Input] = field(default_factory=list)
    live: dict[int, Any] = field(default_factory=dict)
    histories: dict[History, Item] = field(default_factory=dict)

    def run(self) -> Recording:
        self.trace = Trace(self.name, self.tree.path_of)
        self.find_histories()
        self.enter_arguments()
        self.live.update(rebuilt(self.tree, self.live))
        args, kwargs = self.parameters.unbind(self.live_roots())
        snapshot = Snapshot(self.tree, self.live)
        unrepeatable = (RandomState(self.tree.generators), Moving(self.tree))
        outside = Outside(self.tree.user_words, generators_in(self.tree))
        with self.restoring(snapshot, *unrepeatable, Caches(self.tree)), self.trace:
            with outside:
                out = self.fn(*args, **kwargs)
            for seen in (*unrepeatable, outside):
                seen.check(self.name)
            return self.collect(out, snapshot.changes())

    def find_histories(self) -> None:
        """An item for each history; a view stands for it where the tensor itself is not reached."""
        tensors = [item for item in self.tree.items if item.kind == "tensor"]
        for item in sorted(tensors, key=lambda i: len(i.value.maps) != i.value.history.depth):
            self.histories.setdefault(item.value.history, item)

    @contextlib.contextmanager
    def restoring(self, *states: Snapshot | RandomState | Moving | Caches) -> Iterator[None]:
        grad_mode = modes.grad
        try:
            yield
        finally:
            for state in states:
                state.restore()
            modes.grad = grad_mode

    def live_roots(self) -> list[Any]:
        roots = [item for item in self.tree.items if item.step.how == "root"]
        firsts = [item.of or item for item in roots]  # one object as two arguments stays one
        return [self.live.get(item.number, item.value) for item in firsts]

    # --- in ----------------------------------------------------------------------------------

    def enter_arguments(self) -> None:
        """Give each leaf of the arguments a parameter."""
        users: dict[int, int] = {}
        for item in self.tree.items:
            if item.kind == "tensor":
                users[id(item.value.cell)] = users.get(id(item.value.cell), 0) + 1
        for item in argument_items(self.tree):
            if item.kind in ("tensor", "array", "input"):
                self.enter(item, users)

    def enter(self, item: Item, users: dict[int, int]) -> None:
        value, trace = item.value, self.trace
        kind: SourceKind
        if item.kind == "input":
            tensor, kind = trace.arg(TensorType(float64), item.path, weak=True), "float"
        elif item.kind == "array":
            tensor, kind = trace.arg(array_type(item), item.path), "array"
        elif not self.whole and self.stands_alone(value, users):
            value.array()  # raises where it leaked out of another trace
            tensor, kind = trace.arg(value.type, item.path, weak=value.weak), "view"
            as_result_of(tensor, value)
        else:
            value.array()
            tensor, kind = trace.bind(value, item.path), "cell"
        if kind != "cell":
            self.live[item.number] = tensor
        self.fetches.of(item)
        self.inputs.append(_Input(item, tensor, trace.values[tensor.cell], kind))

    def stands_alone(self, x: Tensor, users: dict[int, int]) -> bool:
        """Whether an argument is a view whose base nobody else reaches."""
        return bool(x.maps) and not x.requires_grad and users[id(x.cell)] == 1

    # --- out ---------------------------------------------------------------------------------

    def collect(self, out: Any, changes: list[Change]) -> Recording:
        """Everything that the call gives, as results of the Function and recipes."""
        trace = self.trace
        self.check_inputs()
        escapes = Escapes(trace, self.tree, self.fetches, self.views_given(), self.live)
        escapes.announce([out], [c.new for c in changes], list(trace.grads.values()))
        output = escapes.output(out)
        grads = list(self.grad_writes(escapes))
        bindings = [self.binding(change, escapes) for change in changes]
        escapes.seal()
        results = list(escapes.results)
        writes = list(self.cell_writes(results))
        tracked = list(self.tracked_writes())
        function = trace.finish(distinct(results, writes))
        return Recording(
            function=function,
            sources=self.sources(function),
            plan=self.plan(bool(writes)),
            output=output,
            fresh=tuple(escapes.fresh),
            writes=tuple(writes),
            grads=tuple(grads),
            bindings=tuple(bindings),
            tracked=tuple(tracked),
            variables=tuple(self.variables()),
            trace=trace,
        )

    def views_given(self) -> dict[Cell, tuple[History, int]]:
        """By the cell of its stand-in: its history, and the position of an argument that is a
        view."""
        given = (i for i in self.inputs if i.kind == "view")
        return {i.tensor.cell: (i.tensor.history, self.fetches.of(i.item)) for i in given}

    def check_inputs(self) -> None:
        for given in self.inputs:
            changed = self.trace.values[given.tensor.cell] is not given.start
            if changed and given.kind == "array":
                raise located(
                    TraceError(
                        f"the jitted function changes its argument {given.item.path}, a NumPy "
                        "array, in place; pass treadle.tensor(...) to have it changed, or change "
                        "a copy"
                    )
                )

    def cell_writes(self, results: list[Result]) -> Iterator[Write]:
        """Storages from outside whose content changed."""
        trace = self.trace
        for given in self.inputs:
            value = trace.values[given.tensor.cell]
            if given.kind == "view" and value is not given.start:
                if trace.computed(given.tensor.history):
                    raise _TrackedView
                results.append(Result(value, given.item.path, "state"))
                yield Write(self.fetches.of(given.item), len(results) - 1, view=True)
        for cell, start in trace.entry.items():
            value = trace.values[cell]
            if value is start:
                continue
            item = self.tree.cells[id(cell)]
            results.append(Result(value, item.path, "state"))
            yield Write(self.fetches.of(item), len(results) - 1, view=False)

    def tracked_writes(self) -> Iterator[TrackedWrite]:
        """Tensors from outside that were changed in place by something that requires grad."""
        for history, item in self.histories.items():
            if not self.trace.computed(history):
                continue
            value, current = self.trace.computed_value(history)
            spent = self.trace.is_spent(reached_from(value))
            role: Literal["tracked", "spent", "stale"] = "spent" if spent else "tracked"
            yield TrackedWrite(self.fetches.of(item), value, role if current else "stale")

    def grad_writes(self, escapes: Escapes) -> Iterator[GradWrite]:
        for history, grad in self.trace.grads.items():
            item = self.histories.get(history)
            made = escapes.first_of(history)
            if item is not None:  # also where it is what it was: the next call may enter otherwise
                recipe = escapes.refer(grad, f"{item.path}.grad")
                yield GradWrite(self.fetches.of(item), False, recipe)
            elif item is None and made is not None and grad is not None:
                yield GradWrite(made, True, escapes.refer(grad, "out.grad"))

    def binding(self, change: Change, escapes: Escapes) -> Binding:
        recipe = (
            None
            if change.new is MISSING
            else escapes.refer(change.new, change.path, numbers=change.container.argument)
        )
        item, key = change.container, change.key
        if change.how == "cell" and item.step.how == "closure":
            # the closure of a function that may be another one at the next call
            assert item.parent is not None
            position = self.fetches.of(item.parent)
            return Binding("cell", item.step.key, position, None, recipe)
        if change.how == "cell" or item.kind == "names":
            return Binding(change.how, key, None, change.target, recipe)
        return Binding(change.how, key, self.fetches.of(item), None, recipe)

    def sources(self, function: Function) -> tuple[Source, ...]:
        """For each parameter, where its array comes from."""
        known: dict[Value, Source] = {}
        for given in self.inputs:
            known.setdefault(given.start, Source(given.kind, self.fetches.of(given.item)))
        for capture in self.trace.captures:
            item = self.tree.item_of(capture.source)
            assert item is not None
            kind: SourceKind = "cell" if isinstance(capture.source, Tensor) else "array"
            known[capture.value] = Source(kind, self.fetches.of(item))
        return tuple(known[p.value] for p in function.params)

    def variables(self) -> Iterator[tuple[Value, int]]:
        """Values by which a later backward() through the call differentiates."""
        for history, value in self.trace.variables():
            item = self.histories.get(history)
            if item is not None:
                yield value, self.fetches.of(item)

    def plan(self, writes: bool) -> GuardPlan:
        any_view = {i.item.number for i in self.inputs if i.kind == "view"}
        reads = {
            child.number
            for history in self.trace.grad_reads
            if (item := self.histories.get(history)) is not None
            for child in item.children
            if child.step.how == "grad"
        }
        tensors = [i for i in self.fetches.items if i.kind == "tensor"]
        apart = tensors if writes else []
        taken = self.trace.taken
        inputs = {
            i.number
            for i in self.fetches.items
            if i.kind == "array" and (i.argument or only_read_by_trace(self.tree, i, taken))
        }
        return GuardPlan(self.tree, self.fetches.items, any_view, reads, apart, inputs)


def distinct(results: Sequence[Result], writes: Sequence[Write]) -> list[Result]:
    """Results with paths of their own. Where a name was bound to a new tensor and the old one,
    which others hold, was written to, the name stays with the storage that is updated."""
    written = {results[w.result].path: w.result for w in writes}
    seen: set[str] = set()
    found: list[Result] = []
    for n, result in enumerate(results):
        path = result.path
        if result.kind == "state" and written.get(path, n) != n:
            path = f"{path} (bound anew)"
        while result.kind == "state" and path in seen:
            path = f"{path} again"
        seen.add(path)
        found.append(replace(result, path=path))
    return found


def array_type(item: Item) -> TensorType:
    """The type of a NumPy array among the arguments; raises DTypeError naming the argument."""
    try:
        return type_of_array(item.value)
    except DTypeError as error:
        raise located(DTypeError(f"argument {item.path}: {error}")) from None


def argument_items(tree: Tree) -> Iterator[Item]:
    """The items of the arguments' trees, depth first: in the order of the call."""
    stack = [item for item in reversed(tree.items) if item.step.how == "root"]
    while stack:
        item = stack.pop()
        if item.argument:
            yield item
            stack.extend(reversed(item.children))


def rebuilt(tree: Tree, leaves: dict[int, Any]) -> dict[int, Any]:
    """Copies of the arguments' containers that hold replaced leaves, by item number."""
    done: dict[int, Any] = {}

    def value_of(item: Item) -> Any:
        if item.number in leaves:
            return leaves[item.number]
        if item.of is not None:
            return value_of(item.of)
        if item.number not in done:
            done[item.number] = item.value  # a container that holds itself stays as it is
            steps = ("part", "attr") if item.kind == "tree" else ("item",)
            parts = [c for c in item.children if c.step.how in steps and c.kind != "attrs"]
            done[item.number] = _copied(item, parts, [value_of(c) for c in parts])
            for child in item.children if done[item.number] is not item.value else ():
                if child.kind == "attrs":  # attributes that are no fields
                    inside = instance_dict(done[item.number])
                    inside.update((k, v) for k, v in child.value.items() if k not in inside)
                    done[child.number] = inside
        return done[item.number]

    for item in tree.items:
        if item.argument and item.step.how == "root":
            value_of(item)
    originals = tree.items
    return {n: v for n, v in done.items() if v is not originals[n].value}


def _copied(item: Item, parts: list[Item], children: list[Any]) -> Any:
    """The container `item` with `children` in place of `parts`; itself where they are the same."""
    if not item.argument or item.kind not in ("list", "tuple", "dict", "tree"):
        return item.value
    if all(new is c.value for new, c in zip(children, parts, strict=True)):
        return item.value
    container = pytree.container_of(type(item.value))
    if container is None or len(container.parts(item.value)[0]) != len(children):
        raise TraceError(
            f"{item.path} is a {type(item.value).__qualname__} that holds NumPy arrays or floats; "
            "use a plain list, tuple or dict, or register_container for the class"
        )
    return container.build(container.parts(item.value)[1], children)
