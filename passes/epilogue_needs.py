"""What of an epilogue's values is stored: a walk from the end of the program to its beginning.

Whatever the rest of the program needs of an epilogue is stored, except cheap values that can be
computed again from what is stored anyway: outside of contractions, where fusion takes them on, or
in the epilogues of later contractions (`epilogue_again`), where the cost model finds that less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from treadle.ir.control import instr_must_run
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import Trait
from treadle.passes.epilogue_again import weigh
from treadle.passes.fuse_build import is_scalar_const
from treadle.passes.fuse_regions import MAX_CHEAP
from treadle.passes.fuse_shapes import is_fusible
from treadle.passes.manager import PassContext
from treadle.passes.recompute import Recompute, note_stored


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


@dataclass(slots=True)
class _Choice:
    """What one epilogue stores, which members are computed again outside, and what was weighed for
    the later epilogues that read its values."""

    stored: list[Value] = field(default_factory=list)
    outside: dict[Instr, None] = field(default_factory=dict)
    weighed: list[Recompute | tuple[Value, str]] = field(default_factory=list)


class Needs:
    """The walk from the last instruction to the first."""

    def __init__(
        self,
        fn: Function,
        grown: Mapping[Instr, Epilogue],
        index: Mapping[Value, int],
        ctx: PassContext,
    ) -> None:
        self.fn, self.grown, self.index, self.ctx = fn, grown, index, ctx
        self.home = {m.result: e for e in grown.values() for m in e.members}
        self.products = {e.product for e in grown.values()}
        self.needed: set[Value] = set(fn.outputs)
        self.in_memory: set[Value] = set(fn.outputs)
        self.outside: set[Value] = set()  # of `needed`, by others than epilogues
        self.readers: dict[Value, list[Epilogue]] = {}  # of values of other epilogues
        self.reads: dict[Instr, set[Value]] = {}  # what the epilogue of each contraction reads

    def choose(self) -> set[Instr]:
        """Fills `stored`; the instructions that stay outside of epilogues."""
        kept: set[Instr] = set()
        for n in range(len(self.fn.instrs) - 1, -1, -1):
            instr = self.fn.instrs[n]
            if instr in self.grown:
                kept.update(self._settle(self.grown[instr], n))
            elif not self.needed.isdisjoint(instr.results) or instr_must_run(instr):
                if instr.results and instr.results[0] in self.home:
                    continue  # stored, until `_settle` says otherwise
                kept.add(instr)
                self._read(instr)
        return kept

    def _read(self, instr: Instr) -> None:
        self.needed.update(instr.args)
        self.outside.update(instr.args)
        if instr.op.name == "reshape":
            if instr.result in self.in_memory:
                self.in_memory.update(instr.args)
        elif not is_fusible(instr):
            self.in_memory.update(instr.args)

    def _settle(self, epilogue: Epilogue, at: int) -> Iterator[Instr]:
        """Decide what is stored; the members that are computed again outside."""
        values = [epilogue.product, *(m.result for m in epilogue.members)]
        behind = sources_of(epilogue)
        best = self._stored(epilogue, values, behind, None, at)
        if len(best.stored) > 1:  # what is stored for the sake of others may save them
            tried = (self._stored(epilogue, values, behind, b, at, brief=True) for b in values)
            counts = [len(choice.stored) for choice in tried]
            if min(counts) < len(best.stored):
                base = values[counts.index(min(counts))]
                best = self._stored(epilogue, values, behind, base, at)
        dtype = epilogue.product.type.dtype
        if best.stored and all(v.type.dtype != dtype for v in best.stored):
            best.stored.insert(0, epilogue.product)
        epilogue.stored = best.stored
        self._move(best)
        for maker in best.outside:
            yield maker
            self._read(maker)
        if best.stored:
            self._take(epilogue)

    def _take(self, epilogue: Epilogue) -> None:
        """Need what `epilogue` reads; its contraction's operands must be in memory."""
        for leaf in self._read_by(epilogue):
            self.needed.add(leaf)
            if leaf in self.home:
                self.readers.setdefault(leaf, []).append(epilogue)
            else:
                self.in_memory.add(leaf)
        self.needed.update(epilogue.contract.args)
        self.in_memory.update(epilogue.contract.args)

    def _read_by(self, epilogue: Epilogue) -> set[Value]:
        """What a settled epilogue reads, as far as it is decided."""
        found = self.reads.get(epilogue.contract)
        if found is None:
            found = self.reads[epilogue.contract] = set(body_of(epilogue)[1])
        return found

    def _move(self, choice: _Choice) -> None:
        """Let later epilogues compute what they shall, and say what was decided."""
        for told in choice.weighed:
            if isinstance(told, Recompute):
                told.note(self.ctx)
                if told.against is None:
                    for reader in self.readers[told.value]:
                        reader.slices.update(told.makers)
                        self.reads.pop(reader.contract, None)
            else:
                note_stored(self.ctx, *told)

    def _stored(
        self, epilogue: Epilogue, values: Sequence[Value], behind: Mapping[Value, Value],
        base: Value | None, at: int, brief: bool = False,
    ) -> _Choice:  # fmt: skip
        """What must be stored, `base` among it, and what is computed again. `brief`: without the
        reasons."""
        inside = {a for m in epilogue.members for a in m.args}
        choice = _Choice()
        for value in values:
            if value not in self.needed and value is not base:
                continue
            makers = None
            if value is not base and value not in self.in_memory:
                makers = self._makers(value, inside, behind, choice, at, brief)
            if makers is None:
                choice.stored.append(value)
            else:
                choice.outside.update(dict.fromkeys(makers))
        return choice

    def _makers(
        self, value: Value, inside: set[Value], behind: Mapping[Value, Value],
        choice: _Choice, at: int, brief: bool,
    ) -> list[Instr] | None:  # fmt: skip
        """The members that compute `value` outside, none where only epilogues need it; None where
        it must be stored. Notes in `choice` what later epilogues make of it."""
        makers: list[Instr] | None = []
        if value in self.outside:
            makers = self._had_again(value, inside, behind, {*choice.stored}, at)
        readers = self.readers.get(value)
        if makers is None or readers is None:
            return makers
        weighed = weigh(value, {*choice.stored}, [self._read_by(r) for r in readers], brief)
        if isinstance(weighed, str):
            choice.weighed.append((value, weighed))
            return None
        choice.weighed.append(weighed)
        return makers if weighed.against is None else None

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


def sources_of(epilogue: Epilogue) -> dict[Value, Value]:
    """For each value of the epilogue what it is a view of: the product, a member, an operand."""
    found = dict(epilogue.views)
    for value in epilogue.values:
        here = value
        while here.producer is not None and here.producer.op.name == "reshape":
            here = here.producer.args[0]
        found[value] = here
    return found


def body_of(epilogue: Epilogue) -> tuple[list[Instr], list[Value]]:
    """The instructions that compute what is stored, operands first, and the operands that they
    take from outside, without constants."""
    behind = sources_of(epilogue)
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
