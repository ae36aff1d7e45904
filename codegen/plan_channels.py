"""How a convolution of the form `pixels` runs with the result's channels in the vector lanes.

A register tile is some positions of one line by `nr` channels of the result: for each channel of
the data and each tap it multiplies a vector of weights with the element under each position, which
is read where it lies. So nothing is gathered, whatever the strides; and no product with padding is
computed: which taps of a line's last axis lie inside of it is known when the code is written, and
lines of taps outside of the image are left out.

Weights are packed once, channels of the result side by side. A tile is `nr` channels by `span`
lines of `images` images; its sums lie in its thread's own memory, channels last, in the order of
the result's positions, and are turned into the result at the end. Channels of the data run in
blocks of `cb`, whose weights stay in the second-level cache.

Order of additions: by channel, then by tap, one after the other into one accumulator per element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from treadle.codegen.plan_blocks import ALIGN, even, up
from treadle.codegen.plan_convolution import Convolution, Phase
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_pixel_epilogue import may_end, pixel_epilogue
from treadle.codegen.plan_pixels import PixelPhase, PixelPlan
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, whole
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.types import DType

_SUMS: Final = 64 << 10  # bytes of a tile's sums: a part of the L2 cache
_DATA: Final = 512 << 10  # bytes of the data under a tile, which its panels share: half of it
_LONGEST: Final = 256 << 10  # bytes of the sums of the fewest lines that a tile can have
_WEIGHTS: Final = 160 << 10  # bytes of the weights of a block of channels: the same
_BLOCK: Final = 64  # channels of the data at a time; threads pack a block each
_ENOUGH: Final = 16  # tiles, for whatever threads there are
_CODE: Final = 512  # multiplications of one micro-kernel
_ALL_CODE: Final = 4096  # the same of all of a convolution
_TURNING: Final = 0.5  # cycles to put an element of the result into its place


@dataclass(frozen=True, slots=True)
class Meeting:
    """A tap of a register tile: the element under the tile's first position lies `offset` from
    where the tile begins; positions from `first` to before `last` lie over an element at all."""

    offset: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Run:
    """`count` register tiles of `pixels` positions from `start` on, which all meet the last axis's
    taps in the same way."""

    start: int
    count: int
    pixels: int
    taps: tuple[Meeting, ...]


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """One convolution; see above. `pixels`: positions of the largest register tile; `cycles`: what
    it takes on one thread, roughly. `line_pieces`: the epilogue runs line by line."""

    what: Convolution
    dtype: DType
    lanes: int
    phases: tuple[PixelPhase, ...]
    pixels: int
    nr: int
    cb: int
    images: int
    span: int
    line_pieces: bool
    tiling: Tiling
    tiles: int
    packs: int
    shared: int
    own: int
    cycles: float
    epilogue: FusedPlan | None

    @property
    def spread(self) -> bool:
        """Whether threads share it."""
        return tiles_for(self.tiling.work) > 1

    @property
    def panels_first(self) -> bool:
        """Whether neighbouring tiles share the data and not the weights: those that are larger."""
        high, wide = self.what.high, self.what.wide
        data = self.images * self.span * high.step // high.every * wide.size
        return data > high.taps * wide.taps * self.nr

    def beats(self, other: PixelPlan, target: Target) -> bool:
        """Is it the faster one? Both counts are rough: measured, this kernel takes less of its own
        with 512-bit vectors (of which a Zen 4 multiplies one a cycle, so that loads are hidden)."""
        return self.cycles < other.cycles * (1.2 if target.vector_bytes >= 64 else 1.04)

    def __str__(self) -> str:
        lines = f"{self.images} images" if self.images > 1 else f"{self.span} lines"
        text = (
            f"channels in lanes: {self.what}, {self.dtype}, registers {self.pixels} positions x "
            f"{self.nr}, tiles {self.tiles} of {lines} (some {self.tiling.work} cycles, grain "
            f"{GRAIN}), {self.cb} channels at a time, weights packed in {self.packs} pieces, "
            f"{self.shared} bytes shared, {self.own} a thread"
        )
        if len(self.phases) > 1:
            text += f", {len(self.phases)} phases"
        if self.epilogue is not None:
            text += f", epilogue in {self.epilogue.lanes} lanes, tail {self.epilogue.tail}"
        return text


def plan_channels(
    what: Convolution, dtype: DType, target: Target, region: Function | None
) -> ChannelPlan | None:
    """The plan for a convolution of the form `pixels`, which `region` finishes; None where it would
    take much code, or much memory for lines that are very long."""
    lanes, size = target.lanes(dtype), dtype.itemsize
    longest = _LONGEST // (what.high.every * what.wide.positions * size)
    found = _registers(what, lanes, target) if longest >= lanes else None
    if found is None or found[1] * lanes > longest:
        return None
    cycles, vectors, most = found
    nr = vectors * lanes
    phases: list[PixelPhase] = []
    at = 0
    panels = -(-what.rows // nr)
    for high, wide in _phases(what):
        phases.append(PixelPhase(high, wide, at))
        at += what.groups * panels * nr * what.channels * phases[-1].taps
    taps = max(max(p.taps for p in phases), 1)
    cb = even(what.channels, min(max(_WEIGHTS // (taps * nr * size), 8), _BLOCK))
    epilogue, line_pieces = pixel_epilogue(what, region, target)
    work = int(cycles)
    wanted = min(tiles_for(work), _ENOUGH)
    line = _line_bytes(what, nr * size, panels, size)
    ends = partial(may_end, what, epilogue=epilogue, line_pieces=line_pieces)
    images, span = _pieces(what, line, panels * what.groups, wanted, ends)
    around = -(-what.images // images) * -(-what.high.positions // span)
    return ChannelPlan(
        what, dtype, lanes, tuple(phases), most, nr, cb, images, span, line_pieces,
        whole((), work), what.groups * panels * around,
        what.groups * -(-what.channels // cb) if tiles_for(work) > 1 else 1,
        up(at * size, ALIGN), up(images * span * what.wide.positions * nr * size, ALIGN),
        cycles, epilogue,
    )  # fmt: skip


def _phases(what: Convolution) -> Iterator[tuple[Phase, Phase]]:
    for high in what.high.phases:
        for wide in what.wide.phases:
            if high.count and wide.count:
                yield high, wide


def _registers(what: Convolution, lanes: int, target: Target) -> tuple[float, int, int] | None:
    """(cycles, vectors, positions) of the register tile that takes the fewest cycles."""
    options: list[tuple[float, int, int]] = []
    across = max(len(w.taps) for w in what.wide.phases)
    for vectors in range(1, 5):
        if (vectors - 1) * lanes >= what.rows:
            break
        left = target.registers - vectors - (1 if target.has_fma else 4)
        most = min(left // vectors, _CODE // (vectors * max(across, 1)))
        runs = {wide: runs_of(what, wide, most) for wide in what.wide.phases} if most else {}
        if most < 1 or _code(runs, vectors) > _ALL_CODE:
            continue
        options.append((_cycles(what, runs, vectors, vectors * lanes), vectors, most))
    return min(options, default=None)


def _code(runs: Mapping[Phase, Sequence[Run]], vectors: int) -> int:
    """Multiplications that are written out."""
    kinds = {(run.pixels, run.taps) for line in runs.values() for run in line}
    return sum((t.last - t.first) * vectors for _, taps in kinds for t in taps)


def _cycles(what: Convolution, runs: Mapping[Phase, Sequence[Run]], vectors: int, nr: int) -> float:
    """Of all register tiles with 2 multiplications and 2 loads a cycle, which a tile's own sums
    wait 4 cycles for; of turning the result and packing weights."""
    total = 0.0
    for high, wide in _phases(what):
        line = sum(
            run.count * (max(n * vectors / 2, (n + vectors) / 1.8, 4) + 0.3)
            for run in runs[wide]
            for t in run.taps
            for n in [t.last - t.first]
        )
        inside = sum(
            last - first
            for _, shift in high.taps
            for first, last in [_inside(high, shift, what.high.size)]
        )
        total += line * inside
    panels = -(-what.rows // nr)
    taps = what.high.taps * what.wide.taps
    return what.groups * (
        total * panels * what.images * what.channels
        + _TURNING * what.rows * what.images * what.pixels
        + 0.5 * what.rows * what.channels * taps
    )


def runs_of(what: Convolution, wide: Phase, most: int) -> tuple[Run, ...]:
    """A line's positions in register tiles of equal sizes, or nearly so, of at most `most`."""
    if not wide.count:
        return ()
    tiles = -(-wide.count // most)
    each, more = divmod(wide.count, tiles)
    found: list[Run] = []
    start = 0
    for n in range(tiles):
        pixels = each + (n < more)
        taps = tuple(_meetings(what, wide, start, pixels))
        last = found[-1] if found else None
        if last is not None and (last.pixels, last.taps) == (pixels, taps):
            found[-1] = Run(last.start, last.count + 1, pixels, taps)
        else:
            found.append(Run(start, 1, pixels, taps))
        start += pixels
    return tuple(found)


def _meetings(what: Convolution, wide: Phase, start: int, pixels: int) -> Iterator[Meeting]:
    for _, shift in wide.taps:
        first, last = (min(max(p - start, 0), pixels) for p in _inside(wide, shift, what.wide.size))
        yield Meeting(shift, first, last)


def _inside(phase: Phase, shift: int, size: int) -> tuple[int, int]:
    """From which to before which one of a phase's positions a tap meets one of `size` elements."""
    first = min(max(-(shift // phase.step), 0), phase.count)
    return first, max(min(-(-(size - shift) // phase.step), phase.count), first)


def _line_bytes(what: Convolution, position: int, panels: int, size: int) -> int:
    """Of the sums of a line, whose positions take `position` bytes each; or so many that the data
    under it, read again for each panel, get no more than their part of the cache."""
    data = what.channels * what.wide.size * size * what.high.step // what.high.every
    return max(what.wide.positions * position, data * _SUMS // _DATA if panels > 1 else 0)


def _pieces(
    what: Convolution, line: int, panels: int, wanted: int, ends: Callable[[int], bool]
) -> tuple[int, int]:
    """(images, lines) of a tile, whose lines take `line` bytes each: as many as the cache
    holds, unless they are too few tiles. `ends`: may it end behind so many lines?"""
    lines = what.high.positions
    spans: Sequence[int] = [
        span for span in range(what.high.every, lines, what.high.every) if ends(span)
    ]
    if lines * line <= _SUMS:
        most = min(_SUMS // (lines * line), what.images)
        few = -(-what.images * panels // wanted)  # images of a tile if tiles are just enough
        images = even(what.images, max(min(most, few), 1))
        if images > 1 or what.images * panels >= wanted:
            return images, lines
    pieces = -(-wanted // max(what.images * panels, 1))
    fitting = [s for s in spans if s * line <= _SUMS and -(-lines // s) >= pieces]
    if not fitting:
        return 1, min(spans, default=lines)
    fewest = min(-(-lines // s) for s in fitting)
    return 1, min(s for s in fitting if -(-lines // s) == fewest)
