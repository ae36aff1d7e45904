"""Epilogues: elementwise consumers of a contraction move into it.

    %3: f32[8, 64] = contract(%0, %1, spec="mk,kn->mn")    %5: f32[8, 64] = contract(%0, %1, %2,
    %4: f32[8, 64] = add(%3, %2)                       ->      spec="mk,kn->mn") { .. add, relu .. }
    %5: f32[8, 64] = relu(%4)

A contraction takes in whatever follows it element by element: bias, activation, residual, scale,
mask, the derivative of an activation, accumulation. What else such an instruction reads must be
there before the contraction is, or be computed from such values (`gt(h, 0)` under a `where`), which
then moves along where nothing else wants it or where it is cheap. Views between are looked through:
the epilogue has the shape of the product.

A second walk, from the end, finds what the rest of the program needs of each epilogue. All of that
is stored, except cheap values that can be computed again from what is stored anyway.

New values of state stay outside, with all that is computed for them alone: maps write them over the
old ones, which an epilogue cannot, and one map serves all parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Result, Value, uses
from treadle.ir.op import Trait, must_run
from treadle.ir.regions import broadcasts_to, is_epilogue_op
from treadle.ir.types import Shape, size_product
from treadle.passes.fuse_build import is_scalar_const, scalar_const
from treadle.passes.fuse_regions import MAX_CHEAP
from treadle.passes.fuse_shapes import is_fusible, regrouped
from treadle.passes.manager import PassContext

MAX_INSTRS: Final = 60  # in one epilogue
MAX_ARRAYS: Final = 4  # operands of the product's size


@dataclass(slots=True)
class Epilogue:
    """What one contraction takes in.

    `members` consume the product, `values` are their results, the product and views of these;
    `slices` are computed from other values
    and moved along; `leaves` are operands, `views` says what other operands are views of. `stored`:
    the values that the rest of the program needs.
    """

    contract: Instr
    members: list[Instr] = field(default_factory=list)
    values: set[Value] = field(default_factory=set)
    slices: set[Instr] = field(default_factory=set)
    leaves: set[Value] = field(default_factory=set)
    views: dict[Value, Value] = field(default_factory=dict)
    stored: list[Value] = field(default_factory=list)

    @property
    def product(self) -> Value:
        return self.contract.result

    def large(self, more: Iterable[Value] = ()) -> int:
        """How many operands are as large as the product."""
        size = self.product.type.size
        return sum(v.type.size == size for v in self.leaves.union(more))


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with elementwise consumers of its contractions as their epilogues."""
    if not any(i.op.name == "contract" for i in fn.instrs):
        return fn
    walk = _Walk(fn, ctx)
    found = [walk.epilogue(n) for n, i in enumerate(fn.instrs) if i.op.name == "contract"]
    grown = {e.contract: e for e in found if e.members}
    if not grown:
        return fn
    kept = _Needs(fn, grown, walk.index).choose()
    return _emit(fn, grown, kept, ctx)


# --- what an epilogue may hold ---------------------------------------------------------------


