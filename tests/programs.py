"""Random programs: TRACED Functions over the op table, with arguments for them.

`programs(menu)` is a hypothesis strategy; `generate(choose, menu)` makes a program from any source
of choices. Elementwise ops are taken from the table by trying their type rules, so that a new one
takes part at once; every other op has a maker here (a test keeps the list complete).

Menus: EVERYTHING draws all ops and special values, for what must hold bit for bit; SMOOTH draws
differentiable functions at tame values, for what holds within a bound; EXACT draws ops that are
the same on every machine, for compiled code that must equal the reference bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from treadle.ir.builder import Builder
from treadle.ir.errors import TreadleError
from treadle.ir.graph import Function, Loc, Result, Value
from treadle.ir.op import Attrs, OpDef, Trait, all_ops, get_op
from treadle.ir.types import DType, TensorType, bool_, float32, float64, int32, int64

Array = npt.NDArray[Any]
Choose = Callable[[int], int]  # a number below n

_STEERING = frozenset({"variable", "stop_gradient", "gradient", "attach_vjp"})
_PRINTING = frozenset({"debug_print"})  # has no results; `prints` adds to those of the program
_HOST = frozenset({"callback", "watch"})  # Python code, which is not in the program
_KERNEL_LEVEL = frozenset({"fused", "fused_table", "contract", "update"})  # what passes make
_SMOOTH_OPS = """
    neg sin cos tanh sigmoid erf softplus expm1 add sub mul sum mean var softmax log_softmax
    logsumexp layer_norm gelu silu reshape permute broadcast_to flip slice slice_update pad concat
    gather scatter_add matmul cumsum cross_entropy const softmax_idiom attention attention_idiom
    take_along add_along cumprod linear_scan batch_norm
    conv conv_input_grad conv_weight_grad window_sum window_spread to_windows from_windows
    resample pick random_uniform random_normal
"""
_EXACT_OPS = """
    neg abs sign floor ceil trunc round sqrt relu add sub mul div maximum minimum eq ne lt le gt ge
    where cast logical_and logical_or logical_not isnan max min any all argmax argmin reshape
    permute broadcast_to flip slice slice_update pad concat gather scatter iota const one_hot
    to_windows from_windows max_pool max_pool_at pick
    sort topk take_along cummax cummin random_bits random_uniform
"""
_OFTEN = """
    neg add sub mul div pow where logical_not cast sum reshape permute broadcast_to slice
    slice_update matmul
