"""How a convolution whose result has taps last runs: the gradient of a convolution's weight.

The right operand (the input) is gathered pixel by pixel, `cb` channels side by side, with its
padding; the left one (the cotangent) pixel by pixel, a register tile's lanes side by side. Then the
taps `kwg` of one line of the kernel stand side by side too, since the next tap is the next pixel:
`mr` = `cb` * `kwg` rows of a register tile lie together, for every tap and any stride. So each
element is moved once, not once for each tap.

Sums run over units: whole images, or bands of `lines` of one. Where the result is small, `parts` of
the units have sums of their own: a thread gathers the operands of a unit into its own memory and
multiplies them, and at the end the parts are added, in order. Where it is large, the operands of
one unit after the other are gathered by all threads, then multiplied by all, a tile for each block
of channels, line of taps and `nr` rows of the result. Lines of positions that meet only padding
under a line of taps are left out.

Order of additions: within a part units in order; within one images, lines and positions in order,
one after the other into one accumulator per element; then the parts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from treadle.codegen.plan_blocks import ALIGN, even, up
from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, whole
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType

_SHARED: Final = 3 << 20  # bytes of a unit that all threads gather: a part of the L3 cache
_OWN: Final = 512 << 10  # bytes of a unit that one thread gathers: a part of its L2 cache
_SUMS: Final = 4 << 20  # bytes that the sums of all parts may take
_PARTS: Final = 16
_SLACK: Final = 16  # elements behind each image: the last store of a gather may run over its end


@dataclass(frozen=True, slots=True)
class TapPlan:
    """One gradient; see above. `sight` x `width`: lines and pixels of a gathered image."""

    what: Convolution
    dtype: DType
    lanes: int
    mr: int
    nr: int
    cb: int
    kwg: int
    images: int
    lines: int
    sight: int
    width: int
    parts: int
    tiling: Tiling

    epilogue = None

    @property
    def shared(self) -> int:
        """Bytes that all threads share: the sums, and what they gather together."""
        sums = up(self.parts * self.sums * self.dtype.itemsize, ALIGN)
        return sums + (0 if self.parts > 1 else self.unit_bytes)

    @property
    def own(self) -> int:
        """Bytes that each thread needs."""
        return self.unit_bytes if self.parts > 1 else 0

    @property
    def unit_bytes(self) -> int:
        """Of the gathered operands of a unit."""
        return up((self.right_size + self.left_size) * self.dtype.itemsize, ALIGN)

    @property
    def sums(self) -> int:
        """Elements of all tiles' sums."""
        return self.tiles * self.mr * self.nr

    @property
    def units(self) -> int:
        """Of one group."""
        return -(-self.what.images // self.images) * self.bands

    @property
    def spread(self) -> bool:
        """Whether threads share it."""
        return tiles_for(self.tiling.work) > 1

    @property
    def bands(self) -> int:
        """Units that an image is cut into."""
        return -(-self.what.high.positions // self.lines)

    @property
    def channel_blocks(self) -> int:
        return -(-self.what.channels // self.cb)

    @property
    def row_blocks(self) -> int:
        return -(-self.what.rows // self.nr)

    @property
    def tiles(self) -> int:
        """Of one unit."""
        taps = self.what.high.taps * (self.what.wide.taps // self.kwg)
        return self.channel_blocks * self.row_blocks * taps

    @property
    def right_image(self) -> int:
        """Elements from one image of a block of channels to the next."""
        return self.sight * self.width * self.cb + _SLACK

    @property
    def left_image(self) -> int:
        """The same of a block of rows."""
        return self.lines * self.what.wide.positions * self.nr + _SLACK

    @property
    def right_size(self) -> int:
        """Elements of a unit's gathered right operand."""
        return self.channel_blocks * self.images * self.right_image

    @property
    def left_size(self) -> int:
        """The same of the left one, which lies behind it."""
        return self.row_blocks * self.images * self.left_image

    def __str__(self) -> str:
        unit = f"{self.images} images" if self.lines == self.what.high.positions else (
            f"{self.lines} lines"
        )  # fmt: skip
        return (
            f"taps: {self.what}, {self.dtype}, registers {self.mr} x {self.nr} ({self.cb} channels "
            f"by {self.kwg} taps), {self.units} units of {unit} in {self.parts} parts, "
            f"{self.tiles} tiles each (some {self.tiling.work} cycles, grain {GRAIN}), "
            f"{self.shared} bytes shared, {self.own} a thread"
        )


def plan_taps(what: Convolution, dtype: DType, target: Target) -> TapPlan:
    """The plan for a convolution of the form `taps`."""
    lanes, size = target.lanes(dtype), dtype.itemsize
    high, wide = what.high, what.wide
    cb, kwg, vectors = _registers(what, lanes, target)
    nr = vectors * lanes
    width = wide.step * (wide.positions - 1) + wide.tap_step * (wide.taps - 1) + 1
    reach = high.tap_step * (high.taps - 1) + 1
    channels, rows = up(what.channels, cb), up(what.rows, nr)

    def nbytes(lines: int) -> int:
        sight = high.step * (lines - 1) + reach
        return (channels * sight * width + rows * lines * wide.positions) * size

    def units(limit: int) -> tuple[int, int]:
        """Images and lines of a unit of at most so many bytes."""
        lines = high.positions
        while lines > 1 and nbytes(lines) > limit:
            lines = -(-lines // 2)
        if lines < high.positions:
            return 1, lines
        return even(what.images, max(limit // nbytes(lines), 1)), lines

    work = what.groups * what.images * what.pixels * high.taps * wide.taps * what.channels * (
        max(rows // (2 * lanes), 1)
    )  # fmt: skip

    def plan(limit: int, parts: int) -> TapPlan:
        images, lines = units(limit)
        sight = high.step * (lines - 1) + reach
        return TapPlan(
            what, dtype, lanes, cb * kwg, nr, cb, kwg, images, lines, sight, width, parts,
            whole((), work),
        )  # fmt: skip

    found = plan(_OWN, 1)
    if found.units < 8:
        found = plan(_OWN * max(found.units, 1) // 8, 1)
    parts = min(found.units, _PARTS, tiles_for(work))
    if parts > 1 and parts * found.sums * size <= _SUMS:
        return plan_of_parts(found, parts)
    return plan(_SHARED, 1)


def plan_of_parts(plan: TapPlan, parts: int) -> TapPlan:
    """The same with sums for each of `parts`, or a few less of equal sizes."""
    each = -(-plan.units // parts)
    return replace(plan, parts=-(-plan.units // each))


def _registers(what: Convolution, lanes: int, target: Target) -> tuple[int, int, int]:
    """(channels, taps, vectors) of the register tile that takes the fewest cycles."""
    most = target.registers if target.has_fma else target.registers - 3
    rate = 1 if target.vector_bytes >= 64 else 2  # multiplications a cycle, of a Zen 4's
    taps = what.wide.taps
    groups = [
        n for n in range(1, taps + 1) if taps % n == 0 and (what.wide.tap_step == 1 or n == 1)
    ]
    best: tuple[float, tuple[int, int, int]] | None = None
    for kwg in groups:
        for cb in range(1, 29):
            for vectors in range(1, 9):
                sums = cb * kwg * vectors
                if sums + vectors + 1 > most or cb > what.channels:
                    continue
                each = (cb * kwg + vectors) / 1.8  # loads of a step
                step = max(sums / rate, each, 8 / rate) + (1 + vectors / 2) / rate
                tiles = -(-what.channels // cb) * (taps // kwg) * -(-what.rows // (vectors * lanes))
                cost = tiles * step
                if best is None or cost < best[0]:
                    best = cost, (cb, kwg, vectors)
    assert best is not None
    return best[1]
