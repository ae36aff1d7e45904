"""Kernels that run in plain loops, write after write: scatter, and scatter_add into axes that
are no neighbours (`adding` has the others)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

from treadle.codegen.addressed import Addresses, added, checked_index
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I1,
    VOID,
    FunctionWriter,
    Type,
    Val,
    int_const,
    memory_type,
    vec,
)
from treadle.codegen.regions import row_major
from treadle.ir.graph import Instr
from treadle.ir.ops.indexing import remaining_axes


def emit_sequential(state: Emission, w: FunctionWriter, instr: Instr, at: Addresses) -> None:
    """The body of a scatter or scatter_add."""
    _Scatter(state, w, instr, at).write()


# --- scatter ---------------------------------------------------------------------------------


class _Scatter:
    """Writes blocks `v[i]` to the places that the indices address, i in order."""

    def __init__(self, state: Emission, w: FunctionWriter, instr: Instr, at: Addresses) -> None:
        self.state, self.w, self.instr, self.at = state, w, instr, at
        self.attrs = cast(Any, instr.attrs)
        self.shape = instr.result.type.static_shape
        self.strides = cast("tuple[int, ...]", row_major(self.shape))
        self.rest = remaining_axes(len(self.shape), self.attrs.axes)
        self.elem = memory_type(instr.result.type.dtype)
        self.places = prod(instr.args[2].type.static_shape)

    def write(self) -> None:
        w = self.w
        if not self.at.in_place:
            nbytes = w.int(self.instr.result.type.nbytes)
            copied = (self.at.result, self.at.operands[0], nbytes, int_const(0, I1))
            w.external("llvm.memcpy.p0.p0.i64", VOID, copied)
        block = prod(self.shape[a] for a in self.rest)
        if self.places == 0 or prod(self.shape) == 0:
            return
        with w.loop(0, self.places, label="write") as i:
            to = self.at.result
            for k, axis in enumerate(self.attrs.axes):
                index = self._index(self.at.operands[2 + k], i, k, axis)
                to = w.gep(to, w.mul(index, self.strides[axis]), self.elem)
            source = w.gep(self.at.operands[1], w.mul(i, block), self.elem)
            self._block(source, to, self.rest)

    def _index(self, base: Val, i: Val, k: int, axis: int) -> Val:
        """The checked, clamped index of write `i` along `axis`."""
        w, dtype = self.w, self.instr.args[2 + k].type.dtype
        type = memory_type(dtype)
        raw = w.load(type, w.gep(base, i, type))
        return checked_index(self.state, w, self.instr, raw, dtype, axis, self.at.fault)

    def _block(self, source: Val, to: Val, axes: Sequence[int]) -> None:
        """Write one block, whose elements follow each other in `source`."""
        w = self.w
        if not axes:
            self._write(source, to, self.elem)
            return
        axis, inner = axes[0], prod(self.shape[a] for a in axes[1:])
        size = self.shape[axis]
        if len(axes) > 1:
            with w.loop(0, size, label="block") as j:
                below = w.gep(source, w.mul(j, inner), self.elem)
                self._block(below, w.gep(to, w.mul(j, self.strides[axis]), self.elem), axes[1:])
            return
        lanes = self.state.target.vector_bytes * 8 // self.elem.bits
        whole = size // lanes * lanes if self.strides[axis] == 1 else 0
        for first, last, step in ((0, whole, lanes), (whole, size, 1)):
            if first == last:
                continue
            with w.loop(first, last, step, "element") as j:
                there = w.gep(to, w.mul(j, self.strides[axis]), self.elem)
                self._write(w.gep(source, j, self.elem), there, vec(self.elem, step))

    def _write(self, source: Val, to: Val, type: Type) -> None:
        w = self.w
        value = w.load(type, source)
        if self.instr.op.name == "scatter_add":
            value = added(w, w.load(type, to), value)
        w.store(value, to)
