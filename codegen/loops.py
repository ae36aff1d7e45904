"""Loops over one axis in vectors: the whole steps, single vectors, and the elements left over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from treadle.codegen.llvm import FunctionWriter, Val, int_const
from treadle.codegen.plan_fused import Tail
from treadle.codegen.plan_tiles import Tiling
from treadle.ir.dataclass import dataclass

Number = int | Val
Body = Callable[[Number, "Val | None", Sequence[Val]], Sequence[Val]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps of `vectors` vectors of `lanes` from `start` to before `stop`; `masked`: the mask of
    each step leaves out what lies beyond `size`."""

    start: Number
    stop: Number
    lanes: int
    vectors: int
    masked: bool
    size: Number

    @property
    def step(self) -> int:
        return self.lanes * self.vectors

    @property
    def is_empty(self) -> bool:
        """Known to have no step."""
        return (
            isinstance(self.start, int) and isinstance(self.stop, int) and (self.start >= self.stop)
        )

    @property
    def is_single(self) -> bool:
        """Known to have exactly one step."""
        return (
            isinstance(self.start, int)
            and isinstance(self.stop, int)
            and (0 < self.stop - self.start <= self.step)
        )


def clipped(w: FunctionWriter, piece: Piece, start: Number, stop: Number) -> Piece:
    """The part of a piece that lies between bounds, of which `start` is a multiple of its step or
    beyond its end."""
    first = piece.start if piece.start != 0 else start
    if piece.start != 0:
        first = w.binary("llvm.smax", _val(piece.start), start)
    last = w.binary("llvm.smin", _val(piece.stop), stop)
    return replace(piece, start=first, stop=last)


def tile_bounds(
    w: FunctionWriter, tiling: Tiling, sizes: Sequence[int], tile: Val
) -> dict[int, tuple[Val, Val]]:
    """Where a tile begins and ends along the loops that are cut."""
    found: dict[int, tuple[Val, Val]] = {}
    for dim in reversed(range(len(tiling.counts))):
        count, block = tiling.counts[dim], tiling.blocks[dim]
        if count == 1:
            continue
        first = w.mul(w.urem(tile, count), block)
        found[dim] = first, w.binary("llvm.smin", w.add(first, block), sizes[dim])
        tile = w.udiv(tile, count)
    return found


def _val(x: Number) -> Val:
    return x if isinstance(x, Val) else int_const(x)


def pieces(
    w: FunctionWriter, size: Number, lanes: int, unroll: int, tail: Tail
) -> tuple[Piece, ...]:
    """How an axis of `size` is walked: whole steps, single vectors, then the tail."""
    if lanes == 1:
        whole = _floor(w, size, unroll)
        found = [
            Piece(0, whole, 1, unroll, False, size), Piece(whole, size, 1, 1, False, size),
        ]  # fmt: skip
    elif tail == "mask_all":
        found = [Piece(0, size, lanes, 1, True, size)]
    else:
        main = _floor(w, size, lanes * unroll)
        whole = _floor(w, size, lanes) if unroll > 1 else main
        last = Piece(whole, size, lanes, 1, True, size)
        if tail == "peel" or _is_one(whole, size):
            last = Piece(whole, size, 1, 1, False, size)
        found = [
            Piece(0, main, lanes, unroll, False, size),
            Piece(main, whole, lanes, 1, False, size), last,
        ]  # fmt: skip
    return tuple(p for p in found if not p.is_empty and p.start is not p.stop)


def _is_one(start: Number, stop: Number) -> bool:
    """A single element is cheaper as a scalar; besides, LLVM 22 writes two bytes for a masked store
    of u8 whose mask is a constant with one lane on (x86: `vpextrw` to memory)."""
    return isinstance(start, int) and isinstance(stop, int) and stop - start == 1


def _floor(w: FunctionWriter, size: Number, step: int) -> Number:
    """The largest multiple of `step` that is at most `size`."""
    if isinstance(size, int):
        return size // step * step
    return (
        size
        if step == 1
        else w.and_(size, -step)
        if step & (step - 1) == 0
        else w.mul(w.udiv(size, step), step)
    )


def run_piece(
    w: FunctionWriter, piece: Piece, carried: Sequence[Val], body: Body, label: str = "i"
) -> Sequence[Val]:
    """`body(index, mask, carried)` for each step; gives what the last one returned."""
    if piece.is_single:
        return body(piece.start, _mask(w, piece, piece.start), carried)
    with w.carry(piece.start, piece.stop, piece.step, carried, label) as loop:
        mask = _mask(w, piece, loop.index)
        loop.next = body(loop.index, mask, loop.carried)
    return loop.results


def _mask(w: FunctionWriter, piece: Piece, index: Number) -> Val | None:
    if not piece.masked:
        return None
    size = piece.size
    if isinstance(size, int) and isinstance(index, int):
        return w.lane_mask(int_const(size - index), piece.lanes)
    start = index if isinstance(index, Val) else int_const(index)
    return w.lane_mask(
        w.sub(size if isinstance(size, Val) else int_const(size), start), piece.lanes
    )
