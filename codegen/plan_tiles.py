"""Which pieces of a kernel may run at a time: its tiles.

Tiles depend on shapes and Target alone, never on the number of threads, which take them as they
come: so the results of any number of threads are the same bit for bit. There are no more than work
for `GRAIN` cycles each: what is smaller stays on one thread, since handing a tile to another one
and waiting for it costs some 1000 cycles, what that one reads comes from the first one's cache, and
beside other processes the other thread is late. Measured on a step of kernels of 30,000 to 45,000
cycles: cut in two they gained 5 % on a quiet machine and lost up to 60 % on a busy one.
Their number is a power of two where the shape allows, so that two or four threads get equal shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from treadle.ir.dataclass import dataclass

GRAIN: Final = 24_000  # cycles
MOST: Final = 256  # tiles of one kernel


@dataclass(frozen=True, slots=True)
class Tiling:
    """`counts[d]` blocks of `blocks[d]` steps along loop d (the last block may be shorter); a tile
    is one of each, the last loop's blocks following each other. `work`: all of it, in cycles."""

    blocks: tuple[int, ...]
    counts: tuple[int, ...]
    work: int

    @property
    def count(self) -> int:
        return prod(self.counts)

    def __str__(self) -> str:
        cut = " x ".join(map(str, self.blocks)) or "all"
        return f"tiles {self.count} of {cut} (some {self.work} cycles, grain {GRAIN})"


def whole(sizes: Sequence[int], work: int) -> Tiling:
    """A single tile."""
    return Tiling(tuple(sizes), (1,) * len(sizes), work)


def tiling(sizes: Sequence[int], steps: Sequence[int], work: int) -> Tiling:
    """Cut loops of those sizes, the outermost first, at multiples of `steps`; a step of 0: never.

    `work`: the cycles of the whole kernel.
    """
    wanted = tiles_for(work)
    if wanted < 2 or 0 in sizes:
        return whole(sizes, work)
    blocks, counts = list(sizes), [1] * len(sizes)
    for d, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        if wanted < 2 or step == 0:
            continue
        units = -(-size // step)
        each = -(-units // wanted)
        blocks[d] = min(each * step, size)
        counts[d] = -(-units // each)
        wanted //= counts[d]
    return Tiling(tuple(blocks), tuple(counts), work)


def tiles_for(work: int) -> int:
    """How many tiles that much work is worth: a power of two."""
    return min(MOST, 1 << (work // GRAIN).bit_length() >> 1) if work >= GRAIN else 1
