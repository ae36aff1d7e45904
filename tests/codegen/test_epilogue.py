"""Epilogues of contractions: compiled, they do what the interpreter says, at every edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from native_call import Array, Native, close, compiled

from treadle.codegen.plan_contract import ContractPlan
from treadle.codegen.target import NAMES, Target, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.types import DType, TensorType, bool_, float32, float64, int32

Finish = Callable[[Builder, Value, dict[str, Value]], Value]


def bias_relu(b: Builder, product: Value, p: dict[str, Value]) -> Value:
    return b.call("relu", b.add(product, p["n"]))


def derivative(b: Builder, product: Value, p: dict[str, Value]) -> Value:
    return b.where(b.gt(p["mn"], 0), b.mul(product, p["m1"]), 0)


def activation(b: Builder, product: Value, p: dict[str, Value]) -> Value:
    return b.add(b.tanh(b.mul(product, 0.3)), b.sigmoid(p["mn"]))


FAMILIES = [named(n) for n in NAMES if named(n).runs_here()]
FINISHES = (bias_relu, derivative, activation)


def program(
    finish: Finish, m: int, n: int, k: int, spec: str = "mk,kn->mn", dtype: DType = float32
) -> Function:
    """`finish` of a product and of operands that broadcast to it in each way."""
    b = Builder("f")
    sizes = {"m": m, "n": n, "k": k}
    left, right = spec.split("->")[0].split(",")
    x, y = (
        b.param(TensorType(dtype, tuple(sizes[s] for s in part)), part) for part in (left, right)
    )
    x, y = x if left == "mk" else b.transpose(x), y if right == "kn" else b.transpose(y)
    product = b.matmul(x, y)
    if spec.endswith("nm"):
        product = b.transpose(product)
    rows, columns = product.type.shape
    shapes = {"n": (columns,), "mn": (rows, columns), "m1": (rows, 1)}
    p = {name: b.param(TensorType(dtype, shape), f"_{name}") for name, shape in shapes.items()}
    return b.finish([Result(finish(b, product, p), "y")])


def check(fn: Function, target: Target | None = None) -> Native:
    """Compiled, `fn` is one contraction with an epilogue and gives what the interpreter gives."""
    rng = np.random.default_rng(3)
    args: list[Array] = [
        rng.standard_normal(p.value.type.static_shape).astype(p.value.type.dtype.dtype)
        for p in fn.params
    ]
    native = compiled(fn, target)
    got, want = native.results(*args), interpret(fn, args)
    for x, y in zip(got, want, strict=True):
        assert close(x, y, 8, 24, args), native.plan
    return native


def contractions(native: Native) -> list[ContractPlan]:
    return [k.body for k in native.plan.kernels if isinstance(k.body, ContractPlan)]


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("finish", FINISHES, ids=lambda f: f.__name__)
def test_every_edge(finish: Finish, target: Target) -> None:
    """Small products, whole tiles, tiles over both edges, several blocks of k."""
    sizes = ((3, 5, 4), (1, 40, 300), (40, 1, 300), (28, 64, 40), (45, 70, 33), (31, 37, 700))
    for m, n, k in sizes:
        native = check(program(finish, m, n, k), target)
        assert len(native.plan.kernels) == 1
        assert contractions(native)[0].epilogue is not None


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("sizes", [(3, 70, 200), (70, 3, 200), (1, 300, 200)])
def test_dot_products(sizes: tuple[int, int, int], target: Target) -> None:
    for finish in FINISHES:
        (plan,) = contractions(check(program(finish, *sizes, "mk,nk->mn"), target))
        assert plan.kind == "dots"


@pytest.mark.parametrize("spec", ["mk,nk->mn", "km,kn->mn", "mk,kn->nm", "km,nk->nm"])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_every_orientation(spec: str, dtype: DType) -> None:
    for finish in FINISHES:
        assert contractions(check(program(finish, 37, 50, 41, spec, dtype)))[0].epilogue


def test_the_dtype_of_a_mask_and_of_a_wider_operand() -> None:
    b = Builder("f")
    x, y = (b.param(TensorType(float64, s), n) for n, s in (("x", (20, 30)), ("y", (30, 37))))
    keep = b.param(TensorType(bool_, (20, 37)), "keep")
    weight = b.param(TensorType(float32, (37,)), "weight")
    found = b.where(keep, b.mul(b.matmul(x, y), b.cast(weight, float64)), 0)
    assert contractions(check(b.finish([Result(found, "y")])))[0].epilogue


def test_batches_with_a_mask_that_counts() -> None:
    """A causal mask over two batch axes, small and large."""
    for t in (5, 40):
        b = Builder("f")
        q, k = (b.param(TensorType(float32, (2, 3, t, 32)), name) for name in "qk")
        rows, columns = (b.iota((t, t), axis, int32) for axis in (0, 1))
        scores = b.mul(b.matmul(q, b.transpose(k)), 0.2)
        masked = b.where(b.ge(rows, columns), scores, float("-inf"))
        native = check(b.finish([Result(masked, "y")]))
        assert len(native.plan.kernels) == 1


def test_a_summed_batch_is_finished_once() -> None:
    b = Builder("f")
    x, y = (
        b.param(TensorType(float32, (3, 31, 40)), "x"),
        b.param(TensorType(float32, (3, 40, 37)), "y"),
    )
    old = b.param(TensorType(float32, (31, 37)), "old")
    total = b.sum(b.matmul(x, y), 0)
    native = check(b.finish([Result(b.add(b.mul(total, 0.5), old), "y")]))
    assert len(native.plan.kernels) == 1


def test_a_product_without_terms_is_finished_too() -> None:
    native = check(program(bias_relu, 4, 5, 0))
    assert contractions(native)[0].kind == "zero"


def test_the_product_and_what_follows_are_both_stored() -> None:
    b = Builder("f")
    x, y = b.param(TensorType(float32, (33, 40)), "x"), b.param(TensorType(float32, (40, 50)), "y")
    before = b.matmul(x, y)
    after = b.call("gelu", before, approximate=True)
    native = check(b.finish([Result(after, "after"), Result(before, "before")]))
    assert len(native.plan.kernels) == 1
    assert "epilogue" in str(native.plan)


def test_equal_layers_share_their_epilogue() -> None:
    def functions(count: int) -> int:
        b = Builder("f")
        x, w = (b.param(TensorType(float32, (64, 64)), name) for name in "xw")
        for _ in range(count):
            x = b.call("relu", b.add(b.matmul(x, w), x))
        return str(compiled(b.finish([Result(x, "y")])).emitted.ir).count("\ndefine ")

    assert functions(4) == functions(2)
