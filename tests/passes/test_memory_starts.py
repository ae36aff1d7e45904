"""Where added scatters begin: in the place of their result."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.types import TensorType, float32, int64
from treadle.passes import fuse
from treadle.passes.manager import run_pipeline
from treadle.passes.memory import plan_memory

TABLE = TensorType(float32, (6, 8))


def kernels(make: Any) -> Function:
    b = Builder("f")
    rows = b.param(TensorType(float32, (9, 8)), "rows")
    index = b.param(TensorType(int64, (9,)), "index")
    table = b.param(TABLE, "table")
    outs = make(b, rows, index, table)
    fn = b.finish([Result(o, f"y{n}") for n, o in enumerate(outs)])
    return run_pipeline(fn, (fuse.PASS,), [], verify="always")


def scatter(b: Builder, x: Any, rows: Any, index: Any, checked: bool = False) -> Any:
    return b.call("scatter_add", x, rows, index, axes=(0,), checked=checked)


def places(fn: Function) -> list[tuple[str, str]]:
    """Of each added scatter: where it begins, and its result."""
    plan = plan_memory(fn)
    found = [i for i in fn.instrs if i.op.name == "scatter_add"]
    return [(str(plan.places[i.args[0]]), str(plan.places[i.result])) for i in found]


def test_zeros_of_a_gradient_are_made_where_it_shall_lie() -> None:
    def make(b: Builder, rows: Any, index: Any, table: Any) -> list[Any]:
        zeros = b.full((6, 8), 0.0, float32)
        return [scatter(b, scatter(b, zeros, rows, index), rows, index)]

    fn = kernels(make)
    assert places(fn) == [("result 0", "result 0")] * 2
    assert plan_memory(fn).workspace == 0


def test_what_is_read_again_or_belongs_to_the_caller_is_left_alone() -> None:
    def twice(b: Builder, rows: Any, index: Any, table: Any) -> list[Any]:
        start = b.exp(table)
        return [scatter(b, start, rows, index), b.call("cumsum", start, axis=0)]

    def given(b: Builder, rows: Any, index: Any, table: Any) -> list[Any]:
        return [scatter(b, table, rows, index)]

    def returned(b: Builder, rows: Any, index: Any, table: Any) -> list[Any]:
        start = b.exp(table)
        return [scatter(b, start, rows, index), start]

    for make in (twice, given, returned):
        for start, result in places(kernels(make)):
            assert start != result


def test_a_scatter_of_its_own_operand_begins_elsewhere() -> None:
    def make(b: Builder, rows: Any, index: Any, table: Any) -> list[Any]:
        start = b.exp(table)
        picked = b.const(np.arange(6), int64)
        return [scatter(b, start, start, picked)]

    ((start, result),) = places(kernels(make))
    assert start != result
