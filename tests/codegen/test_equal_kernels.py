"""Equal layers share plans and code, whatever their number, and give what they give apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from native_call import Native, emitted_for

from treadle.codegen import plan as planning
from treadle.codegen.emission import Emission
from treadle.codegen.target import host
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Loc, Result, Value
from treadle.ir.structure import structure
from treadle.ir.types import TensorType, float32
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import PIPELINE
from treadle.runtime.native import load

SIZE = 24


def stack(layers: int, layer: Callable[[Builder, Value, Value], Value]) -> Function:
    """`layers` equal layers, each on a line of its own, and all their gradients."""
    b = Builder("f")
    x = b.param(TensorType(float32, (8, SIZE)), "x")
    weights = [b.param(TensorType(float32, (SIZE, SIZE)), f"w{n}") for n in range(layers)]
    known = [b.call("variable", w) for w in weights]
    for n, w in enumerate(known):
        with b.at(Loc("model.py", n + 1)):
            x = layer(b, x, w)
    grads = b.call_multi("gradient", x, b.ones_like(x), *known, outputs=1)
    return b.finish([Result(x, "y"), *(Result(g, f"g{n}") for n, g in enumerate(grads))])


def dense(b: Builder, x: Value, w: Value) -> Value:
    return b.call("relu", b.matmul(x, w))


def normed(b: Builder, x: Value, w: Value) -> Value:
    return b.add(x, b.call("softmax", b.matmul(x, w), axis=1))


LAYERS = pytest.mark.parametrize("layer", [dense, normed])


def compiled(fn: Function) -> Native:
    kernels = run_pipeline(fn, PIPELINE)
    memory, plan, emitted = emitted_for(kernels, host())
    return Native(kernels, memory, plan, emitted, load(emitted.ir, host()))


@LAYERS
def test_code_does_not_grow_with_equal_layers(layer: Callable[..., Value]) -> None:
    few, many = (compiled(stack(n, layer)) for n in (6, 18))
    assert len(many.plan.kernels) > 2 * len(few.plan.kernels)
    assert len({k.code for k in many.plan.kernels}) == len({k.code for k in few.plan.kernels})
    assert _written(many) == _written(few)


@LAYERS
def test_shared_code_gives_the_bits_of_code_of_its_own(
    layer: Callable[..., Value], monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = stack(7, layer)
    shared = compiled(fn)
    monkeypatch.setattr(planning, "structure", lambda instr: instr)
    monkeypatch.setattr(Emission, "merged", lambda self, w: w.name)
    apart = compiled(fn)
    assert len(set(apart.emitted.functions)) == len(apart.plan.kernels)
    assert len(set(shared.emitted.functions)) < len(shared.plan.kernels) // 2
    rng = np.random.default_rng(0)
    shapes = [p.value.type.static_shape for p in fn.params]
    args = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for got, want in zip(shared.results(*args), apart.results(*args), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_plan_says_whose_code_a_kernel_runs() -> None:
    few, many = (str(compiled(stack(n, dense)).plan) for n in (6, 18))
    assert ": the code of k" in few
    assert many.count("registers") == few.count("registers")


def test_lines_and_names_are_no_part_of_a_structure_but_attributes_are() -> None:
    def one(name: str, line: int, correction: float) -> Any:
        b = Builder(name)
        x = b.param(TensorType(float32, (4, 8)), name)
        with b.at(Loc("model.py", line)):
            y = b.call("var", x, axes=(1,), correction=correction, keepdims=True)
        assert y.producer is not None
        return structure(y.producer)

    assert one("x", 1, 0.0) == one("y", 2, 0.0)
    assert one("x", 1, 0.0) != one("x", 1, -0.0)


def _written(native: Native) -> int:
    return native.emitted.ir.count("\ndefine internal void @k")
