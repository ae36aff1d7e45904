"""Functions with a derivative of their own: what `custom_vjp` and `Function` share.

A `Rule` runs the user's forward function on tensors of which those that ask for a derivative are
variables of their own: so what the results depend on besides is found. Eagerly the results get a
node of the history that calls the user's backward function. In a trace that function is traced
right behind the forward one, into the region of an `attach_vjp`: it is compiled with the step, and
what nobody asks for vanishes.

What the forward function hands to the backward one is `Kept`. It stays connected with the inputs,
and a result that is kept with the rule itself, so that a backward function made of differentiable
operations can be differentiated in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from treadle.ir.custom import followed_args
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, GradientError, ShapeError, TreadleError
from treadle.ir.graph import Loc, Value
from treadle.ir.op import NO_ATTRS, get_op
from treadle.ir.ops.custom import AttachVjpAttrs
from treadle.ir.types import shape_text
from treadle.tracer import pytree, tape
from treadle.tracer.cell import Cell
from treadle.tracer.create import clone
from treadle.tracer.errors import where_made
from treadle.tracer.execute import apply
from treadle.tracer.history import Edge, History, Node, Saved
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes, no_grad
from treadle.tracer.promote import as_operand, is_operand
from treadle.tracer.region import RegionTrace
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.trace import Trace

_ORDERS = 3  # of a rule whose backward function calls the rule itself, in a trace


class Rule(Protocol):
    """One call of a function with a derivative of its own.

    `label` names it in messages, `key` is the same for all calls of one function. `names` are those
    of the inputs.
    """

    @property
    def label(self) -> str: ...
    @property
    def key(self) -> object: ...
    @property
    def names(self) -> Sequence[str]: ...

    def forward(self, inputs: Sequence[Tensor], asked: Sequence[bool]) -> Made:
        """Run the user's function; `asked`: which inputs a derivative may be wanted for."""
        ...

    def backward(
        self, kept: Sequence[Tensor], cts: Sequence[Tensor], asked: Sequence[bool]
    ) -> Sequence[object]:
        """A gradient or None for each input, from what was kept and a cotangent for each float
        result."""
        ...


@dataclass(slots=True)
class Made:
    """What a forward function gives: result tensors, those of them that have no derivative, and
    tensors that the backward function needs."""

    results: list[Tensor]
    fixed: set[int]
    kept: list[Tensor]


