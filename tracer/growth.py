"""Notices an eager history that grows from step to step: `total += loss` without detach.

Every operation knows how many operations of its own line lie one behind the other in its history.
A long row of them is a loop over one value. Where the other operands of the row were gone through
by a backward() already, it goes on across steps, and nothing of it is ever freed. A row of
thousands is told of in any case; it may be meant, so it is a warning, once a line.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from treadle.ir.graph import Loc
from treadle.tracer.history import Node

LONG = 5_000  # operations of one line, of which people are told without further evidence

_told: set[Loc] = set()


class HistoryWarning(UserWarning):
    """The history of a tensor keeps growing."""


def look_at(node: Node) -> None:
    """Warn if `node` ends a row of operations that seems to go on for ever."""
    loc = node.loc
    if loc is None or loc in _told:
        return
    if node.row < LONG and not _outlives_backward(node):
        return
    _told.add(loc)
    warnings.warn_explicit(
        f"the history of a tensor has grown by {node.row} operations on this line, and all of "
        "them are kept; if no gradient is to flow through all steps, add up detached values "
        "(loss.detach(), float(loss)), or work inside `with treadle.no_grad():`",
        HistoryWarning,
        loc.file,
        loc.line,
    )


def _outlives_backward(node: Node) -> bool:
    """Whether what the row takes in has been used up by a backward()."""
    return any(
        edge is not None and isinstance(edge[0], Node) and edge[0].freed
        for member in _row(node)
        for edge in member.edges
    )


def _row(node: Node) -> Iterator[Node]:
    """The operations of the node's line, one behind the other."""
    here: Node | None = node
    while here is not None:
        yield here
        behind = (e[0] for e in here.edges if e is not None)
        fitting = [n for n in behind if isinstance(n, Node) and n.loc == node.loc]
        here = max(fitting, key=lambda n: n.row, default=None)
