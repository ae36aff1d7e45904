"""Copies a Function instruction by instruction while some values are replaced by others.

What every pass shares: the table from old values to new, the reuse of instructions whose operands
did not change, and the promise that a pass which changed nothing returns the Function it got.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self._changed = False

    def of(self, value: Value) -> Value:
        """The value that stands for `value` in the new Function."""
        return self._new.get(value, value)

    def renewed(self, instr: Instr, regions: Sequence[Function] | None = None) -> Instr:
        """`instr` with operands (and regions) of the new Function, not appended yet."""
        args = tuple(self._new.get(a, a) for a in instr.args) if self._new else instr.args
        inner = instr.regions if regions is None else tuple(regions)
        if _same(args, instr.args) and _same(inner, instr.regions):
            return instr
        types = [r.type for r in instr.results]
        return Instr(instr.op, args, instr.attrs, types, instr.loc, inner)

    def keep(self, instr: Instr, regions: Sequence[Function] | None = None) -> Instr:
        """Append `instr` as `renewed` makes it."""
        return self.put(instr, self.renewed(instr, regions))

    def put(self, instr: Instr, renewed: Instr) -> Instr:
        """Append `renewed`, which stands for `instr`."""
        self.builder.append(renewed)
        if renewed is not instr:
            for old, new in zip(instr.results, renewed.results, strict=True):
                self.replace(old, new)
        return renewed

    def replace(self, old: Value, new: Value) -> None:
        """Whoever uses `old` gets `new`, a value of the new Function."""
        self._changed = True
        if old is not new:
            self._new[old] = self._new.get(new, new)

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


def _same(new: Sequence[object], old: Sequence[object]) -> bool:
    return len(new) == len(old) and all(n is o for n, o in zip(new, old, strict=True))
