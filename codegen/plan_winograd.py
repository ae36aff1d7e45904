"""How a convolution of 3 x 3 taps runs by Winograd's algorithm F(m x m, 3 x 3), m being 2 or 4.

With n = m + 2, a square of n x n elements of the input gives m x m positions of the result:

    U = G g G^T, for each weight          once, n n numbers for 9
    V = B^T d B, for each square          by each tile of work, into its thread's own memory
    M[t] = U[t] V[t], for each of the n n products of matrices [rows, channels] [channels, squares]
    Y = A^T M A, for each row and square  into the result, where the epilogue finishes it

So there are n n / m m multiplications for 9: four ninths, or a quarter. A tile of work has the
squares of `span` lines of them of an image, or of `images` whole images, and `bm` rows; its V and M
of a few megabytes at most. Squares run along the vector lanes. Where U is large, some rows of it
are transformed and multiplied after the others, in rounds, so that it does not leave the L3 cache.

Order of additions: as the formulas have it, channels one after the other into one accumulator for
each element of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.plan_blocks import ALIGN, even, up
from treadle.codegen.plan_convolution import Convolution, Spatial
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_pixel_epilogue import may_end, pixel_epilogue
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, whole
from treadle.codegen.target import Target
from treadle.codegen.winograd_matrices import TAPS
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.types import DType, float32

_OWN: Final = 1 << 20  # bytes of V and M: most of an L2 cache
_SHARED: Final = 12 << 20  # bytes of U: a part of the L3 cache
_STAYS: Final = 4 << 20  # bytes of U that are still in a cache when they are read
_ENOUGH: Final = 4  # tiles, for whatever threads there are
_PAGE: Final = 1024  # elements: what is so far apart shares sets of the first-level cache
_LINE: Final = 16  # elements of a cache line

# Costs in multiplications of a vector, measured on a Zen 4 with AVX-512: to transform a vector of
# squares of one channel, a vector of squares of one row back, the weights of one channel and a
# register tile's rows.
_IN: Final = {2: 80, 4: 330}
_OUT: Final = {2: 60, 4: 200}
_WEIGHTS: Final = {2: 75, 4: 130}
_CROSSING: Final = 5  # bytes of U for one of them, where they go to memory and come back
_PRODUCT: Final = 1.12  # for each of those of the products of matrices
_DIRECT: Final = 2.0  # for each cycle that the direct algorithm's plan counts


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """One convolution; see above. `squares`: vector lanes of the transforms. `bm`, `round`: the
    rows of a tile, of a round. `ld`: from a channel of V, or a row of M, to the next; `v_step`,
    `m_step`, `u_step`: from one of the n n products to the next. `cycles`: of this algorithm and of
    the direct one, roughly."""

    what: Convolution
    dtype: DType
    lanes: int
    m: int
    mr: int
    nr: int
    squares: int
    bm: int
    round: int
    span: int
    images: int
    ld: int
    line_pieces: bool
    tiling: Tiling
    tiles: int
    packs: int
    cycles: tuple[int, int]
    epilogue: FusedPlan | None

    @property
    def n(self) -> int:
        """Elements of a square's side."""
        return self.m + TAPS - 1

    @property
    def high(self) -> int:
        """Lines of squares of an image."""
        return -(-self.what.high.positions // self.m)

    @property
    def wide(self) -> int:
        """Squares of a line."""
        return -(-self.what.wide.positions // self.m)

    @property
    def groups(self) -> int:
        """Vectors of squares of a line."""
        return -(-self.wide // self.squares)

    @property
    def panels(self) -> int:
        """Register tiles of a round's rows, of one group."""
        return -(-self.round // self.mr)

    @property
    def rounds(self) -> int:
        return -(-self.what.rows // self.round)

    @property
    def reach(self) -> int:
        """Elements of the input under a line of squares."""
        return self.wide * self.m + TAPS - 1

    @property
    def line_step(self) -> int:
        """From one line of transformed columns to the next: whole vectors, and one more."""
        return up(self.groups * self.squares * self.m + TAPS - 1, self.lanes) + self.lanes

    @property
    def v_step(self) -> int:
        return _apart(self.what.channels * self.ld)

    @property
    def m_step(self) -> int:
        return _apart(up(self.bm, self.mr) * self.ld)

    @property
    def u_step(self) -> int:
        return _apart(self.panels * self.mr * self.what.channels)

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """Bytes of V, M, a line of transformed columns, a line of zeros."""
        found = self.n**2 * self.v_step, self.n**2 * self.m_step, self.n * self.line_step
        sizes = (*found, self.what.wide.size + self.lanes)
        a, b, c, d = (up(size * self.dtype.itemsize, ALIGN) for size in sizes)
        return a, b, c, d

    @property
    def own(self) -> int:
        """Bytes that each thread needs."""
        return sum(self.parts)

    @property
    def shared(self) -> int:
        """Bytes of the transformed weights."""
        return up(self.what.groups * self.n**2 * self.u_step * self.dtype.itemsize, ALIGN)

    @property
    def spread(self) -> bool:
        """Whether threads share it."""
        return tiles_for(self.tiling.work) > 1

    def __str__(self) -> str:
        lines = f"{self.images} images" if self.images > 1 else f"{self.span} lines"
        text = (
            f"winograd F({self.m}x{self.m}, 3x3): {self.what}, {self.dtype}, registers {self.mr} x "
            f"{self.nr}, {self.high} x {self.wide} squares an image in {self.squares} lanes, tiles "
            f"{self.tiles} of {self.bm} rows and {lines} of squares (some {self.cycles[0]} cycles, "
            f"direct {self.cycles[1]}, grain {GRAIN}), weights transformed in {self.packs} pieces, "
            f"{self.shared} bytes shared, {self.own} a thread"
        )
        if self.rounds > 1:
            text += f", {self.rounds} rounds of {self.round} rows"
        if self.epilogue is not None:
            text += f", epilogue in {self.epilogue.lanes} lanes, tail {self.epilogue.tail}"
        return text


def _apart(size: int) -> int:
    """At least `size` elements, so that a walk over such steps visits all sets of a cache."""
    return up(size, _PAGE) + _LINE


def shifts(axis: Spatial) -> tuple[tuple[int, int], ...]:
    """(tap, shift) of an axis, the least shift first."""
    (phase,) = axis.phases
    return tuple(sorted(phase.taps, key=lambda pair: pair[1]))


def applies(what: Convolution, dtype: DType) -> bool:
    """Is it a float32 convolution of 3 x 3 taps that follow each other and move by ones?"""
    if what.form != "pixels" or dtype is not float32 or what.b[5] != 1 or what.c[5] != 1:
        return False
    return what.c[4] in (0, what.wide.positions) and all(
        (x.taps, x.step, abs(x.tap_step), x.every) == (TAPS, 1, 1, 1)
        for x in (what.high, what.wide)
    )


def plan_winograd(
    what: Convolution, dtype: DType, target: Target, region: Function | None, most: int,
    direct: float,
) -> WinogradPlan | None:  # fmt: skip
    """The plan with squares of up to `most` positions a side that takes the fewest cycles; None
    where the convolution is another one or the direct algorithm, whose plan counts `direct`, takes
    fewer."""
    if most < 2 or not applies(what, dtype):
        return None
    found = [plan_squares(what, dtype, target, region, m, direct) for m in (2, 4) if m <= most]
    best = min(found, key=lambda plan: plan.cycles[0])
    return best if best.cycles[0] < best.cycles[1] else None


def plan_squares(
    what: Convolution, dtype: DType, target: Target, region: Function | None, m: int, direct: float
) -> WinogradPlan:
    """The plan with squares of m x m positions, of a convolution that it `applies` to."""
    lanes = target.lanes(dtype)
    mr, vectors = (8, 3) if target.registers >= 32 else ((4, 3) if target.has_fma else (4, 2))
    nr = vectors * lanes
    high, wide = -(-what.high.positions // m), -(-what.wide.positions // m)
    squares = min(lanes, max(1 << (wide - 1).bit_length(), 4))
    epilogue, line_pieces = pixel_epilogue(what, region, target)
    spans = [
        span for span in range(1, high + 1)
        if span == high or may_end(what, span * m, epilogue, line_pieces)
    ]  # fmt: skip
    n = m + TAPS - 1
    limit = max(_SHARED // (what.groups * n * n * what.channels * dtype.itemsize * mr), 1)
    panels = even(-(-what.rows // mr), limit)
    rows = min(panels * mr, what.rows)
    images, span, bm, cycles = _pieces(what, m, (high, wide), spans, squares, (mr, rows), lanes)
    columns = images * span * wide
    ld = up(columns, lanes)  # a store over the end of a line is followed by the next line's
    if ld * dtype.itemsize % _PAGE == 0:
        ld += lanes
    work = round(cycles)
    around = what.groups * -(-what.images // images) * -(-high // span)
    return WinogradPlan(
        what, dtype, lanes, m, mr, nr, squares, bm, rows, span, images, ld, line_pieces,
        whole((), work), around * -(-rows // bm),
        what.groups * panels if tiles_for(work) > 1 else 1,
        (work, round(direct * _DIRECT)), epilogue,
    )  # fmt: skip


def _pieces(
    what: Convolution, m: int, counts: tuple[int, int], spans: Sequence[int], squares: int,
    tile: tuple[int, int], lanes: int,
) -> tuple[int, int, int, float]:  # fmt: skip
    """(images, lines, rows, cycles) of a tile that costs least: idle lanes, idle threads, inputs
    transformed for few rows, weights read for few squares, more than the caches hold. `tile`: rows
    of a register tile and of a round."""
    (mr, rows), (high, wide) = tile, counts
    rounds, down, products = -(-what.rows // rows), -(-rows // mr), (m + TAPS - 1) ** 2
    shapes = [(1, span) for span in spans]
    shapes += [(n, high) for n in range(2, what.images + 1)]
    narrow = 0.25 + 0.75 * squares / lanes
    weights = what.groups * what.channels * rounds * down * _WEIGHTS[m]
    nbytes = what.groups * products * what.channels * rounds * down * mr * 4
    weights += nbytes // _CROSSING if nbytes > _STAYS else 0
    best: tuple[float, tuple[int, int, int, float]] | None = None
    for images, span in shapes:
        columns = images * span * wide
        across = what.groups * -(-what.images // images) * -(-high // span)
        vectors = across * -(-columns // lanes)
        groups = what.groups * what.images * high * -(-wide // squares)
        for pieces in (1, 2, 3, 4, 6, 8):
            if pieces > down:
                break
            each = -(-down // pieces)
            tiles = across * -(-down // each)
            idle = sum(-(-tiles // p) * p for p in (1, 2, 4)) / (3 * tiles)
            few = max(_ENOUGH / tiles, 1.0) ** 0.5
            cycles = products * vectors * rounds * down * mr * what.channels * _PRODUCT
            cycles += groups * what.channels * rounds * pieces * _IN[m] * narrow
            cycles += groups * what.rows * _OUT[m] * narrow
            read = products * each * mr * what.channels * 4  # bytes of weights
            cycles += rounds * tiles * read / (16 if read < 2 * _OWN else 8)
            own = products * (what.channels + each * mr) * (columns + lanes) * 4
            cost = cycles * idle * few * (1 + 0.02 * max(own / _OWN - 1, 0))
            if best is None or cost < best[0]:
                best = cost, (images, span, min(each * mr, up(rows, mr)), cycles + weights)
    assert best is not None
    return best[1]
