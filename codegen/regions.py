"""What the region of a `fused` instruction computes, and when: the analysis that plans rest on.

A region runs over its iteration space. Its values are of two sorts. Values AT the space have a
shape that broadcasts to it and are computed at the place where the loops stand. Other values are
PULLED: an Index op (gather, slice, concat ..) asks for one element of them wherever it likes.

Reductions put the region into passes over the reduced axes: a reduction of depth d (one more than
the deepest reduction below it) is finished by pass d, and a value that depends on it can be had
from pass d + 1 on. A softmax has two such passes, and a last one that stores the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.lazily import lazily
from treadle.ir.op import Trait
from treadle.ir.scalar import ArgReduce, Index, Reduce, Scalar
from treadle.ir.types import Shape, Size, size_product


def aligned(shape: Shape, rank: int) -> Shape:
    """`shape` with leading 1s up to `rank`."""
    return (1,) * (rank - len(shape)) + shape


def row_major(shape: Shape) -> Shape:
    """Strides, in elements, of a contiguous array; 0 along axes of size 1."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(0 if size == 1 else step)
        step = step * size
    return tuple(reversed(strides))


@dataclass(frozen=True, eq=False)
class Region:
    """A region with its iteration space `space` and the axes `reduced` of its reductions."""

    fn: Function
    space: Shape
    reduced: tuple[int, ...]

    @lazily
    def params(self) -> frozenset[Value]:
        return frozenset(self.fn.inputs)

    @lazily
    def views(self) -> Mapping[Value, tuple[Value, Shape]]:
        """Values that are a parameter's memory under a shape: parameters, reshapes of them."""
        found: dict[Value, tuple[Value, Shape]] = {v: (v, v.type.shape) for v in self.fn.inputs}
        for instr in self.fn.instrs:
            if instr.op.name == "reshape" and instr.args[0] in found:
                found[instr.result] = (found[instr.args[0]][0], instr.result.type.shape)
        return found

    @lazily
    def transparent(self) -> frozenset[Value]:
        """Results of movement that is only NumPy's broadcasting: at the space they are their
        operand."""
        return frozenset(i.result for i in self.fn.instrs if self._broadcasts(i))

    def _broadcasts(self, instr: Instr) -> bool:
        if instr.op.name == "broadcast_to":
            return True
        if instr.op.name != "reshape" or instr.result in self.views:
            return False
        rank = len(self.space)
        old, new = instr.args[0].type.shape, instr.result.type.shape
        if len(old) > rank or len(new) > rank:
            return False
        return aligned(old, rank) == aligned(new, rank)

    def is_reduction(self, value: Value) -> bool:
        return value.producer is not None and isinstance(
            value.producer.op.lower, (Reduce, ArgReduce)
        )

    def operands(self, value: Value) -> tuple[Value, ...]:
        """The values that must be had AT the space to compute `value` there."""
        producer = value.producer
        if value in self.views or producer is None:
            return ()
        if value in self.transparent or isinstance(producer.op.lower, (Scalar, Reduce, ArgReduce)):
            return producer.args
        return ()

    def pulls(self, value: Value) -> Instr | None:
        """The Index instruction that computes `value` at the space, if one does."""
        producer = value.producer
        if producer is None or value in self.views or value in self.transparent:
            return None
        return producer if isinstance(producer.op.lower, Index) else None

    @lazily
    def axes_of(self) -> Mapping[Value, frozenset[int]]:
        """For each value that broadcasts to the space, the axes along which it may vary.

        Narrower than its shape where that is known: a constant varies along none, an iota along
        its own axis.
        """
        found: dict[Value, frozenset[int]] = {}
        rank = len(self.space)
        for value in (*self.fn.inputs, *(r for i in self.fn.instrs for r in i.results)):
            shape = self.views[value][1] if value in self.views else value.type.shape
            if len(shape) > rank:
                continue
            varies = frozenset(a for a, s in enumerate(aligned(shape, rank)) if s != 1)
            found[value] = self._narrowed(value, varies, found)
        return found

    def _narrowed(
        self, value: Value, varies: frozenset[int], found: Mapping[Value, frozenset[int]]
    ) -> frozenset[int]:
        producer = value.producer
        if producer is None or value in self.views:
            return varies
        if producer.op.name == "iota":
            axis = cast(Any, producer.attrs).axis + len(self.space) - value.type.rank
            return varies & {axis}
        if producer.op.name == "const":
            return frozenset()
        if value in self.transparent or isinstance(producer.op.lower, Scalar):
            below = [found[a] for a in producer.args if a in found]
            return varies & frozenset().union(*below)
        return varies

    @lazily
    def depth(self) -> Mapping[Value, int]:
        """How many reductions lie on the deepest path from the parameters up to each value."""
        found: dict[Value, int] = dict.fromkeys(self.fn.inputs, 0)
        for instr in self.fn.instrs:
            below = max((found[a] for a in instr.args), default=0)
            if isinstance(instr.op.lower, (Reduce, ArgReduce)):
                below += 1
            for result in instr.results:
                found[result] = below
        return found

    @lazily
    def reductions(self) -> tuple[Instr, ...]:
        """The reductions that the results need, in order."""
        needed: set[Value] = set(self.fn.outputs)
        found: list[Instr] = []
        for instr in reversed(self.fn.instrs):
            if not needed.isdisjoint(instr.results):
                needed.update(instr.args)
                if isinstance(instr.op.lower, (Reduce, ArgReduce)):
                    found.append(instr)
        return tuple(reversed(found))

    def passes(self) -> tuple[tuple[Instr, ...], ...]:
        """The reductions of pass 1, pass 2, ..; those of one pass share a loop."""
        last = max((self.depth[r.result] for r in self.reductions), default=0)
        return tuple(
            tuple(r for r in self.reductions if self.depth[r.result] == p)
            for p in range(1, last + 1)
        )

    def is_full(self, value: Value) -> bool:
        """True where `value`, one of the results, has the shape of the space."""
        return aligned(value.type.shape, len(self.space)) == self.space

    def full_results(self) -> tuple[int, ...]:
        """Numbers of the results that are stored for each element of the space."""
        if not self.reduced:
            return tuple(range(len(self.fn.results)))
        return tuple(n for n, v in enumerate(self.fn.outputs) if self.is_full(v))

    def kept_results(self) -> tuple[int, ...]:
        """Numbers of the results that are stored once for each row."""
        full = set(self.full_results())
        return tuple(n for n in range(len(self.fn.results)) if n not in full)

    def at_space(self, roots: tuple[Value, ...], stop: frozenset[Value]) -> Iterator[Value]:
        """Values needed at the space for `roots`, each once, roots first.

        Neither reductions nor values of `stop` are looked into (they are had already), but they
        are listed.
        """
        seen: set[Value] = set()
        work = list(reversed(roots))
        while work:
            value = work.pop()
            if value in seen:
                continue
            seen.add(value)
            yield value
            if value not in stop and not self.is_reduction(value):
                work.extend(reversed(self.operands(value)))

    def varies_along_reduced(self, value: Value) -> bool:
        return not self.axes_of[value].isdisjoint(self.reduced)

    def row_size(self) -> Size:
        """Elements of the reduced axes."""
        return size_product(self.space[a] for a in self.reduced)


def is_expensive(region: Region, value: Value) -> bool:
    """True where computing `value` alone costs more than storing and loading it."""
    producer = value.producer
    if producer is None or value in region.views:
        return False
    if Trait.EXPENSIVE in producer.op.traits:
        return True
    if not isinstance(producer.op.lower, Index):
        return False
    return any(Trait.EXPENSIVE in i.op.traits for i in _below(producer))


def _below(instr: Instr) -> Iterator[Instr]:
    """The instructions that `instr` pulls from, each once."""
    seen: set[Value] = set()
    work = list(instr.args)
    while work:
        value = work.pop()
        if value in seen or value.producer is None:
            continue
        seen.add(value)
        yield value.producer
        work.extend(value.producer.args)
