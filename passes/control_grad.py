"""Derivatives of loops and branches.

    %c, %y = scan(w, c0, x) { c, y = f(w, c, x) }                       the loop
      ->
    %c, %y, %r = scan(w, c0, x) { c, y, r = f(w, c, x) }                keeps residuals r of each step
    %dc, %dw, %dx = scan(w, ct_c, 0, r, x, ct_y, reversed)              the loop back
                    { dc, dw, dx = vjp(r, dc, ct_y); dc, dw + .., dx }

The loop back takes, from the last step to the first, the cotangents of the carries as carries, sums
up those of what every step reads, and gives those of the rows as rows. What it needs of a step is
read where that is there anyway (a row, a const), computed again where that is cheap, and else kept
by the loop as further rows: the larger loop takes the place of the loop. It is a scan as any other,
so that it can be differentiated in turn. A loop that may end early tells the loop back how many
steps it has done.

The derivative of a branch is a branch with the same index, of a remat a remat: both compute again
what they need from their operands.
"""  # noqa: E501  the example is one line of IR each

from __future__ import annotations

from collections.abc import Collection, Sequence

from treadle.ir.builder import Builder
from treadle.ir.control import (
    has_effect,
    operands,
    params,
    results,
    scan_attrs,
    stacked_type,
)
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import GradientError
from treadle.ir.graph import Function, Instr, Param, Result, Value
from treadle.ir.host import calls_host
from treadle.ir.ops.control import ScanAttrs
from treadle.ir.types import TensorType
from treadle.passes.autodiff import Larger, between, sweep_back
from treadle.passes.control_residuals import Kept, choose
from treadle.passes.inline import emit_copy, inline, with_instrs

Cotangents = list[tuple[Value, Value]]


def control_cotangents(
    b: Builder,
    instr: Instr,
    total: dict[Value, Value],
    moving: Collection[Value],
    larger: Larger,
) -> Cotangents:
    """(operand, cotangent) for each operand in `moving`, from those of the results in `total`."""
    if instr.op.name == "scan":
        return _Scan(b, instr, total, moving).cotangents(larger)
    return _branches(b, instr, total, moving)


# --- branches ------------------------------------------------------------------------------------


def _branches(
    b: Builder, instr: Instr, total: dict[Value, Value], moving: Collection[Value]
) -> Cotangents:
    first = 1 if instr.op.name == "switch" else 0
    args = instr.args[first:]
    wanted = [n for n, v in enumerate(args) if v in moving]
    live = [n for n, r in enumerate(instr.results) if r in total]
    cts = [total[instr.results[n]] for n in live]
    regions = [_branch(region, wanted, live, instr) for region in instr.regions]
    given = (*instr.args[:first], *args, *cts)
    types = [args[n].type for n in wanted]
    found = b.emit_typed(instr.op, given, instr.attrs, types, regions)
    return [(args[n], ct) for n, ct in zip(wanted, found, strict=True)]


def _branch(region: Function, wanted: Sequence[int], live: Sequence[int], instr: Instr) -> Function:
    """The region and its derivative: takes operands and cotangents, gives cotangents."""
    inner = Builder(f"{region.name}_back")
    xs = [inner.param(p.value.type, f"p{n}") for n, p in enumerate(region.params)]
    outs = inline(inner, region, xs, effects=False)
    again = set(inner.instrs)
    cts = [inner.param(outs[n].type, f"ct {n}") for n in live]
    larger: Larger = []
    targets = [xs[n] for n in wanted]
    total = sweep_back(inner, [outs[n] for n in live], cts, targets, instr.loc, larger)
    grads = [total[x] if x in total else inner.zeros_like(x) for x in targets]
    if larger:
        known = with_instrs(inner, larger)
        grads = [known.get(v, v) for v in grads]
    _leave_effects(inner, again, grads)
    return inner.finish([Result(g, f"d{n}") for n, g in zip(wanted, grads, strict=True)])


def _leave_effects(b: Builder, again: Collection[Instr], grads: Sequence[Value]) -> None:
    """Of the instructions that are computed again, leave out those that only have an effect; raise
    GradientError where one that must run once is needed."""
    if not any(_runs_once(i) for i in again):
        return
    needed = set(grads)
    kept: list[Instr] = []
    for instr in reversed(b.instrs):
        if not (instr in again and _runs_once(instr)):
            kept.append(instr)
            needed.update(instr.args)
        elif not needed.isdisjoint(instr.results):
            raise _repeated(instr)
    b.clear()
    for instr in reversed(kept):
        b.append(instr)


def _runs_once(instr: Instr) -> bool:
    """Does `instr` call Python code that is not to be called again?"""
    return calls_host(instr) and has_effect(instr)


