"""Emits convolutions of the form `taps`: the gradient of a weight; see `plan_taps`.

gather     a tile is one image's block of channels of the input, or block of rows of the
           cotangent
multiply   a tile is one block of channels, line of taps and block of rows
part       a tile is all of that for the units of one part
keep       a tile's sums, added up over the parts, to their places in the result
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.abi import KERNEL_PARAMS
from treadle.codegen.contract import Workplace
from treadle.codegen.emission import Emission, run_tiles
from treadle.codegen.llvm import (
    I1,
    I8,
    I64,
    NULL,
    PTR,
    VOID,
    FunctionWriter,
    Type,
    Val,
    int_const,
    register_type,
    vec,
)
from treadle.codegen.plan_blocks import up
from treadle.codegen.plan_taps import TapPlan
from treadle.codegen.tiles import pack_function, zero
from treadle.ir.graph import Instr
from treadle.ir.types import DType

_POINTERS = ("left", "right", "result", "gathered", "sums", "own")
_FIELDS = (*_POINTERS, "room", "group", "image", "images", "line", "lines", "add")


def emit_taps(
    state: Emission,
    w: FunctionWriter,
    instr: Instr,
    plan: TapPlan,
    operands: Sequence[Val],
    at: Workplace,
) -> None:
    """All of it: `operands` are the addresses of its operands and its result."""
    code = _Taps(state, at.name, plan)
    frame = w.alloca(I64, len(_FIELDS))
    sums = up(plan.parts * plan.sums * plan.dtype.itemsize, 64)
    pointers = (*operands, w.gep(at.shared, sums), at.shared, at.scratch)
    for name, value in zip(_POINTERS, pointers, strict=True):
        _set(w, frame, name, value)
    _set(w, frame, "room", w.int(at.room))
    pool, threads = (at.pool, at.threads) if plan.spread else (NULL, w.int(1))
    gather, multiply = (Val(f"@{name}", PTR) for name in (code.gather(), code.multiply()))
    keep = Val(f"@{code.keep()}", PTR)

    def shared() -> None:
        tiles = w.mul(_get(w, frame, "images"), plan.channel_blocks + plan.row_blocks)
        run_tiles(state, w, pool, gather, frame, tiles, threads)
        run_tiles(state, w, pool, multiply, frame, w.int(plan.tiles), threads)

    with w.loop(0, plan.what.groups, label="group") as group:
        _set(w, frame, "group", group)
        if plan.parts > 1:
            part = Val(f"@{code.part(gather, multiply)}", PTR)
            run_tiles(state, w, pool, part, frame, w.int(plan.parts), threads)
        else:
            _units(w, plan, frame, w.int(0), w.int(plan.units), shared)
        run_tiles(state, w, pool, keep, frame, w.int(plan.tiles), threads)


def _units(
    w: FunctionWriter, plan: TapPlan, frame: Val, first: Val, last: Val, body: Callable[[], None]
) -> None:
    """`body` for units from `first` to before `last`, which stand in the frame."""
    what = plan.what
    with w.loop(first, last, label="unit") as unit:
        image = w.mul(w.udiv(unit, plan.bands), plan.images)
        line = w.mul(w.urem(unit, plan.bands), plan.lines)
        left = w.sub(w.int(what.images), image), w.sub(w.int(what.high.positions), line)
        _set(w, frame, "image", image)
        _set(w, frame, "images", w.binary("llvm.smin", left[0], plan.images))
        _set(w, frame, "line", line)
        _set(w, frame, "lines", w.binary("llvm.smin", left[1], plan.lines))
        _set(w, frame, "add", w.cast("zext", w.icmp("ne", unit, first), I64))
        body()


def _get(w: FunctionWriter, frame: Val, name: str) -> Val:
    type = PTR if name in _POINTERS else I64
    return w.load(type, w.gep(frame, _FIELDS.index(name), I64), align=8)


def _set(w: FunctionWriter, frame: Val, name: str, value: Val) -> None:
    w.store(value, w.gep(frame, _FIELDS.index(name), I64), align=8)


class _Taps:
    """Writes the functions of one gradient."""

    def __init__(self, state: Emission, name: str, plan: TapPlan) -> None:
        self.state, self.name, self.plan = state, name, plan
        self.what = plan.what
        self.elem = register_type(plan.dtype)

    def _get(self, w: FunctionWriter, name: str) -> Val:
        return _get(w, w.args[0], name)

    def _moved(self, w: FunctionWriter, base: Val, *steps: tuple[Val, int]) -> Val:
        """`base` plus some indices times their steps, in elements."""
        for index, step in steps:
            base = w.gep(base, w.mul(index, step), self.elem) if step else base
        return base

    def _lefts(self, w: FunctionWriter) -> Val:
        """Where the gathered left operand begins: behind the right one."""
        return w.gep(self._get(w, "gathered"), self.plan.right_size, self.elem)

    def part(self, gather: Val, multiply: Val) -> str:
        """The units of one part, one after the other, in this thread's own memory."""
        plan = self.plan
        w = self.state.module.function(f"{self.name}_part", VOID, KERNEL_PARAMS, internal=True)
        number, slot = w.args[1], w.args[2]
        frame = w.alloca(I64, len(_FIELDS))
        own = w.gep(self._get(w, "own"), w.mul(slot, self._get(w, "room")))
        sums = w.gep(self._get(w, "sums"), w.mul(number, plan.sums), self.elem)
        for name in ("left", "right", "result", "group"):
            _set(w, frame, name, self._get(w, name))
        _set(w, frame, "gathered", own)
        _set(w, frame, "sums", sums)

        def unit() -> None:
            blocks = plan.channel_blocks + plan.row_blocks
            tiles = w.mul(_get(w, frame, "images"), blocks)
            for fn, count in ((gather, tiles), (multiply, w.int(plan.tiles))):
                with w.loop(0, count, label="tile") as tile:
                    w.call(fn.ref[1:], VOID, [frame, tile, slot])

        each = -(-plan.units // plan.parts)
        first = w.mul(number, each)
        last = w.binary("llvm.smin", w.add(first, each), plan.units)
        _units(w, plan, frame, first, last, unit)
        w.ret()
        return self.state.merged(w)

    # --- gathering ---------------------------------------------------------------------------

    def gather(self) -> str:
        plan = self.plan
        w = self.state.module.function(f"{self.name}_gather", VOID, KERNEL_PARAMS, internal=True)
        blocks = plan.channel_blocks + plan.row_blocks
        block, n = w.urem(w.args[1], blocks), w.udiv(w.args[1], blocks)
        right, left = w.new_block("right"), w.new_block("left")
        w.cond_br(w.icmp("slt", block, plan.channel_blocks), right, left)
        w.start(right)
        self._gather_right(w, block, n)
        w.ret()
        w.start(left)
        self._gather_left(w, w.sub(block, plan.channel_blocks), n)
        w.ret()
        return self.state.merged(w)

    def _gather_right(self, w: FunctionWriter, block: Val, n: Val) -> None:
        """[line][pixel][channel] of one image, with zeros for what its lines lack; lines that lie
        outside of it are not written, and nobody reads them."""
        plan, what, elem = self.plan, self.what, self.elem
        high, wide, cb = what.high, what.wide, plan.cb
        group, image = self._get(w, "group"), self._get(w, "image")
        c = w.mul(block, cb)
        channels = w.binary("llvm.smin", w.sub(w.int(what.channels), c), cb)
        source = self._moved(
            w, self._get(w, "right"),
            (w.add(image, n), what.b[0]), (group, what.b[1]), (c, what.b[3]),
        )  # fmt: skip
        at = w.add(w.mul(block, plan.images), n)
        to = self._moved(w, self._get(w, "gathered"), (at, plan.right_image))
        first = w.add(w.mul(self._get(w, "line"), high.step), high.offset)
        low = min(max(-wide.offset, 0), plan.width)
        start = max(wide.offset, 0)
        count = max(min(plan.width - low, wide.size - start), 0)
        with w.loop(0, plan.sight, label="line") as i:
            at = w.add(first, i)
            there = self._moved(w, to, (i, plan.width * cb))
            inside = w.icmp("ult", at, high.size)
            with w.if_(inside, "inside"):
                # The last store of a line may run over into its high pads and the next line's low
                # ones: these are cleared behind it.
                self._clear(w, there, low * cb)
                here = w.gep(self._moved(w, source, (at, what.b[4])), start, elem)
                args = [here, w.gep(there, low * cb, elem), channels, w.int(count),
                        w.int(what.b[3]), w.int(1), w.int(cb)]  # fmt: skip
                w.call(self._pack(), VOID, args)
                behind = (low + count) * cb
                self._clear(w, w.gep(there, behind, elem), plan.width * cb - behind)

    def _clear(self, w: FunctionWriter, to: Val, elements: int) -> None:
        nbytes = w.int(elements * self.plan.dtype.itemsize)
        w.external("llvm.memset.p0.i64", VOID, (to, int_const(0, I8), nbytes, int_const(0, I1)))

    def _pack(self) -> str:
        return pack_function(self.state, self.plan.dtype)

    def _gather_left(self, w: FunctionWriter, block: Val, n: Val) -> None:
        """[position][row] of one image."""
        plan, what = self.plan, self.what
        group, image, line = (self._get(w, x) for x in ("group", "image", "line"))
        lines = self._get(w, "lines")
        row = w.mul(block, plan.nr)
        rows = w.binary("llvm.smin", w.sub(w.int(what.rows), row), plan.nr)
        source = self._moved(
            w, self._get(w, "left"),
            (w.add(image, n), what.a[0]), (group, what.a[1]), (row, what.a[2]), (line, what.a[4]),
        )  # fmt: skip
        ks = w.mul(lines, what.wide.positions)
        at = w.add(w.mul(block, plan.images), n)
        to = self._moved(w, self._lefts(w), (at, plan.left_image))
        args = [source, to, rows, ks, w.int(what.a[2]), w.int(1), w.int(plan.nr)]
        w.call(self._pack(), VOID, args)

    # --- multiplying -------------------------------------------------------------------------

    def multiply(self) -> str:
        plan, what = self.plan, self.what
        w = self.state.module.function(f"{self.name}_multiply", VOID, KERNEL_PARAMS, internal=True)
        block, channel, high, wide = self._place(w)
        cb, line = plan.cb, plan.width * plan.cb
        first, lines = self._met(w, high)
        a = self._moved(
            w, self._get(w, "gathered"), (channel, plan.images * plan.right_image),
            (high, what.high.tap_step * line), (wide, what.wide.tap_step * cb),
            (first, what.high.step * line),
        )  # fmt: skip
        b = self._moved(
            w, self._lefts(w), (block, plan.images * plan.left_image),
            (first, what.wide.positions * plan.nr),
        )  # fmt: skip
        sums = self._moved(w, self._get(w, "sums"), (w.args[1], plan.mr * plan.nr))
        micro = micro_function(self.state, plan.dtype, plan.mr, plan.nr)
        steps = [plan.right_image, what.high.step * line, what.wide.step * cb]
        add = w.icmp("ne", self._get(w, "add"), 0)
        sizes = [self._get(w, "images"), lines, w.int(what.wide.positions)]
        args = [a, *map(w.int, steps), b, w.int(plan.left_image), sums, *sizes, add]
        w.call(micro, VOID, args)
        w.ret()
        return self.state.merged(w)

    def _met(self, w: FunctionWriter, tap: Val) -> tuple[Val, Val]:
        """The first of a unit's lines of positions that meet the image under a line of taps, and
        how many do: under the others there is only padding."""
        high = self.what.high
        at = w.mul(self._get(w, "line"), high.step)
        at = w.add(w.add(at, w.mul(tap, high.tap_step)), high.offset)
        before, behind = (
            w.udiv(w.add(w.binary("llvm.smax", x, 0), high.step - 1), high.step)
            for x in (w.sub(w.int(0), at), w.sub(w.int(high.size), at))
        )
        last = w.binary("llvm.smin", behind, self._get(w, "lines"))
        return before, w.binary("llvm.smax", w.sub(last, before), 0)

    def _place(self, w: FunctionWriter) -> tuple[Val, Val, Val, Val]:
        """A tile's block of rows, block of channels, line of taps and first tap in it."""
        plan, taps = self.plan, self.what.high.taps
        across = self.what.wide.taps // plan.kwg
        rows = plan.channel_blocks * taps * across
        block, rest = w.udiv(w.args[1], rows), w.urem(w.args[1], rows)
        channel, rest = w.udiv(rest, taps * across), w.urem(rest, taps * across)
        return block, channel, w.udiv(rest, across), w.mul(w.urem(rest, across), plan.kwg)

    # --- the result --------------------------------------------------------------------------

    def keep(self) -> str:
        """A tile's sums, [tap][channel][row]."""
        plan, what, elem = self.plan, self.what, self.elem
        w = self.state.module.function(f"{self.name}_keep", VOID, KERNEL_PARAMS, internal=True)
        block, channel, high, wide = self._place(w)
        sums = self._moved(w, self._get(w, "sums"), (w.args[1], plan.mr * plan.nr))
        self._add_parts(w, sums)
        row, c = w.mul(block, plan.nr), w.mul(channel, plan.cb)
        rows = w.binary("llvm.smin", w.sub(w.int(what.rows), row), plan.nr)
        channels = w.binary("llvm.smin", w.sub(w.int(what.channels), c), plan.cb)
        to = self._moved(
            w, self._get(w, "result"), (self._get(w, "group"), what.c[1]), (row, what.c[2]),
            (c, what.c[3]), (high, what.c[4]), (wide, what.c[5]),
        )  # fmt: skip
        with w.loop(0, rows, label="row") as o:
            there = self._moved(w, to, (o, what.c[2]))
            here = w.gep(sums, o, elem)
            with w.loop(0, channels, label="channel") as i:
                cell = self._moved(w, there, (i, what.c[3]))
                source = self._moved(w, here, (i, plan.nr))
                for tap in range(plan.kwg):
                    value = w.load(elem, w.gep(source, tap * plan.cb * plan.nr, elem))
                    w.store(value, w.gep(cell, tap * what.c[5], elem))
        w.ret()
        return self.state.merged(w)

    def _add_parts(self, w: FunctionWriter, sums: Val) -> None:
        """All parts' sums into the first one's."""
        plan = self.plan
        if plan.parts == 1:
            return
        row = vec(self.elem, plan.lanes)
        with w.loop(0, plan.mr * plan.nr, plan.lanes, "vector") as i:
            first = w.gep(sums, i, self.elem)
            with w.carry(1, plan.parts, 1, [w.load(row, first)], "part") as loop:
                here = self._moved(w, first, (loop.index, plan.sums))
                loop.next = [w.fadd(loop.carried[0], w.load(row, here))]
            w.store(loop.results[0], first)


# --- the micro-kernel ------------------------------------------------------------------------


def micro_function(state: Emission, dtype: DType, mr: int, nr: int) -> str:
    """`taps_tile(a, a_image, a_line, a_k, b, b_image, c, images, lines, k, add)`: c (+)= the sum
    over all positions of `mr` elements from a on times `nr` from b on; b's positions of an image
    follow each other."""
    name = f"taps_tile_{dtype.short}_{mr}x{nr}"
    return state.once(name, lambda name: _write_micro(state, name, dtype, mr, nr))


def _write_micro(state: Emission, name: str, dtype: DType, mr: int, nr: int) -> None:
    params: list[tuple[Type, str]] = [(PTR, "a"), (I64, "a_image"), (I64, "a_line"), (I64, "a_k")]
    params += [(PTR, "b"), (I64, "b_image"), (PTR, "c"), (I64, "images"), (I64, "lines")]
    params += [(I64, "k"), (I1, "add")]
    w = state.module.function(name, VOID, params, internal=True)
    a, a_image, a_line, a_k, b, b_image, c, images, lines, k, add = w.args
    elem, width = register_type(dtype), state.target.lanes(dtype)
    row, vectors = vec(elem, width), nr // width
    places = [w.gep(c, i * width, elem) for i in range(mr * vectors)]

    def old() -> Sequence[Val]:
        return [w.load(row, p) for p in places]

    sums: Sequence[Val] = w.branch(add, old, lambda: [zero(row)] * len(places), "add")
    with w.carry(0, images, 1, [a, b, *sums], "image") as image:
        with w.carry(0, lines, 1, image.carried, "line") as line:
            with w.carry(0, k, 1, line.carried, "k") as loop:
                at_a, at_b, *found = loop.carried
                right = [w.load(row, w.gep(at_b, v * width, elem)) for v in range(vectors)]
                for i in range(mr):
                    left = w.splat(w.load(elem, w.gep(at_a, i, elem)), width)
                    for v in range(vectors):
                        n = i * vectors + v
                        found[n] = w.muladd(left, right[v], found[n])
                loop.next = (w.gep(at_a, a_k, elem), w.gep(at_b, nr, elem), *found)
            _, *after = loop.results
            line.next = (w.gep(line.carried[0], a_line, elem), *after)
        at_a, at_b, *_ = image.carried
        image.next = (w.gep(at_a, a_image, elem), w.gep(at_b, b_image, elem), *line.results[2:])
    for value, place in zip(image.results[2:], places, strict=True):
        w.store(value, place)
    w.ret()
