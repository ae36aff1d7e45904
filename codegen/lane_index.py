"""Indices along one dimension, as the W lanes of a vector see them.

    index of lane l  =  base + offset + l // every * step

`base` is a scalar i64 (an affine index: what it addresses is a run, a strided run, a run whose
elements are for `every` lanes each or, with step 0, one element for all lanes) or a whole vector
(anything else: each lane has its own address).
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

    `multiple` divides `base + offset` of an affine index; 0 where that is known to be 0.
    """

    base: Val | None = None
    offset: int = 0
    step: int = 0
    low: int | None = None
    high: int | None = None
    multiple: int = 1
    every: int = 1

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
        return LaneIndex(None, base, step, min(ends), known, abs(base))

    def index_const(self, value: int) -> LaneIndex:
        return LaneIndex(None, value, 0, value, value, abs(value))

    def index_add(self, i: LaneIndex, by: int) -> LaneIndex:
        return replace(
            i,
            offset=i.offset + by,
            low=_plus(i.low, by),
            high=_plus(i.high, by),
            multiple=gcd(i.multiple, by),
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
        multiple = i.multiple * abs(by)
        return LaneIndex(base, i.offset * by, i.step * by, low, high, multiple, i.every)

    def index_sum(self, i: LaneIndex, j: LaneIndex) -> LaneIndex:
        if i.step != 0 and j.step != 0 and i.every != j.every:
            j = LaneIndex(self.vector_of(j), 0, 0, j.low, j.high)
        every = i.every if i.step != 0 else j.every
        low = None if i.low is None else _plus(j.low, i.low)
        high = None if i.high is None else _plus(j.high, i.high)
        base = i.base if j.base is None else j.base
        if i.base is not None and j.base is not None:
            base = self._base_sum(i, j, low, high)
        multiple = gcd(i.multiple, j.multiple)
        return LaneIndex(base, i.offset + j.offset, i.step + j.step, low, high, multiple, every)

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
        q_high = None if i.high is None else i.high // by
        block = gcd(i.multiple, by)
        if not i.is_vector and 0 <= i.step * ((self.lanes - 1) // i.every) < block:
            q, r = self._divided(i, by)
            whole = i.multiple // by if i.multiple % by == 0 else 1
            return (
                replace(q, high=q_high, multiple=whole),
                replace(r, step=i.step, high=by - 1, multiple=block, every=i.every),
            )
        if not i.is_vector and i.step % by == 0:
            q, r = self._divided(i, by)
            step = i.step // by
            return replace(q, step=step, high=q_high, every=i.every), replace(r, high=by - 1)
        if not i.is_vector and i.step == i.every == 1 and block == by and self.lanes % by == 0:
            # whole groups of lanes: each has one quotient and all remainders
            q, _ = self._divided(i, by)
            rests = lane_const([lane % by for lane in range(self.lanes)], I32)
            return (
                replace(q, step=1, high=q_high, multiple=i.multiple // by, every=by),
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
        elem = elem or _elem(i.low, i.high)
        steps = [lane // i.every * i.step for lane in range(self.lanes)]
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
