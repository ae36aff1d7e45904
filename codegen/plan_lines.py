"""Plans of kernels that work line by line: sorts, running sums, added scatters.

A tile is a range of lines (or of columns, where it is the columns that are independent), so that
each element of the result is made by one thread in one order: the same bits for any number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final, cast

from treadle.codegen.plan_tiles import GRAIN, tiles_for
from treadle.codegen.sort_network import LONGEST, network_lanes
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr
from treadle.ir.types import TensorType

FEW: Final = 24  # elements that are sorted by insertion
_LINE: Final = 64  # bytes of a cache line
_STRIP: Final = 4  # lines of each row that a tile adds to: each tile reads all indices
_ALIGN: Final = 64

# About how many cycles an element takes.
_RADIX_CYCLES: Final = {4: 25, 8: 45}
_NETWORK_CYCLES: Final = {4: 10, 8: 16}
_TOPK_CYCLES: Final = 2
_RUNNING_CYCLES: Final = 4
_ADD_CYCLES: Final = 6


@dataclass(frozen=True, slots=True)
class LinesPlan:
    """`units` lines or columns, `chunk` of them a tile; `by` says what they are. `stored`: which
    results anybody reads. `method` is the algorithm, `own` each thread's scratch in bytes."""

    op: str
    operands: tuple[TensorType, ...]
    method: str
    by: str
    units: int
    chunk: int
    stored: tuple[bool, ...]
    own: int
    work: int

    @property
    def tiles(self) -> int:
        return max(-(-self.units // self.chunk), 1)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.operands))
        tiles = f"tiles {self.tiles} of {self.chunk} {self.by}"
        return f"{self.op} of {listed} by {self.method}, {tiles} (some {self.work} cycles, grain {GRAIN})"  # noqa: E501


def lines_of(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """A shape as (outer, length, inner) around an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


_SORTS: Final = frozenset({"sort", "topk"})
_RUNNING: Final = frozenset({"cumsum", "cumprod", "cummax", "cummin", "linear_scan"})


def blocks_of(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int, int]:
    """A shape as (outer, places, inner) around neighbouring axes."""
    return prod(shape[: axes[0]]), prod(shape[a] for a in axes), prod(shape[axes[-1] + 1 :])


def works_by_lines(instr: Instr) -> bool:
    """Whether the instruction's kernel has a plan of this kind. An added scatter into axes that are
    no neighbours runs in order."""
    name = instr.op.name
    if name == "scatter_add":
        axes = cast(Any, instr.attrs).axes
        return bool(axes == tuple(range(axes[0], axes[0] + len(axes))))
    return name in _SORTS or name in _RUNNING or name == "add_along"


def plan_lines(instr: Instr, target: Target) -> LinesPlan:
    """How a sort, topk, running sum or added scatter runs."""
    name = instr.op.name
    if name == "sort":
        return _plan_sort(instr, target)
    if name == "topk":
        return _plan_topk(instr)
    if name == "scatter_add":
        return _plan_scatter_add(instr)
    if name == "add_along":
        return _plan_add_along(instr)
    return _plan_running(instr, target)


def _plan(
    instr: Instr,
    method: str,
    by: str,
    units: int,
    work: int,
    own: int = 0,
    step: int = 1,
) -> LinesPlan:
    """`step`: a tile holds a multiple of so many units."""
    blocks = -(-units // step)
    chunk = -(-blocks // tiles_for(work)) * step
    operands = tuple(a.type for a in instr.args)
    own = -(-own // _ALIGN) * _ALIGN
    stored = (True,) * len(instr.results)
    chunk = max(chunk, 1)
    return LinesPlan(instr.op.name, operands, method, by, units, chunk, stored, own, work)


# --- sorts -----------------------------------------------------------------------------------


def key_bytes(type: TensorType) -> int:
    """Of the integer that stands for an element: 4, or 8 where an element has that many."""
    return 8 if type.dtype.itemsize == 8 else 4


def digits(type: TensorType) -> int:
    """Bytes of a key that differ between elements."""
    return type.dtype.itemsize


def entry_bytes(type: TensorType) -> int:
    """Of a key with the place of its element."""
    return 2 * key_bytes(type)


def _plan_sort(instr: Instr, target: Target) -> LinesPlan:
    type = instr.args[0].type
    shape = type.static_shape
    rows, size = prod(shape[:-1]), shape[-1]
    lanes = network_lanes(target.vector_bytes)
    if size <= LONGEST and rows >= lanes:
        own = size * entry_bytes(type) * lanes
        cycles = _NETWORK_CYCLES[key_bytes(type)]
        return _plan(instr, "network", "rows", rows, rows * size * cycles, own, lanes)
    if size <= FEW:
        own = size * entry_bytes(type)
        return _plan(instr, "insertion", "rows", rows, rows * size * 8, own)
    own = 2 * size * entry_bytes(type) + digits(type) * 256 * 8
    cycles = _RADIX_CYCLES[key_bytes(type)]
    return _plan(instr, "radix", "rows", rows, rows * size * cycles, own)


def _plan_topk(instr: Instr) -> LinesPlan:
    type = instr.args[0].type
    shape = type.static_shape
    rows, size, k = prod(shape[:-1]), shape[-1], cast(Any, instr.attrs).k
    work = rows * (size * _TOPK_CYCLES + k * k)
    return _plan(instr, "insertion", "rows", rows, work, k * entry_bytes(type))


# --- running sums ----------------------------------------------------------------------------


def _plan_running(instr: Instr, target: Target) -> LinesPlan:
    type = instr.results[0].type
    outer, length, inner = lines_of(type.static_shape, cast(Any, instr.attrs).axis)
    lanes = target.vector_bytes // max(type.dtype.itemsize, 4)
    work = outer * length * inner * _RUNNING_CYCLES
    if inner < lanes:
        return _plan(instr, "lines", "rows", outer, work)
    work //= lanes
    if outer >= tiles_for(work):
        return _plan(instr, "vectors", "rows", outer, work)
    return _plan(instr, "vectors", "columns", inner, work, step=lanes)


# --- added scatters --------------------------------------------------------------------------


def _plan_scatter_add(instr: Instr) -> LinesPlan:
    """Wide blocks at the end are cut by columns, others by what stands in front of the axes: each
    tile adds its own part of all writes, in order."""
    type = instr.result.type
    outer, _, inner = blocks_of(type.static_shape, cast(Any, instr.attrs).axes)
    writes = prod(instr.args[2].type.static_shape)
    line = max(_LINE // type.dtype.itemsize, 1)
    work = writes * (outer * max(inner * _ADD_CYCLES // line, _ADD_CYCLES) + 8)
    if outer > 1 and (inner <= line or outer >= tiles_for(work)):
        return _plan(instr, "writes", "rows", outer, work)
    step = line * max(min(_STRIP, inner // line // 2), 1)
    return _plan(instr, "writes", "columns", inner, work, step=step)


def _plan_add_along(instr: Instr) -> LinesPlan:
    outer, _, inner = lines_of(instr.result.type.static_shape, cast(Any, instr.attrs).axis)
    work = instr.args[1].type.size
    assert isinstance(work, int)
    work *= _ADD_CYCLES
    if outer >= tiles_for(work) or inner == 1:
        return _plan(instr, "writes", "rows", outer, work)
    return _plan(instr, "writes", "columns", inner, work, step=16)
