"""A hand-written softmax becomes the softmax that subtracts the maximum.

    %1: f32[4, 8] = exp(%0)
    %2: f32[4, 1] = sum(%1, axes=(1,), keepdims=True)   ->   %1: f32[4, 8] = softmax(%0, axis=1)
    %3: f32[4, 8] = div(%1, %2)

It runs before autodiff, so that the backward pass is that of the composite: rewritten after
differentiation, a finite forward pass would keep gradients that are not. It is the only pass that
may change a result by more than rounding, and only where an exponential or a sum of exponentials
overflows, underflows or becomes subnormal.

What is recognised, for any x (a scale or a mask is inside it, and stays: the composite's operand is
the scaled value, rounded once):
  - exp(x) / sum(exp(x)), also times 1 / sum or sum ** -1; where(c, exp(x), 0) for exp(x), or a
    part of exp(x): reshaped, permuted, sliced, gathered;
  - log(sum(exp(x))), and the log of a softmax or of exp(x), also of a part of one;
  - x - max(x) for x, the maximum under stop_gradient or not: a shift by what is constant along the
    axis changes neither a softmax nor its derivative; and log(sum(exp(x - max))) + max;
  - x - logsumexp(x), which is log_softmax.
A sum without keepdims counts where reshapes or broadcasting bring it back to its own rows: the
place of each row is compared, so that a square matrix divided along the wrong axis is left alone.
Patterns hold exact values: a `variable` between their parts (somebody asks for that value's
gradient), a stop_gradient, another x or another axis, and nothing happens. Parts that are used
elsewhere keep their own value. A sum over several axes counts where they are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.types import Shape, reduced_shape, size_product
from treadle.passes.manager import Pass, PassContext
from treadle.passes.patterns import is_number
from treadle.passes.rewrite import RuleSet, made_by, rewrite

RULES = RuleSet()
NEG_INF = float("-inf")

# How many layout ops a pattern looks through: a chain of thousands with a user at each would cost
# its length for every user.
_REACH = 32
# Ops that only pick elements of their first operand: exp and log may be moved in front of them.
_PICKING = ("reshape", "permute", "broadcast_to", "flip", "slice", "gather")


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with the softmax family as composites."""
    return rewrite(fn, lambda i: RULES.of(i.op.name), ctx)


# --- reading a reduction through layout --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Peeled:
    """`value` without the layout above it; `shape`: how a reshape arranged it, if one did.

    Broadcasts above every reshape are peeled too: broadcasting a broadcast is broadcasting.
    `stopped`: a stop_gradient was among them.
    """

    value: Value
    shape: Shape | None = None
    stopped: bool = False

    @property
    def arranged(self) -> Shape:
        return self.value.type.shape if self.shape is None else self.shape


def _peel(value: Value, shape: Shape | None = None, stops: bool = False) -> _Peeled:
    """Reshapes, outer broadcasts and (where `stops`) stop_gradients taken off."""
    stopped = False
    for _ in range(_REACH):
        if made := made_by(value, "reshape"):
            shape = value.type.shape if shape is None else shape
        elif shape is None and made_by(value, "broadcast_to"):
            made = value.producer
        elif stops and (made := made_by(value, "stop_gradient")):
            stopped = True
        if made is None:
            break
        value = made.args[0]
    return _Peeled(value, shape, stopped)


def _rows_of(peeled: _Peeled, over: Shape, axes: Sequence[int]) -> bool:
    """Broadcast against a tensor of shape `over`, does each row meet its own reduction?

    Reshapes keep the order of elements, so what counts is the shape at last: that of a reduction
    with keepdims, leading ones aside.
    """
    kept = reduced_shape(over, axes, keepdims=True)
    missing = len(over) - len(peeled.arranged)
    return missing >= 0 and (1,) * missing + peeled.arranged == kept


def _axes(reduction: Instr) -> tuple[int, ...]:
    """The axes of a reduction, or of a composite with one axis."""
    attrs: Any = reduction.attrs
    return (attrs.axis,) if hasattr(attrs, "axis") else attrs.axes


def _is_single_run(axes: Sequence[int], shape: Shape) -> bool:
    """Neighbouring axes that hold at least one element: reshaped, they are one axis."""
    run = len(axes) > 0 and tuple(axes) == tuple(range(axes[0], axes[0] + len(axes)))
    return run and all(shape[a] != 0 for a in axes)


def _row_sum(value: Value, e: Value) -> Instr | None:
    """The `sum` of `e` that `value` holds for each of e's rows."""
    peeled = _peel(value)
    return _matching_sum(peeled, e)


def _matching_sum(peeled: _Peeled, e: Value) -> Instr | None:
    total = made_by(peeled.value, "sum")
    if total is None or total.args[0] is not e:
        return None
    axes, shape = _axes(total), e.type.shape
    return total if _is_single_run(axes, shape) and _rows_of(peeled, shape, axes) else None


