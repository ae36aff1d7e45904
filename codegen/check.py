"""The kernel of `check`: is every element of a condition true?

Bools are bytes of 0 or 1, so eight at a time are one word. Only where one is false a second loop
looks for the first of them.
"""

from __future__ import annotations

from typing import Any, cast

from treadle.codegen.emission import Emission
from treadle.codegen.faults import record_fault
from treadle.codegen.llvm import I1, I8, I64, FunctionWriter, Val, int_const
from treadle.ir.graph import Instr

_WORD = 8
_ALL_TRUE = int.from_bytes(bytes([1] * _WORD), "little")


def emit_check(
    state: Emission, w: FunctionWriter, instr: Instr, source: Val, to: Val, fault: Val
) -> None:
    """Stores whether all hold; where not, records the fault with the first position."""
    shape = instr.args[0].type.static_shape
    site = state.fault_site(cast(Any, instr.attrs).message, instr.loc, shape)
    count = 1
    for size in shape:
        count *= size
    holds = _all(w, source, count)
    w.store(w.cast("zext", holds, I8), to)
    if count == 0:
        return
    with w.if_(w.not_(holds), "false", unlikely=True):
        with w.carry(0, count, 1, [w.int(count)], "seek") as loop:
            at = w.sub(w.int(count - 1), loop.index)  # backwards: the last one found is the first
            is_false = w.icmp("eq", w.load(I8, w.gep(source, at)), 0)
            loop.next = [w.select(is_false, at, loop.carried[0])]
        record_fault(w, fault, site, int_const(1, I1), loop.results[0])


def _all(w: FunctionWriter, source: Val, count: int) -> Val:
    """An i1: no byte is 0."""
    whole = count // _WORD * _WORD
    with w.carry(0, whole, _WORD, [w.int(_ALL_TRUE)], "word") as words:
        words.next = [w.and_(words.carried[0], w.load(I64, w.gep(source, words.index), align=1))]
    with w.carry(whole, count, 1, [int_const(1, I8)], "byte") as rest:
        rest.next = [w.and_(rest.carried[0], w.load(I8, w.gep(source, rest.index)))]
    return w.and_(w.icmp("eq", words.results[0], _ALL_TRUE), w.icmp("ne", rest.results[0], 0))
