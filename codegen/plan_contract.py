"""How a `contract` (an einsum of two contiguous operands) becomes products of matrices.

The letters of the spec fall into four classes: batch (in both operands and the result), M (left
and result), N (right and result), K (both operands, summed). Neighbouring letters of a class that
lie contiguously in every array that has them become one; of each class but batch the largest is
looped over by the register-tiled kernel, the rest are plain loops around it. Left and right are
exchanged where that puts the result's contiguous letter into the vector lanes.

Order of additions: along K in blocks of `kc`; within a block one after the other into one
accumulator per element of the result (fused multiply-adds where the target has them); the blocks
one after the other into the result. It depends on shapes and Target alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, Literal

from treadle.codegen.target import Target
from treadle.ir.types import DType, TensorType

ALIGN: Final = 64
_SMALL: Final = 8192  # products below which packing costs more than it saves
_L2_PANEL: Final = 192 << 10  # bytes of the packed left block: a part of the L2 cache
_NC: Final = 2048

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
    the result. `kind`: `zero` (an empty sum), `simple` (plain loops, any dtype), `packed`
    (register tiles of `mr` x `nr`, blocks of `mc` x `kc` and `kc` x `nc` packed into `workspace`
    bytes; `direct`: whole panels of the right operand are read where they lie). `lanes`: vector
    width along n.
    """

    dtype: DType
    kind: Literal["zero", "simple", "packed"]
    swapped: bool
    loops: tuple[Axis, ...]
    sums: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    lanes: int
    mr: int
    nr: int
    mc: int
    nc: int
    kc: int
    direct: bool
    workspace: int
    size: int

    def __str__(self) -> str:
        shape = f"{self.m.size} x {self.k.size} by {self.k.size} x {self.n.size}"
        around = prod(x.size for x in (*self.loops, *self.sums))
        text = f"{self.kind}: {around} products of {shape} {self.dtype}"
        if self.swapped:
            text += ", operands exchanged"
        if self.kind == "simple":
            text += f", {self.lanes} lanes"
        if self.kind == "packed":
            how = "read in place" if self.direct else "packed"
            text += (
                f", tiles {self.mr} x {self.nr}, blocks m {self.mc} n {self.nc} k {self.kc}, "
                f"right operand {how}, {self.workspace} bytes of packing"
            )
        return text


def plan_contract(
    spec: str,
    left: TensorType,
    right: TensorType,
    result: TensorType,
    target: Target,
    used: set[Variant],
) -> ContractPlan:
    """Choose loops, tiles and blocks. `used`: register tiles that the module has already, which
    are taken again unless another is clearly faster; the choice is added to it."""
    loops, sums, m, n, k, swapped = _axes(spec, left, right, result)
    dtype = result.dtype
    size = prod(result.static_shape)
    empty = k.size == 0 or any(s.size == 0 for s in sums)
    kind: Literal["zero", "simple", "packed"] = "packed"
    if empty or size == 0:
        kind = "zero"
    elif not dtype.is_float or _is_small(m, n, k):
        kind = "simple"
    width = target.lanes(dtype)
    lanes = width if dtype.itemsize >= 4 and n.c == 1 and n.b == 1 else 1
    while lanes > 1 and lanes > n.size:
        lanes //= 2
    mr, vectors, mc, nc, kc, direct, workspace = 1, 1, 0, 0, 0, False, 0
    if kind == "packed":
        mr, vectors = _tile(m.size, n.size, target, width, used)
        used.add((mr, vectors))
        nr = vectors * width
        kc = _even(k.size, 320 if dtype.itemsize == 4 else 224)
        mc = min(_up(m.size, mr), max(_L2_PANEL // (kc * dtype.itemsize) // mr, 1) * mr)
        nc = min(_up(n.size, nr), _NC)
        direct = n.b == 1 and m.size <= 4 * max(mr, 8)
        workspace = packing_bytes(mr, nr, mc, nc, kc, width, dtype)
    return ContractPlan(
        dtype, kind, swapped, loops, sums, m, n, k, lanes, mr, vectors * width, mc, nc, kc,
        direct, workspace, size,
    )  # fmt: skip


def packing_bytes(mr: int, nr: int, mc: int, nc: int, kc: int, width: int, dtype: DType) -> int:
    """Bytes of the left block, the right block and one tile; a left panel's last store may run
    over by a vector."""
    *_, tile = packing_offsets(mr, nr, mc, nc, kc, width, dtype)
    return tile + _up(mr * nr * dtype.itemsize, ALIGN)


def packing_offsets(
    mr: int, nr: int, mc: int, nc: int, kc: int, width: int, dtype: DType
) -> tuple[int, int, int]:
    """Where the left block, the right block and the tile for the result's edges begin."""
    left = _up((_up(mc, mr) * kc + width) * dtype.itemsize, ALIGN)
    right = _up((_up(nc, nr) * kc + width) * dtype.itemsize, ALIGN)
    return 0, left, left + right


def _is_small(m: Axis, n: Axis, k: Axis) -> bool:
    work = m.size * n.size * k.size
    return work <= 512 or (work <= _SMALL and n.b == 1 and n.c == 1)


def _tile(m: int, n: int, target: Target, width: int, used: set[Variant]) -> Variant:
    """The register tile that needs the fewest cycles for an m x n result, by a rough count."""
    options: tuple[Variant, ...]
    if target.registers >= 32:
        options = ((14, 2), (8, 3), (8, 2), (14, 1), (4, 4), (1, 8))
    elif target.has_fma:
        options = ((6, 2), (4, 2), (1, 4))
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
    spec: str, left: TensorType, right: TensorType, result: TensorType
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], Axis, Axis, Axis, bool]:
    """(loops, sums, m, n, k, swapped) of a spec."""
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
    batch = _joined(letters[x] for x in out if x in in_a and x in in_b)
    rows = _joined(letters[x] for x in out if x in in_a and x not in in_b)
    cols = _joined(letters[x] for x in out if x in in_b and x not in in_a)
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


def _joined(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """Axes of size 1 dropped, neighbours that are contiguous in every array made one."""
    found: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        outer = found[-1] if found else None
        if outer is not None and all(
            o == i * axis.size for o, i in ((outer.a, axis.a), (outer.b, axis.b), (outer.c, axis.c))
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
