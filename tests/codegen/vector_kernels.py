"""Small loops over arrays, written with the IR writer and run: what the tests beside compile."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from treadle.codegen.llvm import I64, PTR, FunctionWriter, Module, memory_type, vec
from treadle.codegen.scalar_llvm import Element, FaultHook, LlvmScalarOps
from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.types import DType, bool_, dtype_of
from treadle.runtime.native import load

Array = npt.NDArray[Any]

TARGETS = [
    pytest.param(
        named(name),
        id=name,
        marks=pytest.mark.skipif(
            not named(name).runs_here(), reason=f"this machine has no {name} instructions"
        ),
    )
    for name in NAMES
    if named(name).arch == host().arch
]


def call(module: Module, target: Target, name: str, *args: int) -> int:
    """Compile the module and call one of its functions on integers and addresses."""
    code = load(str(module), target)
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(args))(code.address(name))
    result = int(entry(*args))
    code.close()
    return result


def store_element(
    w: FunctionWriter, s: LlvmScalarOps, x: Element, address: Any, dtype: DType
) -> None:
    """Store all lanes of an element."""
    value = s.wide(x)
    w.store(s.store_bool(value) if dtype is bool_ else value, address)


def run(
    target: Target,
    lanes: int,
    fn: Callable[..., Element],
    out: DType,
    *arrays: Array,
    on_fault: FaultHook | None = None,
) -> Array:
    """`fn(s, *elements)` applied to 1-d arrays of one length, a multiple of `lanes`."""
    dtypes = [dtype_of(a.dtype) for a in arrays]
    module = Module(target)
    params = [(PTR, f"x{k}") for k in range(len(arrays))]
    w = module.function("run", I64, [*params, (PTR, "out"), (I64, "n")])
    *sources, result, n = w.args
    s = LlvmScalarOps(w, lanes, on_fault)
    with w.loop(0, n, lanes) as i:
        elements = []
        for dtype, source in zip(dtypes, sources, strict=True):
            elem = memory_type(dtype)
            value = w.load(vec(elem, lanes), w.gep(source, i, elem))
            elements.append(s.element(s.load_bool(value) if dtype is bool_ else value, dtype))
        store_element(w, s, fn(s, *elements), w.gep(result, i, memory_type(out)), out)
    w.ret(0)
    got = np.zeros(arrays[0].shape, out.dtype)
    held = [np.ascontiguousarray(a) for a in arrays]
    call(module, target, "run", *(a.ctypes.data for a in held), got.ctypes.data, got.size)
    return got
