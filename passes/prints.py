"""What a program prints becomes results, which the call shows when the run is over.

    debug_print(%1, text="x = {}")    ->
    return %2 "out"                         return %2 "out", print %1 "x = {}"

In program order, so that the lines of one call come in the order in which the program says them. A
text without places takes a constant, which is not shown.

A program that calls Python code besides, or prints in a loop or a branch, prints where it says so,
by calls of Python code: else the lines and what that code does would be out of order.
"""

from __future__ import annotations

from typing import Any

from treadle.ir.graph import Function, Level, Result
from treadle.ir.host import runs_in_place
from treadle.ir.types import bool_
from treadle.passes.copier import Copier
from treadle.passes.manager import Pass, PassContext


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` without `debug_print`."""
    if runs_in_place(fn):
        return fn
    copier = Copier(fn)
    shown: list[Result] = []
    for instr in fn.instrs:
        if instr.op.name != "debug_print":
            copier.keep(instr)
            continue
        attrs: Any = instr.attrs
        with copier.builder.at(instr.loc):
            values = [copier.of(a) for a in instr.args] or [copier.builder.const(True, bool_)]
        shown += [Result(value, attrs.text, "print") for value in values]
        ctx.fired("printed", instr.loc, attrs.text)
        copier.leave_out()
    plain = copier.finish()
    if not shown:
        return plain
    return Function(plain.name, plain.params, plain.instrs, (*plain.results, *shown))


PASS = Pass("prints", run, requires=Level.CORE, ensures=Level.CORE)
