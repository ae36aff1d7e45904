"""Sums of channels over what a convolution has made: taken tile by tile, while it is at hand.

    %1: f32[16, 32, 64, 64] = contract(..)
    %2: f32[1, 32, 1, 1] = sum(%1, axes=(0, 2, 3), keepdims=True)
      ->
    %1: f32[16, 32, 64, 64], %2: f32[16, 32, 8, 1, 1] = contract(..) { .. } {
      %3: f32[16, 32, 8, 8, 64] = reshape(%1)                      pieces of 8 lines
      %4: f32[16, 32, 8, 1, 1] = sum(%3, axes=(3, 4), keepdims=True)
    }
    %5: f32[1, 32, 1, 1, 1] = sum(%2, axes=(0, 2), keepdims=True)

These are the statistics of a batch norm, and the sums that its backward pass and that of a bias
need. An elementwise chain over the convolution's result is computed along, where what it reads is
there before the convolution is. All sums over one convolution are one tail of it. Where the cost
model says that this saves nothing, they stay what they are.

The sum of squared differences from the mean needs the mean, which is known when all pieces are. So
each piece takes them from its own mean c, of k elements, and adds up the differences too:

    sum (x - m)^2  =  q + (c - m) (2 r + k (c - m))     r = sum (x - c), q = sum (x - c)^2

an identity for any c (Chan, Golub, LeVeque 1983), so that c may be rounded. Nothing is lost beside
the two passes over memory that it replaces: r and q are sums of small numbers as there. The pieces
depend on the shape alone, so the bits do not depend on the threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.op import Trait
from treadle.ir.scalar import Scalar
from treadle.ir.types import Shape
from treadle.passes.copier import Copier
from treadle.passes.fuse_build import is_scalar_const, scalar_const
from treadle.passes.manager import PassContext
from treadle.passes.patterns import number
from treadle.passes.recompute import bytes_of, size_text
from treadle.passes.rewrite import made_by

PIECE: Final = 512  # elements of a piece: its lanes are added up once
SMALL: Final = 256  # elements of a plane that is not worth a result of its own
_CHAIN: Final = 12  # instructions that are computed under the pieces' shape
_CHANNELS: Final = (0, 2, 3)

CACHED: Final = 32 << 20
"""Bytes of a last-level cache. A sweep over less than that finds the result there, and leaves it
there for the next kernel, which would read it from memory in its place: measured, a tail costs what
it saves then. See docs/decisions/0029."""


@dataclass(slots=True)
class _Group:
    """The sums over one convolution. `plain`: by what is summed; `centred`: by what is squared;
    `leaves`: what they read beside its results."""

    contract: Instr
    shape: Shape
    plain: dict[Value, Instr] = field(default_factory=dict)
    centred: dict[Value, Instr] = field(default_factory=dict)
    leaves: dict[Value, None] = field(default_factory=dict)
    made: dict[Value, tuple[Value, ...]] = field(default_factory=dict)


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn`, whose reductions keep their axes, with such sums taken by pieces."""
    groups = {c: g for c, g in _groups(fn).items() if _pays(g, ctx)}
    if not groups:
        return fn
    sums = {t: g for g in groups.values() for t in (*g.plain.values(), *g.centred.values())}
    copier = Copier(fn)
    for instr in fn.instrs:
        if instr in groups:
            _emit(copier, groups[instr], ctx)
        elif instr in sums:
            with copier.builder.at(instr.loc):
                copier.replace(instr.result, _whole(copier, sums[instr], instr))
        else:
            copier.keep(instr)
    return copier.finish()


# --- which sums ------------------------------------------------------------------------------


