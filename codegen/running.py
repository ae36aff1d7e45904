"""Running results along an axis: cumsum, cumprod, cummax, cummin, linear_scan.

The array is seen as (outer, length, inner), and each line is run along in order. Where `inner` is a
vector wide or more, the lines of neighbouring columns share vectors. Else several rows are run
along at a time, so that the one waits for its addition while another adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from treadle.codegen.llvm import I64, FunctionWriter, Type, Val, memory_type, vec
from treadle.codegen.plan_lines import LinesPlan, lines_of
from treadle.ir.graph import Instr

_AT_A_TIME = 4

Carried = Sequence[Val]


def emit_running(
    w: FunctionWriter,
    instr: Instr,
    plan: LinesPlan,
    operands: Sequence[Val],
    results: Sequence[Val],
    tile: Val,
) -> None:
    """All lines of one tile."""
    code = _Running(w, instr, plan, operands, results)
    if code.outer * code.length * code.inner == 0:
        return
    first = w.mul(tile, plan.chunk)
    last = w.binary("llvm.smin", w.add(first, plan.chunk), plan.units)
    if plan.method == "lines":
        code.rows(first, last)
    elif plan.by == "rows":
        with w.loop(first, last, label="outer") as row:
            code.columns(row, w.int(0), w.int(code.inner))
    else:
        with w.loop(0, code.outer, label="outer") as row:
            code.columns(row, first, last)


class _Running:
    def __init__(
        self,
        w: FunctionWriter,
        instr: Instr,
        plan: LinesPlan,
        operands: Sequence[Val],
        results: Sequence[Val],
    ) -> None:
        attrs = cast(Any, instr.attrs)
        type = instr.results[0].type
        self.w, self.name, self.operands = w, instr.op.name, operands
        self.kind = type.dtype.kind
        self.elem = memory_type(type.dtype)
        self.outer, self.length, self.inner = lines_of(type.static_shape, attrs.axis)
        self.reverse: bool = getattr(attrs, "reverse", False)
        self.results = results
        self.stored = plan.stored
        self.lanes = w.target.vector_bytes // max(type.dtype.itemsize, 4)

    # --- which lines -------------------------------------------------------------------------

    def columns(self, row: Val, first: Val, last: Val) -> None:
        """The lines of columns `first` to `last` of one row, in vectors and one by one."""
        w = self.w
        base = w.mul(row, self.length * self.inner)
        whole = w.add(first, w.and_(w.sub(last, first), -self.lanes))
        with w.loop(first, whole, self.lanes, "vector") as column:
            self._run([w.add(base, column)], self.lanes)
        with w.loop(whole, last, label="column") as column:
            self._run([w.add(base, column)], 1)

    def rows(self, first: Val, last: Val) -> None:
        """All lines of rows `first` to `last`, several rows at a time."""
        w, step = self.w, self.length * self.inner
        several = w.add(first, w.and_(w.sub(last, first), -_AT_A_TIME))
        with w.loop(0, self.inner, label="inner") as column:
            with w.loop(first, several, _AT_A_TIME, "rows") as row:
                base = w.add(w.mul(row, step), column)
                self._run([w.add(base, n * step) for n in range(_AT_A_TIME)], 1)
            with w.loop(several, last, label="row") as row:
                self._run([w.add(w.mul(row, step), column)], 1)

    # --- along a line ------------------------------------------------------------------------

    def _run(self, starts: Sequence[Val], lanes: int) -> None:
        """The lines that begin at these elements, in step with each other."""
        w = self.w
        initial = [v for at in starts for v in self._initial(self._place(at, w.int(0)), lanes)]
        each = len(initial) // len(starts)
        with w.carry(0, self.length, 1, initial, "k") as loop:
            following: list[Val] = []
            for n, start in enumerate(starts):
                place = self._place(start, loop.index)
                before = loop.carried[n * each : (n + 1) * each]
                after = self._step(place, loop.index, before, lanes)
                for number, value in enumerate(after):
                    if self.stored[number]:
                        elem = self.elem if number == 0 else I64
                        w.store(value, w.gep(self.results[number], place, elem))
                following += after
            loop.next = following

    def _place(self, start: Val, k: Val) -> Val:
        """Of the element at step k of the line that begins at `start`."""
        w = self.w
        step = w.sub(w.int(self.length - 1), k) if self.reverse else k
        return w.add(start, w.mul(step, self.inner))

    def _load(self, number: int, place: Val, lanes: int) -> Val:
        return self.w.load(
            vec(self.elem, lanes), self.w.gep(self.operands[number], place, self.elem)
        )

    def _initial(self, first: Val, lanes: int) -> list[Val]:
        """What the first step finds; an extreme finds its own element."""
        type = vec(self.elem, lanes)
        if self.name in ("cummax", "cummin"):
            return [self._load(0, first, lanes), self.w.const(0, vec(I64, lanes))]
        return [self.w.const(1 if self.name == "cumprod" else 0, type)]

    def _step(self, place: Val, k: Val, before: Carried, lanes: int) -> list[Val]:
        w, x = self.w, self._load(0, place, lanes)
        if self.name == "cumsum":
            return [_by_kind(x.type, w.fadd, w.add)(before[0], x)]
        if self.name == "cumprod":
            return [_by_kind(x.type, w.fmul, w.mul)(before[0], x)]
        if self.name == "linear_scan":
            return [w.fadd(w.fmul(x, before[0]), self._load(1, place, lanes))]
        taken = self._beats(x, before[0])
        places = w.select(taken, w.splat(k, lanes), before[1])
        return [w.select(taken, x, before[0]), places]

    def _beats(self, x: Val, best: Val) -> Val:
        """Whether an extreme moves on to `x`: the last of equals, and NaN."""
        w, larger = self.w, self.name == "cummax"
        if x.type.is_float:
            beats = w.fcmp("oge" if larger else "ole", x, best)
            return w.or_(beats, w.fcmp("uno", x, x))
        sign = "s" if self.kind == "i" else "u"
        return w.icmp(sign + ("ge" if larger else "le"), x, best)


def _by_kind(
    type: Type, of_floats: Callable[[Val, Val], Val], of_integers: Callable[[Val, Val], Val]
) -> Callable[[Val, Val], Val]:
    return of_floats if type.is_float else of_integers
