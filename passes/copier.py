"""Copies a Function instruction by instruction while some values are replaced by others.

What every pass shares: the table from old values to new, the reuse of instructions whose operands
did not change, and the promise that a pass which changed nothing returns the Function it got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Result, Value


class Copier:
    """One walk over `fn`. Every instruction is either kept, replaced or left out."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.builder = Builder(fn.name)
        for param in fn.params:
            self.builder.keep_param(param)
        self._new: dict[Value, Value] = {}
        self._moved = self._new.keys()
        self._append = self.builder.append
        self._changed = False

    def of(self, value: Value) -> Value:
        """The value that stands for `value` in the new Function."""
        return self._new.get(value, value)

    def renewed(self, instr: Instr, regions: Sequence[Function] = ()) -> Instr:
        """`instr` with operands (and regions, where it has some) of the new Function, not
        appended yet."""
        inner = tuple(regions) if regions else instr.regions
        # Functions are equal only to themselves, so this compares identities.
        if self._moved.isdisjoint(instr.args) and inner == instr.regions:
            return instr
        new = self._new
        args = [new.get(a, a) for a in instr.args]
        types = [r.type for r in instr.results]
        return Instr(instr.op, args, instr.attrs, types, instr.loc, inner)

    def keep(self, instr: Instr, regions: Sequence[Function] = ()) -> Instr:
        """Append `instr` as `renewed` makes it."""
        if not regions and self._moved.isdisjoint(instr.args):
            self._append(instr)
            return instr
        return self.put(instr, self.renewed(instr, regions))

    def put(self, instr: Instr, renewed: Instr) -> Instr:
        """Append `renewed`, which stands for `instr`."""
        self._append(renewed)
        if renewed is not instr:
            self._changed = True
            if len(instr.results) == 1:
                self._new[instr.results[0]] = renewed.results[0]
            else:
                self._new.update(zip(instr.results, renewed.results, strict=True))
        return renewed

    def replace(self, old: Value, new: Value) -> None:
        """Whoever uses `old` gets `new`, a value of the new Function."""
        self._changed = True
        if old is not new:
            self._new[old] = self._new.get(new, new)

    def moved(self, known: Mapping[Value, Value]) -> None:
        """Values of the new Function have become others."""
        self._changed = True
        new = {old: known.get(value, value) for old, value in self._new.items()}
        self._new.update({**known, **new})

    def leave_out(self) -> None:
        """An instruction was not kept and nobody needs its results."""
        self._changed = True

    def finish(self) -> Function:
        """The new Function; `fn` itself if nothing was replaced or left out."""
        if not self._changed:
            return self.fn
        return self.builder.finish([self._result(r) for r in self.fn.results])

    def _result(self, result: Result) -> Result:
        value = self.of(result.value)
        return result if value is result.value else Result(value, result.path, result.kind)


class Shared:
    """The regions of instructions, each rewritten once: equal updates of parameters share one, and
    share what becomes of it."""

    def __init__(self, rewrite: Callable[[Function], Function]) -> None:
        self._rewrite = rewrite
        self._done: dict[Function, Function] = {}

    def of(self, instr: Instr) -> Sequence[Function]:
        """The regions of `instr`, rewritten."""
        return [self._one(region) for region in instr.regions] if instr.regions else ()

    def _one(self, region: Function) -> Function:
        if region not in self._done:
            self._done[region] = self._rewrite(region)
        return self._done[region]
