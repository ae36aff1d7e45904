"""What a reshape does to the axes of its input, from the two shapes alone.

A reshape keeps the row-major order of the elements: it can split an axis and join neighbours, never
exchange axes. Whoever writes `x.reshape(T, N, D)` for x [N, T, D] meant a permute and gets the
elements of all samples mixed up, in the right shape. `reordered` finds the axes again:

- the result has the input's sizes in another order: (7, 5, 3) to (5, 7, 3);
- an axis was split and its parts stand around another one: (T, C) to (heads, T, C / heads);
- axes were joined as if they stood in another order: (C, H, W) to (H W, C), and (heads, T, F) to
  (T, heads F).

Sizes say nothing where they are equal, and a result that splitting and joining in order explain as
simply is never named.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from treadle.ir.dataclass import dataclass
from treadle.ir.types import shape_text

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reordering:
    """What was meant: `split` (a shape, or None), then the permutation `axes`, then `joined` (a
    shape, or None)."""

    split: Shape | None
    axes: tuple[int, ...]
    joined: Shape | None

    @property
    def code(self) -> str:
        """As the user would write it, for an input `x`."""
        first = "" if self.split is None else f".reshape({shape_text(self.split)})"
        last = "" if self.joined is None else f".reshape({shape_text(self.joined)})"
        return f"x{first}.permute_dims({shape_text(self.axes)}){last}"


def reordered(before: Sequence[int], after: Sequence[int]) -> Reordering | None:
    """The permutation that a reshape from one shape to another was meant to be; None where there is
    nothing to suspect. Both have the same number of elements."""
    x, y = tuple(before), tuple(after)
    if math.prod(x) <= 1:
        return None
    wide: list[int] = []  # what `x` is split into
    axes: list[int] = []
    suspect = False
    done = 0
    for start, stop, low, high in _groups(x, y):
        inside, outside = x[start:stop], y[low:high]
        found = _permuted(inside, outside) or _split(inside, outside) or _joined(inside, outside)
        suspect = suspect or found is not None
        parts = inside if found is None or found.split is None else found.split
        order = range(len(parts)) if found is None else found.axes
        axes += [len(wide) + a for a in order]
        wide += parts
        done = stop
    axes += [len(wide) + n for n in range(len(x) - done)]  # of one element
    wide += x[done:]
    if not suspect:
        return None
    split, shape = tuple(wide), tuple(wide[a] for a in axes)
    return Reordering(None if split == x else split, tuple(axes), None if shape == y else y)


def _groups(x: Shape, y: Shape) -> Iterator[tuple[int, int, int, int]]:
    """The smallest runs of axes of both shapes that hold the same elements, in order."""
    i = j = 0
    while i < len(x) and j < len(y):
        start, low = i, j
        left, right = x[i], y[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * x[i], i + 1
            else:
                right, j = right * y[j], j + 1
        yield start, i, low, j


def _permuted(x: Shape, y: Shape) -> Reordering | None:
    """The same sizes in another order."""
    if sorted(x) != sorted(y) or x == y:
        return None
    left = list(range(len(x)))
    axes = []
    for size in y:
        axes.append(next(a for a in left if x[a] == size))
        left.remove(axes[-1])
    return Reordering(None, tuple(axes), None) if _moves(x, axes) else None


def _moves(x: Shape, axes: Sequence[int]) -> bool:
    """Whether axes of more than one element change places."""
    big = [a for a in axes if x[a] > 1]
    return big != sorted(big)


def _split(x: Shape, y: Shape) -> Reordering | None:
    """Each axis of `y` is a part of one of `x`, and parts of one stand around another."""
    if len(y) <= len(x) or len(x) < 2:
        return None
    for owners in _owners(x, y, 0, list(x)):
        if owners == sorted(owners) or _cuts(x, y) <= len(y):
            continue
        order = sorted(range(len(y)), key=lambda o: (owners[o], o))
        split = tuple(y[o] for o in order)
        axes = tuple(order.index(o) for o in range(len(y)))
        if _moves(split, axes):
            return Reordering(split, axes, None)
    return None


def _owners(x: Shape, y: Shape, at: int, left: list[int]) -> Iterator[list[int]]:
    """For each axis of `y`, an axis of `x` that it is a part of."""
    if at == len(y):
        if all(rest == 1 for rest in left):
            yield []
        return
    tried = set()
    for axis, rest in enumerate(left):
        if rest % y[at] or (rest, x[axis]) in tried:
            continue
        tried.add((rest, x[axis]))
        for others in _owners(x, y, at + 1, [*left[:axis], rest // y[at], *left[axis + 1 :]]):
            yield [axis, *others]


def _joined(x: Shape, y: Shape) -> Reordering | None:
    """The others were joined behind one axis that went to the end (channels to the last place) or
    to the front (heads, steps, width to steps, heads width); or runs of axes changed places and no
    order of cuts explains the shape."""
    if len(y) >= len(x) or len(y) < 2 or _cuts(x, y) <= len(x):
        return None
    others = {a: tuple(b for b in range(len(x)) if b != a) for a in range(len(x))}
    sizes = {a: tuple(x[b] for b in rest) for a, rest in others.items()}
    last = [a for a in others if x[a] == y[-1] > 1 and _only_joins(sizes[a], y[:-1])]
    # where `y` begins with a part of the first axis, that was split into groups, more likely
    first = [a for a in others if x[a] == y[0] > 1 and x[0] % y[0] and _only_joins(sizes[a], y[1:])]
    if last[:1] == [0] or (last and not first):
        return _joining(x, (*others[last[0]], last[0]), y)
    if first:
        return _joining(x, (first[0], *others[first[0]]), y)
    return _runs(x, y) if math.isinf(_cuts(x, y)) else None


def _joining(x: Shape, axes: tuple[int, ...], y: Shape) -> Reordering | None:
    return Reordering(None, axes, y) if _moves(x, axes) else None


def _only_joins(x: Shape, y: Shape) -> bool:
    """Whether each axis of `y` is a run of neighbours in `x`, in order."""
    if math.prod(x) != math.prod(y):
        return False
    return all(high - low == 1 for _, _, low, high in _groups(x, y))


def _runs(x: Shape, y: Shape) -> Reordering | None:
    """Runs of neighbours in `x`, in another order, are the axes of `y`."""
    for cuts in itertools.combinations(range(1, len(x)), len(y) - 1):
        ends = [0, *cuts, len(x)]
        runs = [tuple(range(a, b)) for a, b in itertools.pairwise(ends)]
        sizes = tuple(math.prod(x[a] for a in run) for run in runs)
        found = _permuted(sizes, y)
        if found is not None:
            return _joining(x, tuple(a for run in found.axes for a in runs[run]), y)
    return None


def _cuts(x: Shape, y: Shape) -> float:
    """The number of pieces that row-major order makes of both; inf where the axes of one end
    inside of elements of the other, so that nothing but their count fits."""
    ends = {math.prod(x[i:]) for i in range(len(x))} | {math.prod(y[i:]) for i in range(len(y))}
    chain = sorted(ends)
    if any(big % small for small, big in itertools.pairwise(chain)):
        return math.inf
    return len([e for e in chain if e > 1])
