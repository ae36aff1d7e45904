"""The module: the entry, its buffers, constants, copies and faults."""

from __future__ import annotations

import numpy as np
import pytest
from native_call import Native, compiled, emitted_for, lowered

from treadle.codegen.target import NAMES, named
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Loc, Result
from treadle.ir.types import TensorType, float32, int64
from treadle.runtime.native import assembly

F = TensorType(float32, (6, 20))


def network() -> Function:
    """A little of everything: products, a gather, a softmax, a sum, a scatter."""
    b = Builder("f", Loc("user.py", 3))
    x, w = b.param(F, "x"), b.param(TensorType(float32, (20, 70)), "w", "state")
    ids = b.param(TensorType(int64, (6,)), "ids")
    with b.at(Loc("user.py", 7)):
        h = b.call("softmax", b.matmul(x, w), axis=1)
        rows = b.call("gather", b.permute(w, (1, 0)), ids, axes=(0,))
    with b.at(Loc("user.py", 9)):
        loss = b.sum(b.matmul(h, b.permute(w, (1, 0))))
        new = b.call("scatter_add", b.permute(w, (1, 0)), rows, ids, axes=(0,))
    outs = (("loss", loss), ("rows", rows), ("new", b.permute(new, (1, 0))))
    return b.finish([Result(v, path) for path, v in outs])


@pytest.mark.parametrize("name", NAMES)
def test_machine_code_is_made_for_every_family(name: str) -> None:
    target = named(name)
    _, _, emitted = emitted_for(lowered(network()), target)
    text = assembly(emitted.ir, target)
    wide = {"sse2": "xmm", "avx2": "ymm", "avx512": "zmm", "neon": "v0.4s"}[name]
    assert wide in text
    fused = {"avx2": "vfmadd", "avx512": "vfmadd", "neon": "fmla"}.get(name)
    assert fused is None or fused in text


def test_a_network_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((6, 20), (20, 70)))
    ids = np.array([0, 69, 3, -1, 3, 5])
    native = compiled(network())
    loss, rows, new = native.results(x, w, ids)
    e = np.exp((x @ w).astype(np.float64) - (x @ w).max(1, keepdims=True))
    np.testing.assert_allclose(loss, (e / e.sum(1, keepdims=True) @ w.T).sum(), rtol=1e-4)
    np.testing.assert_array_equal(rows, w.T[ids])
    want = w.T.astype(np.float64).copy()
    np.add.at(want, ids, w.T[ids].astype(np.float64))
    np.testing.assert_allclose(new, want.T, rtol=1e-6)


def test_kernels_are_named_after_the_users_lines() -> None:
    ir = compiled(network()).emitted.ir
    assert "user.py:7" in ir
    assert "user.py:9" in ir


def test_nothing_is_a_fast_math_operation() -> None:
    ir = compiled(network()).emitted.ir
    for flag in (" fast ", " nnan", " ninf", " reassoc", " contract", "fmuladd"):
        assert flag not in ir


def faulting() -> Native:
    """New state that depends on a checked gather; the barrier comes before it is written."""
    b = Builder("f")
    p = b.param(TensorType(float32, (50,)), "p", "state")
    ids = b.param(TensorType(int64, (3,)), "ids")
    with b.at(Loc("user.py", 12)):
        picked = b.call("gather", p, ids, axes=(0,))
    return compiled(b.finish([Result(b.sum(picked), "y"), Result(b.mul(p, 2.0), "p", "state")]))


def test_a_fault_returns_its_site_before_state_is_written() -> None:
    native = faulting()
    p = np.arange(50, dtype=np.float32)
    returned, outs, fault = native(p, np.array([1, 50, 2]))
    assert returned == fault[0] == 1
    assert fault[1] == 50
    site = native.emitted.faults[0]
    assert site.loc == Loc("user.py", 12)
    assert "axis 0 of size 50" in site.message
    if native.memory.in_place:
        np.testing.assert_array_equal(outs[1], p)
    returned, outs, _ = native(p, np.array([1, 49, 2]))
    assert returned == 0
    np.testing.assert_array_equal(outs[1], p * 2)


def test_constants_and_copies_reach_their_results() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (3,)), "x")
    table = b.const(np.array([1.5, -2, 3], np.float32), float32)
    fn = b.finish(
        [Result(table, "a"), Result(x, "b"), Result(b.add(x, table), "c"), Result(x, "d")]
    )
    value = np.array([1, 2, 3], np.float32)
    native = compiled(fn)
    a, same, total, again = native.results(value)
    np.testing.assert_array_equal(a, [1.5, -2, 3])
    np.testing.assert_array_equal(same, value)
    np.testing.assert_array_equal(again, value)
    np.testing.assert_array_equal(total, [2.5, 0, 6])


def test_a_function_without_kernels_still_runs() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (2, 2)), "x")
    value = np.ones((2, 2), np.float32)
    (got,) = compiled(b.finish([Result(x, "y")])).results(value)
    np.testing.assert_array_equal(got, value)