"""  # what rewrite rules are mostly about
_SIMPLE = (0, 1, -1, 2, -0.0, 0.5, 4)
_LARGEST = 400  # elements of any value


@dataclass(frozen=True)
class Menu:
    """What programs are made of. `gradients`: they end in `gradient` instructions."""

    ops: frozenset[str]
    dtypes: tuple[DType, ...]
    special_values: bool
    gradients: bool = False
    steps: int = 12


@dataclass(frozen=True)
class Program:
    """A Function and one array for each of its parameters."""

    fn: Function
    arrays: tuple[Array, ...]

    def __repr__(self) -> str:  # what hypothesis shows of a failure: text that can be saved
        shown = "\n".join(f"{a.dtype}{a.shape} {a.tolist()}" for a in self.arrays)
        return f"{self.fn}\n{shown}"


def _ordinary() -> frozenset[str]:
    plain = frozenset(op.name for op in all_ops() if not op.has(Trait.CONTROL))
    return plain - _STEERING - _PRINTING - _HOST - _KERNEL_LEVEL


EVERYTHING = Menu(_ordinary(), (float32, float64, int32, int64, bool_), special_values=True)
SMOOTH = Menu(frozenset(_SMOOTH_OPS.split()), (float64,), special_values=False)
EXACT = Menu(
    frozenset(_EXACT_OPS.split()), (float32, float64, int32, int64, bool_), special_values=True
)


@dataclass
class Draft:
    """A program being made."""

    choose: Choose
    menu: Menu
    b: Builder = field(default_factory=lambda: Builder("random"))
    pool: list[Value] = field(default_factory=list)

    def one_of(self, things: Sequence[Any]) -> Any:
        return things[self.choose(len(things))]

    def flag(self) -> bool:
        return self.choose(2) == 1

    def value(self, *, floats: bool = False, rank: int = 0, dtype: DType | None = None) -> Value:
        """One of the values so far, the latest more often. Raises IndexError for none."""
        fit = [
            v
            for v in self.pool
            if v.type.rank >= rank
            and (not floats or v.type.dtype.is_float)
            and dtype in (None, v.type.dtype)
        ]
        recent = fit[-4:] if self.flag() else fit
        return fit[0] if not recent else self.one_of(recent)

    def shape(self) -> tuple[int, ...]:
        """A suffix of one shape, with some axes of size 1, so that most shapes broadcast."""
        whole = (2, 3, 4)[self.choose(4) :]
        return tuple(1 if self.choose(4) == 0 else size for size in whole)

    def axes(self, rank: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(rank) if self.flag())


# --- makers: one per op that is not elementwise --------------------------------------------------

Maker = Callable[[Draft], Value]
MAKERS: dict[str, Maker] = {}


def maker(*names: str) -> Callable[[Callable[[Draft, str], Value]], Callable[[Draft, str], Value]]:
    """Register a function `(draft, op name) -> value` for each of `names`."""

    def add(fn: Callable[[Draft, str], Value]) -> Callable[[Draft, str], Value]:
        for name in names:
            MAKERS[name] = lambda d, name=name: fn(d, name)  # type: ignore[misc]
        return fn

    return add


@maker("const")
def _const(d: Draft, name: str) -> Value:
    dtype = d.one_of(d.menu.dtypes)
    shape = d.shape() if d.choose(3) == 0 else ()
    if d.flag():
        return d.b.const(np.full(shape, d.one_of(_SIMPLE)).astype(dtype.dtype), dtype)
    return d.b.const(numbers(np.random.default_rng(d.choose(99)), shape, dtype, d.menu), dtype)


@maker("iota")
def _iota(d: Draft, name: str) -> Value:
    shape = (*d.shape(), 3)
    return d.b.iota(shape, d.choose(len(shape)), d.one_of((int64, int32, float32)))


@maker("random_bits", "random_uniform", "random_normal")
def _random(d: Draft, name: str) -> Value:
    """From numbers that are known, and from numbers that the program computes."""
    counted = [v for v in d.pool if v.type == TensorType(int64)]
    known = [d.b.const(d.choose(3), int64) for _ in "ab"]
    seed, draw = (d.one_of([*counted, k]) for k in known)
    floats = [t for t in d.menu.dtypes if t.is_float]
    dtype = int64 if name == "random_bits" else d.one_of(floats)
    shape, offset = (*d.shape(), 4), d.choose(3)
    return d.b.call(name, seed, draw, shape=shape, dtype=dtype, offset=offset, domain=d.choose(2))


@maker("where")
def _where(d: Draft, name: str) -> Value:
    x = d.value()
    return d.b.where(d.value(dtype=bool_), x, d.value(dtype=x.type.dtype))


@maker("cast")
def _cast(d: Draft, name: str) -> Value:
    return d.b.call("cast", d.value(), dtype=d.one_of(d.menu.dtypes))


@maker("sum", "prod", "max", "min", "any", "all", "mean")
def _reduction(d: Draft, name: str) -> Value:
    x = d.value(dtype=bool_) if name in ("any", "all") else d.value()
    return d.b.call(name, x, axes=d.axes(x.type.rank), keepdims=d.flag())


@maker("argmax", "argmin")
def _arg_reduction(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    return d.b.call(name, x, axes=(d.choose(x.type.rank),), keepdims=d.flag())


@maker("var")
def _var(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    axes = (d.choose(x.type.rank),)
    return d.b.call(name, x, axes=axes, correction=0.0, keepdims=d.flag())


@maker("cumsum")
def _cumsum(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    return d.b.call(name, x, axis=d.choose(x.type.rank), reverse=d.flag())


@maker("cumprod", "cummax", "cummin")
def _running(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    return d.b.call_multi(name, x, axis=d.choose(x.type.rank))[0]


@maker("linear_scan")
def _linear_scan(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    b = d.value(dtype=x.type.dtype, rank=1)
    return d.b.call(name, x, b, axis=d.choose(x.type.rank), reverse=d.flag())


@maker("sort")
def _sort(d: Draft, name: str) -> Value:
    found = d.b.call_multi(name, d.value(rank=1), descending=d.flag())
    return d.one_of(found)  # type: ignore[no-any-return]


@maker("topk")
def _topk(d: Draft, name: str) -> Value:
    found = d.b.call_multi(name, d.value(rank=1), k=d.choose(3), largest=d.flag())
    return d.one_of(found)  # type: ignore[no-any-return]


@maker("take_along", "add_along")
def _along(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    axis = d.choose(x.type.rank)
    shape = list(x.type.static_shape)
    size, shape[axis] = shape[axis], d.one_of((1, 2, 4))
    indices = np.random.default_rng(d.choose(99)).integers(-size, max(size, 1), shape)
    index = d.b.const(indices, int64)
    if name == "take_along":
        return d.b.call(name, x, index, axis=axis, checked=d.flag())
    of = {"axis": axis, "checked": False}
    values = d.b.call("take_along", d.b.neg(x), index, **of)
    return d.b.call(name, x, values, index, axis=axis, checked=d.flag())


@maker("softmax", "log_softmax")
def _softmax(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    return d.b.call(name, x, axis=d.choose(x.type.rank))


@maker("logsumexp")
def _logsumexp(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    return d.b.call(name, x, axis=d.choose(x.type.rank), keepdims=d.flag())


@maker("layer_norm")
def _layer_norm(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    return d.b.call(name, x, axes=(x.type.rank - 1,), eps=0.1)


@maker("batch_norm")
def _batch_norm(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=2)
    channels = (x.type.shape[1],)
    weight = d.b.full(channels, d.one_of((1.0, -0.5)), x.type.dtype)
    return d.b.call(name, x, weight, d.b.neg(weight), axis=1, eps=0.1)


@maker("gelu")
def _gelu(d: Draft, name: str) -> Value:
    return d.b.call(name, d.value(floats=True), approximate=d.flag())


@maker("silu")
def _silu(d: Draft, name: str) -> Value:
    return d.b.call(name, d.value(floats=True))


@maker("one_hot")
def _one_hot(d: Draft, name: str) -> Value:
    labels = d.b.const(np.arange(1 + d.choose(3)), int64)
    return d.b.call(name, labels, depth=3, dtype=d.one_of(d.menu.dtypes))


@maker("check_index")
def _check_index(d: Draft, name: str) -> Value:
    labels = d.b.const(np.arange(1 + d.choose(3)), int32)
    return d.b.call(name, labels, size=3, what="label")


@maker("check")
def _check(d: Draft, name: str) -> Value:
    x = d.value()
    true = d.b.logical_or(d.b.eq(x, x), d.b.ne(x, x))
    return d.b.call(name, true, message="x is x, or NaN")


@maker("cross_entropy")
def _cross_entropy(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=1)
    *lead, classes = x.type.static_shape
    labels = np.resize(np.arange(d.choose(3), 9 + d.choose(3)), lead) % classes
    return d.b.call(name, x, d.b.const(labels, int64))


@maker("reshape")
def _reshape(d: Draft, name: str) -> Value:
    x = d.value()
    shape = x.type.static_shape
    at = d.choose(len(shape) + 1)
    forms = [
        (prod(shape),),
        (*shape[:at], 1, *shape[at:]),
        tuple(s for s in shape if s != 1),
        shape[::-1],
    ]
    return d.b.call(name, x, shape=d.one_of(forms))


@maker("permute")
def _permute(d: Draft, name: str) -> Value:
    x = d.value()
    rest, perm = list(range(x.type.rank)), []
    while rest:
        perm.append(rest.pop(d.choose(len(rest))))
    return d.b.call(name, x, perm=tuple(perm))


@maker("broadcast_to")
def _broadcast(d: Draft, name: str) -> Value:
    x = d.value()
    grown = tuple(d.one_of((1, 2, 3)) if s == 1 else s for s in x.type.static_shape)
    return d.b.call(name, x, shape=(2, *grown) if d.flag() else grown)


@maker("flip")
def _flip(d: Draft, name: str) -> Value:
    x = d.value()
    return d.b.call(name, x, axes=d.axes(x.type.rank))


def _part(d: Draft, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Starts, steps and shape of a part of a tensor of `shape`."""
    starts, steps, sizes = [], [], []
    for size in shape:
        start = d.choose(size) if size else 0
        step = d.one_of((1, 1, 2, -1, -2))
        room = (size - start - 1) // step if step > 0 else start // -step
        starts.append(start)
        steps.append(step)
        sizes.append(1 + d.choose(room + 1) if size else 0)
    return {"starts": tuple(starts), "steps": tuple(steps), "shape": tuple(sizes)}


