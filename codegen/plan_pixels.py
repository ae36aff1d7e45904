"""How a convolution whose result has positions last runs: a product of weights and gathered pixels.

The rows of the product are the left operand's channels, its columns positions, which run along the
vector lanes; the sum runs over channels and taps. Weights are packed once. A tile is `bm` rows by
all positions of `span` lines of an image, or of `images` whole images where one fills no panels; it
gathers the pixels of `cb` channels at a time into its thread's own memory, each tap's beside the
others, and multiplies them. So nothing is unfolded beyond one tile.

Where the first axis's taps only move whole lines (`shifts` above 1), lines are gathered once for
all of them, and the micro-kernel, which has code for each tap, finds their pixels some lines
further on. Small images are gathered flat: a tap's positions of one are a single line.

Order of additions: channels in blocks of `cb`; within one by channel, then by tap, one after the
other into one accumulator per element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.plan_blocks import ALIGN, even, up
from treadle.codegen.plan_convolution import Convolution, Phase
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_pixel_epilogue import may_end, pixel_epilogue
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, whole
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.types import DType

_GATHERED: Final = 320 << 10  # bytes of gathered pixels: a part of the L2 cache
_ENOUGH: Final = 4  # tiles, for whatever threads there are
_UNROLLED: Final = 16  # taps of a micro-kernel that has code for each of them
_FLAT: Final = 160  # vectors of an image under all taps, each a piece of code
_GATHERING: Final = 2.5  # cycles to gather a vector, where a multiplication of one takes 1


@dataclass(frozen=True, slots=True)
class PixelPhase:
    """The positions of one remainder: `k` products for each channel, columns `ld` apart."""

    high: Phase
    wide: Phase
    packed: int  # where its weights begin, in elements

    @property
    def taps(self) -> int:
        return len(self.high.taps) * len(self.wide.taps)


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """One convolution; see above. `staged`: a tile is summed in memory of its own and copied to its
    places in the result at the end. `line_pieces`: the epilogue runs line by line. `cycles`: what
    it takes on one thread, roughly."""

    what: Convolution
    dtype: DType
    lanes: int
    phases: tuple[PixelPhase, ...]
    mr: int
    nr: int
    cb: int
    bm: int
    span: int
    images: int
    shifts: int
    staged: bool
    line_pieces: bool
    ld: int
    tiling: Tiling
    tiles: int
    packs: int
    shared: int
    own: int
    cycles: float
    epilogue: FusedPlan | None

    @property
    def flat(self) -> bool:
        """Whether a tap's pixels of a whole image are gathered as one line."""
        return self.span == self.what.high.positions and lies_flat(self.what, self.lanes)

    @property
    def spread(self) -> bool:
        """Whether threads share it."""
        return tiles_for(self.tiling.work) > 1

    def __str__(self) -> str:
        lines = f"{self.images} images" if self.images > 1 else f"{self.span} lines"
        text = (
            f"pixels: {self.what}, {self.dtype}, registers {self.mr} x {self.nr}, tiles "
            f"{self.tiles} of {self.bm} rows and {lines} (some {self.tiling.work} cycles, grain "
            f"{GRAIN}), {self.cb} channels at a time, weights packed in {self.packs} pieces, "
            f"{self.shared} bytes shared, {self.own} a thread"
        )
        if len(self.phases) > 1:
            text += f", {len(self.phases)} phases"
        if self.shifts > 1:
            text += f", lines gathered once for {self.shifts} taps"
        if self.flat:
            text += ", images gathered flat"
        if self.staged:
            text += ", copied at the end"
        if self.epilogue is not None:
            text += f", epilogue in {self.epilogue.lanes} lanes, tail {self.epilogue.tail}"
        return text