def _groups(fn: Function) -> dict[Instr, _Group]:
    index = {r: n for n, i in enumerate(fn.instrs) for r in i.results}
    groups: dict[Instr, _Group] = {}
    for instr in fn.instrs:
        if not _is_over_channels(instr):
            continue
        operand = instr.args[0]
        squared = _centred(operand)
        leaves = _leaves(operand if squared is None else squared)
        contract = _last_windowed(leaves, index)
        if contract is None:
            continue
        early = [v for v in leaves if v not in contract.results]
        if any(index.get(v, -1) > index[contract.results[0]] for v in early):
            continue
        n, c, lines, width = operand.type.static_shape
        step = lines_of_piece(lines, width)
        shape = (n, c, lines // step, step, width)
        group = groups.setdefault(contract, _Group(contract, shape))
        group.leaves.update(dict.fromkeys(early))
        (group.plain if squared is None else group.centred)[squared or operand] = instr
    for contract, group in list(groups.items()):
        group.centred = {x: t for x, t in group.centred.items() if x in group.plain}
        if not group.plain:
            del groups[contract]
    return groups


def is_windowed(instr: Instr) -> bool:
    """A convolution without groups, or the gradient of its input, over two spatial axes."""
    if instr.op.name != "contract" or len(instr.regions) > 1:
        return False
    left, _, rest = str(_attrs(instr).spec).partition(",")
    right, _, out = rest.partition("->")
    spelled = left, right[:2], out.partition(" ")[0]
    return (
        instr.results[0].type.dtype.is_float
        and spelled in (("ockl", "nc", "noyz"), ("ockl", "no", "ncyz"))
    )  # fmt: skip


def _is_over_channels(instr: Instr) -> bool:
    if instr.op.name != "sum" or not instr.args[0].type.is_static:
        return False
    shape = instr.args[0].type.static_shape
    return (
        len(shape) == 4 and _attrs(instr).axes == _CHANNELS and bool(_attrs(instr).keepdims)
        and shape[2] * shape[3] >= SMALL and shape[3] >= 8
    )  # fmt: skip


def lines_of_piece(lines: int, width: int) -> int:
    """The fewest lines that divide all of them and make a piece of `PIECE` elements."""
    fitting = (n for n in range(1, lines + 1) if lines % n == 0 and n * width >= PIECE)
    return next(fitting, lines)


def _last_windowed(leaves: Iterable[Value], index: Mapping[Value, int]) -> Instr | None:
    found = [v.producer for v in leaves if v.producer is not None and is_windowed(v.producer)]
    return max(found, key=lambda i: index[i.results[0]], default=None)


def _leaves(value: Value) -> list[Value]:
    """The arrays in memory and numbers of channels that a short chain computes `value` from; none
    where it is something else."""
    chain = _chain(value)
    made = {i.result for i in chain}
    read = [a for i in chain for a in i.args] or [value]
    return [v for v in dict.fromkeys(read) if v not in made and not is_scalar_const(v)]


def _chain(value: Value) -> list[Instr]:
    """Operands first."""
    shape = value.type.shape
    found: dict[Instr, None] = {}
    work = [value]
    while work:
        maker = work.pop().producer
        if maker is None or not _is_computed(maker, shape):
            continue
        found.pop(maker, None)
        found[maker] = None
        if len(found) > _CHAIN:
            return []
        work += maker.args
    return list(reversed(found))


def _is_computed(maker: Instr, shape: Shape) -> bool:
    """Is it a cheap instruction over whole arrays and numbers of channels?"""
    if not isinstance(maker.op.lower, Scalar) or maker.op.has(Trait.EXPENSIVE):
        return False
    alike = all(a.type.shape == shape or _is_narrow(a, shape) for a in maker.args)
    return maker.result.type.shape == shape and alike


def _is_narrow(value: Value, shape: Shape) -> bool:
    """One number for a channel, or for all."""
    extra = 4 - value.type.rank
    full = (1,) * extra + value.type.shape
    return extra >= 0 and full in ((1, 1, 1, 1), (1, shape[1], 1, 1))


def _centred(operand: Value) -> Value | None:
    """x, where `operand` is (x - mean of x)^2 and x is a convolution's."""
    square = made_by(operand, "mul")
    off = made_by(square.args[0], "sub") if square else None
    if square is None or off is None or square.args[0] is not square.args[1]:
        return None
    x, mean = off.args
    made = x.producer
    return x if made is not None and is_windowed(made) and _is_mean(mean, x) else None


def _is_mean(value: Value, of: Value) -> bool:
    """sum(of) / count, of each channel."""
    scaled = made_by(value, "mul", "div")
    total = made_by(scaled.args[0], "sum") if scaled else None
    if scaled is None or total is None or total.args[0] is not of or not _is_over_channels(total):
        return False
    by = number(scaled.args[1])
    n, _, lines, width = of.type.static_shape
    count = n * lines * width
    expected = count if scaled.op.name == "div" else 1 / count
    return by is not None and abs(float(by) / expected - 1) < 1e-6


# --- writing them ----------------------------------------------------------------------------


def _emit(copier: Copier, group: _Group, ctx: PassContext) -> None:
    """The convolution with the sums as its tail."""
    b, old = copier.builder, group.contract
    with b.at(old.loc):
        leaves = [_outside(b, copier.of(v), group.shape) for v in group.leaves]
        epilogue = old.regions[0] if old.regions else identity(old)
        region, names = _region(group, epilogue.outputs, old.results, leaves)
        args = [*(copier.of(a) for a in old.args), *leaves]
        types = [*(r.type for r in old.results), *(v.type for v in region.outputs)]
        made = b.emit_typed(old.op, args, old.attrs, types, [epilogue, region])
    for was, now in zip(old.results, made, strict=False):
        copier.replace(was, now)
    parts = made[len(old.results) :]
    ctx.fired("tail", old.loc, f"{len(parts)} sums of channels: {_saved(group)} less to read")
    at = 0
    for value, count in names:
        group.made[value] = tuple(parts[at : at + count])
        at += count


def _pays(group: _Group, ctx: PassContext) -> bool:
    """Whether the sums become a tail; notes why not."""
    why = _against(group)
    if why is not None:
        ctx.reason("no tail", group.contract.loc, f"sums of channels: {why}")
    return why is None


def _against(group: _Group) -> str | None:
    """Why the sums are better a loop of their own; None where they are better a tail."""
    nbytes = sum(bytes_of(r.type) for r in group.contract.results)
    if nbytes <= CACHED:
        return f"{size_text(nbytes)} are in the caches when the next kernel reads them"
    return None


def _saved(group: _Group) -> str:
    return size_text(sum(bytes_of(r.type) for r in group.contract.results))


def identity(contract: Instr) -> Function:
    """An epilogue that leaves the product as it is."""
    inner = Builder("product")
    product = inner.param(contract.result.type, "product")
    return inner.finish([Result(product, "r0")])


def _outside(b: Builder, value: Value, shape: Shape) -> Value:
    """An operand as the region takes it: numbers of channels under the pieces' shape."""
    if value.type.rank == 4 and value.type.size != shape[1] and value.type.size != 1:
        return value
    return b.reshape(value, () if value.type.size == 1 else (1, shape[1], 1, 1, 1))


def _region(
    group: _Group, passed: Sequence[Value], results: Sequence[Value], leaves: Sequence[Value]
) -> tuple[Function, list[tuple[Value, int]]]:
    """The region of all sums, and for what is summed how many results are its."""
    inner = Builder("sums")
    inside: dict[Value, Value] = {}
    for n, (value, type_of) in enumerate(zip(results, passed, strict=True)):
        inside[value] = inner.param(type_of.type, f"r{n}")
    for n, (value, given) in enumerate(zip(group.leaves, leaves, strict=True)):
        inside[value] = inner.param(given.type, f"p{n}")
    whole = {v: p for v, p in inside.items() if p.type.rank == 4}
    inside.update({v: inner.reshape(p, group.shape) for v, p in whole.items()})
    outputs: list[Value] = []
    names: list[tuple[Value, int]] = []
    for value in group.plain:
        under = _computed(inner, value, inside)
        total = inner.call("sum", under, axes=(3, 4), keepdims=True)
        outputs.append(total)
        if value in group.centred:
            outputs += _differences(inner, under, total, group.shape)
        names.append((value, 3 if value in group.centred else 1))
    return inner.finish([Result(v, f"s{n}") for n, v in enumerate(outputs)]), names


def _computed(inner: Builder, value: Value, inside: dict[Value, Value]) -> Value:
    for instr in _chain(value):
        if instr.result in inside:
            continue
        args = []
        for arg in instr.args:
            if arg not in inside:
                assert arg.producer is not None
                inside[arg] = inner.call("const", data=scalar_const(arg.producer))
            args.append(inside[arg])
        with inner.at(instr.loc):
            (inside[instr.result],) = inner.emit(instr.op, args, instr.attrs)
    return inside[value]


def _differences(inner: Builder, x: Value, total: Value, shape: Shape) -> tuple[Value, Value]:
    """r and q."""
    away = inner.sub(x, inner.mul(total, 1 / _count(shape)))
    square = inner.mul(away, away)
    r, q = (inner.call("sum", v, axes=(3, 4), keepdims=True) for v in (away, square))
    return r, q


def _count(shape: Shape) -> int:
    lines, width = shape[3:]
    assert isinstance(lines, int) and isinstance(width, int)
    return lines * width


def _whole(copier: Copier, group: _Group, total: Instr) -> Value:
    """The sum over all pieces of each channel."""
    b = copier.builder
    squared = next((x for x, t in group.centred.items() if t is total), None)
    pieces = group.made[squared or total.args[0]][0]
    if squared is not None:
        s, r, q = group.made[squared]
        count = float(_count(group.shape))
        mean = made_by(made_by(total.args[0], "mul").args[0], "sub").args[1]  # type: ignore[union-attr]
        m = b.reshape(copier.of(mean), (1, group.shape[1], 1, 1, 1))
        between = b.sub(b.mul(s, 1 / count), m)
        pieces = b.add(q, b.mul(between, b.add(b.mul(r, 2.0), b.mul(between, count))))
    whole = b.call("sum", pieces, axes=(0, 2), keepdims=True)
    return b.reshape(whole, total.result.type.shape)


def _attrs(instr: Instr) -> Any:
    return instr.attrs
