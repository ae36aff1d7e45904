"""Runs a KERNELS-level Function at the places of a memory plan, in real bytes.

The workspace and the results begin poisoned, each operand is read from its place at the moment of
its use, each result is written to its place: an overlap of two live values, a result written too
early or a state overwritten too early shows as a wrong number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.graph import Function, Instr, Param, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.memory import MemoryPlan, Place

Array = npt.NDArray[Any]


def simulate(fn: Function, plan: MemoryPlan, arrays: list[Array]) -> list[Array]:
    """The results, as the caller finds them in the buffers."""
    params = [_bytes(a) for a in arrays]
    results = [np.full(r.value.type.nbytes, 0xAB, np.uint8) for r in fn.results]
    for param, result in plan.in_place:
        results[result] = params[param]
    constants = [
        _bytes(i.attrs.data.array())
        for i in fn.instrs
        if i.op.name == "const"  # type: ignore[attr-defined]
    ]
    workspace = np.full(plan.workspace, 0xAB, np.uint8)
    buffers = {"param": params, "result": results, "const": constants, "workspace": [workspace]}

    def at(value: Value) -> npt.NDArray[np.uint8]:
        place: Place = plan.places[value]
        whole = buffers[place.kind][place.index]
        assert place.offset % 64 == 0
        piece = whole[place.offset : place.offset + value.type.nbytes]
        assert len(piece) == value.type.nbytes, f"{value} does not fit at {place}"
        return piece

    def read(value: Value) -> Array:
        t = value.type
        return at(value).copy().view(t.dtype.dtype).reshape(t.static_shape)

    for instr in fn.instrs:
        if instr.op.name in ("const", "reshape"):
            continue
        operands = [read(a) for a in instr.args]
        outs = run_alone(instr, operands)
        for value, out in zip(instr.results, outs, strict=True):
            over = [n for n, a in enumerate(instr.args) if np.shares_memory(at(a), at(value))]
            assert all(at(instr.args[n]).ctypes.data == at(value).ctypes.data for n in over)
            if over:
                _assert_pointwise(instr, operands, over, value.index, out)
        for value, out in zip(instr.results, outs, strict=True):
            at(value)[:] = _bytes(out)
    copied = [(c.result, read(c.value)) for c in plan.copies]
    for result, array in copied:
        results[result][:] = _bytes(array)
    return [
        buffer.view(r.value.type.dtype.dtype).reshape(r.value.type.static_shape)
        for buffer, r in zip(results, fn.results, strict=True)
    ]


def _assert_pointwise(
    instr: Instr, operands: list[Array], over: list[int], which: int, out: Array
) -> None:
    """Element k of the result stays as it is when all other elements of the operands change."""
    for k in {0, out.size // 2, out.size - 1}:
        changed = list(operands)
        for n in over:
            other = np.zeros_like(operands[n]).reshape(-1)
            other[k] = operands[n].reshape(-1)[k]
            changed[n] = other.reshape(operands[n].shape)
        again = run_alone(instr, changed)[which]
        np.testing.assert_array_equal(again.reshape(-1)[k], out.reshape(-1)[k])


def run_alone(instr: Instr, arrays: list[Array]) -> list[Array]:
    """One instruction by the interpreter."""
    params = tuple(Param(Value(a.type), f"p{n}") for n, a in enumerate(instr.args))
    types = [r.type for r in instr.results]
    alone = Instr(instr.op, [p.value for p in params], instr.attrs, types, None, instr.regions)
    results = tuple(Result(v, f"r{n}") for n, v in enumerate(alone.results))
    return interpret(Function("alone", params, (alone,), results), arrays)


def _bytes(array: Array) -> npt.NDArray[np.uint8]:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8).copy()
