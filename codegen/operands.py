"""Addresses of many operands, written from a table.

A step with hundreds of kernels has thousands of operands. As straight code, a load, an addition and
a store for each make one basic block that the code generator takes seconds for (4.3 of 4.8 s for a
GPT of 24 layers); as data they cost nothing. The entry then fills a kernel's context by

    treadle_operands(ptr to, ptr bufs, ptr recipe, i64 count)

where a recipe is `count` pairs of i64: the position of a buffer in `bufs` and an offset into it; -1
and a number stand for that number. Where there are few operands straight code is shorter to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.abi import Buffers
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Type, Val
from treadle.ir.memory import Place

FEW: Final = 96
"""So many operands of a function are written by straight code. One costs LLVM 45 us there, and
1.5 ns a call in a table."""

_FILL: Final = "treadle_operands"
_RECIPES: Final = "operands"
_NUMBER: Final = -1


class Operands:
    """Writes operands into memory: inside the entry `w`, from a table where they are many."""

    def __init__(self, state: Emission, w: FunctionWriter, buffers: Buffers, many: bool) -> None:
        self._state, self._w, self._buffers = state, w, buffers
        self._many = many
        self._recipes: list[int] = []

    def write(self, to: Val, operands: Sequence[Place | int]) -> None:
        """`to[i] = address of operands[i]`, or the number itself."""
        if self._many:
            self._from_table(to, operands)
            return
        w = self._w
        for n, operand in enumerate(operands):
            x = w.int(operand) if isinstance(operand, int) else self._buffers.address(operand)
            w.store(x, w.gep(to, n, PTR), align=8)

    def _from_table(self, to: Val, operands: Sequence[Place | int]) -> None:
        w = self._w
        fill = self._state.once(_FILL, self._write_fill)
        recipe = w.gep(Val(f"@{_RECIPES}", PTR), len(self._recipes), I64)
        for operand in operands:
            if isinstance(operand, int):
                self._recipes += (_NUMBER, operand)
            else:
                self._recipes += (self._buffers.slot(operand), operand.offset)
        w.call(fill, VOID, [to, w.args[0], recipe, w.int(len(operands))])

    def finish(self) -> None:
        """Write the table, when the last operand is known."""
        if self._recipes:
            self._state.module.table(_RECIPES, I64, self._recipes)

    def _write_fill(self, name: str) -> None:
        params: list[tuple[Type, str]] = [(PTR, "to"), (PTR, "bufs"), (PTR, "recipe")]
        w = self._state.module.function(name, VOID, [*params, (I64, "count")], internal=True)
        to, bufs, recipe, count = w.args
        with w.loop(0, count, label="operand") as n:
            pair = w.gep(recipe, w.mul(n, 2), I64)
            slot, offset = w.load(I64, pair), w.load(I64, w.gep(pair, 1, I64))
            is_buffer = w.icmp("sge", slot, 0)
            # of a number the position is -1: the first buffer's is read, and not used
            at = w.select(is_buffer, slot, w.int(0))
            base = w.select(is_buffer, w.load(I64, w.gep(bufs, at, I64)), w.int(0))
            w.store(w.add(base, offset), w.gep(to, n, I64))
        w.ret()