class _Walk:
    """Grows epilogues forward from their contractions."""

    def __init__(self, fn: Function, ctx: PassContext) -> None:
        self.fn, self.ctx = fn, ctx
        self.index = {r: n for n, i in enumerate(fn.instrs) for r in i.results}
        self.place = dict(self.index)  # where a value is computed: a member's is its contraction's
        self.users = uses(fn)
        self.states = self._updates()
        self.taken: set[Instr] = set()

    def epilogue(self, at: int) -> Epilogue:
        """The epilogue of the contraction at position `at`."""
        found = Epilogue(self.fn.instrs[at])
        found.values.add(found.product)
        heap: list[int] = []
        self._follow(found.product, heap)
        while heap:
            n = heappop(heap)
            instr = self.fn.instrs[n]
            if instr.results[0] in found.values:
                continue
            if instr.op.name == "reshape":
                found.values.add(instr.result)
            else:
                why = self._take(found, instr, at)
                if why is not None:
                    self._tell(instr, why)
                    continue
            self._follow(instr.result, heap)
        return found

    def _updates(self) -> set[Value]:
        """New values of state, and what is computed for them alone."""
        found = {r.value for r in self.fn.results if r.kind == "state"}
        others = {r.value for r in self.fn.results if r.kind != "state"}
        for instr in reversed(self.fn.instrs):
            is_view = instr.op.name == "reshape"
            if len(instr.results) != 1 or not (is_view or is_fusible(instr)):
                continue
            users = self.users.get(instr.result, ())
            if users and instr.result not in others and all(u.results[0] in found for u in users):
                found.add(instr.result)
        return found

    def _follow(self, value: Value, heap: list[int]) -> None:
        for user in self.users.get(value, ()):
            heappush(heap, self.index[user.results[0]])

    def _tell(self, instr: Instr, why: str) -> None:
        if why and instr.op.name != "contract":
            self.ctx.reason("not in an epilogue", instr.loc, f"{instr.op.name}: {why}")

    def _take(self, found: Epilogue, instr: Instr, at: int) -> str | None:
        """Make `instr` a member, or say why not."""
        if len(instr.results) != 1 or not is_fusible(instr) or not is_epilogue_op(instr):
            return ""
        shape = instr.result.type.shape
        if instr in self.taken:
            return "another contraction has it"
        if instr.result in self.states:
            return "it belongs to the update of state"
        if any(a in found.values and a.type.shape != shape for a in instr.args):
            return "it broadcasts the product"
        if regrouped(shape, found.product.type.shape, shape) is None:
            return f"its shape is no view of the product's {found.product.type}"
        slices: set[Instr] = set()
        leaves: set[Value] = set()
        for arg in instr.args:
            if arg in found.values:
                continue
            why = self._operand(found, arg, shape, at, instr, slices, leaves)
            if why is not None:
                return why
        if self._is_done_twice(found, instr, slices):
            return "an expensive operand would be computed twice"
        if len(found.members) + len(found.slices | slices) >= MAX_INSTRS:
            return "the epilogue would be too large"
        if found.large(leaves) > MAX_ARRAYS:
            return "the epilogue would read too many arrays"
        found.slices |= slices
        found.leaves |= leaves
        found.members.append(instr)
        found.values.add(instr.result)
        self.place[instr.result] = at
        self.taken.add(instr)
        return None

    def _operand(
        self, found: Epilogue, value: Value, shape: Shape, at: int, user: Instr,
        slices: set[Instr], leaves: set[Value],
    ) -> str | None:  # fmt: skip
        """Can an epilogue whose consumer has `shape` have `value`? Fills `slices` and `leaves`."""
        work = [(value, user)]
        while work:
            here, user = work.pop()
            if is_scalar_const(here) or here in leaves:
                continue
            if regrouped(shape, found.product.type.shape, here.type.shape) is None:
                return f"an operand {here.type} does not broadcast to the product's shape"
            maker = here.producer
            if maker is not None and maker in slices | found.slices:
                continue
            if maker is not None and self._moves_along(found, maker, user, shape, at):
                slices.add(maker)
                if len(slices) > MAX_INSTRS:
                    return "the epilogue would be too large"
                work.extend((a, maker) for a in maker.args)
                continue
            source = self._early(here, found.product, at)
            if source is None:
                return "an operand is computed later than the product"
            found.views[here] = source
            leaves.add(source)
        return None

    def _is_done_twice(self, found: Epilogue, user: Instr, slices: set[Instr]) -> bool:
        """Would others than the epilogue compute something expensive of `slices`, too?"""
        inside = {user, *slices, *found.slices, *found.members}
        twice = [s for s in slices if not inside.issuperset(self.users[s.result])]
        return len(twice) > MAX_CHEAP or any(s.op.has(Trait.EXPENSIVE) for s in twice)

    def _early(self, value: Value, product: Value, at: int) -> Value | None:
        """`value`, or what it is a view of, that is there before the contraction at `at`."""
        while self.place.get(value, -1) > at:
            maker = value.producer
            is_whole = value.type.size in (1, product.type.size)
            if maker is None or maker.op.name != "reshape" or not is_whole:
                return None
            value = maker.args[0]
        return value

    def _moves_along(
        self, found: Epilogue, maker: Instr, user: Instr, shape: Shape, at: int
    ) -> bool:
        """Is the operand that `maker` computes better computed inside?"""
        if not is_fusible(maker) or not is_epilogue_op(maker) or maker in self.taken:
            return False
        if maker.op.name == "iota":
            mapped = regrouped(shape, found.product.type.shape, maker.result.type.shape)
            return mapped == _stripped(maker.result.type.shape)
        if maker.result in self.states:
            return False
        if self.place[maker.result] > at:
            return True  # there is no other way
        if all(u is user for u in self.users[maker.result]):
            return maker.result not in self.fn.outputs
        if maker.op.has(Trait.EXPENSIVE):
            return False
        large = [a for a in maker.args if a.type.size == found.product.type.size]
        return maker.op.name == "broadcast_to" or len(large) <= 1


def _stripped(shape: Shape) -> Shape:
    """Without leading 1s."""
    first = next((n for n, s in enumerate(shape) if s != 1), len(shape))
    return shape[first:]


