"""Epilogues: elementwise consumers of a contraction move into it.

    %3: f32[8, 64] = contract(%0, %1, spec="mk,kn->mn")    %5: f32[8, 64] = contract(%0, %1, %2,
    %4: f32[8, 64] = add(%3, %2)                       ->      spec="mk,kn->mn") { .. add, relu .. }
    %5: f32[8, 64] = relu(%4)

A contraction takes in whatever follows it element by element: bias, activation, residual, scale,
mask, the derivative of an activation, accumulation. What else such an instruction reads must be
there before the contraction is, or be computed from such values (`gt(h, 0)` under a `where`), which
then moves along where nothing else wants it or where it is cheap. Views between are looked through:
the epilogue has the shape of the product.

A second walk, from the end (`epilogue_needs`), finds what the rest of the program needs of each
epilogue. All of that is stored, except cheap values that are computed again from what is stored
anyway: outside, or in the epilogues of later contractions.

New values of state stay outside, with all that is computed for them alone: maps write them over the
old ones, which an epilogue cannot, and one map serves all parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any, Final

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Result, Value, uses
from treadle.ir.op import Attrs, Trait
from treadle.ir.regions import broadcasts_to, is_epilogue_op, takes_epilogue
from treadle.ir.scalar import Numbered
from treadle.ir.types import Shape, size_product
from treadle.passes import early_views
from treadle.passes.epilogue_needs import Epilogue, Needs, body_of, sources_of
from treadle.passes.fuse_build import is_scalar_const, scalar_const
from treadle.passes.fuse_draws import is_number_of_draw
from treadle.passes.fuse_regions import MAX_CHEAP
from treadle.passes.fuse_shapes import is_fusible, regrouped
from treadle.passes.manager import PassContext

MAX_INSTRS: Final = 60  # in one epilogue
MAX_ARRAYS: Final = 4  # operands of the product's size


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` with elementwise consumers of its contractions as their epilogues."""
    if not any(i.op.name == "contract" for i in fn.instrs):
        return fn
    fn = early_views.run(fn)
    walk = _Walk(fn, ctx)
    found = [
        walk.epilogue(n)
        for n, i in enumerate(fn.instrs)
        if i.op.name == "contract" and takes_epilogue(i)
    ]
    grown = {e.contract: e for e in found if e.members}
    if not grown:
        return fn
    kept = Needs(fn, grown, walk.index, ctx).choose()
    return _emit(fn, grown, kept, ctx)


# --- what an epilogue may hold ---------------------------------------------------------------


class _Walk:
    """Grows epilogues forward from their contractions."""

    def __init__(self, fn: Function, ctx: PassContext) -> None:
        self.fn, self.ctx = fn, ctx
        self.outputs = set(fn.outputs)
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
            if len(instr.results) != 1 or not _is_map_or_view(instr):
                continue
            users = self.users.get(instr.result, ())
            if not users or instr.result in others:
                continue
            # What a contraction reads is finished before the update, also where its product, a
            # gradient that is kept, is state itself.
            if all(_is_map_or_view(u) and u.results[0] in found for u in users):
                found.add(instr.result)
        return found

    def _follow(self, value: Value, heap: list[int]) -> None:
        for user in self.users.get(value, ()):
            if user.results:  # none: it calls Python
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

    def _is_read_by_kernel(self, value: Value) -> bool:
        """Does a kernel that is no loop of elements, such as another product, read it?"""
        work, seen = [value], {value}
        while work:
            for user in self.users.get(work.pop(), ()):
                if not _is_map_or_view(user):
                    return True
                if user.op.name == "reshape" and user.result not in seen:
                    seen.add(user.result)
                    work.append(user.result)
        return False

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
        if is_number_of_draw(maker.result, user):
            return False
        own, target = maker.result.type, found.product.type
        if maker.op.name == "iota":
            return regrouped(shape, target.shape, own.shape) == _stripped(own.shape)
        is_part = isinstance(maker.op.lower, Numbered) and own.size != target.size
        if is_part and regrouped(shape, target.shape, own.shape) != _stripped(own.shape):
            return False
        if maker.result in self.states:
            return False
        if self.place[maker.result] > at:
            return True  # there is no other way
        if maker.op.name != "broadcast_to" and _is_between(maker.result, found.product):
            return False  # computed once for each of its elements, not for each of the product's
        if self._is_read_by_kernel(maker.result):
            return False  # it is in memory anyway
        if all(u is user for u in self.users[maker.result]):
            return maker.result not in self.outputs
        if maker.op.has(Trait.EXPENSIVE):
            return False
        large = [a for a in maker.args if a.type.size == found.product.type.size]
        return maker.op.name == "broadcast_to" or len(large) <= 1


def _is_between(value: Value, product: Value) -> bool:
    """Has it more than one element, and fewer than the product?"""
    return value.type.size not in (1, product.type.size)


def _is_map_or_view(instr: Instr) -> bool:
    return instr.op.name == "reshape" or is_fusible(instr)


def _stripped(shape: Shape) -> Shape:
    """Without leading 1s."""
    first = next((n for n, s in enumerate(shape) if s != 1), len(shape))
    return shape[first:]


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
    body, leaves = body_of(epilogue)
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
    behind = sources_of(epilogue)
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
                (inside[instr.result],) = inner.emit(instr.op, args, _attrs(instr, epilogue))


def _attrs(instr: Instr, epilogue: Epilogue) -> Attrs:
    """The attributes under the product's shape: the number of an element is the same there."""
    target = epilogue.product.type
    if isinstance(instr.op.lower, Numbered) and instr.result.type.size == target.size:
        attrs: Any = instr.attrs
        shaped: Attrs = replace(attrs, shape=target.shape)
        return shaped
    return instr.attrs


def _shapes(epilogue: Epilogue, body: Sequence[Instr]) -> dict[Value, Shape]:
    """For each value, the shape of the member for which it is read."""
    found: dict[Value, Shape] = {}
    members, behind = set(epilogue.members), sources_of(epilogue)
    for instr in reversed(body):
        shape = instr.result.type.shape if instr in members else found[instr.result]
        for arg in instr.args:
            found.setdefault(behind.get(arg, arg), shape)
    return found


__all__ = ["Epilogue", "run"]
