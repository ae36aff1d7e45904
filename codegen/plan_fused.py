"""How a `fused` region is looped over: decided here once, as frozen data; emitters only obey.

Four schemes, chosen by which axes are reduced:

    map      nothing is reduced: kept loops, the last one in vectors
    rows     the last axis is reduced: a row at a time, one loop over it for each pass
    columns  the last axis is kept: tiles of vectors along it, the reduced loops inside a tile
    sweeps   the same where the operand is large: rows outside, partial results in scratch

Sums are added in one order that depends on shapes and Target alone: within a run, lane by lane
and accumulator by accumulator, at most `RUN` additions in sequence; the runs of a row pairwise,
in a binary counter; last the accumulators and the lanes, halving. So the error is no larger than
that of pairwise summation with blocks of `RUN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final, Literal

from treadle.codegen.plan_sweep import SMALL, Sweep, plan_sweep
from treadle.codegen.plan_tiles import Tiling, tiling, whole
from treadle.codegen.regions import Region, aligned, is_expensive
from treadle.codegen.target import Target
from treadle.codegen.turning import BLOCK, VECTORS, Turned, turned_operands
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value
from treadle.ir.scalar import ArgReduce, Index, Numbered, Reduce
from treadle.ir.types import Size, size_product

RUN: Final = 32
_SYMBOLIC_LEVELS: Final = 48
_SCRATCH_LIMIT: Final = 2 << 20

Scheme = Literal["map", "rows", "columns", "sweeps"]
Tail = Literal["none", "mask", "mask_all", "peel"]


@dataclass(frozen=True, slots=True)
class LoopDim:
    """One loop: `size` steps over `axes` of the space, adjacent ones that are run as one."""

    size: Size
    axes: tuple[int, ...]
    reduced: bool

    def __str__(self) -> str:
        axes = "*".join(map(str, self.axes))
        return f"{'reduce' if self.reduced else 'for'} axis {axes}: {self.size}"


@dataclass(frozen=True, slots=True)
class PassPlan:
    """One pass over the reduced axes. `reductions` are positions in the region's instructions;
    `unroll` counts vectors a step, each with an accumulator of its own."""

    reductions: tuple[int, ...]
    unroll: int


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """The loops of one region.

    `dims`: all loops, outermost first; the last one is run in vectors of `lanes` where that is
    more than 1. `tile`: vectors side by side in one column tile. `tail`: what happens to the last
    elements that fill no vector: `mask` (masked loads and stores), `mask_all` (every step masked:
    half the code), `peel` (one by one). `passes`: the reductions; `unroll`: vectors a step of the
    loop that stores full results. `levels`: length of the pairwise cascade, 0 where a row is one
    run. `stored`: positions, among the region's values, of those kept in a scratch buffer of
    `stored_bytes` between passes. `turned`: operands of a map that are read block by block.
    `sweep`: the shape of the scheme of that name.
    `streamed`: numbers of results that are stored past the caches.
    `tiling`: how the kept loops are cut into tiles, one number for each of `dims`.
    """

    scheme: Scheme
    dims: tuple[LoopDim, ...]
    lanes: int
    unroll: int
    tile: int
    tail: Tail
    passes: tuple[PassPlan, ...]
    levels: int
    stored: tuple[int, ...]
    stored_bytes: tuple[int, ...]
    turned: tuple[Turned, ...]
    sweep: Sweep | None
    tiling: Tiling
    streamed: tuple[int, ...] = ()

    @property
    def scratch(self) -> int:
        """Bytes of all scratch buffers."""
        return sum(self.stored_bytes) + (self.sweep.nbytes if self.sweep else 0)

    @property
    def kept(self) -> tuple[LoopDim, ...]:
        return tuple(d for d in self.dims if not d.reduced)

    @property
    def over(self) -> tuple[LoopDim, ...]:
        """The loops over reduced axes."""
        return tuple(d for d in self.dims if d.reduced)

    def __str__(self) -> str:
        lines = [f"{self.scheme}, {self.lanes} lanes, tail {self.tail}"]
        lines += [f"  {d}" for d in self.dims]
        if self.scheme == "columns":
            lines.append(f"  tile of {self.tile} vectors")
        for n, p in enumerate(self.passes, 1):
            lines.append(
                f"  pass {n}: {len(p.reductions)} reductions, {p.unroll} accumulators each"
            )
        if self.levels:
            lines.append(f"  runs of {RUN} additions, cascade of {self.levels} levels")
        if self.stored:
            lines.append(f"  {len(self.stored)} values kept in {self.scratch} bytes of scratch")
        for t in self.turned:
            lines.append(f"  operand {t.param} turned in blocks of {BLOCK} along loop {t.across}")
        if self.sweep:
            lines.append(f"  {self.sweep}")
        lines.append(f"  stores: {self.unroll} vectors a step")
        if self.streamed:
            lines.append(f"  streaming stores: results {', '.join(map(str, self.streamed))}")
        lines.append(f"  {self.tiling}")
        return "\n".join(lines)


def plan_fused(region: Region, target: Target, apart: frozenset[int] = frozenset()) -> FusedPlan:
    """Choose the loops for `region` on `target`; axes of `apart` are joined with no other."""
    dims = loop_dims(region, apart)
    lanes, tail = _vectors(region, dims, target)
    scheme = _scheme(region, dims, lanes)
    in_columns = scheme in ("columns", "sweeps")
    stored = () if scheme in ("map", "sweeps") else stored_values(region)
    tile = _tile(region, dims, lanes) if scheme == "columns" else 1
    steps = _steps(dims, lanes)
    if tail == "mask" and not in_columns and steps <= 4 and _dearest(region) > 24:
        tail = "mask_all"  # code counts for more than the masks of a few steps
    passes = tuple(
        _pass_plan(region, reductions, 1 if in_columns else steps, stored)
        for reductions in region.passes()
    )
    full = tuple(region.fn.outputs[n] for n in region.full_results())
    unroll = 1 if in_columns else _map_unroll(_cost(region, full, stored), steps)
    unroll = 1 if in_columns else _in_pairs(region, full, stored, unroll, steps)
    if tail == "mask_all":
        unroll, passes = 1, tuple(PassPlan(p.reductions, 1) for p in passes)
    values = [r for i in region.fn.instrs for r in i.results]
    stored = tuple(v for v in values if v in stored)
    turned: tuple[Turned, ...] = ()
    if scheme == "map" and lanes > 1 and all(len(d.axes) == 1 for d in dims):
        turned = turned_operands(region, [d.axes[0] for d in dims])
    if turned:
        unroll = _dividing(VECTORS, steps)
    levels = _levels(region, dims, scheme, lanes, passes)
    sweep = _sweep(region, dims, lanes, levels) if scheme == "sweeps" else None
    unit = sweep.unit if sweep else lanes * (tile if scheme == "columns" else unroll)
    return FusedPlan(
        scheme=scheme,
        dims=dims,
        lanes=lanes,
        unroll=unroll,
        tile=tile,
        tail=tail,
        passes=passes,
        levels=levels,
        stored=tuple(values.index(v) for v in stored),
        stored_bytes=tuple(_scratch_bytes(region, v, lanes * tile, scheme) for v in stored),
        turned=turned,
        sweep=sweep,
        tiling=_tiling(region, dims, lanes, stored, _cuts(dims, unit, turned)),
    )


# --- loops -----------------------------------------------------------------------------------


def loop_dims(region: Region, apart: frozenset[int] = frozenset()) -> tuple[LoopDim, ...]:
    """The space's axes as loops: kept ones first where the last is reduced, axes of size 1 left
    out, neighbours joined where every access allows. In columns the vector axis comes last."""
    groups: list[list[int]] = []
    apart |= _unjoinable(region)
    for axis, size in enumerate(region.space):
        if size == 1:
            continue
        if groups and _joins(region, groups[-1][-1], axis, apart):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    dims = [
        LoopDim(size_product(region.space[a] for a in g), tuple(g), g[0] in region.reduced)
        for g in groups
    ]
    if not dims or dims[-1].reduced:
        return (*(d for d in dims if not d.reduced), *(d for d in dims if d.reduced))
    last = dims.pop()
    return (*(d for d in dims if not d.reduced), *(d for d in dims if d.reduced), last)


def _roots(region: Region) -> tuple[Value, ...]:
    """All that is computed at the space from the bottom up: results, operands of reductions."""
    return (*region.fn.outputs, *(a for r in region.reductions for a in r.args))


def _unjoinable(region: Region) -> frozenset[int]:
    """Axes along which something is pulled by its own index, and not by its number."""
    found: set[int] = set()
    for value in region.at_space(_roots(region), frozenset()):
        pulling = region.pulls(value)
        if pulling is not None and not isinstance(pulling.op.lower, Numbered):
            found |= region.axes_of[value]
    return frozenset(found)


def _joins(region: Region, left: int, right: int, apart: frozenset[int]) -> bool:
    """Can the axes `left` and `right`, neighbours but for axes of size 1, be run as one?"""
    if left in apart or right in apart:
        return False
    if (left in region.reduced) != (right in region.reduced):
        return False
    for value in region.at_space(_roots(region), frozenset()):
        is_numbered = region.pulls(value) is not None
        if value not in region.views and not is_numbered:
            continue
        shape = value.type.shape if is_numbered else region.views[value][1]
        full = aligned(shape, len(region.space))
        if (full[left] == 1) != (full[right] == 1):
            return False
    return True


def _scheme(region: Region, dims: tuple[LoopDim, ...], lanes: int) -> Scheme:
    if not region.reduced:
        return "map"
    if dims and dims[-1].reduced:
        return "rows"
    sizes = [d.size for d in dims if d.reduced] + [d.size for d in dims[-1:]]
    if len(sizes) < 2 or not all(isinstance(s, int) for s in sizes) or stored_values(region):
        return "columns"
    is_wide = _steps(dims, lanes) > 2 * _tile(region, dims, lanes)
    nbytes = 4 * prod(s for s in sizes if isinstance(s, int))
    return "sweeps" if is_wide and nbytes > SMALL else "columns"


def _sweep(region: Region, dims: tuple[LoopDim, ...], lanes: int, levels: int) -> Sweep:
    """The shape of sweeps, by the dearest pass."""
    rows, columns = dims[-2].size, dims[-1].size
    assert isinstance(rows, int) and isinstance(columns, int)
    partial = 0
    for r in region.reductions:
        size = r.args[0].type.dtype.itemsize
        partial += size * (1 + levels) if rounds(r) else size
        partial += 8 if isinstance(r.op.lower, ArgReduce) else 0
    return plan_sweep(rows, columns, lanes, _dearest(region), partial)


def _vectors(region: Region, dims: tuple[LoopDim, ...], target: Target) -> tuple[int, Tail]:
    """Lanes of the vector axis, and what becomes of its last elements."""
    if not dims:
        return 1, "none"
    size = dims[-1].size
    wide = [v for v in _values(region) if v.type.dtype.kind != "b"]
    whole = all(v.type.dtype.itemsize == 8 for v in wide) and bool(wide)
    lanes = target.vector_bytes // (8 if whole else 4)
    if not isinstance(size, int):
        return lanes, "mask" if target.masked_memory else "peel"
    masked = target.masked_memory
    while lanes > 1 and (lanes // 2 >= size if masked else lanes > size):
        lanes //= 2
    if size % lanes == 0:
        return lanes, "none"
    return lanes, "mask" if masked else "peel"


def _values(region: Region) -> list[Value]:
    return [*region.fn.inputs, *(r for i in region.fn.instrs for r in i.results)]


def _steps(dims: tuple[LoopDim, ...], lanes: int) -> int:
    """Whole vectors along the last loop; a great many where its size is symbolic."""
    if not dims:
        return 1
    size = dims[-1].size
    return size // lanes if isinstance(size, int) else 1 << 20


def _tile(region: Region, dims: tuple[LoopDim, ...], lanes: int) -> int:
    """Vectors side by side: enough independent sums to hide the latency of an addition, and a
    line of the cache or more from each row."""
    steps = _steps(dims, lanes)
    sums = max((len(p) for p in region.passes()), default=1)
    limit = 8 if sums == 1 else 4 if sums <= 3 else 2
    if _dearest(region) > 24:
        limit = 2
    while limit > 1 and limit > steps:
        limit //= 2
    return limit


# --- costs -----------------------------------------------------------------------------------


def _cost(region: Region, roots: tuple[Value, ...], stored: tuple[Value, ...]) -> int:
    """About how many vector instructions one step costs; what is the same for a whole row is
    computed outside."""
    total = 0
    for value in region.at_space(roots, frozenset(stored)):
        producer = value.producer
        if producer is None or value in region.views or value in region.transparent:
            continue
        if region.reduced and not region.varies_along_reduced(value):
            continue
        if is_expensive(region, value):
            total += 20
        else:
            total += 4 if isinstance(producer.op.lower, Index) else 1
    return total


def _dearest(region: Region) -> int:
    """The cost of the dearest loop body."""
    bodies = [tuple(a for r in p for a in r.args) for p in region.passes()]
    bodies.append(region.fn.outputs)
    return max(_cost(region, b, ()) for b in bodies)


def _map_unroll(cost: int, steps: int) -> int:
    return _dividing(4 if cost <= 4 else 2 if cost <= 16 else 1, steps)


def _in_pairs(
    region: Region, roots: tuple[Value, ...], stored: tuple[Value, ...], unroll: int, steps: int
) -> int:
    """`unroll`, and at least 2 where random numbers are drawn: two vectors cost half as much
    together (see `treadle.codegen.random`)."""
    for value in region.at_space(roots, frozenset(stored)) if unroll == 1 else ():
        pulling = region.pulls(value)
        if pulling is not None and isinstance(pulling.op.lower, Numbered):
            return _dividing(2, steps)
    return unroll


def _dividing(unroll: int, steps: int) -> int:
    """`unroll`, or less where it would leave a rest that matters."""
    while unroll > 1 and steps % unroll and steps < 8 * unroll:
        unroll //= 2
    return max(unroll, 1)


def _pass_plan(
    region: Region, reductions: tuple[Instr, ...], steps: int, stored: tuple[Value, ...]
) -> PassPlan:
    operands = tuple(a for r in reductions for a in r.args)
    cost = _cost(region, operands, stored)
    unroll = 4 if cost <= 8 else 2 if cost <= 24 else 1
    unroll = _in_pairs(region, operands, stored, unroll, steps)
    while unroll > 1 and unroll * len(reductions) > 8:
        unroll //= 2
    position = {i: n for n, i in enumerate(region.fn.instrs)}
    return PassPlan(tuple(position[r] for r in reductions), _dividing(unroll, steps))


def rounds(reduction: Instr) -> bool:
    """True for a reduction whose steps round, so that their order is felt."""
    is_float = reduction.result.type.dtype.is_float
    return (
        isinstance(reduction.op.lower, Reduce)
        and is_float
        and reduction.op.name
        not in (
            "max",
            "min",
        )
    )


def _levels(
    region: Region,
    dims: tuple[LoopDim, ...],
    scheme: Scheme,
    lanes: int,
    passes: tuple[PassPlan, ...],
) -> int:
    if not any(rounds(r) for r in region.reductions):
        return 0
    over = [d.size for d in dims if d.reduced]
    if not all(isinstance(s, int) for s in over):
        return _SYMBOLIC_LEVELS
    sizes = [s for s in over if isinstance(s, int)]
    if not sizes:
        return 0
    most = 0
    for p in passes:
        steps, rest = divmod(sizes[-1], p.unroll * lanes if scheme == "rows" else 1)
        # what is left over of the last step is a run of its own
        runs = -(-steps // RUN) + (rest > 0)
        most = max(most, prod(sizes[:-1]) * runs)
    return most.bit_length() if most > 1 else 0


# --- tiles -----------------------------------------------------------------------------------


def _cuts(dims: tuple[LoopDim, ...], unit: int, turned: tuple[Turned, ...]) -> list[int]:
    """For each loop the steps that a tile's bounds must be multiples of; 0: it is not cut."""
    cuts = [0 if d.reduced or not isinstance(d.size, int) else 1 for d in dims]
    if dims and cuts[-1]:
        cuts[-1] = unit
    if turned:
        size = dims[turned[0].across].size
        assert isinstance(size, int)
        cuts[turned[0].across] = BLOCK * max(min(size // (4 * BLOCK), 16), 1)
    return cuts


def _tiling(
    region: Region,
    dims: tuple[LoopDim, ...],
    lanes: int,
    stored: tuple[Value, ...],
    cuts: Sequence[int],
) -> Tiling:
    sizes = tuple(d.size for d in dims if isinstance(d.size, int))
    if len(sizes) < len(dims):
        return whole((1,) * len(dims), 0)
    return tiling(sizes, cuts, step_work(region, lanes, stored) * prod(sizes) // lanes)


def step_work(region: Region, lanes: int, stored: tuple[Value, ...]) -> int:
    """About how many cycles one vector takes in all passes over it."""
    bodies = [tuple(a for r in p for a in r.args) for p in region.passes()]
    full = tuple(region.fn.outputs[n] for n in region.full_results())
    cycles = 2 * len(full)
    for roots in (*bodies, full):
        cycles += (_cost(region, roots, stored) + 1) // 2
        for value in region.at_space(roots, frozenset(stored)):
            if value in region.views and region.axes_of[value]:
                cycles += 2
            elif region.pulls(value) is not None:
                cycles += lanes
    return cycles


# --- scratch ---------------------------------------------------------------------------------


def stored_values(region: Region) -> tuple[Value, ...]:
    """The values that are kept between passes: the topmost ones that two passes need and that
    have something expensive below them."""
    bodies = [tuple(a for r in p for a in r.args) for p in region.passes()]
    bodies.append(tuple(region.fn.outputs[n] for n in region.full_results()))
    computed: set[Value] = set()
    stored: list[Value] = []
    for roots in bodies:
        here: set[Value] = set()
        work = list(roots)
        while work:
            value = work.pop()
            if value in here or value in stored or region.is_reduction(value):
                continue
            if value in computed and _worth_keeping(region, value):
                stored.append(value)
                continue
            here.add(value)
            work.extend(region.operands(value))
        computed |= here
    total = sum(_scratch_bytes(region, v, 1, "rows") for v in stored)
    return tuple(stored) if total <= _SCRATCH_LIMIT else ()


def _worth_keeping(region: Region, value: Value) -> bool:
    if value in region.views or not region.varies_along_reduced(value):
        return False
    below = region.at_space((value,), frozenset())
    return any(is_expensive(region, v) and region.varies_along_reduced(v) for v in below)


def _scratch_bytes(region: Region, value: Value, width: int, scheme: Scheme) -> int:
    row = region.row_size()
    if not isinstance(row, int):
        return _SCRATCH_LIMIT + 1
    count = row * (width if scheme == "columns" else 1)
    return -(-count * value.type.dtype.itemsize // 64) * 64
