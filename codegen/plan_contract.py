"""How a `contract` (an einsum of two contiguous operands) becomes products of matrices.

The letters of the spec fall into four classes: batch (in both operands and the result), M (left
and result), N (right and result), K (both operands, summed). Neighbouring letters of a class that
lie contiguously in every array that has them become one; of each class but batch the largest is
looped over by the register-tiled kernel, the rest are plain loops around it. Left and right are
exchanged where that puts the result's contiguous letter into the vector lanes.

Order of additions: `dots` says its own; else along K in blocks of `kc`; within a block one after
the other into one accumulator per element of the result (fused multiply-adds where the target has
them); the blocks one after the other into the result. It depends on shapes and Target alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Final, Literal

from treadle.codegen.plan_blocks import (
    ALIGN,
    COPYING,
    TURNING,
    Blocks,
    Packing,
    even,
    packing,
    plan_blocks,
    up,
)
from treadle.codegen.plan_epilogue import joins_freely, plan_epilogue
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, tiling, whole
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.types import DType, Shape, TensorType

_SMALL: Final = 8192  # products below which gathering costs more than it saves

Kind = Literal["zero", "simple", "dots", "packed"]
Variant = tuple[int, int]  # rows and vectors of a register tile


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop: its size and the step, in elements, that it takes in left, right and result."""

    size: int
    a: int
    b: int
    c: int

    def __str__(self) -> str:
        return f"{self.size} (steps {self.a}, {self.b}, {self.c})"


@dataclass(frozen=True, slots=True)
class ContractPlan:
    """One contraction.

    `swapped`: the tiled left operand is the instruction's second one. `loops` run around the
    product of m x k and k x n; `sums` are summed letters besides k, whose products are added to
    the result. `kind`: `zero` (an empty sum), `simple` (plain loops, any dtype), `dots` (`mr` x
    `nr` dot products at a time of operands that are contiguous along k), `packed` (register tiles
    of `mr` x `nr` in `blocks`, of panels that lie as in `packing`). `lanes`: vector width along n.
    `epilogue`: the loops that finish a piece of the product.

    `tiling` cuts `loops` (and m, but for `packed`) into tiles; or `spread` says that each product
    runs in tiles. `shared`: bytes of packing that all threads share; `own`: bytes that each one
    needs. `panel`: the right operand lies in panels of so many columns, `[n / panel][k][panel]`,
    and is read there; 0 where it does not.
    """

    dtype: DType
    kind: Kind
    swapped: bool
    loops: tuple[Axis, ...]
    sums: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    lanes: int
    mr: int
    nr: int
    blocks: Blocks
    packing: Packing
    size: int
    tiling: Tiling
    spread: bool
    shared: int
    own: int
    epilogue: FusedPlan | None
    panel: int = 0

    @property
    def rows_last(self) -> bool:
        """Do the result's neighbours lie along m, so that the epilogue's vectors run along it?"""
        return self.m.c == 1 and self.n.c != 1

    def __str__(self) -> str:
        shape = f"{self.m.size} x {self.k.size} by {self.k.size} x {self.n.size}"
        around = prod(x.size for x in (*self.loops, *self.sums))
        text = f"{self.kind}: {around} products of {shape} {self.dtype}"
        if self.swapped:
            text += ", operands exchanged"
        if self.kind == "simple":
            text += f", {self.lanes} lanes"
        if self.kind == "dots":
            text += f", {self.mr} x {self.nr} at a time in blocks of k {self.blocks.kc}"
        if self.kind == "packed":
            text += (
                f", registers {self.mr} x {self.nr}, {self.blocks}, {self.shared} bytes shared, "
                f"{self.own} a thread"
            )
        if self.panel:
            text += f" in panels of {self.panel}"
        if self.epilogue is not None:
            text += f", epilogue in {self.epilogue.lanes} lanes, tail {self.epilogue.tail}"
        if self.spread:
            return f"{text}; each product in tiles (some {self.tiling.work} cycles, grain {GRAIN})"
        return f"{text}; {self.tiling}"