@maker("slice")
def _slice(d: Draft, name: str) -> Value:
    x = d.value()
    return d.b.call(name, x, **_part(d, x.type.static_shape))


@maker("slice_update")
def _slice_update(d: Draft, name: str) -> Value:
    x = d.value()
    part = _part(d, x.type.static_shape)
    v = d.b.call("slice", d.value(dtype=x.type.dtype), **part)
    place = {"starts": part["starts"], "steps": part["steps"]}
    written = d.b.call(name, x, v, **place)
    if d.choose(3):
        return written
    read = d.b.call("slice", written, **part)  # `x[p] += ..`, as a trace has it
    return d.b.call(name, written, d.b.neg(read) if d.flag() else read, **place)


@maker("pad")
def _pad(d: Draft, name: str) -> Value:
    x = d.value()
    low, high = ([d.choose(3) for _ in x.type.shape] for _ in range(2))
    one: Any = np.asarray(d.one_of((0, 1, -0.0))).astype(x.type.dtype.dtype).item()
    return d.b.call(name, x, low=tuple(low), high=tuple(high), value=one)


@maker("concat")
def _concat(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    more = [d.value(dtype=x.type.dtype) for _ in range(d.choose(3))]
    return d.b.call(name, x, *more, axis=d.choose(x.type.rank))


def _indices(d: Draft, x: Value, count: int, shape: tuple[int, ...]) -> list[Value]:
    """`count` index constants inside the first axes of `x`, some counted from the end."""
    rng = np.random.default_rng(d.choose(99))
    sizes = x.type.static_shape[:count]
    return [d.b.const(rng.integers(-size, size, shape), int64) for size in sizes]


@maker("gather")
def _gather(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    count = 1 + d.choose(x.type.rank)
    idx = _indices(d, x, count, d.one_of(((), (3,), (2, 2))))
    return d.b.call(name, x, *idx, axes=tuple(range(count)), checked=d.flag())


@maker("scatter", "scatter_add")
def _scatter(d: Draft, name: str) -> Value:
    x = d.value(rank=1)
    count = 1 + d.choose(x.type.rank)
    idx = _indices(d, x, count, d.one_of(((), (3,), (2, 2))))
    axes = tuple(range(count))
    v = d.b.call("gather", d.value(dtype=x.type.dtype), *idx, axes=axes, checked=False)
    return d.b.call(name, x, v, *idx, axes=axes, checked=d.flag())


@maker("matmul")
def _matmul(d: Draft, name: str) -> Value:
    x = d.value(floats=True, rank=2)
    y = x if d.flag() else d.value(dtype=x.type.dtype, rank=2)
    return d.b.matmul(x, y if x is not y else d.b.transpose(x))


@maker("softmax_idiom")
def _softmax_idiom(d: Draft, name: str) -> Value:
    """A softmax or a relative of it as people write it by hand."""
    x = d.value(floats=True, rank=1)
    axis = d.choose(x.type.rank)
    b, m = d.b, d.b.max(x, axis, keepdims=True)
    z = b.sub(x, m) if d.flag() else x
    e, s = b.exp(z), b.sum(b.exp(z), axis, keepdims=True)
    forms = [
        lambda: b.div(e, s),
        lambda: b.mul(e, b.div(1, s)),
        lambda: b.log(b.div(e, s)),
        lambda: b.log(s) if z is x else b.add(b.log(s), m),
        lambda: b.sub(z, b.log(s)),
        lambda: b.div(e, b.reshape(b.sum(e, axis), s.type.shape)),
        lambda: b.div(e, b.sum(e, axis)),  # another function, or no function at all
    ]
    return d.one_of(forms)()  # type: ignore[no-any-return]


@maker("attention", "attention_grad", "attention_forward", "attention_backward")
def _attention(d: Draft, name: str) -> Value:
    """Of a value with itself; the kernels' ops as they stand before fusion."""
    x = d.value(floats=True, rank=2)
    attrs = {"scale": 0.5, "causal": d.flag()}
    more = [x] if name == "attention_grad" else []
    if name == "attention_backward":
        more = [*d.b.call_multi("attention_forward", x, x, x, **attrs), x]
    return d.one_of(d.b.call_multi(name, x, x, x, *more, **attrs))  # type: ignore[no-any-return]


@maker("attention_idiom")
def _attention_idiom(d: Draft, name: str) -> Value:
    """Attention as people write it by hand, or what resembles it."""
    x = d.value(floats=True, rank=2)
    b = d.b
    scores = b.matmul(x, b.transpose(x) if d.flag() else b.transpose(b.mul(x, 2)))
    if d.flag():
        scores = b.mul(scores, 0.5) if d.flag() else b.div(scores, 3)
    size = x.type.static_shape[-2]
    keep = b.le(b.iota((size, size), 1, int64), b.iota((size, size), 0, int64))
    if d.flag():
        scores = b.where(keep, scores, d.one_of((float("-inf"), -5.0)))
    elif d.flag():
        scores = b.where(keep, float("-inf"), scores)
    weights = b.call("softmax", scores, axis=x.type.rank - d.choose(2) - 1)
    product = b.matmul(weights, x)
    return b.add(product, b.sum(weights, -1, keepdims=True)) if d.choose(4) == 0 else product


# --- elementwise ops, by their type rules -------------------------------------------------------


@cache
def arity(op: OpDef) -> int:
    """How many operands an elementwise op takes, found by trying its type rule."""
    for count in (1, 2, 3):
        for dtype in (float32, int32, bool_):
            try:
                op.infer_types(op.attrs(), [TensorType(dtype)] * count)
            except TreadleError:
                continue
            return count
    raise ValueError(f"no operands fit {op.name}")


def _elementwise(d: Draft, op: OpDef) -> Value:
    first = d.value()
    more = [d.value(dtype=first.type.dtype) for _ in range(arity(op) - 1)]
    if more and d.choose(3) == 0:
        more[-1] = _simple_constant(d, first.type)
        if d.choose(4) == 0:
            first, more[-1] = more[-1], first
    return d.b.emit(op, (first, *more))[0]


def _simple_constant(d: Draft, like: TensorType) -> Value:
    """One number, as such or in the shape of a value of type `like`."""
    one = np.asarray(d.one_of(_SIMPLE)).astype(like.dtype.dtype)
    shape = like.static_shape if d.flag() else ()
    return d.b.full(shape, one.item(), like.dtype)


def _is_generic(name: str) -> bool:
    return name not in MAKERS and get_op(name).elementwise and get_op(name).attrs is Attrs


def covered(name: str) -> bool:
    """Do random programs hold the op called `name`?"""
    return name in MAKERS or _is_generic(name)


# --- whole programs -----------------------------------------------------------------------------


def numbers(rng: np.random.Generator, shape: Sequence[int], dtype: DType, menu: Menu) -> Array:
    """An array of `dtype`; with special values where the menu has them."""
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if not dtype.is_float:
        return rng.integers(-5, 6, shape).astype(dtype.dtype)
    tame = rng.uniform(-2, 2, shape)
    if menu.special_values:
        odd = [0.0, -0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3e38, 1.0, 88.9, 3e9]
        tame = np.where(rng.uniform(size=shape) < 0.5, rng.choice(odd, shape), tame)
    with np.errstate(over="ignore"):
        return np.asarray(tame).astype(dtype.dtype)


def generate(choose: Choose, menu: Menu) -> Program:
    """A program of up to `menu.steps` steps; a step that no type rule accepts is skipped."""
    d = Draft(choose, menu)
    rng = np.random.default_rng(choose(1000))
    arrays = []
    for n in range(1 + choose(3)):
        dtype = menu.dtypes[0] if n == 0 else d.one_of(menu.dtypes)
        kind = "state" if choose(4) == 0 else "arg"
        shape = d.shape()
        arrays.append(numbers(rng, shape, dtype, menu))
        param = d.b.param(TensorType(dtype, shape), f"p{n}", "state" if kind == "state" else "arg")
        d.pool.append(d.b.call("variable", param) if menu.gradients else param)
    variables = [v for v in d.pool if v.type.dtype.is_float]
    names = sorted(menu.ops)
    names += [n for n in _OFTEN.split() if n in menu.ops] * 3
    for line in range(1, 1 + choose(menu.steps + 1)):
        d.b.loc = Loc("random.py", line)
        _step(d, names)
    results = [*_unused(d)[-8:], *(d.value() for _ in range(choose(3)))]
    if menu.gradients:
        results += _gradients(d, variables)
    named = [Result(v, f"r{n}") for n, v in enumerate(results)]
    return Program(d.b.finish(named), tuple(arrays))


def _step(d: Draft, names: Sequence[str]) -> None:
    """One more value; what a refused attempt emitted on the way is dead code, which is welcome."""
    for _ in range(3):
        name = d.one_of(names)
        try:
            value = MAKERS[name](d) if name in MAKERS else _elementwise(d, get_op(name))
        except (TreadleError, IndexError):
            continue  # no operands fit
        if prod(value.type.static_shape) <= _LARGEST:
            d.pool.append(value)
        return


def _unused(d: Draft) -> list[Value]:
    """What no instruction takes, so that all of the program is alive."""
    used = {arg for instr in d.b.instrs for arg in instr.args}
    return [v for v in d.pool if v not in used] or d.pool[-1:]


def loss_of(b: Builder, value: Value) -> Value:
    """All elements of `value` in one number, each with its own weight."""
    size = prod(value.type.static_shape)
    weights = np.cos(np.arange(size)).reshape(value.type.static_shape)
    return b.sum(b.mul(value, b.const(weights, value.type.dtype)))


def _gradients(d: Draft, variables: Sequence[Value]) -> list[Value]:
    """The loss of some value and its gradient by each variable."""
    loss = loss_of(d.b, d.value(floats=True))
    one = d.b.const(1, loss.type.dtype)
    return [loss, *d.b.call_multi("gradient", loss, one, *variables, outputs=1)]


def seeded(seed: int, menu: Menu) -> Program:
    """The program of a number: for sweeps, which reach more rules than a search that shrinks."""
    return generate(Random(seed).randrange, menu)


@st.composite
def programs(draw: st.DrawFn, menu: Menu) -> Program:
    """Random programs; shrinks towards few steps and the first choices."""
    return generate(lambda n: draw(st.integers(0, n - 1)), menu)


def uncovered_ops() -> list[str]:
    """Ops of the table that no random program holds."""
    return sorted(n for n in _ordinary() if not covered(n))


import window_makers  # noqa: E402, F401  registers makers, which need what is defined above
