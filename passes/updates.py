"""What an optimiser does to each of many parameters is set apart, once for parameters of one type.

    %5: f32[64, 10] = mul(%lr, %g)
    %6: f32[64, 10] = sub(%p, %5)      ->   %6: f32[64, 10] = update(%lr, %g, %p) { mul; sub }
    return state %6 "p"                     return state %6 "p"

An optimiser's step is a dozen elementwise instructions for each parameter: most of what a train
step holds, and the same ones again and again. `outline` makes one instruction of each parameter's,
and those of one type share one region, so that the passes behind it work once for a type of
parameter and not once for a parameter. It takes what is computed for new values of state alone, if
nothing else reads it. `settle`, a part of fusion, makes regions of those whose operands are
finished arrays in any case, and writes the others out again, to fuse with what computes these.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Final

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Level, Result, Value, uses
from treadle.ir.op import NO_ATTRS, OpDef, Trait, get_op
from treadle.ir.regions import is_reduction
from treadle.ir.scalar import Scalar
from treadle.ir.structure import attrs_key
from treadle.passes.copier import Copier
from treadle.passes.fuse_regions import MAX_CHEAP, is_cheap
from treadle.passes.fuse_shapes import is_fusible
from treadle.passes.manager import Pass, PassContext

MIN_ALIKE: Final = 4  # updates of one type that are worth a region
MAX_INSTRS: Final = 64  # in one update
_APART: Final = frozenset({Trait.CAN_FAULT, Trait.EFFECT, Trait.BARRIER, Trait.COMPOSITE})


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with its equal updates of state outlined."""
    alike: dict[Hashable, list[_Update]] = {}
    kept = set(fn.outputs)
    for members in _islands(fn):
        if len(members) <= MAX_INSTRS:
            update = _update(members, kept)
            alike.setdefault(update.key, []).append(update)
    chosen = [u for updates in alike.values() if len(updates) >= MIN_ALIKE for u in updates]
    return _outlined(fn, chosen, ctx) if chosen else fn


# --- finding them ----------------------------------------------------------------------------


def _islands(fn: Function) -> list[list[Instr]]:
    """The instructions of each update, in order: what leads to new values of state of one shape,
    and to nothing else."""
    states = {r.value for r in fn.results if r.kind == "state"}
    shown = {r.value for r in fn.results if r.kind != "state"}
    users = uses(fn)
    home: dict[Instr, list[int]] = {}  # the update of each member: numbers of its instructions
    for n in range(len(fn.instrs) - 1, -1, -1):
        instr = fn.instrs[n]
        if not _may_belong(instr) or instr.result in shown:
            continue
        value = instr.result
        readers = users.get(value, ())
        if not readers and value not in states:
            continue
        if any(r not in home or r.result.type.shape != value.type.shape for r in readers):
            continue
        mine = home[readers[0]] if readers else []
        for reader in readers[1:]:
            other = home[reader]
            if other is not mine:
                mine += other
                home.update((fn.instrs[m], mine) for m in other)
        mine.append(n)
        home[instr] = mine
    found = {id(numbers): numbers for numbers in home.values()}
    return [[fn.instrs[n] for n in sorted(numbers)] for numbers in found.values()]


def _may_belong(instr: Instr) -> bool:
    """An elementwise instruction over arrays of its own shape and numbers."""
    if not _has_fitting_op(instr.op):
        return False
    shape = instr.results[0].type.shape
    return bool(shape) and all(a.type.shape in (shape, ()) for a in instr.args)


@cache
def _has_fitting_op(op: OpDef) -> bool:
    return isinstance(op.lower, Scalar) and _APART.isdisjoint(op.traits)


@dataclass(frozen=True, slots=True)
class _Update:
    """One parameter's instructions, what they read and what is kept of them; `key` is equal for
    updates that differ in nothing but their shape."""

    members: Sequence[Instr]
    operands: Sequence[Value]
    outputs: Sequence[Value]
    key: Hashable


