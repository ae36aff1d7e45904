"""Computing a region's values at a place of its loops.

`RegionCode` is the region of one kernel while it is written: its plan, its buffers. A `Scope` is
one place of its loops: it knows the position along each loop that is open there, and remembers
what has been computed. Inner scopes see what outer ones have; `prepare` computes in an outer scope
what does not vary further in, so that no invariant is left in a loop (LLVM's passes are skipped).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from treadle.codegen import access
from treadle.codegen.emission import Emission
from treadle.codegen.faults import record_fault
from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import I1, I64, FunctionWriter, Type, Val, memory_type
from treadle.codegen.plan_fused import FusedPlan
from treadle.codegen.random import Mates
from treadle.codegen.regions import Region, aligned, row_major
from treadle.codegen.scalar_llvm import Element, LlvmScalarOps
from treadle.codegen.turning import BLOCK
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value
from treadle.ir.op import Trait
from treadle.ir.scalar import Index, Numbered, Scalar
from treadle.ir.types import Shape, Size

Key = Value | int  # a parameter or stored value, or the number of a result


@dataclass(slots=True)
class RegionCode:
    """One region being written. `inputs`, `outputs`: addresses of parameters and results.

    `sizes` has the size of each loop, a value where it is known only at run time; `bounds` where
    a tile begins and ends along the loops that are cut. `ready`: the stored values that an earlier
    pass has put into their scratch buffers. `room`: scratch for partial results.
    `streaming`: the results that the plan wants streamed are known to be aligned. `checks`: an
    instruction checks what it is given.
    """

    state: Emission
    w: FunctionWriter
    region: Region
    plan: FusedPlan
    inputs: dict[Value, Val]
    outputs: tuple[Val, ...]
    fault: Val
    scratch: dict[Value, Val]
    room: Val
    sizes: tuple[int | Val, ...]
    bounds: Mapping[int, tuple[Val, Val]]
    streaming: bool = False
    checks: bool = field(init=False)
    ready: set[Value] = field(default_factory=set)
    _dims: dict[Value, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checks = any(Trait.CAN_FAULT in i.op.traits for i in self.region.fn.instrs)

    @property
    def vector_dim(self) -> int:
        """The loop that is run in vectors; -1 where there is none."""
        return len(self.plan.dims) - 1

    def dims(self, value: Value) -> frozenset[int]:
        """The loops along which a value at the space varies."""
        found = self._dims.get(value)
        if found is None:
            axes = self.region.axes_of[value]
            found = frozenset(
                n for n, d in enumerate(self.plan.dims) if not axes.isdisjoint(d.axes)
            )
            self._dims[value] = found
        return found

    def strides(self, shape: Shape) -> tuple[int, ...]:
        """For each loop, the step in elements through a contiguous array of `shape`."""
        steps = row_major(aligned(shape, len(self.region.space)))
        return tuple(_whole(steps[d.axes[-1]]) for d in self.plan.dims)

    def buffer(self, key: Key) -> tuple[Val, tuple[int, ...], Type]:
        """A buffer that is walked as the loops go: its address, steps and element type."""
        if isinstance(key, int):
            value = self.region.fn.outputs[key]
            return self.outputs[key], self.strides(value.type.shape), memory_type(value.type.dtype)
        if key in self.region.views:
            param, shape = self.region.views[key]
            return self.inputs[param], self.strides(shape), memory_type(param.type.dtype)
        return self.scratch[key], self._scratch_strides(key), memory_type(key.type.dtype)

    def _scratch_strides(self, key: Value) -> tuple[int, ...]:
        """Scratch buffers hold one row, or one tile of columns for each step of the row. A loop
        along which the value does not vary takes no step: it is written outside of that loop."""
        varies = self.dims(key)
        columns = self.plan.scheme == "columns"
        step = self.plan.tile * self.plan.lanes if columns else 1
        steps = [0] * len(self.plan.dims)
        for n in range(len(steps) - 1, -1, -1):
            size = self.sizes[n]
            if self.plan.dims[n].reduced:
                steps[n] = step if n in varies else 0
                assert isinstance(size, int)
                step *= size
        return tuple(steps)


def _whole(step: Size) -> int:
    assert isinstance(step, int), "only a flat array has a symbolic size"
    return step


class Scope:
    """One place in the loops of a region. `parent`: the loop around; `tile`: in a loop over rows of
    a column tile, the scope of the column; `turned`: for operands turned block by block, the row of
    the block that the vectors inside read."""

    def __init__(
        self,
        code: RegionCode,
        lanes: int,
        positions: dict[int, LaneIndex],
        parent: Scope | None = None,
        mask: Val | None = None,
        tile: Scope | None = None,
        local: int = 0,
        mates: Mates | None = None,
    ) -> None:
        self.code, self.lanes, self.mask = code, lanes, mask
        self.parent, self.tile, self.local = parent, tile, local
        self.positions = positions
        self.ops = LlvmScalarOps(
            code.w,
            lanes,
            self._on_fault,
            reassociate=code.state.reassociate,
            contract=code.state.contract,
        )
        self.known: dict[Value, Element] = {}
        self._pulled: dict[tuple[Any, ...], Element] = {}
        self._pointers: dict[Key, Val] = {}
        self._asking: Instr | None = None
        self._mates = mates
        self._shared: dict[Instr, Any] = {}
        self.turned: dict[Value, Val] = {}

    # --- where we are ------------------------------------------------------------------------

    def position(self, dim: int) -> LaneIndex | None:
        """The index along a loop, None where that loop is not open here."""
        if dim in self.positions:
            return self.positions[dim]
        found = self.parent.position(dim) if self.parent else None
        return self.tile.position(dim) if found is None and self.tile else found

    def covers(self, dims: frozenset[int]) -> bool:
        """True where all of these loops are open."""
        return all(self.position(d) is not None for d in dims)

    def pointer(self, key: Key) -> Val:
        """The address in a buffer that the open loops but the vectors' lead to."""
        if key not in self._pointers:
            self._pointers[key] = self._path(key)
        return self._pointers[key]

    def _path(self, key: Key) -> Val:
        """As `pointer`. An outer scope's part is remembered only where that scope asked for it:
        code written here is inside of loops that may not run."""
        if key in self._pointers:
            return self._pointers[key]
        base, strides, elem = self.code.buffer(key)
        found = self.parent._path(key) if self.parent else base
        for dim, at in self.positions.items():
            if strides[dim] and dim != self.code.vector_dim:
                step = self.ops.index_mul(at, strides[dim])
                found = self.code.w.gep(found, self.ops.scalar_of(step), elem)
        return found

    def _lane_offset(self, key: Key) -> LaneIndex:
        """The rest of the way: along the loop that is run in vectors."""
        code, dim = self.code, self.code.vector_dim
        if dim < 0:
            return self.ops.index_const(0)
        columns = code.plan.scheme == "columns"
        if columns and isinstance(key, Value) and key not in code.region.views:
            if dim not in code.dims(key):
                return self.ops.index_const(0)
            return self.ops.index((self.tile or self).local, 1)
        _, strides, _ = code.buffer(key)
        at = self.position(dim)
        if strides[dim] == 0:
            return self.ops.index_const(0)
        assert at is not None, "a value is read outside its loop"
        return self.ops.index_mul(at, strides[dim])

    # --- values at the space -----------------------------------------------------------------

    def lookup(self, value: Value) -> Element | None:
        """What is known here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if value in scope.known:
                return scope.known[value]
            if scope.tile is not None and value in scope.tile.known:
                return scope.tile.known[value]
            scope = scope.parent
        return None

    def at(self, value: Value) -> Element:
        """`value` at this place. Iterative, so that long chains need no deep stack."""
        work = [value]
        while work:
            top = work[-1]
            if self.lookup(top) is not None:
                work.pop()
                continue
            missing = [v for v in self._needs(top) if self.lookup(v) is None]
            if missing:
                work.extend(reversed(missing))
            else:
                self.known[top] = self._compute(top)
                work.pop()
        found = self.lookup(value)
        assert found is not None
        return found

    def _needs(self, value: Value) -> Sequence[Value]:
        return () if value in self.code.ready else self.code.region.operands(value)

    def _compute(self, value: Value) -> Element:
        region = self.code.region
        if value in region.views or value in self.code.ready:
            return self._read(value)
        producer = value.producer
        assert producer is not None
        if value in region.transparent:
            return self.at(producer.args[0])
        lower = producer.op.lower
        if isinstance(lower, Scalar):
            args = [self.at(a) for a in producer.args]
            found: Element = lower.fn(self.ops, producer.attrs, *args)
        elif isinstance(lower, Numbered):
            found = self._numbered_at_space(producer, value)
        else:
            assert isinstance(lower, Index), f"{producer.op.name} is read before its loop has run"
            found = self._index_op(producer, self._own_index(value))
        if value in self.code.scratch:
            self.write(value, found)
        return found

    def _read(self, key: Value) -> Element:
        value = self.code.region.views[key][0] if key in self.code.region.views else key
        if value.type.size == 0:
            return access.nothing(self.ops, value.type.dtype)
        at = self._lane_offset(key)
        return access.load(self.ops, self.pointer(key), at, value.type.dtype, self.mask)

    def write(self, key: Key, x: Element) -> None:
        """Store into a result (its number) or a scratch buffer."""
        streamed = self.code.streaming and key in self.code.plan.streamed
        at = self._lane_offset(key)
        access.store(self.ops, x, self.pointer(key), at, self.mask, streamed)

    def _own_index(self, value: Value) -> tuple[LaneIndex, ...]:
        """The index, in the value's own shape, of the element that belongs to this place."""
        rank = len(self.code.region.space)
        shape = value.type.shape
        found = []
        varies = self.code.region.axes_of[value]
        for k, size in enumerate(shape):
            axis = rank - len(shape) + k
            if size == 1 or axis not in varies:
                found.append(self.ops.index_const(0))
                continue
            (dim,) = (n for n, d in enumerate(self.code.plan.dims) if axis in d.axes)
            at = self.position(dim)
            assert at is not None and self.code.plan.dims[dim].axes == (axis,)
            found.append(at)
        return tuple(found)

    # --- values computed from their number ---------------------------------------------------

    def _numbered_at_space(self, instr: Instr, value: Value) -> Element:
        """By the number, in the value's own shape, of the element that belongs to this place."""
        ops, code = self.ops, self.code
        number = ops.index_const(0)
        for dim, step in enumerate(code.strides(value.type.shape)):
            if step:
                at = self.position(dim)
                assert at is not None, "a value is computed outside its loop"
                number = ops.index_sum(number, ops.index_mul(at, step))
        ops.mates, ops.number = self._mates, self.local // self.lanes
        found = self._numbered(instr, number)
        ops.mates = None
        return found

    def _numbered(self, instr: Instr, number: LaneIndex) -> Element:
        lower = instr.op.lower
        assert isinstance(lower, Numbered)
        found: Element = lower.fn(self.ops, instr.attrs, self._shared_by(instr), number)
        return found

    def _shared_by(self, instr: Instr) -> Any:
        """What all elements of `instr` share, computed here unless it was further out."""
        scope: Scope | None = self
        while scope is not None:
            for known in (scope, scope.tile):
                if known is not None and instr in known._shared:
                    return known._shared[instr]
            scope = scope.parent
        lower = instr.op.lower
        assert isinstance(lower, Numbered)
        ops = LlvmScalarOps(self.code.w, 1)
        found = lower.setup(ops, instr.attrs, lambda k: self.pull(instr.args[k], ()))
        self._shared[instr] = found
        return found

    def prepare(self, roots: Iterable[Value]) -> None:
        """Compute here what `roots` need that does not vary along loops not open yet, what all
        elements share, and the addresses from which the rest will be read."""
        seen: set[Value] = set()
        work = list(roots)
        while work:
            value = work.pop()
            if value in seen or self.lookup(value) is not None:
                continue
            seen.add(value)
            if self.code.region.is_reduction(value):
                continue
            pulling = self.code.region.pulls(value)
            if pulling is not None and isinstance(pulling.op.lower, Numbered):
                self._shared_by(pulling)
            if self.covers(self.code.dims(value)) and self._is_had(value):
                self.at(value)
                continue
            if value in self.code.region.views or value in self.code.scratch:
                self.pointer(value)
            work.extend(self._needs(value))

    def _is_had(self, value: Value) -> bool:
        """True where no reduction below `value` is still to come."""
        below = self.code.region.at_space((value,), frozenset(self.code.ready))
        return all(self.lookup(v) is not None for v in below if self.code.region.is_reduction(v))

    # --- pulled values -----------------------------------------------------------------------

    def pull(self, value: Value, index: Sequence[LaneIndex]) -> Element:
        """The element of `value` at any index of its own shape."""
        key = (value, *index)
        if key not in self._pulled:
            self._pulled[key] = self._pull(value, tuple(index))
        return self._pulled[key]

    def _pull(self, value: Value, index: tuple[LaneIndex, ...]) -> Element:
        if value in self.code.region.views:
            return self._read_at(value, index)
        producer = value.producer
        assert producer is not None
        lower = producer.op.lower
        if isinstance(lower, Index):
            return self._index_op(producer, index)
        assert isinstance(lower, Scalar), f"{producer.op.name} is pulled by an index"
        args = []
        for arg in producer.args:
            shape = arg.type.shape
            own = index[len(index) - len(shape) :]
            zipped = zip(own, shape, strict=True)
            at = [self.ops.index_const(0) if size == 1 else i for i, size in zipped]
            args.append(self.pull(arg, at))
        found: Element = lower.fn(self.ops, producer.attrs, *args)
        return found

    def _index_op(self, instr: Instr, index: tuple[LaneIndex, ...]) -> Element:
        lower = instr.op.lower
        assert isinstance(lower, Index)
        if isinstance(lower, Numbered):
            number = self.ops.index_const(0)
            for i, step in zip(index, row_major(instr.result.type.shape), strict=True):
                number = self.ops.index_sum(number, self.ops.index_mul(i, _whole(step)))
            return self._numbered(instr, number)
        types = tuple(a.type for a in instr.args)

        def load(k: int, at: Sequence[LaneIndex]) -> Element:
            found = self.pull(instr.args[k], at)
            self._asking = instr
            return found

        self._asking = instr
        found: Element = lower.fn(self.ops, instr.attrs, types, index, load)
        return found

    def _read_at(self, value: Value, index: tuple[LaneIndex, ...]) -> Element:
        param, shape = self.code.region.views[value]
        if value.type.size == 0:
            return access.nothing(self.ops, value.type.dtype)
        turned = self._turned_row(param)
        if turned is not None:
            whole = self.ops.index(0, 1)
            return access.load(self.ops, turned, whole, param.type.dtype)
        flat = self.ops.index_const(0)
        for i, step in zip(index, row_major(shape), strict=True):
            if step != 0:
                flat = self.ops.index_sum(flat, self.ops.index_mul(i, _whole(step)))
        if self.code.checks:  # unused lanes too: they must read what is there
            flat = self.ops.index_settled(flat)
        dtype = param.type.dtype
        return access.load(self.ops, self.code.inputs[param], flat, dtype, self.mask)

    def _turned_row(self, param: Value) -> Val | None:
        """The row of a turned block that holds the lanes' elements."""
        if self.lanes == 1 or self.parent is None:
            return None
        row = self.parent.turned.get(param)
        if row is None:
            return None
        elem = memory_type(param.type.dtype)
        return self.code.w.gep(row, self.local * BLOCK, elem)

    def _on_fault(self, text: str, bad: Val, value: Val) -> None:
        """Record the first lane whose index is out of range."""
        w = self.code.w
        loc = self._asking.loc if self._asking else None
        site = self.code.state.fault_site(text, loc)
        if not bad.type.lanes:
            record_fault(w, self.code.fault, site, bad, value)
            return
        if self.mask is not None:
            bad = w.and_(bad, self.mask)
        bits = w.bitcast(bad, Type(f"i{self.lanes}", "i64", 0, f"i{self.lanes}"))
        with w.if_(w.any(bad), "out_of_range", unlikely=True):
            lane = w.intrinsic("llvm.cttz", bits.type, (bits, Val("false", I1)))
            wide = lane if self.lanes == 64 else w.inst(I64, f"zext {lane} to i64")
            first = w.extract(value, wide)
            record_fault(w, self.code.fault, site, Val("true", I1), first)