# --- what the rest of the program needs ------------------------------------------------------


class _Needs:
    """The walk from the last instruction to the first."""

    def __init__(
        self, fn: Function, grown: Mapping[Instr, Epilogue], index: Mapping[Value, int]
    ) -> None:
        self.fn, self.grown, self.index = fn, grown, index
        self.home = {m.result: e for e in grown.values() for m in e.members}
        self.products = {e.product for e in grown.values()}
        self.needed: set[Value] = set(fn.outputs)
        self.in_memory: set[Value] = set(fn.outputs)

    def choose(self) -> set[Instr]:
        """Fills `stored`; the instructions that stay outside of epilogues."""
        kept: set[Instr] = set()
        for n in range(len(self.fn.instrs) - 1, -1, -1):
            instr = self.fn.instrs[n]
            if instr in self.grown:
                kept.update(self._settle(self.grown[instr], n))
            elif not self.needed.isdisjoint(instr.results) or must_run(instr.op, instr.attrs):
                if instr.results and instr.results[0] in self.home:
                    continue  # stored, until `_settle` says otherwise
                kept.add(instr)
                self._read(instr)
        return kept

    def _read(self, instr: Instr) -> None:
        self.needed.update(instr.args)
        if instr.op.name == "reshape":
            if instr.result in self.in_memory:
                self.in_memory.update(instr.args)
        elif not is_fusible(instr):
            self.in_memory.update(instr.args)

    def _settle(self, epilogue: Epilogue, at: int) -> Iterator[Instr]:
        """Decide what is stored; the members that are computed again outside."""
        values = [epilogue.product, *(m.result for m in epilogue.members)]
        choices = [self._stored(epilogue, values, base, at) for base in (None, *values)]
        stored, again = min(choices, key=lambda choice: len(choice[0]))
        dtype = epilogue.product.type.dtype
        if stored and all(v.type.dtype != dtype for v in stored):
            stored.insert(0, epilogue.product)
        epilogue.stored = stored
        for maker in again:
            yield maker
            self._read(maker)
        if stored:
            leaves = _body(epilogue)[1]
            self.needed.update(leaves)
            self.in_memory.update(leaves)
            self.needed.update(epilogue.contract.args)
            self.in_memory.update(epilogue.contract.args)

    def _stored(
        self, epilogue: Epilogue, values: Sequence[Value], base: Value | None, at: int
    ) -> tuple[list[Value], list[Instr]]:
        """What must be stored, `base` among it, and the members that are computed again."""
        behind = _sources(epilogue)
        inside = {a for m in epilogue.members for a in m.args}
        stored: list[Value] = []
        again: dict[Instr, None] = {}
        for value in values:
            if value not in self.needed and value is not base:
                continue
            makers = None
            if value is not base and value not in self.in_memory:
                makers = self._had_again(value, inside, behind, {*stored}, at)
            if makers is None:
                stored.append(value)
            else:
                again.update(dict.fromkeys(makers))
        return stored, list(again)

    def _had_again(
        self, value: Value, inside: set[Value], behind: Mapping[Value, Value],
        stored: set[Value], at: int,
    ) -> list[Instr] | None:  # fmt: skip
        """The members that compute `value` from what is stored, for who needs it outside; None
        where that costs more than storing it."""
        found: list[Instr] = []
        work = [value]
        while work:
            maker = work.pop().producer
            if maker is None or maker.op.name == "contract" or len(found) > MAX_CHEAP:
                return None
            if maker.op.has(Trait.EXPENSIVE) and maker.result in inside:
                return None
            found.append(maker)
            for arg in maker.args:
                source = behind.get(arg)
                if source is None or not (source in self.home or source in self.products):
                    if arg not in self.needed and self.index.get(arg, -1) > at:
                        return None
                elif arg is not source and arg not in self.needed:
                    return None
                elif source not in stored:
                    work.append(source)
        return found


def _sources(epilogue: Epilogue) -> dict[Value, Value]:
    """For each value of the epilogue what it is a view of: the product, a member, an operand."""
    found = dict(epilogue.views)
    for value in epilogue.values:
        here = value
        while here.producer is not None and here.producer.op.name == "reshape":
            here = here.producer.args[0]
        found[value] = here
    return found


