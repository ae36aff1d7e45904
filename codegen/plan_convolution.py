"""What a contraction with windows computes, in the numbers of a convolution.

Two forms have kernels of their own, of operands and results that are contiguous along the last
spatial axis:

    pixels   the result's last axes are positions, taps are summed: a convolution, and the gradient
             of its input (`plan_pixels`)
    taps     the result's last axes are taps, positions are summed: the gradient of its weight
             (`plan_taps`)

Anything else runs in plain loops (`window_loops`). One spatial axis is two, of which the first has
size 1 and one tap.

Where a window divides (the input's gradient of a convolution with strides), the positions fall into
phases: those whose remainder picks the same taps. Within a phase every window is a plain one.
"""

from __future__ import annotations

from typing import Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.ops.contract_spec import Spec, Term, Window, letter_sizes, letters, read_spec
from treadle.ir.types import TensorType

Form = Literal["pixels", "taps"]


@dataclass(frozen=True, slots=True)
class Spatial:
    """One spatial axis: how many positions, taps and elements it has, and its window."""

    positions: int
    taps: int
    size: int
    step: int
    tap_step: int
    offset: int
    every: int

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The positions by the taps that meet them."""
        found = []
        for start in range(self.every):
            count = max(-(-(self.positions - start) // self.every), 0)
            first = [
                (tap, (at + start) // self.every)
                for tap in range(self.taps)
                for at in [self.tap_step * tap + self.offset]
                if (at + start) % self.every == 0
            ]
            found.append(Phase(start, self.every, count, self.step, tuple(first)))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Phase:
    """Positions `start` + `every` * i for i below `count`; tap t of `taps`, which are pairs (t,
    shift), meets element `step` * i + shift."""

    start: int
    every: int
    count: int
    step: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """Sizes, and the steps in elements of the left operand, the right one and the result.

    `rows`: the channels that the left operand alone has; `channels`: those of the right one.
    `a`, `b`, `c` have the steps of (image, group, row, channel, first tap or position, last one) in
    left operand, right operand and result, 0 where it lacks the letter. `grain`: lines of the
    result that a tail takes at a time, of which a tile has all or none.
    """

    form: Form
    images: int
    groups: int
    rows: int
    channels: int
    high: Spatial
    wide: Spatial
    a: tuple[int, int, int, int, int, int]
    b: tuple[int, int, int, int, int, int]
    c: tuple[int, int, int, int, int, int]
    grain: int = 1

    @property
    def pixels(self) -> int:
        """Positions of one image."""
        return self.high.positions * self.wide.positions

    def __str__(self) -> str:
        high, wide = self.high, self.wide
        groups = f"{self.groups} groups of " if self.groups > 1 else ""
        return (
            f"{groups}{self.channels} channels, {high.taps} x {wide.taps} taps, {self.rows} rows, "
            f"{self.images} x {high.positions} x {wide.positions} positions"
            + (f" with a tail of {self.grain} lines" if self.grain > 1 else "")
        )


_ONE = Spatial(1, 1, 1, 1, 1, 0, 1)


def convolution_of(
    text: str, left: TensorType, right: TensorType, result: TensorType
) -> Convolution | None:
    """The numbers of a contraction with windows; None where it is of neither form."""
    spec = read_spec(text)
    sizes = {x: n for x, n in letter_sizes(text, left, right).items() if isinstance(n, int)}
    windows = spec.windows
    positions = "".join(w.first for w in windows)
    taps = "".join(w.second for w in windows)
    form = _form(spec, positions, taps)
    if form is None or not 1 <= len(windows) <= 2 or 0 in sizes.values():
        return None
    inner, outer = (taps, positions) if form == "pixels" else (positions, taps)
    if not letters(spec.left).endswith(inner) or not spec.out.endswith(outer):
        return None
    if any(w.every > 1 and (w.step > 1 or form == "taps") for w in windows):
        return None
    roles = _roles(spec, form, positions + taps)
    if roles is None:
        return None
    extents = right.static_shape[right.rank - len(windows) :]
    spatial = [_spatial(w, sizes, n) for w, n in zip(windows, extents, strict=True)]
    high, wide = spatial if len(spatial) == 2 else (_ONE, *spatial)
    named = [roles.get(x, "") for x in ("image", "group", "row", "channel")]
    images, groups, rows, channels = (sizes.get(x, 1) for x in named)
    return Convolution(
        form,
        images,
        groups,
        rows,
        channels,
        high,
        wide,
        _strides(spec.left, left, [*named, *_two(inner)]),
        _strides(spec.right, right, [*named, *_windowed(windows)]),
        _strides(tuple(spec.out), result, [*named, *_two(outer)]),
    )


def _form(spec: Spec, positions: str, taps: str) -> Form | None:
    left, out = set(letters(spec.left)), set(spec.out)
    if set(taps) <= left - out and set(positions) <= out - left:
        return "pixels"
    if set(positions) <= left - out and set(taps) <= out - left:
        return "taps"
    return None


def _roles(spec: Spec, form: Form, spatial: str) -> dict[str, str] | None:
    """The letter of each role but the spatial ones; None where two have one role."""
    left, right, out = set(letters(spec.left)), set(letters(spec.right)), set(spec.out)
    found: dict[str, str] = {}
    for x in (left | right) - set(spatial):
        if x in left and x in right and x in out:
            role = "group"
        elif x in left and x in right:
            role = "channel" if form == "pixels" else "image"
        elif x in left:
            role = "row"
        else:
            role = "image" if form == "pixels" else "channel"
        if role in found:
            return None
        found[role] = x
    ends = spec.right[len(spec.right) - len(spec.windows) :]
    return found if all(isinstance(x, Window) for x in ends) else None


def _spatial(w: Window, sizes: dict[str, int], extent: int) -> Spatial:
    return Spatial(sizes[w.first], sizes[w.second], extent, w.step, w.tap_step, w.offset, w.every)


def _two(names: str) -> list[str]:
    return ["", *names] if len(names) == 1 else [*names]


def _windowed(windows: tuple[Window, ...]) -> list[str | Window]:
    return ["", *windows] if len(windows) == 1 else [*windows]


def _strides(
    term: Term, type: TensorType, wanted: list[str | Window] | list[str]
) -> tuple[int, int, int, int, int, int]:
    steps: dict[str | Window, int] = {}
    step = 1
    for x, size in zip(reversed(term), reversed(type.static_shape), strict=True):
        steps[x] = step
        step *= size
    a, b, c, d, e, f = (steps.get(x, 0) for x in wanted)
    return a, b, c, d, e, f
