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
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from treadle.codegen.plan_epilogue import joins_freely, plan_epilogue
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.plan_tiles import GRAIN, Tiling, tiles_for, tiling, whole
from treadle.codegen.target import Target
from treadle.ir.graph import Function
from treadle.ir.types import DType, TensorType

ALIGN: Final = 64
_ROWS: Final = 4096  # rows of the left operand that are packed at a time
_SMALL: Final = 8192  # products below which packing costs more than it saves
_L2_PANEL: Final = 192 << 10  # bytes of the packed left block: a part of the L2 cache
_NC: Final = 2048

_TURNING: Final = 0.9  # cycles to pack an element of an operand that is contiguous along k
_PACKING: Final = 0.4  # the same, contiguous along the other letter

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
class Blocks:
    """How a packed product is cut: `rows` x `kc` and `kc` x `nc` are packed at a time, in pieces of
    `bm` rows and `bn` columns; `bm` x `bn` of the result is a tile."""

    rows: int
    nc: int
    kc: int
    bm: int
    bn: int

    def __str__(self) -> str:
        return f"blocks m {self.rows} n {self.nc} k {self.kc}, pieces of {self.bm} x {self.bn}"


@dataclass(frozen=True, slots=True)
class Packing:
    """Where things lie in the memory for packing: bytes of the right block's start and of both
    blocks; elements from one group of left panels to the next."""

    right: int
    total: int
    group: int


@dataclass(frozen=True, slots=True)
class ContractPlan:
    """One contraction.

    `swapped`: the tiled left operand is the instruction's second one. `loops` run around the
    product of m x k and k x n; `sums` are summed letters besides k, whose products are added to
    the result. `kind`: `zero` (an empty sum), `simple` (plain loops, any dtype), `dots` (`mr` x
    `nr` dot products at a time of operands that are contiguous along k), `packed` (register tiles
    of `mr` x `nr`; `direct`: whole panels of the right operand are read where they lie). `lanes`:
    vector width along n. `epilogue`: the loops that finish a piece of the product.

    `tiling` cuts `loops` (and m, but for `packed`) into tiles; or `spread` says that each product
    runs in tiles. `shared`: bytes of packing that all threads share; `own`: bytes that each one
    needs.
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
    direct: bool
    size: int
    tiling: Tiling
    spread: bool
    shared: int
    own: int
    epilogue: FusedPlan | None

    @property
    def rows_last(self) -> bool:
        """Do the result's neighbours lie along m, so that the epilogue's vectors run along it?"""
        return self.m.c == 1 and self.n.c != 1

    @property
    def edge_bytes(self) -> int:
        """Bytes of one tile, for the result's edges."""
        return _up(self.mr * self.nr * self.dtype.itemsize, ALIGN)

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
            how = "read in place" if self.direct else "packed"
            text += (
                f", registers {self.mr} x {self.nr}, {self.blocks}, right operand {how}, "
                f"{self.shared or self.own} bytes of packing"
            )
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
        kc = _even(k.size, width * (256 if dtype.itemsize == 4 else 192)) if kind == "dots" else 0
        return ContractPlan(
            dtype, kind, swapped, loops, sums, m, n, k, lanes, mr, nr, Blocks(0, 0, kc, 0, 0),
            False, size, cut, False, 0, 0, epilogue,
        )  # fmt: skip
    mr, vectors = _tile(m.size, n.size, target, width, used)
    used.add((mr, vectors))
    nr = vectors * width
    direct = n.b == 1 and m.size <= 4 * max(mr, 8)
    each = m.size * n.size * k.size // (2 * width) + m.size * k.size + n.size * k.size
    cut = tiling([x.size for x in loops], [1] * len(loops), around * each)
    spread = cut.count < 4 and tiles_for(each) > 1
    if spread:
        cut = whole([x.size for x in loops], around * each)
    kc = _even(k.size, 320 if dtype.itemsize == 4 else 224)
    blocks = _blocks(m.size, n.size, kc, mr, nr, dtype, tiles_for(each) if spread else 1)
    edge = _up(mr * nr * dtype.itemsize, ALIGN)
    packed = packing(blocks, mr, nr, width, dtype).total
    return ContractPlan(
        dtype, kind, swapped, loops, sums, m, n, k, lanes, mr, nr, blocks, direct, size, cut,
        spread, packed if spread else 0, edge if spread else packed + edge, epilogue,
    )  # fmt: skip


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
    each = [_TURNING if step == 1 else _PACKING for step in (k.a, k.b)]
    return k.size * (m.size * each[0] + n.size * each[1])


def packing(blocks: Blocks, mr: int, nr: int, width: int, dtype: DType) -> Packing:
    """The left block in groups of `bm` rows, whose last store may run over by a vector, then the
    right block."""
    group = blocks.bm * blocks.kc + max(width, ALIGN // dtype.itemsize)
    right = _up(-(-blocks.rows // blocks.bm) * group * dtype.itemsize, ALIGN)
    columns = _up((_up(blocks.nc, nr) * blocks.kc + width) * dtype.itemsize, ALIGN)
    return Packing(right, right + columns, group)


def _blocks(m: int, n: int, kc: int, mr: int, nr: int, dtype: DType, tiles: int) -> Blocks:
    """Blocks, and pieces of them: at least `tiles`, of which 2, 4 or 8 threads get like shares;
    rows of a piece fit the L2 cache. Larger pieces use what they have read more often."""
    rows, nc = min(_up(m, mr), _ROWS // mr * mr), min(_up(n, nr), _NC)
    down, across = -(-min(m, rows) // mr), -(-min(n, nc) // nr)
    most = max(_L2_PANEL // (kc * dtype.itemsize) // mr, 1)
    best: tuple[float, int, int] | None = None
    for count_m in _counts(down):
        bm = -(-down // count_m)
        if bm > most and bm > 1:
            continue
        for count_n in _counts(across):
            bn = -(-across // count_n)
            found = -(-down // bm) * -(-across // bn)
            idle = sum(-(-found // p) * p * bm * bn / (down * across) for p in (1, 2, 4, 8)) / 4
            few = 1.0 if found >= tiles else tiles / found
            cost = idle * (1 + 0.2 / bm + 0.1 / bn) * few
            if best is None or cost < best[0]:
                best = cost, bm, bn
    assert best is not None
    _, bm, bn = best
    return Blocks(rows, nc, kc, bm * mr, bn * nr)


def _counts(units: int) -> list[int]:
    """Numbers of pieces worth trying: small ones, then powers of two and what lies between."""
    tried = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    return [c for c in tried if c <= units]


def _is_small(m: Axis, n: Axis, k: Axis) -> bool:
    work = m.size * n.size * k.size
    return work <= 512 or (work <= _SMALL and n.b == 1 and n.c == 1)


def _tile(m: int, n: int, target: Target, width: int, used: set[Variant]) -> Variant:
    """The register tile that needs the fewest cycles for an m x n result, by a rough count."""
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

    return min(options, key=cycles)


def _even(total: int, limit: int) -> int:
    """The size of equal blocks of at most `limit`."""
    blocks = -(-total // limit)
    return -(-total // blocks)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


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