def _repeated(instr: Instr) -> GradientError:
    at = f" (at {instr.loc})" if instr.loc is not None else ""
    error = GradientError(
        "a callback in a branch or a remat whose derivative needs its result would be called a "
        f"second time; say that it is pure (pure=True), or call it outside{at}"
    )
    error.located = bool(at)
    return error


# --- loops ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One step forward and back in one function: `forward`, the first instructions, of `params`
    giving `outs`; `backward` behind them, of these and `cts`, giving `grads` by parameter."""

    params: tuple[Value, ...]
    outs: tuple[Value, ...]
    cts: tuple[Value, ...]
    forward: tuple[Instr, ...]
    backward: tuple[Instr, ...]
    grads: dict[Value, Value]


class _Scan:
    """The derivative of one loop."""

    def __init__(
        self, b: Builder, instr: Instr, total: dict[Value, Value], moving: Collection[Value]
    ) -> None:
        self.b, self.instr, self.total = b, instr, total
        self.a = a = scan_attrs(instr)
        if a.length is None:
            at = f" (at {instr.loc})" if instr.loc is not None else ""
            raise _refused(at)
        (self.region,) = instr.regions
        self.given = operands(a, instr.args)
        self.inside = params(a, self.region.inputs)
        self.out = results(a, instr.results)
        self.made = results(a, self.region.outputs)
        self.moving = self._moving(moving)
        self.ys = [n for n, y in enumerate(self.out.arrays) if y in total]
        self.carries = self._live_carries()

    def _moving(self, outside: Collection[Value]) -> set[Value]:
        """The parameters of the region that a derivative follows."""
        operand = (*self.given.consts, *self.given.carries, *self.given.arrays)
        moving = {p for p, v in zip(self.region.inputs, operand, strict=True) if v in outside}
        while True:
            reached = _reached(self.region, moving)
            more = {
                p
                for p, out in zip(self.inside.carries, self.made.carries, strict=True)
                if out in reached and p.type.dtype.is_float and p not in moving
            }
            if not more:
                return moving
            moving |= more

    def _live_carries(self) -> list[int]:
        """The carries whose cotangents are not zero in some step."""
        live = {n for n, c in enumerate(self.out.carries) if c in self.total}
        live = {n for n in live if self.inside.carries[n].type.dtype.is_float}
        while True:
            ends = {self.made.carries[n] for n in live} | {self.made.arrays[n] for n in self.ys}
            needed = _leading_to(self.region, ends)
            more = {
                n
                for n, p in enumerate(self.inside.carries)
                if p in needed and p in self.moving and n not in live
            }
            if not more:
                return sorted(live)
            live |= more

    def cotangents(self, larger: Larger) -> Cotangents:
        step = self._step()
        kept = choose(step.forward, step.backward, step.grads.values(), step.params, self.a)
        source = self.instr
        if kept.saved:
            source = self._larger(step, kept)
            larger.append((self.instr, source))
        return self._back(step, kept, source)

    def _step(self) -> _Step:
        inner = Builder(f"{self.region.name}_back")
        xs = tuple(Value(p.value.type) for p in self.region.params)
        outs = inline(inner, self.region, xs)
        count = len(inner.instrs)
        made = results(self.a, outs)
        ends = [made.carries[n] for n in self.carries] + [made.arrays[n] for n in self.ys]
        cts = tuple(Value(v.type) for v in ends)
        targets = [x for x, p in zip(xs, self.region.inputs, strict=True) if p in self.moving]
        larger: Larger = []
        total = sweep_back(inner, ends, cts, targets, self.instr.loc, larger)
        if larger:  # a loop inside: the larger one is a part of the step forward
            known = with_instrs(inner, larger)
            total = {v: known.get(ct, ct) for v, ct in total.items()}
            outs = tuple(known.get(v, v) for v in outs)
        instrs = tuple(inner.instrs)
        grads = {x: total[x] for x in targets if x in total}
        return _Step(xs, outs, cts, instrs[:count], instrs[count:], grads)

    def _larger(self, step: _Step, kept: Kept) -> Instr:
        """The loop that keeps residuals, behind its results."""
        names = [p.path for p in self.region.params]
        listed = [Result(v, r.path) for v, r in zip(step.outs, self.region.results, strict=True)]
        listed += [Result(v, f"residual {n}") for n, v in enumerate(kept.saved)]
        region = Function(
            self.region.name,
            tuple(Param(v, n) for v, n in zip(step.params, names, strict=True)),
            step.forward,
            tuple(listed),
        )
        types = [r.type for r in self.instr.results]
        types += [stacked_type(v.type, self.length) for v in kept.saved]
        instr = self.instr
        made = Instr(instr.op, instr.args, instr.attrs, types, instr.loc, [region])
        self.b.append(made)
        return made

    @property
    def length(self) -> int:
        assert self.a.length is not None
        return self.a.length

    def _back(self, step: _Step, kept: Kept, source: Instr) -> Cotangents:
        a, b = self.a, self.b
        xs = params(a, step.params)
        rows = source.results[len(self.instr.results) :]
        taken: list[tuple[Value, Value]] = []  # a value of the step, the operand that has it
        taken += [
            (x, v) for x, v in zip(xs.consts, self.given.consts, strict=True) if x in kept.read
        ]
        consts = len(taken)
        ends = step.cts[: len(self.carries)]
        for n, ct in zip(self.carries, ends, strict=True):
            result = self.out.carries[n]
            given = self.total[result] if result in self.total else b.zeros_like(result)
            taken.append((ct, given))
        summed = [
            (x, v) for x, v in zip(xs.consts, self.given.consts, strict=True) if x in step.grads
        ]
        sums = [(Value(x.type), b.zeros_like(v)) for x, v in summed]
        taken += sums
        taken += zip(kept.saved, rows, strict=True)
        taken += [
            (x, v) for x, v in zip(xs.arrays, self.given.arrays, strict=True) if x in kept.read
        ]
        y_cts = step.cts[len(self.carries) :]
        taken += [
            (ct, self.total[self.out.arrays[n]]) for n, ct in zip(self.ys, y_cts, strict=True)
        ]
        by_row = [
            (x, v) for x, v in zip(xs.arrays, self.given.arrays, strict=True) if x in step.grads
        ]
        region = self._region(
            step, kept, [v for v, _ in taken], xs.carries,
            [(total, step.grads[x]) for (total, _), (x, _) in zip(sums, summed, strict=True)],
            [step.grads[x] for x, _ in by_row],
        )  # fmt: skip
        steps = source.results[0] if a.until else self.given.steps
        attrs = ScanAttrs(consts, len(ends) + len(sums), a.length, not a.reverse, steps is not None)
        args = ([steps] if steps is not None else []) + [v for _, v in taken]
        types: list[TensorType] = [v.type for v in region.outputs[: attrs.carries]]
        types += [stacked_type(v.type, self.length) for v in region.outputs[attrs.carries :]]
        found = b.emit_typed(self.instr.op, args, attrs, types, [region])
        targets = [self.given.carries[n] for n in self.carries]
        targets += [v for _, v in (*summed, *by_row)]
        return list(zip(targets, found, strict=True))

    def _region(
        self,
        step: _Step,
        kept: Kept,
        taken: Sequence[Value],
        carries: Sequence[Value],
        sums: Sequence[tuple[Value, Value]],
        rows: Sequence[Value],
    ) -> Function:
        """The step back; `sums`: parameters with what is added to each."""
        inner = Builder(f"{self.region.name}_back")
        known: dict[Value, Value] = {}
        for n, value in enumerate(taken):
            known[value] = inner.param(value.type, f"p{n}")
        again = set(kept.again)
        for instr in step.forward:
            if instr in again:
                emit_copy(inner, instr, known)
        for instr in step.backward:
            emit_copy(inner, instr, known)
        outs: list[Result] = []
        for n in self.carries:
            x = carries[n]
            grad = step.grads.get(x)
            new = (
                known.get(grad, grad)
                if grad is not None
                else inner.full(x.type.shape, 0, x.type.dtype)
            )
            outs.append(Result(new, f"d carry {n}"))
        for n, (total, grad) in enumerate(sums):
            outs.append(Result(inner.add(known[total], known.get(grad, grad)), f"d const {n}"))
        outs += [Result(known.get(g, g), f"d row {n}") for n, g in enumerate(rows)]
        return inner.finish(outs)


def _refused(at: str) -> GradientError:
    error = GradientError(
        "while_loop without max_steps= has no derivative: what the backward pass needs of each "
        f"step has to be kept, and how many there are is not known; pass max_steps={at}"
    )
    error.located = bool(at)
    return error


def _reached(region: Function, moving: Collection[Value]) -> set[Value]:
    """The values that move with `moving`."""
    return between(region.instrs, list(moving))[1]


def _leading_to(region: Function, ends: Collection[Value]) -> set[Value]:
    """The values that `ends` depend on, themselves among them."""
    needed = set(ends)
    for instr in reversed(region.instrs):
        if not needed.isdisjoint(instr.results):
            needed.update(instr.args)
    return needed
