"""Packing puts each element into its panel, and stores nothing behind the last one."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from vector_kernels import TARGETS

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, Module
from treadle.codegen.target import Target
from treadle.codegen.tiles import pack_function
from treadle.ir.types import DType, float32, float64
from treadle.runtime.native import load


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_packed_behind_a_panel(target: Target, dtype: DType) -> None:
    module = Module(target)
    name = pack_function(Emission(module, target), dtype)
    names = ("rows", "ks", "row_step", "k_step", "panel")
    w = module.function("run", I64, [(PTR, "from"), (PTR, "to"), *((I64, n) for n in names)])
    w.call(name, VOID, list(w.args))
    w.ret(w.int(0))
    code = load(str(module), target)
    pack = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)(code.address("run"))
    for panel in (1, 2, 3, 4, 5, 6, 7, 10, 14, 16):
        for rows in {1, panel, panel + 1, 3 * panel - 1}:
            for ks in (3, 16, 37):
                for steps in ((ks, 1), (1, rows)):
                    source = np.arange(1, rows * ks + 1, dtype=dtype.dtype)
                    count = -(-rows // panel) * panel * ks
                    to = np.full(count + 16, -1, dtype=dtype.dtype)
                    pack(source.ctypes.data, to.ctypes.data, rows, ks, *steps, panel)
                    panels = to[:count].reshape(-1, ks, panel)
                    found = panels.transpose(0, 2, 1).reshape(-1, ks)[:rows]
                    want = source.reshape(rows, ks) if steps[1] == 1 else source.reshape(ks, rows).T
                    np.testing.assert_array_equal(found, want)
                    assert (to[count:] == -1).all(), (panel, rows, ks, steps)
    code.close()
