"""Clusters of instructions that stay acyclic while they are merged.

A fused region must not have a path that leaves it and comes back. Asking that anew for each pair
is quadratic, so the graph keeps a topological order of its clusters up to date (in the manner of
Pearce and Kelly): merging `a` and `b` looks only at clusters that stand between the two, and gives
up ("too far apart") when it has looked at `budget` edges. Program order is the first order, so
neighbours in the program, which are what fusion wants, cost a few steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CYCLE = "a path leaves and comes back between them"
TOO_FAR = "too far apart to be sure that no path runs between them"


class ClusterGraph:
    """A directed acyclic graph whose nodes are merged in pairs. Nodes are 0 .. n-1, in order."""

    def __init__(self, predecessors: Sequence[Iterable[int]]) -> None:
        count = len(predecessors)
        self._parent = list(range(count))
        self._order = list(range(count))
        self._preds: list[set[int]] = [set(p) for p in predecessors]
        self._succs: list[set[int]] = [set() for _ in range(count)]
        self.members: list[list[int]] = [[i] for i in range(count)]
        for node, preds in enumerate(self._preds):
            for pred in preds:
                self._succs[pred].add(node)

    def find(self, node: int) -> int:
        """The cluster that `node` is in, named by one of its nodes."""
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def clusters(self) -> list[int]:
        """All clusters in topological order."""
        roots = [n for n, parent in enumerate(self._parent) if n == parent]
        return sorted(roots, key=lambda c: self._order[c])

    def order(self, node: int) -> int:
        """Where the cluster of `node` stands; edges run from lower to higher."""
        return self._order[self.find(node)]

    def reads(self, user: int, maker: int) -> bool:
        """Is there an edge from the cluster of `maker` to that of `user`?"""
        maker = self.find(maker)
        return any(self.find(p) == maker for p in self._preds[self.find(user)])

    def merge(self, a: int, b: int, budget: int) -> str | None:
        """Make one cluster of those of `a` and `b`; or leave both and say why that is illegal."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return None
        if self._order[a] > self._order[b]:
            a, b = b, a
        before = self._between(b, a, self._preds, budget)
        if isinstance(before, str):
            return before
        order = self._order[a]
        if before:
            after = self._between(a, b, self._succs, budget)
            if isinstance(after, str):
                return after
            order = self._reorder(a, b, before, after)
        self._union(a, b, order)
        return None

    def _between(self, start: int, end: int, edges: list[set[int]], budget: int) -> list[int] | str:
        """Clusters strictly between `start` and `end` that `edges` lead to from `start`; a reason
        where `end` is among them (but for a direct edge), or the search is too long."""
        low, high = sorted((self._order[start], self._order[end]))
        seen: set[int] = set()
        stack = [start]
        while stack:
            here = stack.pop()
            budget -= len(edges[here])
            if budget < 0:
                return TOO_FAR
            for raw in edges[here]:
                there = self.find(raw)
                if there == end:
                    if here != start:
                        return CYCLE
                elif low < self._order[there] < high and there not in seen:
                    seen.add(there)
                    stack.append(there)
        return sorted(seen, key=lambda c: self._order[c])

    def _reorder(self, a: int, b: int, before: list[int], after: list[int]) -> int:
        """`before` (what `b` needs), the merged cluster, `after` (what needs `a`), in the places
        that they have now. Returns the place of the merged cluster."""
        places = sorted(self._order[c] for c in (a, b, *before, *after))
        for cluster, place in zip(before, places, strict=False):
            self._order[cluster] = place
        for cluster, place in zip(reversed(after), reversed(places), strict=False):
            self._order[cluster] = place
        return places[len(before)]

    def _union(self, a: int, b: int, order: int) -> None:
        keep, gone = (a, b) if len(self.members[a]) >= len(self.members[b]) else (b, a)
        self._parent[gone] = keep
        self.members[keep].extend(self.members[gone])
        self.members[gone] = []
        self._order[keep] = order
        for edges in (self._preds, self._succs):
            small, large = sorted((edges[keep], edges[gone]), key=len)
            large.update(small)
            large.difference_update((a, b))
            edges[keep], edges[gone] = large, set()
