"""Every other element, and elements that are for several lanes each: whole loads and a shuffle.

`Native.results` runs on buffers that end, and begin, at a page that may not be touched.
"""

from __future__ import annotations

import numpy as np
import pytest
from native_call import Array, compiled, lowered
from test_fused import FAMILIES, program

from treadle.codegen.target import Target
from treadle.ir.builder import Builder
from treadle.ir.graph import Value
from treadle.ir.interpreter import interpret
from treadle.ir.types import DType, TensorType, bool_, float32, float64, int32, uint8

SIZES = [1, 2, 3, 4, 7, 8, 9, 12, 16, 17, 28, 33, 70]


def _numbers(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).integers(0, 9, shape)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [float32, float64, uint8, bool_], ids=str)
@pytest.mark.parametrize("first", [0, 1])
def test_every_other_element_is_read_and_nothing_behind_the_last(
    first: int, dtype: DType, target: Target
) -> None:
    for size in SIZES:
        whole = first + 2 * size - 1  # the last element taken is the last there is

        def body(b: Builder, x: Value, size: int = size) -> Value:
            part = b.call("slice", x, starts=(0, first), steps=(1, 2), shape=(3, size))
            return b.where(b.eq(part, part), part, 0)

        x = _numbers(3, whole).astype(dtype.dtype)
        (got,) = compiled(program(body, TensorType(dtype, (3, whole))), target).results(x)
        np.testing.assert_array_equal(got, x[:, first::2])


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("every", [2, 3, 4, 8])
def test_what_is_for_several_lanes_is_read_once(every: int, target: Target) -> None:
    for count in SIZES:

        def body(b: Builder, y: Value, count: int = count) -> Value:
            spread = b.call(
                "from_windows", b.neg(y), size=(count * every,), axes=(1,), kernel=(every,),
                stride=(every,), padding=((0, 0),), dilation=(1,),
            )  # fmt: skip
            return b.mul(spread, 2.0)

        y = _numbers(every, 3, count).astype(np.float32)
        kind = TensorType(float32, (every, 3, count))
        (got,) = compiled(program(body, kind), target).results(y)
        want = -2 * np.moveaxis(y, 0, -1).reshape(1, 3, count * every)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("size", [24, 28, 64])
def test_a_pool_of_windows_side_by_side_gathers_nothing(size: int, target: Target) -> None:
    windows = {
        "axes": (1, 2), "kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)),
        "dilation": (1, 1),
    }  # fmt: skip

    def body(b: Builder, x: Value, g: Value) -> tuple[Value, ...]:
        best, taps = b.call_multi("max_pool", x, **windows)
        return best, b.call("max_pool_grad", g, taps, size=(size, size), **windows)

    half = size // 2
    kinds = TensorType(float32, (3, size, size)), TensorType(float32, (3, half, half))
    native = compiled(program(body, *kinds), target)
    assert "gather" not in native.emitted.ir
    x, g = _numbers(3, size, size).astype(np.float32), _numbers(3, half, half).astype(np.float32)
    x[0, :5, :9] = np.nan
    best, grad = native.results(x, g)
    blocks = np.moveaxis(x.reshape(3, half, 2, half, 2), 2, 3).reshape(3, half, half, 4)
    nans = np.isnan(blocks)
    chosen = np.where(nans.any(-1), 3 - nans[..., ::-1].argmax(-1), blocks.argmax(-1))
    held = np.arange(4) == chosen[..., None]
    want = np.where(held, g[..., None], 0).reshape(3, half, half, 2, 2)
    np.testing.assert_array_equal(best, blocks.max(-1))
    np.testing.assert_array_equal(grad, np.moveaxis(want, 3, 2).reshape(3, size, size))


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
@pytest.mark.parametrize("pads", [(1, 1), (1, 0), (2, 2)], ids=str)
@pytest.mark.parametrize("size", [5, 16, 31, 32, 64])
def test_a_pool_of_padded_windows_that_overlap_gathers_nothing(
    size: int, pads: tuple[int, int], target: Target
) -> None:
    windows = {
        "axes": (1, 2), "kernel": (3, 3), "stride": (2, 2), "padding": (pads, pads),
        "dilation": (1, 1),
    }  # fmt: skip
    count = (size + sum(pads) - 3) // 2 + 1

    def body(b: Builder, x: Value, g: Value) -> tuple[Value, ...]:
        best, taps = b.call_multi("max_pool", x, **windows)
        return best, b.call("max_pool_grad", g, taps, size=(size, size), **windows)

    kinds = TensorType(float32, (2, size, size)), TensorType(float32, (2, count, count))
    native = compiled(program(body, *kinds), target)
    assert "gather" not in native.emitted.ir
    x, g = _numbers(2, size, size).astype(np.float32), _numbers(2, count, count) + 1.0
    best, grad = native.results(x, g.astype(np.float32))
    want = interpret(lowered(program(body, *kinds)), [x, g.astype(np.float32)])
    np.testing.assert_array_equal(best, want[0])
    np.testing.assert_array_equal(grad, want[1])


@pytest.mark.parametrize("target", FAMILIES, ids=lambda t: t.name)
def test_padding_around_checked_indices_is_no_fault(target: Target) -> None:
    """Lanes in the padding are checked too: they read an index that there is."""

    def body(b: Builder, at: Value) -> Value:
        found = b.call("check_index", b.sub(at, 5), size=4, what="class")
        return b.call("pad", found, low=(3,), high=(4,), value=-1.0)

    at = np.arange(19, dtype=np.int32) % 4 + 5
    native = compiled(program(body, TensorType(int32, (19,))), target)
    (got,) = native.results(at)
    np.testing.assert_array_equal(got, np.pad(at - 5, (3, 4), constant_values=-1))
