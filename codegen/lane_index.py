"""Indices along one dimension, as the W lanes of a vector see them.

    index of lane l  =  base + offset + (l + phase) // every * step

`base` is a scalar i64 (an affine index: what it addresses is a run, a strided run, a run whose
elements are for `every` lanes each or, with step 0, one element for all lanes) or a whole vector
(anything else: each lane has its own address).
An affine index that was clamped to an axis stays affine: it has a guard, and a load that follows
the lanes leaves out those outside of the axis.

Bounds and divisibility are kept beside it, so that a division that cannot part the lanes leaves an
affine index affine, a clamp that cannot bite costs nothing, and vectors are 32 bits wide wherever
they can be: neither AVX2 nor SSE2 can divide or multiply 64-bit lanes.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from treadle.codegen.llvm import I32, I64, FunctionWriter, Type, Val, int_const, lane_const
from treadle.ir.dataclass import dataclass

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class LaneIndex:
    """See the module. `low` and `high` are inclusive over all lanes, None where unknown.

    `multiple` divides `base` of an affine index; 0 where there is none. `guard`: the index is to be
    clamped; it is right in lanes where the guard's lies on its axis. `index_settled` clamps it.
    """

    base: Val | None = None
    offset: int = 0
    step: int = 0
    low: int | None = None
    high: int | None = None
    multiple: int = 1
    every: int = 1
    phase: int = 0
    guard: Guard | None = None

    @property
    def divisor(self) -> int:
        """What divides the index of lane 0; 0 where that is known to be 0."""
        return gcd(self.multiple, self.offset)

    @property
    def is_vector(self) -> bool:
        """Each lane has its own, unrelated index."""
        return self.base is not None and self.base.type.lanes > 0

    @property
    def is_uniform(self) -> bool:
        """All lanes have the same index."""
        return self.step == 0 and not self.is_vector

    @property
    def is_constant(self) -> bool:
        """A number known at compile time, the same in all lanes."""
        return self.base is None and self.step == 0

    def within(self, low: int, high: int) -> bool:
        """Known to lie in [low, high)."""
        return (
            self.low is not None
            and self.high is not None
            and (low <= self.low and self.high < high)
        )

    def outside(self, low: int, high: int) -> bool:
        """Known to lie outside [low, high)."""
        return (self.low is not None and self.low >= high) or (
            self.high is not None and self.high < low
        )


@dataclass(frozen=True, slots=True)
class Guard:
    """`index`, affine and not yet clamped to [0, size), of which `scale` times is in a sum."""

    index: LaneIndex
    size: int
    scale: int = 1


class IndexOps:
    """The index half of `ScalarOps`, on `LaneIndex`, for vectors of `lanes` lanes."""

    w: FunctionWriter
    lanes: int

    def index(
        self,
        base: Val | int,
        step: int = 0,
        low: int | None = None,
        high: int | None = None,
        multiple: int = 1,
    ) -> LaneIndex:
        """An affine index for a loop to start from.

        `base` is the index of lane 0. The bounds hold for every lane that is used, `multiple`
        divides the base.
        """
        step = step if self.lanes > 1 else 0
        if isinstance(base, Val):
            return LaneIndex(base, 0, step, low, high, multiple)
        ends = (base, base + step * (self.lanes - 1))
        known = max(ends) if high is None else min(max(ends), high)
        return LaneIndex(None, base, step, min(ends), known, 0)

    def index_const(self, value: int) -> LaneIndex:
        return LaneIndex(None, value, 0, value, value, 0)

    def index_add(self, i: LaneIndex, by: int) -> LaneIndex:
        return replace(
            i,
            offset=i.offset + by,
            low=_plus(i.low, by),
            high=_plus(i.high, by),
        )

    def index_capped(self, i: LaneIndex, high: int | None) -> LaneIndex:
        """`i`, of which every lane that is used is known to be at most `high`."""
        return i if high is None or i.high is None or i.high <= high else replace(i, high=high)

    def index_mul(self, i: LaneIndex, by: int) -> LaneIndex:
        if by == 1:
            return i
        if by == 0:
            return self.index_const(0)
        low, high = _times(i.low, by), _times(i.high, by)
        if by < 0:
            low, high = high, low
        base = i.base
        if base is not None:
            elem = _elem(i.low, i.high, low, high) if i.is_vector else I64
            base = self.w.mul(self._resized(base, elem), by)
        guard = i.guard and replace(i.guard, scale=i.guard.scale * by)
        return replace(
            i,
            base=base,
            offset=i.offset * by,
            step=i.step * by,
            low=low,
            high=high,
            multiple=i.multiple * abs(by),
            guard=guard,
        )

    def index_sum(self, i: LaneIndex, j: LaneIndex) -> LaneIndex:
        if (i.guard and not j.is_uniform) or (j.guard and not i.is_uniform):
            i, j = self.index_settled(i), self.index_settled(j)
        walks = i if i.step != 0 else j
        if i.step != 0 and j.step != 0 and (i.every, i.phase) != (j.every, j.phase):
            j = LaneIndex(self.vector_of(j), 0, 0, j.low, j.high)
        low = None if i.low is None else _plus(j.low, i.low)
        high = None if i.high is None else _plus(j.high, i.high)
        base = i.base if j.base is None else j.base
        if i.base is not None and j.base is not None:
            base = self._base_sum(i, j, low, high)
        multiple = gcd(i.multiple, j.multiple)
        return LaneIndex(
            base,
            i.offset + j.offset,
            i.step + j.step,
            low,
            high,
            multiple,
            walks.every,
            walks.phase,
            i.guard or j.guard,
        )

    def _base_sum(self, i: LaneIndex, j: LaneIndex, low: int | None, high: int | None) -> Val:
        assert i.base is not None and j.base is not None
        if not i.is_vector and not j.is_vector:
            return self.w.add(i.base, j.base)
        elem = _elem(i.low, i.high, j.low, j.high, low, high)
        x, y = (self.w.splat(self._resized(k, elem), self.lanes) for k in (i.base, j.base))
        return self.w.add(x, y)

    def index_divmod(self, i: LaneIndex, by: int) -> tuple[LaneIndex, LaneIndex]:
        if by == 1:
            return i, self.index_const(0)
        if i.within(0, by):
            return self.index_const(0), i
        i = self.index_settled(i)
        q_high = None if i.high is None else i.high // by
        block = gcd(i.divisor, by)
        apart = (self.lanes - 1 + i.phase) // i.every
        if not i.is_vector and 0 <= i.step * apart < block:
            q, r = self._divided(i, by)
            r = replace(r, every=i.every, phase=i.phase)
            whole = i.divisor // by if i.divisor % by == 0 else 1
            return (
                replace(q, high=q_high, multiple=whole),
                replace(r, step=i.step, high=by - 1, multiple=block),
            )
        if not i.is_vector and i.step % by == 0:
            q, r = self._divided(i, by)
            q = replace(q, every=i.every, phase=i.phase)
            return replace(q, step=i.step // by, high=q_high), replace(r, high=by - 1)
        if not i.is_vector and i.step == i.every == 1 and gcd(i.multiple, by) == by <= self.lanes:
            # groups of lanes, the first one begun `phase` lanes before: each has one quotient
            q, _ = self._divided(i, by)
            phase = i.offset % by
            whole = gcd(i.multiple, i.offset - phase) // by
            rests = lane_const([(lane + phase) % by for lane in range(self.lanes)], I32)
            return (
                replace(q, step=1, high=q_high, multiple=whole, every=by, phase=phase),
                LaneIndex(rests, 0, 0, 0, by - 1),
            )
        elem = _elem(i.low, i.high)
        v = self.vector_of(i, elem)
        if by & (by - 1) == 0:
            quotient = self.w.lshr(v, by.bit_length() - 1)
            rest = self.w.and_(v, by - 1)
        else:
            quotient = self.w.udiv(v, by)
            rest = self.w.sub(v, self.w.mul(quotient, by))
        return LaneIndex(quotient, 0, 0, 0, q_high), LaneIndex(rest, 0, 0, 0, by - 1)

    def _divided(self, i: LaneIndex, by: int) -> tuple[LaneIndex, LaneIndex]:
        """Quotient and remainder of lane 0; bounds and step are the caller's to set."""
        if i.base is None:
            q, r = divmod(i.offset, by)
            return LaneIndex(None, q, 0, 0), LaneIndex(None, r, 0, 0)
        whole = self.scalar_of(i)
        narrow = i.within(0, _INT32_MAX)
        dividend = self.w.cast("trunc", whole, I32) if narrow else whole
        quotient = self.w.udiv(dividend, by)
        if narrow:
            quotient = self.w.cast("zext", quotient, I64)
        rest = self.w.sub(whole, self.w.mul(quotient, by))
        return LaneIndex(quotient, 0, 0, 0), LaneIndex(rest, 0, 0, 0)

    def index_clamp(self, i: LaneIndex, size: int) -> LaneIndex:
        if i.within(0, size):
            return i
        if size <= 1:
            return self.index_const(0)
        if i.guard is None and not i.is_vector and i.step in (1, 2):
            return replace(i, low=0, high=size - 1, guard=Guard(i, size))
        return self._clamped(self.index_settled(i), size)

    def index_settled(self, i: LaneIndex) -> LaneIndex:
        """`i` without a guard: all of its lanes are right."""
        if i.guard is None:
            return i
        raw, size, scale = i.guard.index, i.guard.size, i.guard.scale
        ends = (_plus(raw.low, 0), _plus(raw.high, 1 - size))
        low, high = (_times(end, scale) for end in (ends if scale >= 0 else ends[::-1]))
        free = replace(
            i,
            low=None if low is None else _plus(i.low, low),
            high=None if high is None else _plus(i.high, high),
            guard=None,
        )
        moved = self.index_sum(self._clamped(raw, size), self.index_mul(raw, -1))
        found = self.index_sum(free, self.index_mul(moved, scale))
        return replace(found, low=i.low, high=i.high)

    def _clamped(self, i: LaneIndex, size: int) -> LaneIndex:
        if i.is_uniform:
            v = self.scalar_of(i)
        else:
            v = self.vector_of(i, _elem(i.low, i.high, 0, size))
        if i.low is None or i.low < 0:
            v = self.w.binary("llvm.smax", v, 0)
        if i.high is None or i.high >= size:
            v = self.w.binary("llvm.smin", v, size - 1)
        return LaneIndex(v, 0, 0, 0, size - 1)

    # --- what an emitter loads with --------------------------------------------------------------

    def scalar_of(self, i: LaneIndex) -> Val:
        """The index of lane 0 of an affine index, an i64."""
        if i.base is None:
            return int_const(i.offset)
        assert not i.is_vector, "a vector index has no one base"
        return self.w.add(i.base, i.offset) if i.offset else i.base

    def vector_of(self, i: LaneIndex, elem: Type | None = None) -> Val:
        """The index of each lane, as 32 or 64 bit integers (None: as narrow as its bounds)."""
        i = self.index_settled(i)
        elem = elem or _elem(i.low, i.high)
        steps = [(lane + i.phase) // i.every * i.step for lane in range(self.lanes)]
        ramp = lane_const([i.offset + step for step in steps], elem)
        if i.base is None:
            return ramp
        base = self.w.splat(self._resized(i.base, elem), self.lanes)
        if i.offset == 0 and i.step == 0:
            return base
        return self.w.add(base, ramp)

    def _resized(self, x: Val, elem: Type) -> Val:
        if x.type.bits == elem.bits:
            return x
        return self.w.cast("trunc" if x.type.bits > elem.bits else "sext", x, elem)


def _plus(x: int | None, by: int | None) -> int | None:
    return None if x is None or by is None else x + by


def _times(x: int | None, by: int) -> int | None:
    return None if x is None else x * by


def _elem(*bounds: int | None) -> Type:
    """i32 where all of these are known and fit."""
    fits = all(b is not None and -_INT32_MAX <= b <= _INT32_MAX for b in bounds)
    return I32 if fits else I64
