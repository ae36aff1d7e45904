"""Kernels that work line by line: sorts, running sums, added scatters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_call import Native, compiled, function_of

from treadle.codegen.plan_lines import LinesPlan
from treadle.codegen.sort_network import merge_pairs
from treadle.ir.builder import Builder
from treadle.ir.graph import Result
from treadle.ir.op import get_op
from treadle.ir.types import type_of_array


def native(name: str, *arrays: Any, **attrs: Any) -> Native:
    op = get_op(name)
    return compiled(function_of(op, op.attrs(**attrs), arrays))


def plan_of(code: Native) -> LinesPlan:
    (kernel,) = code.plan.kernels
    assert isinstance(kernel.body, LinesPlan)
    return kernel.body


def _cases() -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((301, 203)).astype(np.float32)
    narrow = rng.standard_normal((3001, 21))
    tall = rng.standard_normal((2001, 203)).astype(np.float32)
    wide = rng.standard_normal((300, 8, 40))
    writes = rng.standard_normal((5000, 72)).astype(np.float32)
    turned = rng.standard_normal((5000, 40, 9)).astype(np.float32)
    paired = rng.standard_normal((5000, 2, 36)).astype(np.float32)
    words = rng.integers(-50, 50, 5000)
    along = rng.integers(0, 203, (301, 500))
    values = rng.standard_normal((301, 500)).astype(np.float32)
    return [
        ("sort", (rows,), {"descending": False}),
        ("sort", (wide,), {"descending": True}),
        ("sort", (narrow,), {"descending": False}),
        ("topk", (rows,), {"k": 7, "largest": True}),
        ("cumsum", (tall,), {"axis": 0, "reverse": False}),
        ("cumsum", (tall,), {"axis": 1, "reverse": True}),
        ("cummax", (wide,), {"axis": 1}),
        ("cumprod", (wide,), {"axis": 2}),
        ("scatter_add", (np.zeros((50, 72), np.float32), writes, words), {"axes": (0,)}),
        ("scatter_add", (np.zeros((40, 50, 9), np.float32), turned, words), {"axes": (1,)}),
        ("scatter_add", (np.zeros((2, 50, 36), np.float32), paired, words), {"axes": (1,)}),
        ("add_along", (rows, values, along), {"axis": 1}),
        ("add_along", (values.T.copy(), rows.T.copy(), along.T[:203].copy() % 500), {"axis": 0}),
    ]


@pytest.mark.parametrize(("name", "arrays", "attrs"), _cases())
def test_any_number_of_threads_gives_the_same_bits(
    name: str, arrays: tuple[Any, ...], attrs: dict[str, Any]
) -> None:
    code = native(name, *arrays, **attrs)
    assert plan_of(code).tiles > 1
    alone = code.results(*arrays)
    for threads in (2, 3, 5):
        for one, many in zip(alone, code.results(*arrays, threads=threads), strict=True):
            assert one.tobytes() == many.tobytes()


def test_sums_of_writes_are_added_in_their_order() -> None:
    """float32 sums in the order of the writes, as a loop has them, whatever the threads."""
    rng = np.random.default_rng(1)
    writes = rng.standard_normal((4000, 48)).astype(np.float32)
    words = rng.integers(0, 9, 4000)
    start = rng.standard_normal((9, 48)).astype(np.float32)
    (found,) = native("scatter_add", start, writes, words, axes=(0,)).results(
        start, writes, words, threads=3
    )
    wanted = start.copy()
    for word, row in zip(words, writes, strict=True):
        wanted[word] += row
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_index_is_the_first_one_whatever_the_threads(threads: int) -> None:
    writes = np.ones((4000, 48), np.float32)
    words = np.zeros(4000, np.int64)
    words[[700, 3000]] = 9, -12
    start = np.zeros((9, 48), np.float32)
    code = native("scatter_add", start, writes, words, axes=(0,))
    assert plan_of(code).tiles > 1
    site, _, fault = code(start, writes, words, threads=threads)
    assert site == fault[0] == 1
    assert fault[1] == 9


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("rows", [1, 3, 37])
@pytest.mark.parametrize("size", [16, 17, 24, 25, 128, 129, 400])
@pytest.mark.parametrize("descending", [False, True])
def test_equal_elements_keep_their_order(
    dtype: Any, size: int, rows: int, descending: bool
) -> None:
    x = np.random.default_rng(size).integers(0, 5, (rows, size)).astype(dtype)
    _, order = native("sort", x, descending=descending).results(x)
    for row, places in zip(x, order, strict=True):
        key = 4 - row if descending else row
        np.testing.assert_array_equal(places, np.argsort(key, kind="stable"))


@pytest.mark.parametrize("value", [0.0, -1.5, np.nan])
def test_bytes_in_which_all_keys_agree_are_left_out(value: float) -> None:
    x = np.full((2, 100), value, np.float32)
    values, order = native("sort", x, descending=False).results(x)
    np.testing.assert_array_equal(values, x)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(100), (2, 100)))


def test_a_result_that_nobody_reads_is_not_written() -> None:
    x = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    b = Builder("f")
    values, _ = b.call_multi("sort", b.param(type_of_array(x), "x"), descending=False)
    code = compiled(b.finish([Result(values, "y")]))
    assert plan_of(code).stored == (True, False)
    (found,) = code.results(x)
    np.testing.assert_array_equal(found, np.sort(x))


def test_the_largest_come_first_however_they_are_spread() -> None:
    """Ascending rows are the worst case: each element is better than all before it."""
    x = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    values, order = native("topk", x, k=9, largest=True).results(x)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(999, 990, -1), (3, 9)))
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))


@pytest.mark.parametrize("size", [1, 2, 3, 16, 31, 100, 128])
def test_the_network_sorts_every_pattern_of_two_values(size: int) -> None:
    """The zero-one principle, on all rows where they are few."""
    pairs = merge_pairs(size)
    rng = np.random.default_rng(size)
    rows = rng.integers(0, 2, (200, size)) if size > 10 else np.array(list(np.ndindex(*[2] * size)))
    for i, j in pairs:
        low, high = np.minimum(rows[:, i], rows[:, j]), np.maximum(rows[:, i], rows[:, j])
        rows[:, i], rows[:, j] = low, high
    assert (np.diff(rows, axis=1) >= 0).all()