def _row_inverse(value: Value, e: Value) -> Instr | None:
    """The `sum` of `e` of which `value` holds the reciprocal for each of e's rows."""
    peeled = _peel(value)
    inverted = _reciprocal_of(peeled.value)
    return _matching_sum(_peel(inverted, peeled.shape), e) if inverted is not None else None


def _reciprocal_of(value: Value) -> Value | None:
    """s, where `value` is 1 / s or s ** -1."""
    found = None
    if (made := made_by(value, "div")) and is_number(made.args[0], 1):
        found = made.args[1]
    elif (made := made_by(value, "pow")) and is_number(made.args[1], -1):
        found = made.args[0]
    return found if found is not None and found.type == value.type else None


# --- picking -----------------------------------------------------------------------------------


def _picked(value: Value, *ops: str) -> tuple[Instr, list[Instr]] | None:
    """The instruction of `ops` from which `value` is picked, and the picking, last op first."""
    picking: list[Instr] = []
    for _ in range(_REACH):
        made = value.producer
        if made is None or made.op.name not in (*ops, *_PICKING):
            return None
        if made.op.name in ops:
            return made, picking
        picking.append(made)
        value = made.args[0]
    return None


def _pick_again(b: Builder, value: Value, picking: Sequence[Instr]) -> Value:
    for made in reversed(picking):
        (value,) = b.emit(made.op, (value, *made.args[1:]), made.attrs)
    return value


# --- exponents ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Exponent:
    """e = exp(x), or where(keep, exp(x), 0), or where(keep, 0, exp(x)) if `flipped`; the
    exponential also of more, from which `picking` takes a part (last op first)."""

    x: Value
    picking: Sequence[Instr] = ()
    keep: Value | None = None
    flipped: bool = False

    def build(self, b: Builder) -> Value:
        """The value whose exponential e is."""
        x = _pick_again(b, self.x, self.picking)
        if self.keep is None:
            return x
        return b.where(self.keep, NEG_INF, x) if self.flipped else b.where(self.keep, x, NEG_INF)


def _exponent(e: Value) -> _Exponent | None:
    if found := _picked(e, "exp"):
        return _Exponent(found[0].args[0], found[1])
    choice = made_by(e, "where")
    if choice is None:
        return None
    keep, yes, no = choice.args
    if (found := _picked(yes, "exp")) and yes.type == e.type and is_number(no, 0):
        return _Exponent(found[0].args[0], found[1], keep)
    if (found := _picked(no, "exp")) and no.type == e.type and is_number(yes, 0):
        return _Exponent(found[0].args[0], found[1], keep, flipped=True)
    return None


@dataclass(frozen=True, slots=True)
class _Shifted:
    """x - max(x) along some axes; `stopped`: the maximum is behind a stop_gradient."""

    x: Value
    stopped: bool


def _shifted(value: Value, axes: Sequence[int]) -> _Shifted | None:
    made = made_by(value, "sub")
    if made is None or made.args[0].type != value.type:
        return None
    x, m = made.args
    peeled = _maximum_of(m, x, axes)
    if peeled is None or not _rows_of(peeled, x.type.shape, axes):
        return None
    return _Shifted(x, peeled.stopped)


def _maximum_of(value: Value, x: Value, axes: Sequence[int]) -> _Peeled | None:
    """`value` peeled down to max(x) along `axes`, if it is that."""
    peeled = _peel(value, stops=True)
    best = made_by(peeled.value, "max")
    if best is None or _axes(best) != tuple(axes):
        return None
    of, stopped = best.args[0], peeled.stopped
    if of is not x and (inner := made_by(of, "stop_gradient")):
        of, stopped = inner.args[0], True
    return _Peeled(peeled.value, peeled.shape, stopped) if of is x else None


def _without_maximum(x: Value, axes: Sequence[int]) -> Value:
    while (shifted := _shifted(x, axes)) is not None:
        x = shifted.x
    return x


# --- building ----------------------------------------------------------------------------------


def _along(b: Builder, name: str, x: Value, axes: Sequence[int]) -> Value:
    """softmax or log_softmax of `x` along neighbouring axes."""
    if len(axes) == 1:
        return b.call(name, x, axis=axes[0])
    shape = x.type.shape
    merged = b.reshape(x, _merged(shape, axes))
    return b.reshape(b.call(name, merged, axis=axes[0]), shape)


def _logsumexp(b: Builder, x: Value, axes: Sequence[int], shape: Shape) -> Value:
    """logsumexp of `x` along neighbouring axes, its elements arranged as `shape`."""
    kept = reduced_shape(x.type.shape, axes, keepdims=True)
    merged = x if len(axes) == 1 else b.reshape(x, _merged(x.type.shape, axes))
    found = b.call("logsumexp", merged, axis=axes[0], keepdims=len(axes) == 1 and shape == kept)
    return b.reshape(found, shape)


