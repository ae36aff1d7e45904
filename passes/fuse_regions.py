"""Decides which instructions share a region: clusters of one iteration space.

Every instruction that can be inside a region begins as a cluster of its own, over the space of its
result (of its operand, for a reduction). Clusters are merged, in this order:

  1. along operands that are read at the point (elementwise, broadcast, into a row reduction), in
     program order, where the spaces are equal: chains, and the passes of a row;
  2. the scalars of a row with the row: softmax is max, exp, sum, divide, layer norm likewise;
  3. into and out of reductions over leading or all axes (bias gradients, a loss), later than rows,
     which stay in the cache; and again what did not fit when its cluster was smaller;
  4. siblings: clusters that read one large array.

Two clusters fit where their spaces are equal and at most one set of axes is reduced, or where one
is a pure map over the shape that the other keeps (the scalars of a row). A map that makes new state
stays a map, because only maps are written over their operands. A cluster is capped, so that code
size and time stay linear in the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.host import in_order
from treadle.ir.op import OpDef, Trait
from treadle.ir.regions import is_reduction, reads_at_point
from treadle.ir.types import Shape, TensorType, reduced_shape, shape_text
from treadle.passes.fuse_graph import ClusterGraph
from treadle.passes.fuse_shapes import is_fusible

MAX_INSTRS = 200  # in one region
MAX_ROW = 1 << 18  # elements; a longer row is not in the cache any more when it is read again
MAX_CHEAP = 8  # instructions that may be computed again rather than stored
MAX_CONCAT = 4  # operands; each element of a concat looks at all of them
SEARCH_BUDGET = 128  # edges looked at before two clusters count as too far apart
_NEVER = 1 << 20


@dataclass(slots=True)
class Cluster:
    """What fits into a cluster; `reduced` is empty while it is a pure map."""

    space: Shape
    reduced: tuple[int, ...] = ()
    size: int = 1
    strided: bool = False  # holds a permute that moves the last axis
    state: bool = False  # makes a new value of a state parameter


class Growth:
    """The clusters of one Function while they grow."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.instrs = fn.instrs
        self.index = {r: n for n, i in enumerate(fn.instrs) for r in i.results}
        index = self.index
        self.operands = [[index[a] for a in i.args if a in index] for i in fn.instrs]
        after = [list(operands) for operands in self.operands]
        for first, second in in_order(fn):
            after[second].append(first)
        self.graph = ClusterGraph(after)
        self.cheap = self._recompute_costs()
        self.clusters: dict[int, Cluster] = {
            n: _alone(i) for n, i in enumerate(fn.instrs) if is_fusible(i)
        }
        for n in self._state_writers():
            self.clusters[n].state = True
        self.barred = self._barred()
        self.refused: dict[tuple[int, int], str] = {}

    def grow(self) -> None:
        """Merge whatever may be merged."""
        edges = [e for n in self.clusters for e in self._edges_into(n)]
        late = {e for e in edges if self._is_late(e[0]) or self._is_late(e[1])}
        failed = self._merge_all([e for e in edges if e not in late], kept=False)
        failed = self._merge_all(failed)
        failed = self._merge_all(sorted([*late, *failed], key=lambda e: (e[1], -e[0])))
        self._merge_siblings()
        self._merge_all(failed)

    def cluster_of(self, node: int) -> Cluster | None:
        """The cluster of an instruction; None for one that no region can hold."""
        return self.clusters.get(self.graph.find(node))

    # --- tables ------------------------------------------------------------------------------

    def _recompute_costs(self) -> list[int]:
        """For each instruction, how many cheap ones compute it from finished arrays; `_NEVER`
        where that takes a reduction, a gather or an EXPENSIVE op."""
        costs: list[int] = []
        users = uses(self.fn)
        for instr, operands in zip(self.instrs, self.operands, strict=True):
            if not is_fusible(instr):
                costs.append(0)
                continue
            alone = len(users.get(instr.results[0], ())) == 1
            cost = 1 if is_cheap(instr) or (alone and is_check(instr)) else _NEVER
            cost += sum([costs[n] for n in operands])
            costs.append(cost if cost <= MAX_CHEAP else _NEVER)
        return costs

    def _barred(self) -> dict[int, set[int]]:
        """For each instruction that pulls, operands that must be finished arrays by then."""
        barred: dict[int, set[int]] = {}
        for n, instr in enumerate(self.instrs):
            if n in self.clusters and pulls(instr):
                far = {o for o in self.operands[n] if self.cheap[o] >= _NEVER}
                if far:
                    barred[n] = far
        return barred

    def _edges_into(self, n: int) -> list[tuple[int, int]]:
        """Operands of instruction `n` that it could share a region with, nearest first."""
        instr = self.instrs[n]
        if pulls(instr):
            return []
        operands = {o for o in self.operands[n] if o in self.clusters}
        return [(o, n) for o in sorted(operands, reverse=True)]

    def _state_writers(self) -> list[int]:
        """Maps whose result, or a view of it, is the new value of state."""
        behind = {i.result: i.args[0] for i in self.instrs if i.op.name == "reshape"}
        made = [r.value for r in self.fn.results if r.kind == "state"]
        nodes = [self.index.get(behind.get(v, v)) for v in made]
        maps = [n for n in nodes if n is not None and n in self.clusters]
        return [n for n in maps if not is_reduction(self.instrs[n].op)]

    def _is_late(self, n: int) -> bool:
        """A reduction over all axes, or not over the last ones."""
        instr = self.instrs[n]
        if not is_reduction(instr.op):
            return False
        attrs: Any = instr.attrs
        rank = instr.args[0].type.rank
        last = tuple(range(rank - len(attrs.axes), rank))
        return len(attrs.axes) == rank or tuple(attrs.axes) != last

    # --- merging -----------------------------------------------------------------------------

    def _merge_all(
        self, edges: Iterable[tuple[int, int]], kept: bool = True
    ) -> list[tuple[int, int]]:
        """Merge along each edge; those along which it failed. `kept`: scalars of rows too."""
        failed = []
        for a, b in edges:
            why = self._merge(a, b, kept)
            if why is not None:
                self.refused[a, b] = why
                failed.append((a, b))
            else:
                self.refused.pop((a, b), None)
        return failed

    def _merge_siblings(self) -> None:
        """Clusters next to each other among those that read one array of their space's size."""
        readers: dict[Value, list[int]] = {}
        for n in range(len(self.instrs)):
            if is_fusible(self.instrs[n]):
                for arg in self._read_soon(n):
                    readers.setdefault(arg, []).append(n)
        for value, nodes in readers.items():
            near = sorted({self.graph.find(n) for n in nodes}, key=self.graph.order)
            fits = [c for c in near if _reads_whole(value.type, self.clusters[c])]
            for a, b in pairwise(fits):
                self._merge(a, b)

    def _read_soon(self, n: int) -> set[Value]:
        """What instruction `n` reads, and, as it may compute operands of other clusters again,
        what they are computed from."""
        read = set(self.instrs[n].args)
        for maker in self.operands[n]:
            if self.graph.find(maker) != self.graph.find(n) and is_cheap(self.instrs[maker]):
                read.update(self.instrs[maker].args)
        return {v for v in read if v.type.size != 1}

    def _merge(self, a: int, b: int, kept: bool = True) -> str | None:
        """Merge the clusters of `a` and `b`, which stands later, or say why not."""
        a, b = self.graph.find(a), self.graph.find(b)
        if a == b:
            return None
        first, second = self.clusters[a], self.clusters[b]
        joined = _joined(first, second) if kept or first.space == second.space else "rows first"
        if isinstance(joined, str):
            return joined
        if _is_long(first) and first.space == second.space and self.graph.reads(b, a):
            return "a row is too long to be still in the cache"
        if self._is_barred(a, b) or self._is_barred(b, a):
            return "an element of an expensive value would be computed many times"
        why = self.graph.merge(a, b, SEARCH_BUDGET)
        if why is not None:
            return why
        root = self.graph.find(a)
        gone = b if root == a else a
        del self.clusters[gone]
        self.clusters[root] = joined
        if gone in self.barred:
            self.barred[root] = self.barred.get(root, set()) | self.barred.pop(gone)
        return None

    def _is_barred(self, maker: int, user: int) -> bool:
        return any(self.graph.find(n) == maker for n in self.barred.get(user, ()))