def _update(members: Sequence[Instr], kept: set[Value]) -> _Update:
    number: dict[Value, int] = {}
    operands: list[Value] = []
    key: list[Hashable] = []
    for instr in members:
        for arg in instr.args:
            if arg not in number:
                const = _number(arg)
                if const is None:
                    operands.append(arg)
                    key += arg.type.dtype, bool(arg.type.shape)
                number[arg] = len(number)
                key.append(const)
        value = instr.result
        number[value] = len(number)
        attrs = None if instr.attrs is NO_ATTRS else attrs_key(instr.attrs)
        key += instr.op.name, attrs, value.type.dtype, value in kept, instr.loc
        key += [number[a] for a in instr.args]
    outputs = [i.result for i in members if i.result in kept]
    return _Update(members, operands, outputs, tuple(key))


def _number(value: Value) -> Hashable:
    """What a constant of rank 0 holds; None for everything else."""
    if value.type.shape or value.producer is None or value.producer.op.name != "const":
        return None
    return attrs_key(value.producer.attrs)


# --- outlining -------------------------------------------------------------------------------


def _outlined(fn: Function, updates: Sequence[_Update], ctx: PassContext) -> Function:
    last = {u.members[-1]: u for u in updates}
    inside = {i for u in updates for i in u.members}
    regions: dict[Hashable, Function] = {}
    op = get_op("update")
    copier = Copier(fn)
    for instr in fn.instrs:
        update = last.get(instr)
        if update is not None:
            kind = update.key, instr.result.type.shape
            if kind not in regions:
                regions[kind] = _region(update)
                ctx.fired("outline", instr.loc, regions[kind].name)
            with copier.builder.at(instr.loc):
                args = [copier.of(v) for v in update.operands]
                types = [v.type for v in update.outputs]
                outs = copier.builder.emit_typed(op, args, NO_ATTRS, types, [regions[kind]])
            for old, new in zip(update.outputs, outs, strict=True):
                copier.replace(old, new)
        elif instr not in inside:
            copier.keep(instr)
    return copier.finish()


def _region(update: _Update) -> Function:
    b = Builder(_name(update.members))
    inside = {v: b.param(v.type, f"p{n}") for n, v in enumerate(update.operands)}
    for instr in update.members:
        with b.at(instr.loc):
            for arg in instr.args:
                if arg not in inside and arg.producer is not None:
                    const = arg.producer
                    (inside[arg],) = b.emit_typed(const.op, (), const.attrs, [arg.type])
            args = [inside[a] for a in instr.args]
            types = [instr.result.type]
            (inside[instr.result],) = b.emit_typed(instr.op, args, instr.attrs, types)
    return b.finish([Result(inside[v], f"r{n}") for n, v in enumerate(update.outputs)])


def _name(instrs: Sequence[Instr]) -> str:
    """Says what is inside: the names of its first ops."""
    return "_".join(list(dict.fromkeys(i.op.name for i in instrs))[:4])


# --- fusion ----------------------------------------------------------------------------------


def settle(fn: Function) -> Function:
    """`fn`, whose products are contractions, without updates: each is a fused region, or its
    instructions again."""
    if not any(i.op.name == "update" for i in fn.instrs):
        return fn
    copier = Copier(fn)
    maps = _Maps(copier, set(fn.outputs))
    for instr in fn.instrs:
        if instr.op.name != "update":
            copier.keep(instr)
            continue
        with copier.builder.at(instr.loc):
            outs = maps.fused(instr) or _written_out(copier, instr)
        for old, new in zip(instr.results, outs, strict=True):
            copier.replace(old, new)
    return copier.finish()