def _body(epilogue: Epilogue) -> tuple[list[Instr], list[Value]]:
    """The instructions that compute what is stored, operands first, and the operands that they
    take from outside, without constants."""
    behind = _sources(epilogue)
    body: list[Instr] = []
    leaves: dict[Value, None] = {}
    done: set[Value] = {epilogue.product}
    members = set(epilogue.members)
    work = [(v, False) for v in reversed(epilogue.stored)]
    while work:
        value, ready = work.pop()
        value = behind.get(value, value)
        if value in done or value in leaves:
            continue
        maker = value.producer
        if is_scalar_const(value):
            continue
        if maker is None or not (maker in members or maker in epilogue.slices):
            leaves[value] = None
        elif ready:
            done.add(value)
            body.append(maker)
        else:
            work.append((value, True))
            work.extend((a, False) for a in reversed(maker.args))
    return body, list(leaves)


# --- the new Function ------------------------------------------------------------------------


def _emit(
    fn: Function, grown: Mapping[Instr, Epilogue], kept: set[Instr], ctx: PassContext
) -> Function:
    b = Builder(fn.name)
    for param in fn.params:
        b.keep_param(param)
    new: dict[Value, Value] = {}
    for instr in fn.instrs:
        epilogue = grown.get(instr)
        if epilogue is not None and epilogue.stored not in ([], [epilogue.product]):
            _emit_epilogue(b, epilogue, new, ctx)
        elif instr in kept or (epilogue is not None and epilogue.stored):
            results = b.rebuild(instr, [new.get(a, a) for a in instr.args])
            new.update(zip(instr.results, results, strict=True))
    return b.finish([Result(new.get(r.value, r.value), r.path, r.kind) for r in fn.results])


def _emit_epilogue(
    b: Builder, epilogue: Epilogue, new: dict[Value, Value], ctx: PassContext
) -> None:
    """The contraction with its region, and views of its results."""
    contract = epilogue.contract
    body, leaves = _body(epilogue)
    under = _shapes(epilogue, body)
    target = epilogue.product.type.shape
    names = list(dict.fromkeys(i.op.name for i in body if i.op.name != "broadcast_to"))
    inner = Builder("_".join(names[:4]))
    inside: dict[Value, Value] = {epilogue.product: inner.param(epilogue.product.type, "product")}
    operands = []
    with b.at(contract.loc):
        for n, leaf in enumerate(leaves):
            shape = _inside_shape(leaf, under, target)
            operands.append(b.reshape(new.get(leaf, leaf), shape))
            inside[leaf] = inner.param(operands[-1].type, f"p{n}")
        _fill(inner, epilogue, body, inside)
        results = [Result(inside[v], f"r{n}") for n, v in enumerate(epilogue.stored)]
        args = [*(new.get(a, a) for a in contract.args), *operands]
        region = inner.finish(results)
        types = [inside[v].type for v in epilogue.stored]
        outs = b.emit_typed(contract.op, args, contract.attrs, types, [region])
        for value, out in zip(epilogue.stored, outs, strict=True):
            new[value] = b.reshape(out, value.type.shape)
    ctx.fired("epilogue", contract.loc, ", ".join(names))


def _inside_shape(leaf: Value, under: Mapping[Value, Shape], target: Shape) -> Shape:
    """The shape of an operand beside a product of shape `target`."""
    if leaf.type.size == 1:
        return ()
    shape = leaf.type.shape
    if len(shape) <= len(target) and broadcasts_to(shape, target) and under[leaf] == target:
        return shape
    if leaf.type.size == size_product(target):
        return target
    mapped = regrouped(under[leaf], target, shape)
    assert mapped is not None, "an operand was taken in that does not fit"
    return mapped


def _fill(
    inner: Builder, epilogue: Epilogue, body: Sequence[Instr], inside: dict[Value, Value]
) -> None:
    """The region's instructions, in the product's shape."""
    behind = _sources(epilogue)
    for instr in body:
        with inner.at(instr.loc):
            args = []
            for arg in instr.args:
                value = behind.get(arg, arg)
                if value not in inside:
                    data = scalar_const(value.producer) if value.producer else None
                    assert data is not None, "only constants of one element stand inside"
                    inside[value] = inner.call("const", data=data)
                args.append(inside[value])
            if instr.op.name == "broadcast_to":
                inside[instr.result] = args[0]
            else:
                (inside[instr.result],) = inner.emit(instr.op, args, instr.attrs)


def _shapes(epilogue: Epilogue, body: Sequence[Instr]) -> dict[Value, Shape]:
    """For each value, the shape of the member for which it is read."""
    found: dict[Value, Shape] = {}
    members, behind = set(epilogue.members), _sources(epilogue)
    for instr in reversed(body):
        shape = instr.result.type.shape if instr in members else found[instr.result]
        for arg in instr.args:
            found.setdefault(behind.get(arg, arg), shape)
    return found


__all__ = ["Epilogue", "run"]
