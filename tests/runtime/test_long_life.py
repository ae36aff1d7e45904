"""Compiled code goes with its function, or when it is told to."""

from __future__ import annotations

import gc
import weakref

import numpy as np

import treadle


def test_clear_cache_frees_code_and_the_next_call_compiles_again() -> None:
    fn = treadle.jit(lambda x: x * 3 + 1)
    x = treadle.ones(4)
    first = np.asarray(fn(x))
    code = weakref.ref(fn.specializations[0].executable._code)
    treadle.clear_cache()
    assert fn.specializations == []
    gc.collect()
    assert code() is None
    assert np.array_equal(np.asarray(fn(x)), first)
    assert len(fn.specializations) == 1


def test_code_goes_with_its_function() -> None:
    codes = []
    for n in range(20):
        fn = treadle.jit(lambda x, n=n: x + n)
        fn(treadle.ones(3))
        codes.append(weakref.ref(fn.specializations[0].executable._code))
        del fn
    gc.collect()
    assert [c for c in codes if c() is not None] == []


def test_forgetting_inside_of_a_running_call_is_safe() -> None:
    inner = treadle.jit(lambda x: x * 2)
    inner(treadle.ones(3))

    def outer(x: treadle.Tensor) -> treadle.Tensor:
        treadle.clear_cache()
        return inner(x) + 1

    fn = treadle.jit(outer)
    for _ in range(2):
        assert np.array_equal(np.asarray(fn(treadle.ones(3))), np.full(3, 3.0))