def _merged(shape: Shape, axes: Sequence[int]) -> Shape:
    return (*shape[: axes[0]], size_product(shape[a] for a in axes), *shape[axes[-1] + 1 :])


# --- softmax -----------------------------------------------------------------------------------


@RULES.rule("div")
def softmax_of_quotient(b: Builder, i: Instr) -> Value | None:
    """exp(x) / sum(exp(x)) = softmax(x)"""
    e, below = i.args
    return _softmax(b, e, _row_sum(below, e))


@RULES.rule("mul")
def softmax_of_product(b: Builder, i: Instr) -> Value | None:
    """exp(x) * (1 / sum(exp(x))) = softmax(x)"""
    for e, factor in (i.args, i.args[::-1]):
        found = _softmax(b, e, _row_inverse(factor, e))
        if found is not None:
            return found
    return None


def _softmax(b: Builder, e: Value, total: Instr | None) -> Value | None:
    exponent = _exponent(e)
    if exponent is None or total is None:
        return None
    axes = _axes(total)
    return _along(b, "softmax", _without_maximum(exponent.build(b), axes), axes)


# --- logarithms --------------------------------------------------------------------------------


@RULES.rule("log")
def log_of_softmax(b: Builder, i: Instr) -> Value | None:
    """log(softmax(x)) = log_softmax(x), also of picked elements"""
    found = _picked(i.args[0], "softmax")
    if found is None:
        return None
    made, picking = found
    whole = b.call("log_softmax", made.args[0], axis=_axes(made)[0])
    return _pick_again(b, whole, picking)


@RULES.rule("log")
def log_of_exp(b: Builder, i: Instr) -> Value | None:
    """log(exp(x)) = x, also of picked elements"""
    found = _picked(i.args[0], "exp")
    return _pick_again(b, found[0].args[0], found[1]) if found else None


@RULES.rule("log")
def log_of_sum_of_exp(b: Builder, i: Instr) -> Value | None:
    """log(sum(exp(x))) = logsumexp(x), also of picked elements"""
    found = _picked(i.args[0], "sum")
    if found is None:
        return None
    made, picking = found
    axes, e = _axes(made), made.args[0]
    exponent = _exponent(e)
    if exponent is None or not _is_single_run(axes, e.type.shape):
        return None
    whole = _logsumexp(b, exponent.build(b), axes, made.result.type.shape)
    return _pick_again(b, whole, picking)


@RULES.rule("add")
def logsumexp_with_maximum(b: Builder, i: Instr) -> Value | None:
    """logsumexp(x - m) + m = logsumexp(x) for m = max(x)"""
    for total, m in (i.args, i.args[::-1]):
        found = _rejoined(b, total, m)
        if found is not None:
            return found
    return None


def _rejoined(b: Builder, total: Value, m: Value) -> Value | None:
    """Only where both m let the gradient through or neither does: then they cancel."""
    if m.type != total.type:
        return None
    for lse in _logs_of_sum(total):
        shifted = _shifted(lse.y, lse.axes)
        again = _maximum_of(m, shifted.x, lse.axes) if shifted is not None else None
        if shifted is None or again is None or again.arranged != m.type.shape:
            continue
        if again.stopped == shifted.stopped:
            return _logsumexp(b, shifted.x, lse.axes, total.type.shape)
    return None


@RULES.rule("sub")
def log_softmax_of_difference(b: Builder, i: Instr) -> Value | None:
    """x - logsumexp(x) = log_softmax(x)"""
    x, total = i.args
    for lse in _logs_of_sum(total):
        if lse.y is x and _rows_of(lse.peeled, x.type.shape, lse.axes):
            return _along(b, "log_softmax", _without_maximum(x, lse.axes), lse.axes)
    return None


@dataclass(frozen=True, slots=True)
class _LogOfSum:
    """logsumexp(y) along `axes` of y, read through the layout of `peeled`."""

    y: Value
    axes: tuple[int, ...]
    peeled: _Peeled


def _logs_of_sum(value: Value) -> Iterator[_LogOfSum]:
    """`value` read as a logsumexp: of its operand, and of what was reshaped to merge axes."""
    peeled = _peel(value)
    made = made_by(peeled.value, "logsumexp")
    if made is None:
        return
    y, (axis,) = made.args[0], _axes(made)
    yield _LogOfSum(y, (axis,), peeled)
    if merged := made_by(y, "reshape"):
        wide = merged.args[0]
        for last in range(axis + 1, wide.type.rank):
            several = tuple(range(axis, last + 1))
            if _merged(wide.type.shape, several) == y.type.shape:
                yield _LogOfSum(wide, several, peeled)


PASS = Pass("stabilize", run, requires=Level.TRACED, ensures=Level.TRACED)
