"""A compiler for tests: the autodiff passes, then the reference interpreter.

It updates state in place as compiled code may, so that what the caller must copy is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.graph import Function
from treadle.ir.interpreter import interpret
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import find_pass
from treadle.tracer.backend import CompileOptions

PASSES = ("early_cse", "stabilize", "autodiff", "expand")


class Interpreted:
    """Implements `Executable`."""

    compile_seconds = 0.0
    code_bytes = 0
    workspace_bytes = 0

    def __init__(self, fn: Function) -> None:
        self.traced = fn
        self.fn = run_pipeline(fn, [find_pass(name) for name in PASSES], [], verify="all")
        params = {p.path: n for n, p in enumerate(fn.params)}
        self.in_place = tuple(
            (params[r.path], n)
            for n, r in enumerate(fn.results)
            if r.kind == "state" and r.path in params
            and fn.params[params[r.path]].value.type == r.value.type
        )  # fmt: skip

    def run(
        self, arrays: Sequence[npt.NDArray[Any]], threads: int | None = None
    ) -> list[npt.NDArray[Any]]:
        for array, param in zip(arrays, self.traced.params, strict=True):
            assert array.flags.c_contiguous
            assert array.dtype == param.value.type.dtype.dtype
            assert array.shape == param.value.type.shape
        outs = [np.array(o, order="C") for o in interpret(self.fn, arrays)]
        for param, result in self.in_place:
            assert arrays[param].flags.writeable
            others = [a for n, a in enumerate(arrays) if n != param]
            assert not any(np.may_share_memory(arrays[param], a) for a in others if a.size)
            arrays[param][...] = outs[result]
            outs[result] = arrays[param]
        return outs

    def stage(self, name: str) -> str:
        return str(self.fn)


class InterpretingCompiler:
    """Implements `Compiler`; counts what it compiles."""

    def __init__(self) -> None:
        self.compiled: list[Function] = []

    def compile(self, fn: Function, options: CompileOptions) -> Interpreted:
        self.compiled.append(fn)
        return Interpreted(fn)

    def differentiated(self, fn: Function) -> Function:
        return run_pipeline(fn, [find_pass(name) for name in PASSES[:3]], [], verify="all")
