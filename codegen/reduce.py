"""Reductions: partial results in registers, their order of combination, runs and the cascade.

A partial result (`State`) is one value in each lane: the accumulator, or for argmax and argmin the
best value and its index. Lanes, accumulators side by side and runs are combined in a fixed order;
where a row is more than one run, run sums are added pairwise like carries of a binary counter:
level i holds the sum of 2**i runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import I64, FunctionWriter, Type, Val, int_const, register_type, vec
from treadle.codegen.plan_fused import rounds
from treadle.codegen.scalar_llvm import Element, LlvmScalarOps
from treadle.ir.graph import Instr
from treadle.ir.scalar import ArgReduce, Reduce
from treadle.ir.types import DType, int64

State = tuple[Val, ...]


class Reduction:
    """How one reduction instruction starts, goes on and is combined."""

    def __init__(self, instr: Instr) -> None:
        self.instr = instr
        self.lower = instr.op.lower
        self.dtype = instr.args[0].type.dtype
        self.rounds = rounds(instr)

    @property
    def is_arg(self) -> bool:
        return isinstance(self.lower, ArgReduce)

    @property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtypes of a State's values."""
        return (self.dtype, int64) if self.is_arg else (self.dtype,)

    def types(self, lanes: int) -> tuple[Type, ...]:
        """The LLVM types of a State."""
        value = vec(register_type(self.dtype), lanes)
        return (value, vec(I64, lanes)) if self.is_arg else (value,)

    def start(self, ops: LlvmScalarOps, first: Element | None) -> State:
        """Before any element; `first` is the row's first one, which argmax and argmin start with
        (its index is 0, and no element beats itself)."""
        if not self.is_arg:
            return (ops.wide(self._identity(ops)),)
        assert first is not None
        return ops.wide(first), int_const(0, vec(I64, ops.lanes))

    def _identity(self, ops: LlvmScalarOps) -> Element:
        assert isinstance(self.lower, Reduce)
        return ops.const(self.lower.identity(self.dtype), self.dtype)

    def step(
        self, ops: LlvmScalarOps, state: State, x: Element, index: LaneIndex, mask: Val | None
    ) -> State:
        """`state` with one more element in each lane that `mask` leaves on."""
        if isinstance(self.lower, Reduce):
            if mask is not None:
                identity = ops.w.splat(self._identity(ops).val, ops.lanes)
                x = ops.element(ops.w.select(mask, ops.wide(x), identity), self.dtype)
            total = self.lower.combine(ops, ops.element(state[0], self.dtype), x)
            return (ops.wide(total),)
        assert isinstance(self.lower, ArgReduce)
        best = ops.element(state[0], self.dtype)
        better = ops.wide(self.lower.better(ops, x, best))
        if mask is not None:
            better = ops.w.and_(better, mask)
        where = ops.wide(ops.from_index(index, int64))
        w = ops.w
        return w.select(better, ops.wide(x), state[0]), w.select(better, where, state[1])

    def merge(self, ops: LlvmScalarOps, left: State, right: State) -> State:
        """Two partial results as one; of equal candidates the one with the lower index."""
        x, y = (ops.element(s[0], self.dtype) for s in (left, right))
        if isinstance(self.lower, Reduce):
            return (self.lower.combine(ops, x, y).val,)
        assert isinstance(self.lower, ArgReduce)
        w = ops.w
        wins: Val = self.lower.better(ops, y, x).val
        loses: Val = self.lower.better(ops, x, y).val
        earlier = w.icmp("slt", right[1], left[1])
        take = w.or_(wins, w.and_(w.not_(loses), earlier))
        return w.select(take, right[0], left[0]), w.select(take, right[1], left[1])

    def joined(self, ops: LlvmScalarOps, states: Sequence[State]) -> State:
        """Accumulators side by side, by halves."""
        found = list(states)
        while len(found) > 1:
            half = len(found) // 2
            found = [self.merge(ops, found[i], found[i + half]) for i in range(half)]
        return found[0]

    def folded(self, ops: LlvmScalarOps, state: State) -> State:
        """All lanes as one, by halves: lane i with lane i + n/2."""
        w = ops.w
        while state[0].type.lanes:
            halves = [w.halves(v) for v in state]
            low, high = tuple(h[0] for h in halves), tuple(h[1] for h in halves)
            state = self.merge(LlvmScalarOps(w, max(low[0].type.lanes, 1)), low, high)
        return state

    def in_lane_0(self, ops: LlvmScalarOps, nothing: State, state: State) -> State:
        """A scalar State in lane 0 of `nothing`, a State of vectors without an element."""
        if ops.lanes == 1:
            return state
        w = ops.w
        return tuple(w.insert(n, s, 0) for n, s in zip(nothing, state, strict=True))

    def result(self, ops: LlvmScalarOps, state: State) -> Element:
        """The reduction's value."""
        return ops.element(state[-1], self.instr.result.type.dtype)


