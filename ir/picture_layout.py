"""Places for the boxes of a directed graph and ways for its edges, layer by layer.

A box stands one layer below the deepest box that it takes from. An edge that spans several layers
passes them through places of its own, so that it runs between boxes and not behind them; edges of
one source share these places. Boxes of a layer are ordered by the mean place of their neighbours
and then moved as near to it as the order allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import field

from treadle.ir.dataclass import dataclass

_GAP_X, _GAP_Y, _MARGIN = 28.0, 40.0, 20.0
_LANE = 10.0  # the width that a passing edge takes
_SWEEPS = 6
_MOST_LANES = 20_000  # beyond, long edges are drawn straight: the picture is unreadable anyway

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """Top left corners of the boxes, the points that each edge passes, and the size of it all.

    A route goes straight to its second point, at the end of a layer, then alternately across to
    the next layer and straight through that.
    """

    corners: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


@dataclass(slots=True, eq=False)
class _Node:
    """A box, or the place where an edge passes a layer. `x` is the middle."""

    width: float
    height: float
    layer: int
    above: list[_Node] = field(default_factory=list)
    below: list[_Node] = field(default_factory=list)
    x: float = 0.0


def arrange(sizes: Sequence[Point], edges: Sequence[tuple[int, int]]) -> Layout:
    """Lay out boxes of the given (width, height); an edge (a, b), a < b, leads down from a to b."""
    nodes = [_Node(width, height, 0) for width, height in sizes]
    _assign_layers(nodes, edges)
    lanes: dict[tuple[int, int], _Node] = {}
    chains = [_chain(nodes, a, b, lanes) for a, b in edges]
    rows: list[list[_Node]] = [[] for _ in range(1 + max((n.layer for n in nodes), default=-1))]
    for node in [*nodes, *lanes.values()]:
        rows[node.layer].append(node)
    for row in rows:
        _set_apart(row, [n.x for n in row])
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        for row in rows if downward else reversed(rows):
            _settle(row, downward)
    return _finished(nodes, rows, chains)


def _settle(row: list[_Node], downward: bool) -> None:
    """Order a row by its neighbours in the row before it (downward: the one above) and move it."""
    wanted = [_mean_place(n.above if downward else n.below, n.x) for n in row]
    order = sorted(range(len(row)), key=wanted.__getitem__)
    row[:] = [row[n] for n in order]
    _set_apart(row, [wanted[n] for n in order])


def _assign_layers(nodes: Sequence[_Node], edges: Sequence[tuple[int, int]]) -> None:
    taken = {b for _, b in edges}
    for a, b in sorted(edges, key=lambda e: e[1]):
        nodes[b].layer = max(nodes[b].layer, nodes[a].layer + 1)
    first: dict[int, int] = {}
    for a, b in edges:
        first[a] = min(first.get(a, nodes[b].layer), nodes[b].layer)
    for n, node in enumerate(nodes):
        if n not in taken and n in first:  # an input stands just above its first user
            node.layer = first[n] - 1


def _chain(
    nodes: Sequence[_Node], a: int, b: int, lanes: dict[tuple[int, int], _Node]
) -> list[_Node]:
    """The nodes that the edge (a, b) passes, its ends included."""
    chain = [nodes[a]]
    for layer in range(nodes[a].layer + 1, nodes[b].layer):
        if len(lanes) >= _MOST_LANES:
            break
        lane = lanes.get((a, layer))
        if lane is None:
            lane = lanes[a, layer] = _Node(_LANE, 0.0, layer)
            _link(chain[-1], lane)
        chain.append(lane)
    _link(chain[-1], nodes[b])
    return [*chain, nodes[b]]


def _link(upper: _Node, lower: _Node) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _mean_place(neighbours: Sequence[_Node], otherwise: float) -> float:
    if not neighbours:
        return otherwise
    return sum(n.x for n in neighbours) / len(neighbours)


def _set_apart(row: Sequence[_Node], wanted: Sequence[float]) -> None:
    """Move the nodes of a row, in their order and without overlap, as near to `wanted` as the sum
    of squared distances allows: runs that would overlap are merged and share their mean."""
    offsets = [0.0]
    for left, right in itertools.pairwise(row):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + _GAP_X)
    runs: list[tuple[float, int]] = []  # (mean of wanted - offset, how many nodes)
    for want, offset in zip(wanted, offsets, strict=False):
        mean, count = want - offset, 1
        while runs and runs[-1][0] > mean:
            last, many = runs.pop()
            mean = (mean * count + last * many) / (count + many)
            count += many
        runs.append((mean, count))
    starts = [mean for mean, count in runs for _ in range(count)]
    for node, start, offset in zip(row, starts, offsets, strict=False):
        node.x = start + offset


def _finished(
    nodes: Sequence[_Node], rows: Sequence[Sequence[_Node]], chains: Sequence[Sequence[_Node]]
) -> Layout:
    everything = [n for row in rows for n in row]
    left = min((n.x - n.width / 2 for n in everything), default=0.0) - _MARGIN
    right = max((n.x + n.width / 2 for n in everything), default=0.0) + _MARGIN
    tops: list[float] = []
    y = _MARGIN
    for row in rows:
        tops.append(y)
        y += max(n.height for n in row) + _GAP_Y
    ends = [top + max(n.height for n in row) for top, row in zip(tops, rows, strict=True)]
    routes = []
    for first, *lanes, last in chains:
        bottom = tops[first.layer] + first.height
        route = [(first.x - left, bottom), (first.x - left, ends[first.layer])]
        for lane in lanes:
            route += [(lane.x - left, tops[lane.layer]), (lane.x - left, ends[lane.layer])]
        routes.append((*route, (last.x - left, tops[last.layer])))
    corners = tuple((n.x - n.width / 2 - left, tops[n.layer]) for n in nodes)
    return Layout(corners, tuple(routes), right - left, max(y - _GAP_Y, _MARGIN) + _MARGIN)