def call(rule: Rule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The results of `rule` on `inputs`, with its derivative. They have storage of their own."""
    asked = [modes.grad and x.requires_grad and x.dtype.is_float for x in inputs]
    trace = modes.trace
    if not any(asked):
        with no_grad():
            return [_apart(x) for x in rule.forward(inputs, asked).results]
    if trace is not None:
        return _traced(rule, trace, inputs, asked)
    return _eager(rule, inputs, asked)


def _apart(x: Tensor) -> Tensor:
    """`x` in storage of its own, without a history."""
    if modes.trace is not None:
        trace = modes.trace
        return as_result_of(trace.new(trace._inactive(trace.value_of(x)), x.weak), x)
    found = clone(x.detach())
    found.weak = x.weak
    return as_result_of(found, x)


def _same(x: Tensor, y: Tensor) -> bool:
    return x is y or (x.cell is y.cell and x.maps == y.maps)


# --- eagerly -------------------------------------------------------------------------------------


class _RuleNode(Node):
    """A node that calls a rule. `rule` is let go of with what it keeps."""

    __slots__ = ("kinds", "label", "own", "rule", "saved", "shown")

    label: str
    rule: Rule
    saved: tuple[Saved | int, ...]  # what was kept; a number: that result
    own: tuple[Saved, ...]  # the float results
    shown: tuple[bool, ...]  # which inputs are operands of the node
    kinds: tuple[Sequence[type[Tensor]], Sequence[type[Tensor]]]  # classes: of results, of kept

    def pulled(
        self, cts: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        try:
            return self._pulled(cts, needed)
        except TreadleError as error:
            if not error.located and self.loc is not None:
                error.located = True
                error.args = (f"{error} (in a call at {self.loc})",)
            raise

    def _pulled(
        self, cts: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        wanted = iter(needed)
        asked = [shown and next(wanted) for shown in self.shown]
        given = [_zeros(s) if ct is None else ct for ct, s in zip(cts, self.own, strict=True)]
        given = [_of_class(x, k) for x, k in zip(given, self.kinds[0], strict=True)]
        kept = [
            _of_class(self._unpacked(s), k) for s, k in zip(self.saved, self.kinds[1], strict=True)
        ]
        grads = self.rule.backward(kept, given, asked)
        operands = iter(self.args)
        found: list[Tensor | None] = []
        for n, grad in enumerate(_counted(self.rule, grads)):
            if self.shown[n]:
                like = next(operands)
                found.append(_checked(self.rule, n, grad, like) if asked[n] else None)
        return found

    def _unpacked(self, saved: Saved | int) -> Tensor:
        if not isinstance(saved, int):
            return tape._unpack(self, saved)
        own = self.own[saved]
        return tape._unpack(self, tape._with_edge(own, (self, saved)))

    def free(self) -> None:
        super().free()
        self.saved = self.own = ()

    @property
    def name(self) -> str:
        return self.label


def _of_class(x: Tensor, kind: type[Tensor]) -> Tensor:
    """`x` as a tensor of the class that the forward function had."""
    if type(x) is kind:
        return x
    found = Tensor(x.cell, x.maps, x.history, x.type, x.weak)
    found.__class__ = kind
    return found


def _zeros(saved: Saved) -> Tensor:
    return Tensor(Cell.of(np.zeros(saved.type.static_shape, saved.type.dtype.dtype)))


def _eager(rule: Rule, inputs: Sequence[Tensor], asked: Sequence[bool]) -> list[Tensor]:
    variables = [_variable(x) if a else x for x, a in zip(inputs, asked, strict=True)]
    own = {v.history for v, a in zip(variables, asked, strict=True) if a}
    try:
        made = rule.forward(variables, asked)
        _check_eager_reads(rule, made, own)
        saved = [tape.save(x) for x in made.kept]
    finally:
        for history in own:
            history.open = False
    results = [_apart(x) for x in made.results]
    floats = [n for n, x in enumerate(results) if x.dtype.is_float and n not in made.fixed]
    operands = tuple(_operand(x) for x, a in zip(inputs, asked, strict=True) if a)
    outs = tuple(Saved(results[n].type, results[n].cell, results[n].maps) for n in floats)
    node = _RuleNode(None, NO_ATTRS, operands, outs, user_location(), _never)
    node.rule, node.label, node.own, node.shown = rule, rule.label, outs, tuple(asked)
    node.saved = tuple(
        next((k for k, n in enumerate(floats) if _same(x, made.results[n])), s)
        for x, s in zip(made.kept, saved, strict=True)
    )
    node.kinds = (
        [made.results[n].result_class for n in floats],
        [x.result_class for x in made.kept],
    )
    for k, n in enumerate(floats):
        results[n].history.made_by((node, k), results[n].cell.version)
    return results


def _operand(x: Tensor) -> Saved:
    """A handle on the history of an input."""
    found = tape.save_edge(x)
    found.weak = x.weak
    return found


def _never(cts: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    raise AssertionError("a rule is asked what is wanted of it")


def _variable(x: Tensor) -> Tensor:
    history = History.of_variable(len(x.maps), tape.edge_of(x))
    return as_result_of(Tensor(x.cell, x.maps, history, x.type, x.weak), x)


def _check_eager_reads(rule: Rule, made: Made, own: set[History]) -> None:
    edges: list[Edge | None] = [
        tape.edge_of(x) for n, x in enumerate(made.results) if n not in made.fixed
    ]
    seen: set[object] = set()
    stack = [e[0] for e in edges if e is not None]
    while stack:
        node = stack.pop()
        if node in seen or node in own:
            continue
        seen.add(node)
        if isinstance(node, History):
            if node.alive:
                raise _unseen(rule, "")
            continue
        stack.extend(e[0] for e in node.edges if e is not None)


def _unseen(rule: Rule, what: str) -> GradientError:
    return GradientError(
        f"{rule.label} computes with a tensor{what} that requires grad and is not among its "
        "arguments, so that its gradient would be lost; pass it as an argument, or use its "
        "detach()"
    )


# --- in a trace ----------------------------------------------------------------------------------


class _BackwardTrace(RegionTrace):
    """The trace of a backward function. `key`: of the rule that it belongs to."""

    def __init__(self, outer: Trace, rule: Rule) -> None:
        super().__init__(outer, "backward", f"the backward function of {rule.label}")
        self.key = rule.key


def _depth(trace: Trace, rule: Rule) -> int:
    """In how many backward functions of the same rule the trace is."""
    count = 0
    while isinstance(trace, RegionTrace):
        count += isinstance(trace, _BackwardTrace) and trace.key is rule.key
        trace = trace.outer
    return count


def _traced(
    rule: Rule, trace: Trace, inputs: Sequence[Tensor], asked: Sequence[bool]
) -> list[Tensor]:
    variables = [trace.variable(x, True) if a else x for x, a in zip(inputs, asked, strict=True)]
    own = [v.history for v, a in zip(variables, asked, strict=True) if a]
    try:
        made = rule.forward(variables, asked)
        values = {n: trace._operand(x, True) for n, x in enumerate(made.results)}
        by = {n: trace.tracked_value(v) for n, v in enumerate(variables) if asked[n]}
        _check_traced_reads(rule, trace, made, values, set(by.values()))
    finally:
        for history in own:
            history.open = False
    floats = [n for n, x in enumerate(made.results) if x.dtype.is_float and n not in made.fixed]
    loc = user_location()
    attached = _attach(rule, trace, made, inputs, [(n, values[n]) for n in floats], by, asked, loc)
    results: list[Tensor] = []
    for n, x in enumerate(made.results):
        if n in attached:
            found = as_result_of(trace.new(attached[n], x.weak), x)
            trace.track([found])
        else:
            found = _apart(x)
        results.append(found)
    return results


def _check_traced_reads(
    rule: Rule, trace: Trace, made: Made, values: dict[int, Value], own: set[Value]
) -> None:
    stack = [v for n, v in values.items() if n not in made.fixed]
    active, seen = trace.builder.active, set(own)
    while stack:
        value = stack.pop()
        if value in seen or value not in active:
            continue
        seen.add(value)
        instr = value.producer
        if instr is None or (instr.op.name == "variable" and instr.args[0] not in active):
            what = "" if instr is None else f", {value.type}, {where_made(instr.args[0])},"
            raise _unseen(rule, what)
        if tape.differentiable(instr.op):
            stack.extend(followed_args(instr))


def _attach(
    rule: Rule,
    trace: Trace,
    made: Made,
    inputs: Sequence[Tensor],
    outs: Sequence[tuple[int, Value]],
    by: dict[int, Value],
    asked: Sequence[bool],
    loc: Loc | None,
) -> dict[int, Value]:
    """The results that have a derivative, as those of an `attach_vjp`, by number."""
    if not outs:
        return {}
    depth = _depth(trace, rule)
    op = get_op("attach_vjp")
    types = [v.type for _, v in outs]
    if depth >= _ORDERS:
        a = AttachVjpAttrs(len(outs), len(by), rule.label, depth)
        args = [*(v for _, v in outs), *by.values()]
        trace.builder.loc = loc
        found = trace.builder.emit_typed(op, args, a, types)
        return dict(zip([n for n, _ in outs], found, strict=True))
    region = _BackwardTrace(trace, rule)
    with region.entered():
        own = [_entering(region, f"out{n}", v, made.results[n]) for n, v in outs]
        cts = [_entering(region, f"ct{n}", v, made.results[n]) for n, v in outs]
        params = [region.content(x) for x in own], [region.content(x) for x in cts]
        position = {n: k for k, (n, _) in enumerate(outs)}
        kept = [_kept_in_region(x, made, own, position) for x in made.kept]
        grads = rule.backward(kept, cts, asked)
        given = [
            (n, _checked(rule, n, grad, Saved(v.type, weak=inputs[n].weak)))
            for n, grad in enumerate(_counted(rule, grads))
            if (v := by.get(n)) is not None and grad is not None
        ]
        results = [(region.result(x, True), f"d{n}") for n, x in given if x is not None]
    region.check_grads()
    if region.state():
        raise GradientError(
            f"{region.what} changes a tensor from outside, or draws random numbers; it runs only "
            "where a gradient is asked for: do that in the forward function, and keep what it gives"
        )
    function = region.function([*params[0], *region.imports.values(), *params[1]], results)
    if not given:
        return {}
    attrs = AttachVjpAttrs(len(outs), len(given), rule.label)
    args = [*(v for _, v in outs), *(by[n] for n, _ in given), *region.imports]
    trace.builder.loc = loc
    values = trace.builder.emit_typed(op, args, attrs, types, [function])
    return dict(zip([n for n, _ in outs], values, strict=True))


def _entering(region: RegionTrace, name: str, value: Value, like: Tensor) -> Tensor:
    """A parameter of a derivative, for a result or its cotangent."""
    found = as_result_of(region.entering(value.type, name, True, True), like)
    found.weak = like.weak
    return found


def _kept_in_region(
    x: Tensor, made: Made, own: Sequence[Tensor], position: dict[int, int]
) -> Tensor:
    """A result that is kept is what the rule gives, not how it was computed."""
    for n, result in enumerate(made.results):
        if n in position and _same(x, result):
            return own[position[n]]
    return x


# --- what backward functions give ----------------------------------------------------------------


def _counted(rule: Rule, grads: Sequence[object]) -> Sequence[object]:
    if len(grads) != len(rule.names):
        raise GradientError(
            f"the backward function of {rule.label} gave {len(grads)} gradients, expected "
            f"{len(rule.names)}, one for each of {', '.join(rule.names)}"
        )
    return grads


def _checked(rule: Rule, number: int, grad: object, like: Saved) -> Tensor | None:
    """The gradient as a tensor of the type of its input."""
    if grad is None:
        return None
    what = f"the backward function of {rule.label} gave as gradient of {rule.names[number]}"
    if not is_operand(grad):
        raise DTypeError(f"{what} a {type(grad).__name__} {grad!r:.40}, expected {like.type}")
    found = as_operand(grad)
    loose = like.weak or found.weak or not isinstance(grad, (Tensor, np.ndarray))
    if loose and found.dtype != like.type.dtype:
        found = apply("cast", found, dtype=like.type.dtype)
    if found.type == like.type:
        return found
    fault = ShapeError if found.shape != like.type.shape else DTypeError
    hint = ""
    if found.shape != like.type.shape and found.ndim >= like.type.rank:
        hint = f"; sum it over the axes that {shape_text(like.type.shape)} was broadcast along"
    raise fault(f"{what} {found.type}, expected {like.type}{hint}")


def gradient_leaves(label: str, name: str, grad: Any, tree: pytree.TreeDef) -> list[object]:
    """The gradient of an argument of structure `tree`, leaf by leaf: None stands for zeros, of a
    leaf or of all below. Raises GradientError for another structure."""
    if grad is None:
        return [None] * tree.leaf_count
    if tree.is_leaf:
        return [grad]
    container = pytree.container_of(type(grad))
    parts, meta = container.parts(grad) if container is not None else ((), None)
    if (type(grad), meta, len(parts)) != (tree.type, tree.meta, len(tree.children)):
        raise GradientError(
            f"the backward function of {label} gave as gradient of {name} a {type(grad).__name__} "
            f"{grad!r:.40}, expected {tree}, as the argument is"
        )
    paired = zip(parts, tree.children, strict=True)
    return [leaf for part, child in paired for leaf in gradient_leaves(label, name, part, child)]