class Runs:
    """The results of runs, in memory on the stack: a cascade for reductions that round, one place
    for the others."""

    def __init__(
        self, w: FunctionWriter, ops: LlvmScalarOps, slots: Sequence[tuple[Reduction, State]],
        levels: int,
    ) -> None:  # fmt: skip
        self.w, self.ops = w, ops
        self.reductions = [r for r, _ in slots]
        self.levels = levels
        self.places: list[tuple[Val, ...]] = []
        for reduction, start in slots:
            count = levels if reduction.rounds else 1
            self.places.append(tuple(w.alloca(v.type, count) for v in start))
        self.starts = [start for _, start in slots]
        self.count = w.alloca(I64)
        w.store(w.int(0), self.count)
        for reduction, start, places in zip(self.reductions, self.starts, self.places, strict=True):
            if not reduction.rounds:
                self._write(places, start)

    def _read(self, types: State, places: Sequence[Val]) -> State:
        return tuple(self.w.load(t.type, p) for t, p in zip(types, places, strict=True))

    def _write(self, places: Sequence[Val], state: State) -> None:
        for place, value in zip(places, state, strict=True):
            self.w.store(value, place)

    def _level(self, slot: int, level: Val) -> Val:
        (place,) = self.places[slot]
        type = self.starts[slot][0].type
        return self.w.gep(place, level, type)

    def push(self, states: Sequence[State]) -> None:
        """One more run."""
        w = self.w
        carried: list[Val] = []
        slots: list[int] = []
        for slot, state in enumerate(states):
            reduction = self.reductions[slot]
            if reduction.rounds:
                slots.append(slot)
                carried += state
                continue
            old = self._read(self.starts[slot], self.places[slot])
            self._write(self.places[slot], reduction.merge(self.ops, old, state))
        if not slots:
            return
        count = w.load(I64, self.count)
        w.store(w.add(count, 1), self.count)

        def is_held(values: Sequence[Val]) -> Val:
            return w.icmp("ne", w.and_(w.lshr(count, values[0]), 1), 0)

        def carry(values: Sequence[Val]) -> Sequence[Val]:
            level, *sums = values
            merged: list[Val] = []
            for slot, total in zip(slots, sums, strict=True):
                held = (w.load(total.type, self._level(slot, level)),)
                merged += self.reductions[slot].merge(self.ops, held, (total,))
            return [w.add(level, 1), *merged]

        level, *sums = w.while_([w.int(0), *carried], is_held, carry, "carry")
        for slot, total in zip(slots, sums, strict=True):
            w.store(total, self._level(slot, level))

    def totals(self) -> list[State]:
        """All runs as one, for each slot: the cascade from its lowest level up."""
        w = self.w
        found = [self._read(s, p) for s, p in zip(self.starts, self.places, strict=True)]
        slots = [n for n, r in enumerate(self.reductions) if r.rounds]
        if not slots:
            return found
        count = w.load(I64, self.count)
        with w.carry(0, self.levels, 1, [self.starts[n][0] for n in slots], "level") as loop:
            is_held = w.icmp("ne", w.and_(w.lshr(count, loop.index), 1), 0)

            def added(level: Val = loop.index, sums: Sequence[Val] = loop.carried) -> list[Val]:
                merged: list[Val] = []
                for slot, total in zip(slots, sums, strict=True):
                    held = (w.load(total.type, self._level(slot, level)),)
                    merged += self.reductions[slot].merge(self.ops, held, (total,))
                return merged

            loop.next = w.branch(is_held, added, lambda: list(loop.carried), "held")
        for slot, total in zip(slots, loop.results, strict=True):
            found[slot] = (total,)
        return found


def flat(states: Sequence[State]) -> list[Val]:
    """All values of some States, as loops carry them."""
    return [v for state in states for v in state]


def unflat(values: Sequence[Val], like: Sequence[State]) -> list[State]:
    """The inverse of `flat`."""
    found: list[State] = []
    at = 0
    for state in like:
        found.append(tuple(values[at : at + len(state)]))
        at += len(state)
    return found
