"""Eager differentiation: recording nodes, and walking them backwards.

Derivative rules are those of the op table. They run on handles that compute nothing until a
cotangent is really wanted, so a rule that offers the derivative with respect to every operand
costs, and needs, only those that are asked for: `x *= 2` may overwrite `x` although the rule of
`mul` mentions it for the other operand's sake.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.errors import GradientError
from treadle.ir.graph import Loc
from treadle.ir.op import NO_ATTRS, NOT_DIFFERENTIABLE, Attrs, OpDef
from treadle.ir.types import DType, TensorType, shape_text
from treadle.tracer import views
from treadle.tracer.cell import Cell
from treadle.tracer.history import AnyNode, Edge, History, Node, Pull, Saved, parents
from treadle.tracer.location import user_location
from treadle.tracer.modes import enable_grad, no_grad
from treadle.tracer.tensor import Tensor, as_result_of

# --- recording -------------------------------------------------------------------------------


def differentiable(op: OpDef) -> bool:
    """False where a result never depends on an operand in the sense of calculus."""
    return op.vjp is not NOT_DIFFERENTIABLE and op.name != "stop_gradient"


def record(op: OpDef, attrs: Attrs, operands: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Add a node for `results = op(operands)` to the history."""
    if not differentiable(op) or not any(r.dtype.is_float for r in results):
        return
    node = Node(op, attrs, tuple(save(t) for t in operands), _outs(results), user_location())
    _made_by(node, results)


def save_edge(x: Tensor) -> Saved:
    """A handle on the history of `x`, without its values."""
    return Saved(x.type, edge=edge_of(x))


def record_saved(
    operands: tuple[Saved, ...],
    results: Sequence[Tensor],
    pull: Pull,
    spend: Callable[[], bool] | None = None,
) -> None:
    """Add a node for a call that brings its own derivative (a compiled function).

    `pull` takes one cotangent or None a result, and gives one or None an operand, each of the
    operand's type. It is called at most once unless the graph is retained, or `spend` says after
    a pass that not all of the call is used up.
    """
    if any(a.edge is not None for a in operands):
        outs = tuple(Saved(r.type) for r in results)
        node = Node(None, NO_ATTRS, operands, outs, user_location(), pull, spend)
        _made_by(node, results)


def _outs(results: Sequence[Tensor]) -> tuple[Saved, ...]:
    return tuple(Saved(r.type, r.cell, r.maps, weak=r.weak) for r in results)


def _made_by(node: Node, results: Sequence[Tensor]) -> None:
    for index, result in enumerate(results):
        if result.dtype.is_float:
            result.history.made_by((node, index), result.cell.version)


def save(x: Tensor) -> Saved:
    """A handle on `x` as it is now."""
    return Saved(x.type, x.cell, x.maps, edge_of(x), x.weak)


def edge_of(x: Tensor) -> Edge | None:
    """The end of the history of `x`; index maps become nodes. None where it is not tracked.

    Raises GradientError where the values were changed behind the history's back.
    """
    history = x.history
    if not history.requires_grad or not x.dtype.is_float:
        return None
    if not history.leaf and history.version != x.cell.version:
        raise GradientError(stale_history_message(x.type, x.cell))
    root: Edge = (history, 0) if history.leaf or history.edge is None else history.edge
    if len(x.maps) == history.depth:
        return root
    if x.shown_edge is not None and x.shown_edge[0] == root:
        return x.shown_edge[1]
    o = _HistoryOps()
    base = Saved(_type_at(x, history.depth), edge=root)
    edge = views.replay(o, base, x.maps[history.depth :]).edge
    assert edge is not None
    x.shown_edge = (root, edge)
    return edge


def write_edge(x: Tensor, new: Tensor) -> Edge:
    """The edge of the base's history after `new` is written through `x` (tracked)."""
    depth = x.history.depth
    whole = len(x.maps) == depth
    base_edge = None if whole else _root_edge(x)
    base = Saved(_type_at(x, depth), edge=base_edge)
    fresh = Saved(new.type, edge=edge_of(new))
    written = views.write(_HistoryOps(), base, x.maps[depth:], fresh)
    if written.edge is None:  # an untracked value over the whole of it
        return Node(None, NO_ATTRS, (), (), user_location()), 0
    return written.edge