def plan_contract(
    spec: str,
    left: TensorType,
    right: TensorType,
    result: TensorType,
    target: Target,
    used: set[Variant],
    region: Function | None = None,
) -> ContractPlan:
    """Choose loops, tiles and blocks for a product of type `result`, which `region` finishes.

    `used`: register tiles that the module has already, which are taken again unless another is
    clearly faster; the choice is added to it.
    """
    joins = region is None or joins_freely(region)
    loops, sums, m, n, k, swapped = _axes(spec, left, right, result, joins)
    dtype = result.dtype
    panel = 0 if swapped or sums else _panel(loops, m, n, k, region)
    if panel:
        n = Axis(loops[0].size * panel, 0, 1, 1)
        loops = ()
    width = target.lanes(dtype)
    size = prod(result.static_shape)
    kind = _kind(m, n, k, sums, size, dtype, target)
    if kind == "dots" and n.size > m.size:
        m, n, swapped = _exchanged(n), _exchanged(m), not swapped
        loops, sums = tuple(map(_exchanged, loops)), tuple(map(_exchanged, sums))
    epilogue = None
    if region is not None:
        inner = (n, m) if m.c == 1 and n.c != 1 else (m, n)
        epilogue = plan_epilogue(region, [(x.size, x.c) for x in (*loops, *inner)], target)
    lanes = width if dtype.itemsize >= 4 and n.c == 1 and n.b == 1 else 1
    while lanes > 1 and lanes > n.size:
        lanes //= 2
    around = prod(x.size for x in (*loops, *sums))
    if kind != "packed":
        mr, nr = _dots(m.size, n.size, target) if kind == "dots" else (1, width)
        terms = m.size * n.size * k.size
        work = around * (terms // (2 * width) if kind == "dots" else terms // max(lanes, 1))
        sizes = (*(x.size for x in loops), m.size)
        step = max(mr, width) if kind == "dots" else 4
        cut = whole(sizes, 0) if kind == "zero" else tiling(sizes, (*[1] * len(loops), step), work)
        kc = even(k.size, width * (256 if dtype.itemsize == 4 else 192)) if kind == "dots" else 0
        return ContractPlan(
            dtype, kind, swapped, loops, sums, m, n, k, lanes, mr, nr,
            Blocks(0, 0, kc, 0, 0, 0, False, False), Packing(0, 0, 0, 0, 0, 0), size, cut,
            False, 0, 0, epilogue,
        )  # fmt: skip
    mr, vectors = _tile(m.size, n.size, target, width, used, panel)
    used.add((mr, vectors))
    nr = vectors * width
    each = m.size * n.size * k.size // (2 * width) + m.size * k.size + n.size * k.size
    cut = tiling([x.size for x in loops], [1] * len(loops), around * each)
    spread = cut.count < 4 and tiles_for(each) > 1
    if spread:
        cut = whole([x.size for x in loops], around * each)
    blocks = plan_blocks(
        (m.size, n.size, k.size), (mr, nr), width, dtype, tiles_for(each) if spread else 1,
        n.b == 1, k.a == 1, panel > 0,
    )  # fmt: skip
    place = packing(blocks, m.size, n.size, mr, nr, width, dtype)
    own = place.own_bytes + up(mr * nr * dtype.itemsize, ALIGN)
    shared = place.shared_bytes
    return ContractPlan(
        dtype, kind, swapped, loops, sums, m, n, k, lanes, mr, nr, blocks, place, size, cut,
        spread, shared if spread else 0, own if spread else shared + own, epilogue, panel,
    )  # fmt: skip


_PANEL_BYTES: Final = 128  # of one row of a panel


def _panel(loops: Sequence[Axis], m: Axis, n: Axis, k: Axis, region: Function | None) -> int:
    """The columns of a panel, where the right operand is an array of panels that together are the
    columns of one product; else 0. `passes/loop_panels.py` makes such operands."""
    if len(loops) != 1 or m.size == 1 or _is_small(m, n, k):
        return 0
    (j,), width = loops, n.size
    lies = (j.a, j.b, j.c) == (0, k.size * width, width) and (n.b, n.c, k.b) == (1, 1, width)
    if not lies or width & (width - 1) or width * 4 > 2 * _PANEL_BYTES or width < 8:
        return 0
    if region is not None and not all(_runs_on(v.type.shape, width) for v in region.inputs[1:]):
        return 0
    return width


def _runs_on(shape: Shape, width: int) -> bool:
    """May both axes of the columns be run as one through an operand of `shape`?"""
    if len(shape) < 2:
        return all(s == 1 for s in shape)
    return (shape[-1] == 1) == (shape[-2] == 1) and (shape[-1] in (1, width))


def _exchanged(axis: Axis) -> Axis:
    """With left and right exchanged."""
    return Axis(axis.size, axis.b, axis.a, axis.c)


def _kind(
    m: Axis, n: Axis, k: Axis, sums: Sequence[Axis], size: int, dtype: DType, target: Target
) -> Kind:
    """How a product is computed: by the fewest cycles, roughly counted."""
    if size == 0 or k.size == 0 or any(s.size == 0 for s in sums):
        return "zero"
    if not dtype.is_float or _is_small(m, n, k):
        return "simple"
    width = target.lanes(dtype)
    if k.a != 1 or k.b != 1 or k.size < 2 * width:
        return "packed"
    return "dots" if _dots_cycles(m, n, k, width, target) < _packed_cycles(m, n, k) else "packed"


def _dots(m: int, n: int, target: Target) -> tuple[int, int]:
    """How many dot products at a time, n the smaller: rows of either operand."""
    if n == 1:
        return 8, 1
    if n == 2 or target.registers < 32:
        return 4 if target.registers < 32 else 8, 2
    return 4, 4


def _dots_cycles(m: Axis, n: Axis, k: Axis, width: int, target: Target) -> float:
    """Beyond those of the multiplications: adding up lanes, products that are computed in vain."""
    large, small = max(m.size, n.size), min(m.size, n.size)
    mr, nr = _dots(large, small, target)
    tiles = -(-large // mr) * -(-small // nr)
    vain = tiles * mr * nr - large * small
    return tiles * (20 + 5 * mr * nr) + vain * k.size / (2 * width)


def _packed_cycles(m: Axis, n: Axis, k: Axis) -> float:
    """Beyond those of the multiplications: packing both operands."""
    each = [TURNING if step == 1 else COPYING for step in (k.a, k.b)]
    return k.size * (m.size * each[0] + n.size * each[1])


def _is_small(m: Axis, n: Axis, k: Axis) -> bool:
    work = m.size * n.size * k.size
    return work <= 512 or (work <= _SMALL and n.b == 1 and n.c == 1)


def _tile(
    m: int, n: int, target: Target, width: int, used: set[Variant], panel: int = 0
) -> Variant:
    """The register tile that needs the fewest cycles for an m x n result, by a rough count; one
    that divides a panel of the right operand."""
    options: tuple[Variant, ...]
    if target.registers >= 32:
        options = ((14, 2), (8, 3), (8, 2), (8, 1), (4, 4), (1, 8))
    elif target.has_fma:
        options = ((6, 2), (4, 3), (1, 8))
    else:
        options = ((4, 2), (1, 4))

    def cycles(option: Variant) -> float:
        rows, vectors = option
        step = max(rows * vectors / 2, (rows + vectors) / 2, 4.0) + 0.6
        known = 1.0 if option in used or not used else 1.15
        return -(-m // rows) * -(-n // (vectors * width)) * step * known

    fitting = [o for o in options if not panel or panel % (o[1] * width) == 0]
    return min(fitting, key=cycles)


# --- letters ---------------------------------------------------------------------------------


def _axes(
    spec: str, left: TensorType, right: TensorType, result: TensorType, joins: bool
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], Axis, Axis, Axis, bool]:
    """(loops, sums, m, n, k, swapped) of a spec. `joins`: letters of the result may be joined."""
    inputs, out = spec.replace(" ", "").split("->")
    in_a, in_b = inputs.split(",")
    letters: dict[str, Axis] = {}
    steps = [
        _steps(text, type)
        for text, type in zip((in_a, in_b, out), (left, right, result), strict=True)
    ]
    sizes = {x: s for text, type in ((in_a, left), (in_b, right), (out, result))
             for x, s in zip(text, type.static_shape, strict=True)}  # fmt: skip
    for letter in dict.fromkeys(out + in_a + in_b):
        letters[letter] = Axis(sizes[letter], *(s.get(letter, 0) for s in steps))
    batch = _joined((letters[x] for x in out if x in in_a and x in in_b), joins)
    rows = _joined((letters[x] for x in out if x in in_a and x not in in_b), joins)
    cols = _joined((letters[x] for x in out if x in in_b and x not in in_a), joins)
    sums = _joined(letters[x] for x in in_a if x not in out)
    swapped = any(x.c == 1 for x in rows) or (
        not any(x.c == 1 for x in cols) and _size(rows) > 1 and _size(cols) == 1
    )
    if swapped:
        batch, rows, cols, sums = (
            tuple(Axis(x.size, x.b, x.a, x.c) for x in group) for group in (batch, cols, rows, sums)
        )
    m, more_m = _largest(rows)
    n, more_n = _preferred(cols)
    k, more_k = _largest(sums)
    return (*batch, *more_m, *more_n), more_k, m, n, k, swapped


def _steps(letters: str, type: TensorType) -> dict[str, int]:
    steps: dict[str, int] = {}
    step = 1
    for letter, size in zip(reversed(letters), reversed(type.static_shape), strict=True):
        steps[letter] = step
        step *= size
    return steps


def _joined(axes: Iterable[Axis], joins: bool = True) -> tuple[Axis, ...]:
    """Axes of size 1 dropped, neighbours that are contiguous in every array made one."""
    found: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        outer = found[-1] if found else None
        if (
            joins
            and outer is not None
            and all(
                o == i * axis.size
                for o, i in ((outer.a, axis.a), (outer.b, axis.b), (outer.c, axis.c))
            )
        ):
            found[-1] = Axis(outer.size * axis.size, axis.a, axis.b, axis.c)
        else:
            found.append(axis)
    return tuple(found)


def _size(axes: Sequence[Axis]) -> int:
    return prod(x.size for x in axes)


def _largest(axes: Sequence[Axis]) -> tuple[Axis, tuple[Axis, ...]]:
    """The largest axis and the others; an axis of size 1 where there is none."""
    if not axes:
        return Axis(1, 0, 0, 0), ()
    best = max(range(len(axes)), key=lambda i: axes[i].size)
    return axes[best], tuple(x for i, x in enumerate(axes) if i != best)


def _preferred(axes: Sequence[Axis]) -> tuple[Axis, tuple[Axis, ...]]:
    """As `_largest`, but the axis that is contiguous in the result if there is one."""
    for i, axis in enumerate(axes):
        if axis.c == 1:
            return axis, tuple(x for j, x in enumerate(axes) if j != i)
    return _largest(axes)
