"""Gathers a block of an operand into panels for the micro-kernel.

    gather(frame, from, to, first, rows, k, ks, row_step, k_step, panel)

packs `rows` rows from `first` on, each from `k` on, `ks` long, in panels of `panel` rows (see
`tiles`). Where the operand's elements lie is the gather function's affair: the blocked product
knows it only by its address, in the frame. Here it is a pointer and two steps in elements, so that
a transposed operand needs no code of its own. An operand that is no array in memory (the patches of
a convolution) is another such function.
"""

from __future__ import annotations

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, Type, register_type
from treadle.codegen.tiles import pack_function
from treadle.ir.types import DType

PARAMS: tuple[tuple[Type, str], ...] = (
    (PTR, "frame"), (PTR, "from"), (PTR, "to"), (I64, "first"), (I64, "rows"), (I64, "k"),
    (I64, "ks"), (I64, "row_step"), (I64, "k_step"), (I64, "panel"),
)  # fmt: skip


def strided_gather(state: Emission, dtype: DType) -> str:
    """The gather function of operands that lie in memory at constant steps."""
    return state.once(f"gather_{dtype.short}", lambda name: _write_strided(state, name, dtype))


def _write_strided(state: Emission, name: str, dtype: DType) -> None:
    w = state.module.function(name, VOID, list(PARAMS), internal=True)
    _, source, to, first, rows, k, ks, row_step, k_step, panel = w.args
    elem = register_type(dtype)
    start = w.gep(w.gep(source, w.mul(first, row_step), elem), w.mul(k, k_step), elem)
    w.call(pack_function(state, dtype), VOID, [start, to, rows, ks, row_step, k_step, panel])
    w.ret()