def _root_edge(x: Tensor) -> Edge | None:
    history = x.history
    return edge_of(Tensor(x.cell, x.maps[: history.depth], history, _type_at(x, history.depth)))


def _type_at(x: Tensor, depth: int) -> TensorType:
    type = x.cell.type
    for step in x.maps[:depth]:
        type = step.result_type(type)
    return type


def keep_operand(result: Tensor, x: Tensor) -> None:
    """Before `x` is overwritten by `result`, which was computed from it (`x *= y`): the node of
    `result` gets a copy of the old values, so that the op itself does not spoil its derivative."""
    node = result.history.edge[0] if result.history.edge is not None else None
    if not isinstance(node, Node):
        return
    for saved in node.args:
        if saved.cell is x.cell and saved.version == x.cell.version:
            old = views.numpy_view(x.cell.buffer, saved.maps)
            saved.cell, saved.maps, saved.version = Cell.of(np.array(old, order="C")), (), 0


def stale_history_message(type: TensorType, cell: Cell) -> str:
    """For a tensor whose storage was changed without its history knowing."""
    at = f" at {cell.written_at}" if cell.written_at is not None else ""
    return (
        f"a tensor, {type}, that requires grad was changed{at} under no_grad or through detach(), "
        "so that its history no longer describes its values; change it with grad mode on, or go "
        "on with x.detach()"
    )


class _HistoryOps(Ops[Saved]):
    """Movement ops on handles without data: they add nodes and compute nothing."""

    def type_of(self, x: Saved) -> TensorType:
        return x.type

    def emit(self, op: OpDef, args: Sequence[Saved], attrs: Attrs = NO_ATTRS) -> tuple[Saved, ...]:
        (type,) = op.infer_types(attrs, [a.type for a in args])
        if all(a.edge is None for a in args):
            return (Saved(type),)
        node = Node(op, attrs, tuple(args), (Saved(type),), user_location())
        return (Saved(type, edge=(node, 0)),)


# --- derivative rules on tensors -------------------------------------------------------------


class _Lazy:
    """A result that is computed when somebody wants it."""

    __slots__ = ("args", "attrs", "done", "op", "types")

    def __init__(
        self, op: OpDef, args: tuple[Handle, ...], attrs: Attrs, types: tuple[TensorType, ...]
    ) -> None:
        self.op = op
        self.args = args
        self.attrs = attrs
        self.types = types
        self.done: tuple[Tensor, ...] | None = None


class _Out:
    """Result `index` of a lazy op."""

    __slots__ = ("index", "of")

    def __init__(self, of: _Lazy, index: int) -> None:
        self.of = of
        self.index = index


Handle: TypeAlias = "Tensor | _Operand | _Out"


class _Operand:
    """A saved handle with the node that it belongs to, for messages."""

    __slots__ = ("node", "saved")

    def __init__(self, node: Node, saved: Saved) -> None:
        self.node = node
        self.saved = saved


class TapeOps(Ops[Handle]):
    """The vocabulary of derivative rules on lazy tensors; `force` computes one."""

    def __init__(self) -> None:
        self.fresh: set[Cell] = set()  # made here: nobody else holds them

    def type_of(self, x: Handle) -> TensorType:
        if isinstance(x, _Out):
            return x.of.types[x.index]
        return x.saved.type if isinstance(x, _Operand) else x.type

    def emit(
        self, op: OpDef, args: Sequence[Handle], attrs: Attrs = NO_ATTRS
    ) -> tuple[Handle, ...]:
        types = op.infer_types(attrs, [self.type_of(a) for a in args])
        lazy = _Lazy(op, tuple(args), attrs, types)
        return tuple(_Out(lazy, i) for i in range(len(types)))

    def const(self, value: Any, dtype: DType) -> Handle:
        return Tensor(Cell.of(np.array(value, dtype.dtype, order="C")))

    def force(self, x: Handle) -> Tensor:
        """The tensor; raises GradientError where a saved operand has been overwritten."""
        if isinstance(x, Tensor):
            return x
        if isinstance(x, _Operand):
            return _unpack(x.node, x.saved)
        lazy = x.of
        if lazy.done is None:
            from treadle.tracer.execute import apply_op  # execute records through this module

            lazy.done = apply_op(lazy.op, [self.force(a) for a in lazy.args], lazy.attrs)
            self.fresh.update(t.cell for t in lazy.done)
        return lazy.done[x.index]


