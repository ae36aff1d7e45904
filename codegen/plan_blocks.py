"""How a packed product is cut into blocks and tiles, and where gathered panels lie.

Blocks depend on shapes, steps and Target alone. What is weighed here: tiles of which 2, 4 or 8
threads get like shares; large ones, which use what they have read more often; and gathering each
row of the left operand for the few tiles that need it, by each of them or once for all.
"""

from __future__ import annotations

from typing import Final

from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType

ALIGN: Final = 64
_LEFT: Final = 192 << 10  # bytes of a tile's left block: a part of the L2 cache
_GATHERED: Final = 4 << 20  # bytes that are gathered once for all tiles: a part of the L3 cache
_ONCE: Final = 512 << 10  # bytes of a block of left rows, if they are gathered once for all tiles
_DIRECT: Final = 768 << 10  # bytes of a block of the right operand read in place: most of an L2
_STRIP: Final = 48 << 10  # bytes of the product that are finished at a time
_ENOUGH: Final = 16  # tiles: more of them share work no better, and read panels more often
_NC: Final = 2048

TURNING: Final = 0.5  # cycles to gather an element of an operand that is contiguous along k
COPYING: Final = 0.25  # the same, contiguous along the other letter


@dataclass(frozen=True, slots=True)
class Blocks:
    """`kb` x `nc` of the right operand are gathered at a time (`direct`: whole panels of it are
    read where they lie); `bm` x `bn` of the result is a tile, which runs over blocks of `kc` and
    gathers its left rows itself where they are its `own`. `strip` panels are finished together."""

    nc: int
    kb: int
    kc: int
    bm: int
    bn: int
    strip: int
    direct: bool
    own: bool

    def __str__(self) -> str:
        left = "by each tile" if self.own else "once"
        right = "read in place" if self.direct else "gathered once"
        return (
            f"blocks n {self.nc} k {self.kb} in {self.kc}, pieces of {self.bm} x {self.bn}, left "
            f"operand gathered {left}, right operand {right}"
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """Memory for gathered panels. Elements from one piece of left rows to the next, and from one
    block of `kc` to the next, left and right; bytes of what all threads share, of which the right
    operand's come first, and of a thread's own left rows."""

    group: int
    left_block: int
    right_block: int
    right_bytes: int
    shared_bytes: int
    own_bytes: int


def packing(blocks: Blocks, m: int, n: int, mr: int, nr: int, width: int, dtype: DType) -> Packing:
    """The last store of a piece of left rows may run over its end by a vector: pieces lie apart, so
    that threads do not write into each other's."""
    size = dtype.itemsize
    count = -(-blocks.kb // blocks.kc)
    group = blocks.bm * blocks.kc + max(width, ALIGN // size)
    left_block = -(-m // blocks.bm) * group
    columns = up(min(n, blocks.nc), nr)
    if blocks.direct:
        columns = nr if n % nr else 0
    right_bytes = up(columns * blocks.kc * count * size, ALIGN)
    left_bytes = up(left_block * count * size, ALIGN)
    return Packing(
        group,
        left_block,
        columns * blocks.kc,
        right_bytes,
        right_bytes + (0 if blocks.own else left_bytes),
        up(group * size, ALIGN) if blocks.own else 0,
    )


def plan_blocks(
    sizes: tuple[int, int, int], tile: tuple[int, int], width: int, dtype: DType, tiles: int,
    rows: bool, turned: bool, paneled: bool = False,
) -> Blocks:  # fmt: skip
    """Blocks for (m, n, k) and register tiles of (mr, nr), at least `tiles` of them. `rows`: the
    right operand is contiguous along n, in panels where `paneled`; `turned`: the left one is along
    k."""
    (m, n, k), (mr, nr) = sizes, tile
    kc = min(up(even(k, 320 if dtype.itemsize == 4 else 224), width), k)
    nc = min(up(n, nr), _NC)
    nbytes = kc * nc * dtype.itemsize
    direct = paneled or (rows and (nbytes <= _DIRECT or m <= 4 * max(mr, 8)))
    kb = k if direct else min(kc * max(_GATHERED // nbytes, 1), k)
    again = 0.05 if nbytes <= _DIRECT else 0.3  # what reading it for each tile of few rows costs
    if paneled:
        again = 1.0  # each thread keeps its own columns in its cache from step to step
    bm, bn, own = _pieces(m, min(n, nc), kc, (mr, nr), width, dtype, tiles, turned, again)
    strip = max(_STRIP // (bm * nr * dtype.itemsize), 1)
    return Blocks(nc, kb, kc, bm, bn, strip, direct, own)


def _pieces(
    m: int, n: int, kc: int, tile: tuple[int, int], width: int, dtype: DType, tiles: int,
    turned: bool, again: float,
) -> tuple[int, int, bool]:  # fmt: skip
    """(bm, bn, own) of the least cost, in cycles for each of the multiplications."""
    mr, nr = tile
    down, across = -(-m // mr), -(-n // nr)
    most = max(_LEFT // (kc * dtype.itemsize) // mr, 1)
    gather = (TURNING if turned else COPYING) * width
    wanted = min(tiles, _ENOUGH)
    best: tuple[float, int, int, bool] | None = None
    for count_m in _counts(down):
        bm = -(-down // count_m)
        if bm > most and bm > 1:
            continue
        for count_n in _counts(across):
            bn = -(-across // count_n)
            found = -(-down // bm) * -(-across // bn)
            idle = sum(-(-found // p) * p * bm * bn / (down * across) for p in (1, 2, 4, 8)) / 4
            few = max(wanted / found, 1.0)
            for own in (True, False):
                if not own and m * kc * dtype.itemsize > _ONCE:
                    continue
                gathering = gather / (bn * nr) if own else gather / n + 0.1
                cost = idle * (1 + again / bm + 0.05 / bn + gathering) * few
                if best is None or cost < best[0]:
                    best = cost, bm, bn, own
    assert best is not None
    _, bm, bn, own = best
    return bm * mr, bn * nr, own


def _counts(units: int) -> list[int]:
    """Numbers of pieces worth trying: small ones, then powers of two and what lies between."""
    tried = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    return [c for c in tried if c <= units]


def even(total: int, limit: int) -> int:
    """The size of equal blocks of at most `limit`."""
    blocks = -(-total // limit)
    return -(-total // blocks)


def up(value: int, step: int) -> int:
    """The least multiple of `step` that is at least `value`."""
    return -(-value // step) * step