def _unrolls(what: Convolution, span: int, lanes: int) -> bool:
    """May lines be gathered once for all taps that move them? They must follow each other, and the
    micro-kernel has a piece of code for each tap."""
    high, wide = what.high, what.wide
    if span == high.positions and lies_flat(what, lanes):
        return False
    moves = high.step == 1 and high.every == 1 and wide.every == 1
    return moves and high.taps > 1 and high.taps * wide.taps <= _UNROLLED


def lies_flat(what: Convolution, lanes: int) -> bool:
    """Does a tap move all positions of an image by one distance, and are they few? Then the lanes
    under padding are known for all of its vectors."""
    high, wide = what.high, what.wide
    moves = (high.step, wide.step, high.every, wide.every) == (1, 1, 1, 1)
    same = (high.positions, wide.positions) == (high.size, wide.size)
    few = -(-what.pixels // lanes) * high.taps * wide.taps <= _FLAT
    return moves and same and few


def plan_pixels(
    what: Convolution, dtype: DType, target: Target, region: Function | None
) -> PixelPlan:
    """The plan for a convolution of the form `pixels`, which `region` finishes."""
    lanes = target.lanes(dtype)
    high, wide = what.high, what.wide
    phases = [(h, w) for h in high.phases for w in wide.phases if h.count and w.count]
    taps = max(len(h.taps) * len(w.taps) for h, w in phases)
    line, lines = -(-wide.positions // wide.every), -(-high.positions // high.every)
    mr, vectors = _registers(what.rows, lanes, target)
    nr = vectors * lanes
    cb = even(what.channels, max(320 * 4 // dtype.itemsize // max(taps, 1), 1))
    most = max(_GATHERED // (max(cb * taps, 1) * dtype.itemsize), nr)
    work = what.groups * what.images * what.rows * what.channels * (
        sum(h.count * w.count * len(h.taps) * len(w.taps) for h, w in phases) // (2 * lanes)
    )  # fmt: skip
    wanted = min(tiles_for(work), _ENOUGH)
    # With AVX2, whose vectors are half as dear to store, this gained nothing with 32 channels and
    # lost 3 % with 64 and 128.
    shifts = target.vector_bytes >= 64
    epilogue, line_pieces = pixel_epilogue(what, region, target)
    spans = [
        span for span in range(1, lines + 1)
        if span == lines or may_end(what, span * what.high.every, epilogue, line_pieces)
    ]  # fmt: skip
    cost, (images, span, bm) = _pieces(what, line, spans, most, (mr, nr), lanes, wanted, shifts)
    columns = images * span * line
    around = what.groups * -(-what.images // images) * -(-lines // span)
    staged = images > 1 or len(phases) > 1 or taps == 0  # what no tap meets is scattered: zeros
    unrolled = shifts and images == 1 and _unrolls(what, span, lanes)
    reach = abs(what.high.tap_step) * (what.high.taps - 1) * line if unrolled else 0
    ld = up(columns, nr) + reach + lanes
    if ld * dtype.itemsize % 1024 == 0:
        ld += lanes  # lines a power of two apart would share sets of the cache
    placed = []
    at = 0
    panels = up(what.rows, mr)
    for h, w in phases:
        phase = PixelPhase(h, w, at)
        placed.append(phase)
        at += what.groups * panels * what.channels * phase.taps
    copies = what.wide.taps if unrolled else max(taps, 1)
    gathered = up(cb * copies * ld * dtype.itemsize, ALIGN)
    piece = up(up(bm, mr) * ld * dtype.itemsize, ALIGN) * len(phases) if staged else 0
    edge = up(mr * nr * dtype.itemsize, ALIGN)
    return PixelPlan(
        what, dtype, lanes, tuple(placed), mr, nr, cb, bm, span, images,
        what.high.taps if unrolled else 1, staged, line_pieces, ld, whole((), work),
        around * -(-what.rows // bm),
        what.groups * -(-what.channels // cb) if tiles_for(work) > 1 else 1,
        up(at * dtype.itemsize, ALIGN), gathered + piece + edge, work * cost, epilogue,
    )  # fmt: skip


def _registers(rows: int, lanes: int, target: Target) -> tuple[int, int]:
    """Rows and vectors of the register tile that wastes the least."""
    options: tuple[tuple[int, int], ...]
    if target.registers >= 32:
        options = ((8, 3), (14, 2), (12, 2), (10, 2), (7, 4), (4, 6), (3, 6), (2, 6), (1, 6))
    elif target.has_fma:
        options = ((4, 3), (6, 2), (3, 4), (2, 5), (1, 6))
    else:
        options = ((4, 2), (2, 4), (1, 4))

    def cycles(option: tuple[int, int]) -> float:
        mr, vectors = option
        loads = (mr + vectors) / 2 if target.registers >= 32 else (mr + vectors) / 1.8
        step = max(mr * vectors, loads, 8 if target.registers < 32 else 4) + 0.5
        return -(-rows // mr) * step / vectors

    return min(options, key=cycles)


def _pieces(
    what: Convolution, line: int, spans: Sequence[int], most: int, tile: tuple[int, int],
    lanes: int, wanted: int, shifts: bool,
) -> tuple[float, tuple[int, int, int]]:  # fmt: skip
    """(images, lines, rows) of a tile that cost least, behind their cost: cycles of one thread for
    each of the multiplications' that the result needs. What makes it: idle lanes, pixels gathered
    for few rows, more than the caches hold; and, for the choice alone, idle threads."""
    mr, nr = tile
    down = -(-what.rows // mr)
    lines = spans[-1]
    shapes = [(1, span) for span in spans]
    if lines * line < 16 * nr:
        shapes += [(n, lines) for n in range(2, what.images + 1)]
    best: tuple[float, float, tuple[int, int, int]] | None = None
    for images, span in shapes:
        across = what.groups * -(-what.images // images) * -(-lines // span)
        columns = images * span * line
        lanes_cost = _computed(what.images, images, lines, span, line, lanes)
        once = 1.0  # how often an element is gathered, of as many as there are taps
        if shifts and images == 1 and _unrolls(what, span, lanes):
            reach = abs(what.high.tap_step) * (what.high.taps - 1)
            once = (1 + reach / span) / what.high.taps
        if columns * once > most:
            lanes_cost *= 1.05 + 0.1 * (columns * once / most - 1)
        for pieces in (1, 2, 3, 4, 6, 8, 12, 16, 32):
            if pieces > down:
                break
            each = -(-down // pieces)
            tiles = across * -(-down // each)
            idle = sum(-(-tiles // p) * p for p in (1, 2, 4, 8)) / (4 * tiles)
            few = max(wanted / tiles, 1.0) ** 0.5
            whole_tiles = tiles * images * span * line * each * mr
            unequal = whole_tiles / (what.groups * what.images * lines * line * down * mr) - 1
            few *= 1 + unequal * min(_ENOUGH / tiles, 1.0) / 2
            whole_image = span == what.high.positions and lies_flat(what, lanes)
            run = what.pixels if whole_image else line
            gather = _GATHERING * once * up(run, lanes) / run / (each * mr)
            for_itself = 0.25 * nr / columns + 0.5 / each  # what each tile and panel begin with
            cost = lanes_cost * (down * mr / what.rows) * (1 + gather + for_itself / 8)
            if best is None or cost * idle * few < best[0]:
                found = images, span, min(each * mr, up(what.rows, mr))
                best = cost * idle * few, cost, found
    assert best is not None
    return best[1:]


def _computed(all_images: int, images: int, lines: int, span: int, line: int, lanes: int) -> float:
    """Lanes of all panels for each position."""
    total = 0
    for first, count in ((images, all_images // images), (all_images % images, 1)):
        full = count * (lines // span) * up(first * span * line, lanes)
        total += full + count * up(first * (lines % span) * line, lanes)
    return total / (all_images * lines * line)