def _unpack(node: Node, saved: Saved) -> Tensor:
    cell = saved.cell
    if cell is None or cell.version != saved.version:
        at = f" at {cell.written_at}" if cell is not None and cell.written_at is not None else ""
        where = f" of {node.loc}" if node.loc is not None else ""
        raise GradientError(
            f"the derivative of `{node.name}`{where} needs a tensor, {saved.type}, that was "
            f"changed in place{at} after it was used; change a copy, x.clone(), or write "
            "x = x ... instead"
        )
    history = History(len(saved.maps))
    if saved.edge is not None:
        history.made_by(saved.edge, cell.version)
    return Tensor(cell, saved.maps, history, saved.type, weak=saved.weak)


# --- walking backwards -----------------------------------------------------------------------


class _Backward:
    """One walk: cotangents wait at nodes until everything that uses a node has been visited."""

    def __init__(self, retain: bool) -> None:
        self.ops = TapeOps()
        self.retain = retain
        self.waiting: dict[tuple[AnyNode, int], Tensor] = {}
        self.queue: list[tuple[int, int, AnyNode]] = []
        self.queued: set[AnyNode] = set()

    def give(self, edge: Edge, ct: Tensor) -> None:
        """Add a cotangent to what an edge has so far."""
        have = self.waiting.get(edge)
        total = ct if have is None else self.ops.force(self.ops.add(have, ct))
        self.waiting[edge] = total
        node = edge[0]
        if node not in self.queued:
            self.queued.add(node)
            heapq.heappush(self.queue, (-node.sequence, id(node), node))

    def run(self, wanted: set[AnyNode] | None) -> dict[History, Tensor]:
        """The cotangents of leaves and variables; `wanted` limits the walk to these nodes.

        A node is made after the nodes that it uses, so the latest first is a topological order.
        """
        found: dict[History, Tensor] = {}
        while self.queue:
            node = heapq.heappop(self.queue)[2]
            if isinstance(node, History):
                ct = self.waiting.pop((node, 0))
                found[node] = ct
                if node.edge is not None and (wanted is None or node.edge[0] in wanted):
                    self.give(node.edge, ct)
                continue
            cts = [self.waiting.pop((node, i), None) for i in range(len(node.outs))]
            needed = [e is not None and (wanted is None or e[0] in wanted) for e in node.edges]
            for edge, pulled in zip(node.edges, self.pull(node, cts, needed), strict=True):
                if edge is not None and pulled is not None:
                    self.give(edge, pulled)
            if not self.retain:
                node.free()
        return found

    def pull(
        self, node: Node, cts: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """One cotangent, or None for zero, an operand of `node`."""
        if node.freed:
            raise second_time(node.name, node.loc)
        if not any(needed):
            return [None] * len(node.edges)
        if node.pull is not None:
            return node.pulled(cts, needed)
        return self._rule(node, cts, needed)

    def _rule(
        self, node: Node, cts: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        op, o = node.op, self.ops
        assert op is not None and callable(op.vjp)
        args = tuple(_Operand(node, a) for a in node.args)
        outs = tuple(_Operand(node, _with_edge(s, (node, i))) for i, s in enumerate(node.outs))
        given = tuple(
            o.full(s.type.shape, 0, s.type.dtype) if ct is None else ct
            for ct, s in zip(cts, node.outs, strict=True)
        )
        pulled = op.vjp(o, node.attrs, args, outs, given)
        result: list[Tensor | None] = []
        for ct, arg, need in zip(pulled, node.args, needed, strict=True):
            if ct is None or not need:
                result.append(None)
                continue
            if op.elementwise:
                ct = o.unbroadcast(ct, arg.type.shape)
            result.append(o.force(ct))
        return result


def second_time(name: str, loc: Loc | None) -> GradientError:
    """The error for a history that a backward pass has used up."""
    of = f" of {loc}" if loc is not None else ""
    return GradientError(
        f"backward() reaches `{name}`{of} a second time, and its saved values are freed after the "
        "first; call backward(retain_graph=True) before"
    )


def _with_edge(saved: Saved, edge: Edge) -> Saved:
    """A result handle with its own node as history; kept apart so that no cycle arises."""
    if not saved.type.dtype.is_float:
        return saved
    copy = Saved(saved.type, saved.cell, saved.maps, edge, saved.weak)
    copy.version = saved.version
    return copy


def backward(x: Tensor, gradient: Tensor | None, retain_graph: bool) -> None:
    """Add the gradient of `x` to `.grad` of the leaves in its history. See `Tensor.backward`."""
    check_root(x, gradient)
    edge = edge_of(x)
    assert edge is not None
    walk = _Backward(retain_graph)
    with no_grad():
        walk.give(edge, ones_like(x) if gradient is None else gradient.detach())
        for leaf, ct in walk.run(None).items():
            if leaf.variable:
                continue
            have = leaf.grad
            total = ct if have is None else walk.ops.force(walk.ops.add(have, ct))
            leaf.grad = as_result_of(_unshared(total, walk.ops.fresh), x)


def check_root(x: Tensor, gradient: Tensor | None) -> None:
    """Raises GradientError unless backward() may start at `x`."""
    if not x.requires_grad:
        raise GradientError(
            f"backward() of a tensor, {x.type}, that does not require grad: nothing that it was "
            "computed from has requires_grad=True, or it was computed under no_grad"
        )
    if gradient is None and x.type.size != 1:
        raise GradientError(
            f"backward() of a tensor of shape {shape_text(x.shape)} needs `gradient`, a tensor of "
            "that shape; only a single element has an implied gradient of 1"
        )
    if gradient is not None and gradient.type != x.type:
        raise GradientError(f"backward() of {x.type} got a gradient of type {gradient.type}")


def ones_like(x: Tensor) -> Tensor:
    """An eager tensor of ones of the type of `x`."""
    return Tensor(Cell.of(np.ones(x.type.static_shape, x.dtype.dtype)))


def _unshared(ct: Tensor, fresh: set[Cell]) -> Tensor:
    """`ct` in storage that nothing else shares: `.grad` may be changed in place."""
    if ct.cell in fresh and not ct.maps and not ct.requires_grad:
        fresh.discard(ct.cell)
        return ct
    return Tensor(Cell.of(np.array(ct.array(), order="C")))


def gradients(
    root: Tensor, ct: Tensor, targets: Sequence[History], create_graph: bool
) -> list[Tensor | None]:
    """The gradient of `root`, weighted by `ct`, with respect to `targets`; None for zero.

    With `create_graph` the results have a history of their own, for higher orders.
    """
    edge = edge_of(root)
    wanted = _leading_to(edge, set(targets)) if edge is not None else set()
    if edge is None or edge[0] not in wanted:
        return [None] * len(targets)
    walk = _Backward(retain=True)
    with enable_grad() if create_graph else no_grad():
        walk.give(edge, ct)
        found = walk.run(wanted)
    return [found.get(target) for target in targets]


def _leading_to(root: Edge, targets: set[History]) -> set[AnyNode]:
    """The nodes of the history of `root` from which one of `targets` is reached."""
    leading: set[AnyNode] = set()
    done: set[AnyNode] = set()
    stack: list[tuple[AnyNode, bool]] = [(root[0], False)]
    while stack:
        node, returned = stack.pop()
        above = [e[0] for e in parents(node) if e is not None]
        if returned:
            if node in targets or any(n in leading for n in above):
                leading.add(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend((n, False) for n in above if n not in done)
    return leading