def pulls(instr: Instr) -> bool:
    """Reads its operands at an index of its own, not at the point."""
    return not reads_at_point(instr.op) and not is_reduction(instr.op)


def is_cheap(instr: Instr) -> bool:
    """Costs less to compute again than to store and load."""
    if not _has_cheap_op(instr.op) or len(instr.args) > MAX_CONCAT:
        return False
    return not moves_last_axis(instr)


@cache
def _has_cheap_op(op: OpDef) -> bool:
    dear = op.has(Trait.EXPENSIVE) or op.has(Trait.CAN_FAULT) or is_reduction(op)
    return not dear and op.name != "gather"


def is_check(instr: Instr) -> bool:
    """Passes its operand through, but can fault: cheap, but wanted in one place only, because
    writes to state wait for the last such instruction."""
    return instr.op.has(Trait.CAN_FAULT) and len(instr.args) == 1


def moves_last_axis(instr: Instr) -> bool:
    """A permute that reads what was contiguous with a stride."""
    if instr.op.name != "permute":
        return False
    attrs: Any = instr.attrs
    wide = [p for p in attrs.perm if instr.args[0].type.shape[p] != 1]
    return bool(wide) and wide[-1] != max(wide)


def _alone(instr: Instr) -> Cluster:
    if is_reduction(instr.op):
        attrs: Any = instr.attrs
        return Cluster(instr.args[0].type.shape, tuple(attrs.axes))
    size = MAX_INSTRS if pulls(instr) and len(instr.args) > MAX_CONCAT else 1
    return Cluster(instr.result.type.shape, (), size, moves_last_axis(instr))


