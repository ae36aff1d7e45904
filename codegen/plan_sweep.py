"""When columns are reduced in sweeps, and how: a few rows at a time, across many columns.

A tile of columns that stays in registers while it runs down all rows reads a few cache lines of
each row: on a large array that is half of the memory's speed at best, since neither the prefetcher
nor the TLB can follow. A sweep takes `group` whole rows (of `width` columns) side by side, so that
memory is read in as many streams, and adds them to partial results that lie in scratch. The order
of additions is the same: runs of rows, pairwise.
"""

from __future__ import annotations

from typing import Final

from treadle.ir.dataclass import dataclass

SMALL: Final = 1 << 18  # bytes; what fits beside other things in the second cache stays in tiles
_ROOM: Final = 1 << 18  # bytes of partial results
_FEWEST: Final = 128  # columns that are worth a tile of their own


@dataclass(frozen=True, slots=True)
class Sweep:
    """`group` rows at a time, `vectors` vectors of columns a step, in blocks of `width` columns;
    partial results take `nbytes` of scratch. `unit`: columns that a tile is a multiple of."""

    group: int
    vectors: int
    width: int
    unit: int
    nbytes: int

    def __str__(self) -> str:
        return f"sweeps of {self.group} rows over {self.width} columns, {self.nbytes} bytes"


def plan_sweep(rows: int, columns: int, lanes: int, cost: int, partial: int) -> Sweep:
    """Sweeps over an innermost loop of `rows` and that many columns.

    An element costs some `cost` instructions, all partial results of a column take `partial` bytes.
    Each pass goes over whole rows again: blocks narrow enough for a cache to keep them for the
    next pass were measured to be slower than reading memory twice.
    """
    group = 8 if cost <= 4 else 4 if cost <= 16 else 2
    vectors = 2 if cost <= 4 and columns >= 2 * lanes else 1
    while group > rows:
        group //= 2
    step = lanes * vectors
    width = min(-(-columns // step), max(_ROOM // partial // step, 1)) * step
    unit = -(-max(-(-columns // 4), _FEWEST) // step) * step
    return Sweep(group, vectors, width, unit, width * partial)
