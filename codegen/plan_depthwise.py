"""How the gradient of a depthwise weight runs: the form `taps` with a row and a channel a group.

A register tile of products would have one row here. Instead positions of a line lie in the vector
lanes, each tap has a vector of sums, and the input is read where it lies, moved by the tap: no
operand is gathered. Taps whose sums the registers do not hold together are done one after the
other, some lines of taps at a time. A tile is one group.

Order of additions: a lane's positions of one image in order, one after the other into one
accumulator for each tap; the images in order; then the lanes, by halves.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.plan_convolution import Convolution
from treadle.codegen.plan_tiles import Tiling, tiling
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType

_OTHERS: Final = 4  # registers for the operands
_CODE: Final = 1024  # products of vectors that are written out


@dataclass(frozen=True, slots=True)
class DepthwisePlan:
    """One gradient; see above. `lines`: lines of taps at a time; `looped`: from which vector of a
    line to before which one all lanes meet elements under all taps, so that a loop runs there."""

    what: Convolution
    dtype: DType
    lanes: int
    lines: int
    looped: tuple[int, int]
    tiling: Tiling

    epilogue = None
    shared = 0
    own = 0

    @property
    def spread(self) -> bool:
        """Whether its tiles are shared out by the kernel itself."""
        return False

    @property
    def vectors(self) -> int:
        """Of a line of positions."""
        return -(-self.what.wide.positions // self.lanes)

    def __str__(self) -> str:
        return (
            f"taps of single channels: {self.what}, {self.dtype}, {self.lanes} lanes, "
            f"{self.lines} lines of taps at a time, {self.tiling}"
        )


def plan_depthwise(what: Convolution, dtype: DType, target: Target) -> DepthwisePlan | None:
    """The plan for a convolution of the form `taps`; None where its groups have more than one row
    or channel, or more taps a line than the registers hold sums."""
    lanes = target.lanes(dtype)
    across = what.wide.taps
    lines = (target.registers - _OTHERS) // across
    if what.groups == 1 or what.rows > 1 or what.channels > 1 or lines == 0:
        return None
    lines = min(lines, what.high.taps)
    while what.high.taps % lines:
        lines -= 1
    vectors = -(-what.wide.positions // lanes)
    if 2 * what.high.taps * across * min(vectors, 8) > _CODE:
        return None
    work = what.groups * what.images * what.high.positions * vectors * what.high.taps * across
    return DepthwisePlan(
        what, dtype, lanes, lines, _whole(what, lanes), tiling([what.groups], [1], work)
    )


def _whole(what: Convolution, lanes: int) -> tuple[int, int]:
    """The vectors of a line that lie inside of it under all taps; none where they are few."""
    wide = what.wide
    first, last = wide.offset, wide.offset + wide.tap_step * (wide.taps - 1)
    fitting = [
        v
        for v in range(wide.positions // lanes)
        if wide.step * v * lanes + min(first, last) >= 0
        and wide.step * ((v + 1) * lanes - 1) + max(first, last) < wide.size
    ]
    return (fitting[0], fitting[-1] + 1) if len(fitting) > 2 else (0, 0)