class _Maps:
    """Makes fused regions of updates. What those of one type share stays shared: they read the same
    numbers, and compute the same of them again."""

    def __init__(self, copier: Copier, outputs: set[Value]) -> None:
        self.copier, self.outputs = copier, outputs
        self.made: dict[Hashable, tuple[Function, list[Value]] | None] = {}

    def fused(self, instr: Instr) -> tuple[Value, ...] | None:
        """The results of `instr` as a fused region; None where an operand would be stored for it
        alone, or its region is no map."""
        (region,) = instr.regions
        arrays = [self.copier.of(a) for a in instr.args if a.type.shape]
        numbers = tuple([a for a in instr.args if not a.type.shape])
        kind = region, numbers
        if kind not in self.made:
            self.made[kind] = self._map(region, numbers) if _is_map(region) else None
        found = self.made[kind]
        if found is None or not all(map(_is_finished, arrays)):
            return None
        inner, leaves = found
        op = get_op("fused")
        attrs = op.attrs(space=region.outputs[0].type.shape, reduced=())  # type: ignore[call-arg]
        args = [*arrays, *map(self.copier.of, leaves)]
        return self.copier.builder.emit_typed(
            op, args, attrs, [v.type for v in inner.outputs], [inner]
        )

    def _map(self, region: Function, numbers: Sequence[Value]) -> tuple[Function, list[Value]]:
        """`region` with what is cheap of `numbers` computed inside, arrays before numbers; and the
        numbers that it reads."""
        b = Builder(region.name)
        inside: dict[Value, Value] = {}
        for param in region.inputs:
            if param.type.shape:
                inside[param] = b.param(param.type, f"p{len(inside)}")
        chain, leaves = self._cheap(numbers)
        outside = {leaf: b.param(leaf.type, f"p{len(inside) + n}") for n, leaf in enumerate(leaves)}
        _copy(b, chain, outside)
        scalars = [p for p in region.inputs if not p.type.shape]
        inside.update(zip(scalars, (outside[v] for v in numbers), strict=True))
        _copy(b, region.instrs, inside)
        outs = [Result(inside[r.value], r.path, r.kind) for r in region.results]
        return b.finish(outs), leaves

    def _cheap(self, numbers: Sequence[Value]) -> tuple[list[Instr], list[Value]]:
        """The instructions, operands first, that compute `numbers` from others, and these: what is
        in memory anyway, and what takes more than a few cheap instructions from there."""
        chain: dict[Instr, None] = {}
        leaves: dict[Value, None] = {}
        work = [(v, False) for v in reversed(numbers)]
        while work:
            value, ready = work.pop()
            maker = value.producer
            if maker is None or not self._is_cheap(value):
                leaves[value] = None
            elif ready:
                chain[maker] = None
            elif maker not in chain:
                work.append((value, True))
                work += [(a, False) for a in reversed(maker.args)]
        return list(chain), list(leaves)

    def _is_cheap(self, number: Value) -> bool:
        """Takes a few cheap instructions from numbers that are in memory anyway."""
        if number in self.outputs:
            return False
        seen: set[Value] = set()
        work = [number]
        while work:
            value = work.pop()
            maker = value.producer
            if maker is None or value in self.outputs or value in seen:
                continue
            seen.add(value)
            if not _is_cheap_number(maker) or len(seen) > MAX_CHEAP:
                return False
            work += maker.args
        return True


def _is_cheap_number(maker: Instr) -> bool:
    """Computes a number from numbers for less than a kernel of its own costs."""
    if maker.op.name == "const":
        return True
    return is_fusible(maker) and is_cheap(maker) and all(not a.type.shape for a in maker.args)


def _is_map(region: Function) -> bool:
    """Is every result computed inside, by what can be inside a fused region of its shape?"""
    made = {r for i in region.instrs if i.op.name != "const" for r in i.results}
    return made.issuperset(region.outputs) and all(
        isinstance(i.op.lower, Scalar)
        or i.op.name == "broadcast_to"
        or (i.op.name == "const" and not i.result.type.shape)
        for i in region.instrs
    )


def _is_finished(value: Value) -> bool:
    """In memory whatever fusion decides: a parameter, what a kernel or a reduction gives, a view of
    these."""
    while value.producer is not None and value.producer.op.name == "reshape":
        value = value.producer.args[0]
    made = value.producer
    return made is None or is_reduction(made.op) or not is_fusible(made)


def _written_out(copier: Copier, instr: Instr) -> list[Value]:
    (region,) = instr.regions
    known = dict(zip(region.inputs, map(copier.of, instr.args), strict=True))
    _copy(copier.builder, region.instrs, known)
    return [known[v] for v in region.outputs]


def _copy(b: Builder, instrs: Sequence[Instr], known: dict[Value, Value]) -> None:
    """Emit `instrs` again with operands by `known`, to which their results are added."""
    for instr in instrs:
        with b.at(instr.loc):
            args, types = [known[a] for a in instr.args], [r.type for r in instr.results]
            outs = b.emit_typed(instr.op, args, instr.attrs, types, instr.regions)
        known.update(zip(instr.results, outs, strict=True))


PASS = Pass("outline", run, requires=Level.TRACED, ensures=Level.TRACED)
