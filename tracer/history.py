"""Where a tensor's values come from, as the eager differentiation sees it.

A tracked tensor has an edge: the node that made it, or the leaf that it is. Nodes hold operands
as `Saved` handles, never as tensors: a handle keeps the storage and the version that the op saw,
so that a later change in place is noticed when (and only when) a derivative rule needs the old
values. References run from tensors to nodes to storage, never back, so a history that nobody
needs is freed at once, buffers included, without the garbage collector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from treadle.ir.graph import Loc
from treadle.ir.op import Attrs, OpDef
from treadle.ir.types import TensorType

if TYPE_CHECKING:
    from treadle.tracer.cell import Cell
    from treadle.tracer.tensor import Tensor
    from treadle.tracer.views import Maps

_sequence = itertools.count(1)


class History:
    """What the views of one tensor share: does it require grad, and what made its values.

    `depth`: how many of a tensor's index maps lie below it, for a detached view has a history of
    its own over the same cell. `leaf`: gradients end here (a parameter) or pass on to `edge` (an
    argument of `treadle.grad`, whose `open` is True while that call runs). `version` is the
    cell's when `edge` was set. `frozen`: a view made under `no_grad` of a tracked tensor.
    """

    __slots__ = ("__weakref__", "depth", "edge", "frozen", "grad", "leaf", "open",
                 "requires_grad", "sequence", "variable", "version")  # fmt: skip

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.requires_grad = False
        self.leaf = True
        self.variable = False
        self.open = False
        self.frozen = False
        self.edge: Edge | None = None
        self.version = 0
        self.sequence = 0
        self.grad: Tensor | None = None

    def made_by(self, edge: Edge, version: int) -> None:
        """The values are now what `edge` says."""
        self.requires_grad = True
        self.leaf = False
        self.edge = edge
        self.version = version

    @staticmethod
    def of_variable(depth: int, parent: Edge | None) -> History:
        """The history of an argument that is being differentiated."""
        history = History(depth)
        history.requires_grad = history.variable = history.open = True
        history.edge = parent
        history.sequence = next(_sequence)
        return history

    @property
    def alive(self) -> bool:
        """For a leaf: whether anybody can still ask for a gradient with respect to it."""
        return self.open or not self.variable


class Saved:
    """An operand or result as it was when its op ran; `cell` is None where only the type counts."""

    __slots__ = ("cell", "edge", "maps", "type", "version", "weak")

    def __init__(
        self,
        type: TensorType,
        cell: Cell | None = None,
        maps: Maps = (),
        edge: Edge | None = None,
        weak: bool = False,
    ) -> None:
        self.type = type
        self.cell = cell
        self.maps = maps
        self.edge = edge
        self.version = cell.version if cell is not None else 0
        self.weak = weak


class Node:
    """One recorded op. `edges` has one entry an operand, None where no gradient flows; `row`
    counts the operations of this line that lie one behind the other, this one included. `spend`:
    of a compiled call, which stands for many ops: says after a backward pass whether all of them
    are used up.
    """

    __slots__ = ("args", "attrs", "edges", "freed", "loc", "op", "outs", "pull", "row",
                 "sequence", "spend")  # fmt: skip

    def __init__(
        self,
        op: OpDef | None,
        attrs: Attrs,
        args: tuple[Saved, ...],
        outs: tuple[Saved, ...],
        loc: Loc | None,
        pull: Pull | None = None,
        spend: Callable[[], bool] | None = None,
    ) -> None:
        self.spend = spend
        self.op = op
        self.attrs = attrs
        self.args = args
        self.outs = outs
        self.edges = tuple(a.edge for a in args)
        self.loc = loc
        self.pull = pull
        self.freed = False
        self.sequence = next(_sequence)
        self.row = 1 + max([_row(e[0], loc) for e in self.edges if e is not None], default=0)
        if self.row in _LOOKED_AT:
            from treadle.tracer.growth import look_at  # seldom

            look_at(self)

    def free(self) -> None:
        """Let go of the saved values: a backward pass has used them."""
        if self.spend is not None and not self.spend():
            return
        self.args = self.outs = ()
        self.pull = self.spend = None
        self.freed = True

    def pulled(
        self, cts: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """What `pull` gives; `needed`: which operands a cotangent is wanted for."""
        assert self.pull is not None
        return self.pull(cts)

    @property
    def name(self) -> str:
        """The op's name, for messages."""
        return self.op.name if self.op is not None else "a compiled call"


# How long rows are looked at: see `treadle.tracer.growth`.
_LOOKED_AT = frozenset({100, 1_000, 5_000})


def _row(node: AnyNode, loc: Loc | None) -> int:
    return node.row if isinstance(node, Node) and node.loc == loc else 0


Edge: TypeAlias = tuple[Node | History, int]
Pull: TypeAlias = Callable[[Sequence["Tensor | None"]], Sequence["Tensor | None"]]
AnyNode: TypeAlias = Node | History


def parents(node: AnyNode) -> Sequence[Edge | None]:
    """The edges that lead on from a node (a variable passes its gradient to its parent)."""
    return node.edges if isinstance(node, Node) else (node.edge,) if node.leaf else ()


def leaves_of(edges: Sequence[Edge | None]) -> set[History]:
    """The leaves and variables in the history of `edges`. Iterative: histories are deep."""
    found: set[History] = set()
    seen: set[Any] = set()
    stack = [e[0] for e in edges if e is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, History):
            found.add(node)
        stack.extend(e[0] for e in parents(node) if e is not None)
    return found
