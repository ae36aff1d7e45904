"""The three transforms of a Winograd convolution, each a function over what one tile of work has.

    weights(from, to, panel)                          U = G g G^T for a register tile's rows
    input(data, v, room, image's squares ..)          V = B^T d B for a tile's squares
    output(m, result, ..)                             Y = A^T M A into the result

Squares run along the vector lanes: of a line of the input, lane i has the elements from m i on. The
input's rows are combined first, whole lines at a time, which moves no lane; then each vector of
squares is picked out of the combined lines by shuffles and combined along the line. What lies
outside of the input is 0 and not read: lines by the address of a line of zeros, columns by lanes
that are known when the code is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Type, Val, register_type, vec
from treadle.codegen.llvm_types import lane_const
from treadle.codegen.plan_winograd import WinogradPlan, shifts
from treadle.codegen.tiles import zero
from treadle.codegen.winograd_matrices import TAPS, matrices, multiplied

_UNROLL: Final = 4  # vectors of a line that are written out; more of them are a loop


def _moved(w: FunctionWriter, base: Val, *steps: tuple[Val | int, int]) -> Val:
    """`base` plus some indices times their steps, in elements of 4 bytes."""
    for index, step in steps:
        if isinstance(index, Val):
            base = w.gep(base, w.mul(index, step * 4)) if step else base
        elif index * step:
            base = w.gep(base, index * step * 4)
    return base


def _vectors(
    w: FunctionWriter, count: int, plain: Sequence[int], body: Callable[[Val | int, bool], None]
) -> None:
    """`body(number, known)` for `count` vectors; `plain` ones, which follow each other, all have
    the same code and are a loop where there are many: there `known` is true."""
    looped = range(plain[0], plain[-1] + 1) if len(plain) > _UNROLL else range(0)
    for v in range(count):
        if v not in looped:
            body(v, False)
        elif v == looped.start:
            with w.loop(looped.start, looped.stop, label="vector") as index:
                body(index, True)


# --- weights ---------------------------------------------------------------------------------


def weights_function(state: Emission, name: str, plan: WinogradPlan) -> str:
    """`weights(from, to, first)`: of the rows of one register tile, from row `first` of a group on,
    all channels; a row that is not there is the last one again."""
    params: list[tuple[Type, str]] = [(PTR, "from"), (PTR, "to"), (I64, "first")]
    w = state.module.function(name, VOID, params, internal=True)
    source, to, first = w.args
    what, mr, elem = plan.what, plan.mr, register_type(plan.dtype)
    _, _, row, channel, high, wide = what.a
    places = [
        [t * high + s * wide for s, _ in shifts(what.wide)] for t, _ in shifts(what.high)
    ]  # fmt: skip
    rows = [
        _moved(w, source, (w.binary("llvm.smin", w.add(first, i), what.rows - 1), row))
        for i in range(mr)
    ]
    weight = matrices(plan.m).weight
    with w.loop(0, what.channels, label="channel") as c:
        here = [_moved(w, r, (c, channel)) for r in rows]
        there = _moved(w, to, (c, mr))
        halves = []
        for line in places:  # along the lines, then across them
            taps = [_column(w, here, place, elem) for place in line]
            halves.append(multiplied(w, weight, taps))
        for j in range(plan.n):
            column = multiplied(w, weight, [half[j] for half in halves])
            for i, value in enumerate(column):
                w.store(value, _moved(w, there, (i * plan.n + j, plan.u_step)))
    w.ret()
    return state.merged(w)


def _column(w: FunctionWriter, rows: Sequence[Val], place: int, elem: Type) -> Val:
    """One tap of some rows."""
    value = zero(vec(elem, len(rows)))
    for i, row in enumerate(rows):
        value = w.insert(value, w.load(elem, _moved(w, row, (place, 1))), i)
    return value


# --- input -----------------------------------------------------------------------------------


def input_function(state: Emission, name: str, plan: WinogradPlan) -> str:
    """`input(data, v, lines, zeros, images, line, count)`: of all channels, of lines of squares
    from `line` on, `count` of them of each of the images; `lines` is room for one."""
    return _Input(state, name, plan).write()


class _Input:
    def __init__(self, state: Emission, name: str, plan: WinogradPlan) -> None:
        params: list[tuple[Type, str]] = [(PTR, x) for x in ("data", "v", "lines", "zeros")]
        params += [(I64, x) for x in ("images", "line", "count")]
        self.state, self.plan, self.what = state, plan, plan.what
        self.w = state.module.function(name, VOID, params, internal=True)
        self.elem = register_type(plan.dtype)
        self.matrix = matrices(plan.m).input
        self.first = shifts(self.what.wide)[0][1]  # the element under a line's first column

    def write(self) -> str:
        w, plan, what = self.w, self.plan, self.what
        data, v, lines, zeros, images, line, count = w.args
        above = shifts(what.high)[0][1]
        with (
            w.loop(0, what.channels, label="channel") as c,
            w.loop(0, images, label="image") as image,
            w.loop(0, count, label="line") as i,
        ):
            source = _moved(w, data, (image, what.b[0]), (c, what.b[3]))
            square = w.mul(w.add(w.mul(image, count), i), plan.wide)
            to = _moved(w, v, (c, plan.ld), (square, 1))
            y = w.add(w.mul(w.add(line, i), plan.m), above)
            rows = []
            for r in range(plan.n):
                at = w.add(y, r)
                inside = w.icmp("ult", at, what.high.size)
                rows.append(w.select(inside, _moved(w, source, (at, what.b[4])), zeros))
            self._across(rows, lines)
            plain = range(plan.groups)
            _vectors(w, plan.groups, plain, lambda g, _: self._along(lines, to, g))
        w.ret()
        return self.state.merged(w)

    def _across(self, rows: Sequence[Val], lines: Val) -> None:
        """B^T times the lines, to `lines`."""
        w, plan, lanes = self.w, self.plan, self.plan.lanes
        count = -(-plan.reach // lanes)
        inside = [
            [0 <= self.first + v * lanes + i < self.what.wide.size for i in range(lanes)]
            for v in range(count)
        ]
        plain = [v for v in range(count) if all(inside[v])]
        type = vec(self.elem, lanes)

        def vector(v: Val | int, known: bool) -> None:
            mask = None
            if isinstance(v, int) and not all(inside[v]):
                mask = inside[v]
            if mask is not None and not any(mask):
                found = [zero(type)] * plan.n
            else:
                starts = [_moved(w, r, (v, lanes), (self.first, 1)) for r in rows]
                found = multiplied(w, self.matrix, [self._load(s, type, mask) for s in starts])
            for r, value in enumerate(found):
                w.store(value, _moved(w, lines, (r, plan.line_step), (v, lanes)))

        _vectors(w, count, plain, vector)

    def _load(self, address: Val, type: Type, mask: Sequence[bool] | None) -> Val:
        if mask is None:
            return self.w.load(type, address)
        return self.w.masked_load(type, address, lane_const([int(x) for x in mask], I1), 0)

    def _along(self, lines: Val, to: Val, group: Val | int) -> None:
        """One vector of squares of the combined lines times B, to its places."""
        w, plan, lanes = self.w, self.plan, self.plan.squares
        type = vec(self.elem, lanes)
        there = _moved(w, to, (group, lanes))
        for r in range(plan.n):
            start = _moved(w, lines, (r, plan.line_step), (group, lanes * plan.m))
            parts = [w.load(type, _moved(w, start, (k, lanes))) for k in range(plan.m + 1)]
            elements = _apart(w, parts[:-1])
            for k in range(TAPS - 1):  # those of the next square
                picks = [*range(1, lanes), lanes + k]
                elements.append(w.shuffle(elements[k], parts[-1], picks))
            for j, value in enumerate(multiplied(w, self.matrix, elements)):
                w.store(value, _moved(w, there, (r * plan.n + j, plan.v_step)))


def _apart(w: FunctionWriter, parts: Sequence[Val]) -> list[Val]:
    """Of n vectors that follow each other the elements 0, n, 2 n .., then 1, n + 1 .., and so on;
    n is a power of two."""
    if len(parts) == 1:
        return list(parts)
    lanes = parts[0].type.lanes
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    even = _apart(w, [w.shuffle(x, y, range(0, 2 * lanes, 2)) for x, y in pairs])
    odd = _apart(w, [w.shuffle(x, y, range(1, 2 * lanes, 2)) for x, y in pairs])
    return [x for pair in zip(even, odd, strict=True) for x in pair]


def _together(w: FunctionWriter, parts: Sequence[Val]) -> list[Val]:
    """What `_apart` undoes."""
    if len(parts) == 1:
        return list(parts)
    lanes = parts[0].type.lanes
    even, odd = _together(w, parts[::2]), _together(w, parts[1::2])
    found = []
    for x, y in zip(even, odd, strict=True):
        for half in (0, lanes // 2):
            picks = [at for i in range(half, half + lanes // 2) for at in (i, lanes + i)]
            found.append(w.shuffle(x, y, picks))
    return found


# --- output ----------------------------------------------------------------------------------


def output_function(state: Emission, name: str, plan: WinogradPlan) -> str:
    """`output(m, result, images, line, count, rows)`: of `rows` rows, of lines of squares as
    `input` has them; `result` is the first image's and row's."""
    return _Output(state, name, plan).write()


class _Output:
    def __init__(self, state: Emission, name: str, plan: WinogradPlan) -> None:
        params: list[tuple[Type, str]] = [(PTR, "m"), (PTR, "result")]
        params += [(I64, x) for x in ("images", "line", "count", "rows")]
        self.state, self.plan, self.what = state, plan, plan.what
        self.w = state.module.function(name, VOID, params, internal=True)
        self.type = vec(register_type(plan.dtype), plan.squares)
        self.matrix = matrices(plan.m).output

    def write(self) -> str:
        w, plan, what = self.w, self.plan, self.what
        products, result, images, line, count, rows = w.args
        width, step = what.wide.positions, plan.squares * plan.m
        with (
            w.loop(0, rows, label="row") as row,
            w.loop(0, images, label="image") as image,
            w.loop(0, count, label="line") as i,
        ):
            square = w.mul(w.add(w.mul(image, count), i), plan.wide)
            source = _moved(w, products, (row, plan.ld), (square, 1))
            y = w.mul(w.add(line, i), plan.m)
            to = _moved(w, result, (image, what.c[0]), (row, what.c[2]), (y, what.c[4]))
            left = w.sub(w.int(what.high.positions), y)
            plain = range(width // step)

            def vector(
                g: Val | int, known: bool, source: Val = source, to: Val = to, left: Val = left
            ) -> None:
                there = _moved(w, to, (g, step))
                whole = known or (isinstance(g, int) and (g + 1) * step <= width)
                columns = step if whole or not isinstance(g, int) else width - g * step
                self._square(_moved(w, source, (g, plan.squares)), there, left, columns)

            _vectors(w, plan.groups, plain, vector)
        w.ret()
        return self.state.merged(w)

    def _square(self, source: Val, to: Val, left: Val, columns: int) -> None:
        """A vector of squares: `columns` of the result's columns are there, and `left` lines."""
        w, plan = self.w, self.plan
        n = plan.n
        halves = []
        for j in range(n):
            column = [
                w.load(self.type, _moved(w, source, (i * n + j, plan.m_step))) for i in range(n)
            ]
            halves.append(multiplied(w, self.matrix, column))
        for r in range(plan.m):
            found = _together(w, multiplied(w, self.matrix, [half[r] for half in halves]))
            there = _moved(w, to, (r, self.what.c[4]))
            if self.what.high.positions % plan.m > r or self.what.high.positions % plan.m == 0:
                self._store(found, there, columns)
            else:
                with w.if_(w.icmp("sgt", left, r), "inside"):
                    self._store(found, there, columns)

    def _store(self, values: Sequence[Val], to: Val, columns: int) -> None:
        w, lanes = self.w, self.plan.squares
        for k, value in enumerate(values):
            have = min(max(columns - k * lanes, 0), lanes)
            there = _moved(w, to, (k, lanes))
            if have == lanes:
                w.store(value, there)
            elif have:
                w.masked_store(value, there, lane_const([int(i < have) for i in range(lanes)], I1))
