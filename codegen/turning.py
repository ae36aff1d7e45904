"""Operands that a map reads across its vectors: transposed ones.

In `y = x.T + 1` the lanes of a vector lie a whole row of x apart: a gather of 16 cache lines for 16
elements. But the same lines hold the neighbours along another loop. So such a map runs in blocks of
that loop and a few vectors: a block of the operand is turned in registers into a small tile first,
and the loop body reads the tile's rows. The loop across is the inner one, so that the rows of the
operand are read on and on, a stream each, while each row of the result gets some whole cache lines.

This file finds such operands: where an access is affine, running its index arithmetic on numbers
tells how far each loop moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.regions import Region, row_major
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Value
from treadle.ir.scalar import Index, Scalar

BLOCK: Final = 16  # steps of the other loop in one block: a cache line or two of each row
VECTORS: Final = 8  # vectors along the vector loop in one block


@dataclass(frozen=True, slots=True)
class Turned:
    """A parameter (by its position) whose element for position p lies at `offset + steps . p`, one
    step for each loop; the step of the vector loop is not 1, that of loop `across` is."""

    param: int
    offset: int
    steps: tuple[int, ...]
    across: int


class _Numbers:
    """The index operations that affine accesses are made of, on plain numbers."""

    def index_const(self, value: int) -> int:
        return value

    def index_add(self, i: int, by: int) -> int:
        return i + by

    def index_mul(self, i: int, by: int) -> int:
        return i * by

    def index_sum(self, i: int, j: int) -> int:
        return i + j


def turned_operands(region: Region, axes: Sequence[int]) -> tuple[Turned, ...]:
    """Operands worth turning in a map whose loops run over `axes`, the last one in vectors.

    Only those of 4 or 8 bytes an element that are read in one way, so that a tile has one meaning.
    """
    if len(axes) < 2:
        return ()
    found: dict[Value, set[tuple[int, ...]]] = {}
    for value in region.at_space(region.fn.outputs, frozenset()):
        if region.pulls(value) is not None and value.type.rank == len(region.space):
            _accesses(region, value, axes, found)
    turned = []
    for param, ways in found.items():
        if len(ways) != 1 or param.type.dtype.itemsize < 4:
            continue
        ((offset, *steps),) = ways
        if steps[-1] in (-1, 0, 1) or 1 not in steps[:-1]:
            continue
        across = steps.index(1)
        turned.append(Turned(region.fn.inputs.index(param), offset, tuple(steps), across))
    if len({t.across for t in turned}) != 1:
        return tuple(t for t in turned if t.across == turned[0].across)
    return tuple(turned)


def _accesses(
    region: Region, value: Value, axes: Sequence[int], found: dict[Value, set[tuple[int, ...]]]
) -> None:
    """For each parameter read below `value`: (offset, steps ..), or a way that fits nothing."""
    rank = len(region.space)
    origin = [0] * rank
    starts = list(_reads(region, value, origin))
    moved = []
    for axis in axes:
        here = [1 if a == axis else 0 for a in range(rank)]
        moved.append(list(_reads(region, value, here)))
    for n, (param, offset) in enumerate(starts):
        ways = found.setdefault(param, set())
        if offset is None:
            ways.update({(), (0,)})
            continue
        steps = [m[n][1] for m in moved]
        ways.add((offset, *(s - offset for s in steps if s is not None)))


def _reads(region: Region, value: Value, index: Sequence[int]) -> list[tuple[Value, int | None]]:
    """The parameters that the element of `value` at `index` reads, each with the place of the
    element; None where an access on the way is not affine."""
    found: list[tuple[Value, int | None]] = []
    work: list[tuple[Value, tuple[int, ...] | None]] = [(value, tuple(index))]
    while work:
        here, at = work.pop()
        if here in region.views:
            param, shape = region.views[here]
            steps = row_major(shape)
            place = None
            if at is not None and all(isinstance(s, int) for s in steps):
                place = sum(i * s for i, s in zip(at, steps, strict=True) if isinstance(s, int))
            found.append((param, place))
            continue
        producer = here.producer
        assert producer is not None
        lower = producer.op.lower
        if isinstance(lower, Scalar) and at is not None:
            for arg in producer.args:
                own = at[len(at) - arg.type.rank :]
                sizes = arg.type.shape
                work.append(
                    (arg, tuple(0 if s == 1 else i for i, s in zip(own, sizes, strict=True)))
                )
        elif isinstance(lower, Index) and lower.affine and at is not None:
            types = tuple(a.type for a in producer.args)

            def load(k: int, to: Sequence[int], args: Sequence[Value] = producer.args) -> None:
                work.append((args[k], tuple(to)))

            lower.fn(_Numbers(), producer.attrs, types, at, load)
        else:
            work.extend((arg, None) for arg in producer.args)
    return found