def _is_long(cluster: Cluster) -> bool:
    """Does it read rows that have left the cache when they are read again?"""
    return bool(cluster.reduced) and _elements(cluster.space, cluster.reduced) > MAX_ROW


def _joined(a: Cluster, b: Cluster) -> Cluster | str:
    """Both as one, or why that is not a region."""
    both = Cluster(
        b.space if b.reduced else a.space,
        a.reduced or b.reduced,
        a.size + b.size,
        a.strided or b.strided,
        a.state or b.state,
    )
    if both.size > MAX_INSTRS:
        return "the region would be too large"
    kept = reduced_shape(both.space, both.reduced, keepdims=True)
    if a.space != b.space and (
        (a.reduced and b.reduced) or kept != (a.space if b.reduced else b.space)
    ):
        return f"different spaces, {shape_text(a.space)} and {shape_text(b.space)}"
    if a.reduced and b.reduced and a.reduced != b.reduced:
        return f"reductions over different axes, {a.reduced} and {b.reduced}"
    if both.strided and both.reduced:
        return "a transposed read inside a row loop is strided"
    if both.state and both.reduced:
        return "new state comes from a map, which can be written over the old"
    return both


def _elements(shape: Shape, axes: Sequence[int]) -> int:
    """Elements along `axes`; a symbolic size counts as a small one."""
    count = 1
    for axis in axes:
        size = shape[axis]
        count *= size if isinstance(size, int) else 32
    return count


def _reads_whole(type: TensorType, cluster: Cluster) -> bool:
    """Does an operand of `type` fill the cluster's space?"""
    return type.shape == cluster.space
