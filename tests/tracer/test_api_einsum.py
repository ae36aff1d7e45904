"""einsum, diagonals, windows and sorts as functions: what they compile to, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.ir.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def kernels(fn: Any, *arrays: Any) -> str:
    return str(treadle.jit(fn).ir("fuse", *(treadle.tensor(a) for a in arrays)))


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("spec", "shapes", "contraction"),
    [
        ("ij,jk->ik", ((4, 5), (5, 6)), "mk,kn->mn"),
        ("ji,kj->ik", ((5, 4), (6, 5)), "km,nk->mn"),
        ("bqhd,bkhd->bhqk", ((2, 7, 3, 5), (2, 6, 3, 5)), "bmak,bnak->bamn"),
        ("abcd,cdef->abef", ((2, 3, 4, 5), (4, 5, 6, 7)), "mk,kn->mn"),
        ("abc,bd->acd", ((8, 9, 10), (9, 11)), "mkh,kn->mhn"),
    ],
)
def test_what_is_summed_is_one_contraction_without_copies(
    spec: str, shapes: Any, contraction: str
) -> None:
    text = kernels(lambda x, y: treadle.einsum(spec, x, y), *(ones(*s) for s in shapes))
    assert text.count("contract(") == 1
    assert f'spec="{contraction}"' in text
    assert "fused(" not in text


@pytest.mark.parametrize("spec", ["ij->ji", "ijk->kij", "ii->i", "...i->i..."])
def test_transposes_and_diagonals_are_views(spec: str) -> None:
    shape = (4, 4) if spec == "ii->i" else (2, 3, 4)[: len(spec.split("->")[0].replace("...", "."))]
    base = treadle.tensor(np.zeros(shape, np.float32))
    seen = treadle.einsum(spec, base)
    seen += 1
    assert treadle.sum(base).numpy() == seen.size
    text = kernels(lambda x: treadle.einsum(spec, x), np.zeros(shape, np.float32))
    assert "fused(" not in text


def test_several_operands_are_contracted_by_the_fewest_multiplications() -> None:
    """(9 x 100) (100 x 2) first, though the first two stand together in the spec."""
    x, y, z = ones(50, 9), ones(9, 100), ones(100, 2)
    text = kernels(lambda *xs: treadle.einsum("ab,bc,cd->ad", *xs), x, y, z)
    assert "f32[9, 2] = contract(" in text
    assert "f32[50, 100]" not in text


def test_operands_are_promoted_to_one_dtype() -> None:
    found = treadle.einsum("i,i->", treadle.arange(3), treadle.ones((3,), dtype=treadle.float64))
    assert found.dtype == treadle.float64
    assert treadle.einsum("i,i->", treadle.arange(3), treadle.arange(3)).numpy() == 5


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        (("ij,jk", ones(2, 3)), ArgumentError, "has 2 operands, found 1"),
        (("ij->ik", ones(2, 3)), ArgumentError, "'k', which no operand has"),
        (("ij->ii", ones(2, 3)), ArgumentError, "a letter twice"),
        (("i1->i", ones(2, 3)), ArgumentError, "letters and at most one"),
        (("ij,jk", ones(2, 3), ones(4, 5)), ShapeError, "'j' has size 3, found 4"),
        (("ijk", ones(2, 3)), ShapeError, "'ijk' does not fit an operand of rank 2"),
        (("ii", ones(2, 3)), ShapeError, "'i' has size 2, found 3"),
        (("...i->i", ones(2, 3)), ArgumentError, r"the result needs '\.\.\.'"),
        (("ij,jk", ones(2, 3) > 0, ones(3, 5) > 0), DTypeError, "bool"),
        ((5, ones(2, 3)), ArgumentError, "a spec such as"),
    ],
)
@pytest.mark.parametrize("jitted", [False, True])
def test_a_spec_that_does_not_fit_is_explained(
    args: Any, error: Any, text: str, jitted: bool
) -> None:
    def run(*operands: Any) -> Any:
        return treadle.einsum(args[0], *operands)

    with pytest.raises(error, match=text) as caught:
        (treadle.jit(run) if jitted else run)(*(treadle.tensor(a) for a in args[1:]))
    assert "test_api_einsum.py" in str(caught.value)


@pytest.mark.parametrize("offset", [-4, -3, -1, 0, 2, 4, 9])
def test_diagonal_is_numpys(offset: int) -> None:
    x = RNG.standard_normal((4, 5, 3))
    for axes in ((0, 1), (1, 2), (2, 0), (-1, 1)):
        found = treadle.diagonal(treadle.tensor(x), offset, *axes)
        np.testing.assert_array_equal(found.numpy(), np.diagonal(x, offset, *axes))
        trace = treadle.linalg.trace(treadle.tensor(x), offset, *axes)
        np.testing.assert_allclose(trace.numpy(), np.trace(x, offset, *axes), atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
@pytest.mark.parametrize("k", [-2, 0, 3])
def test_diag_is_numpys(dtype: Any, k: int) -> None:
    x = np.array([1, 0, 2]).astype(dtype)
    for a in (x, x[:0], np.stack([x, x])):
        found = treadle.jit(lambda t: treadle.diag(t, k))(treadle.tensor(a))
        np.testing.assert_array_equal(found.numpy(), np.diag(a, k))
        assert found.numpy().dtype == dtype


def test_an_infinite_element_stays_on_its_diagonal() -> None:
    x = np.array([np.inf, np.nan, 1.0])
    np.testing.assert_array_equal(treadle.diag(treadle.tensor(x)).numpy(), np.diag(x))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_windows_are_those_of_numpy(dtype: Any) -> None:
    x = RNG.integers(0, 2, (4, 9)).astype(dtype)
    for size, step in ((1, 1), (3, 1), (4, 2), (9, 5)):
        wanted = np.lib.stride_tricks.sliding_window_view(x, size, 1)[:, ::step]
        found = treadle.jit(lambda t, size=size, step=step: treadle.unfold(t, 1, size, step))
        np.testing.assert_array_equal(found(treadle.tensor(x)).numpy(), wanted)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: treadle.unfold(x, 1, 6, 1), ArgumentError, "from 1 to the 5 elements of axis 1"),
        (lambda x: treadle.unfold(x, 1, 2, 0), ArgumentError, "step of unfold must be at least 1"),
        (lambda x: treadle.diagonal(x, 0, 1, 1), ShapeError, "two different axes"),
        (lambda x: treadle.diagonal(x[0]), ShapeError, "two axes or more"),
        (lambda x: treadle.diag(treadle.ones((2, 2, 2))), ShapeError, "one axis or two"),
        (lambda x: treadle.topk(x, 6), ArgumentError, "k must be from 0 to the size 5 of axis 1"),
        (lambda x: treadle.topk(x, -1), ArgumentError, "found -1"),
        (lambda x: treadle.sort(x, axis=2), ShapeError, "axis"),
        (lambda x: treadle.sort(x, descending=1), DTypeError, "descending must be a bool"),
        (lambda x: treadle.sort(treadle.tensor(1.0)), ShapeError, "axis"),
        (lambda x: treadle.cummax(x, 2), ShapeError, "axis"),
        (lambda x: treadle.cumulative_prod(x), ShapeError, "needs an axis"),
        (lambda x: treadle.norm(x, "nuc"), ArgumentError, "'fro' in norm, found 'nuc'"),
    ],
)
def test_what_does_not_fit_is_named(call: Any, error: Any, text: str) -> None:
    for run in (call, treadle.jit(call)):
        with pytest.raises(error, match=text) as caught:
            run(treadle.ones((3, 5)))
        assert "test_api_einsum.py" in str(caught.value)


def test_sort_and_argsort_of_one_operand_are_one_sort() -> None:
    x = RNG.standard_normal((3, 50)).astype(np.float32)
    text = kernels(lambda t: (treadle.sort(t), treadle.argsort(t)), x)
    assert text.count("sort(") == 1


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_greatest_and_zeros_are_equal(descending: bool) -> None:
    x = treadle.tensor([np.nan, -0.0, np.inf, 0.0, np.nan, -np.inf])
    wanted = [0, 4, 2, 1, 3, 5] if descending else [5, 1, 3, 2, 0, 4]
    for run in (treadle.argsort, treadle.jit(treadle.argsort)):
        assert run(x, descending=descending).tolist() == wanted
    values, places = treadle.topk(x, 2)
    assert places.tolist() == [0, 4]
    assert np.isnan(values.numpy()).all()


def test_many_best_elements_come_by_a_sort_few_by_insertion() -> None:
    x = RNG.permutation(300).astype(np.float32)
    for k in (64, 65, 300):
        values, places = treadle.jit(lambda t, k=k: treadle.topk(t, k))(treadle.tensor(x))
        np.testing.assert_array_equal(values.numpy(), np.sort(x)[::-1][:k])
        np.testing.assert_array_equal(x[places.numpy()], values.numpy())


def test_an_index_along_an_axis_out_of_range_is_a_fault() -> None:
    x = treadle.ones((2, 3))
    index = treadle.tensor([[0, 3], [0, 0]])
    for run in (treadle.take_along_axis, treadle.jit(treadle.take_along_axis)):
        with pytest.raises(treadle.IndexFault, match="axis 1 of size 3, found 3"):
            run(x, index)


def test_methods_are_the_functions() -> None:
    x = treadle.tensor(RNG.permutation(20).reshape(4, 5).astype(np.float64))
    pairs = [
        (x.sort(0, True), treadle.sort(x, axis=0, descending=True)),
        (x.argsort(), treadle.argsort(x)),
        (x.topk(2, 0, False)[0], treadle.topk(x, 2, 0, False)[0]),
        (x.topk(2)[1], treadle.topk(x, 2)[1]),
        (x.cumprod(1), treadle.cumprod(x, 1)),
        (x.diagonal(1), treadle.diagonal(x, 1)),
        (x.unfold(1, 2, 3), treadle.unfold(x, 1, 2, 3)),
    ]
    for found, wanted in pairs:
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
