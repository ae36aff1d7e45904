"""Specs of contractions: what they say, how they print, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.ir.errors import ShapeError
from treadle.ir.op import get_op
from treadle.ir.ops.contract_spec import Window, letter_sizes, read_spec
from treadle.ir.ops.kernels import ContractAttrs
from treadle.ir.types import TensorType, float32

SPECS = [
    "bmk,bnk->bmn",
    "k,k->",
    "ockl,nc[y+k-1][z+l-1]->noyz where y=32, z=32",
    "noyz,nc[2y+3k][z+2l-4]->ockl where k=3, l=1",
    "ockl,no[(y-k+1)/2][(z-2l+3)/3]->ncyz where y=8, z=9",
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_prints_as_it_is_written(spec: str) -> None:
    assert str(read_spec(spec)) == spec


def test_the_numbers_of_a_window() -> None:
    (window,) = read_spec("ok,o[(3y-2k+4)/5]->y where y=7").windows
    assert window == Window("y", "k", 3, -2, 4, 5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mk,kn", "needs a spec such as"),
        ("mm,mn->n", "needs a spec such as"),
        ("mk,kn->mx", "in one operand only, or in the result only"),
        ("mk,[y+k->my where y=2", "needs a spec such as"),
        ("mk,[y*k]->my where y=2", "needs a spec such as"),
        ("[y+k],k->y where y=2", "windows over its right operand"),
        ("mk,[y+k]->my", "needs the size of y behind where"),
        ("mk,kn->mn where y=2", "needs the size of no letter behind where"),
        ("mk,[y+k]->my where y=2, y=3", "needs the size of y behind where"),
        ("mk,[y+k]->my where y=x", "needs a spec such as"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        read_spec(spec)


def test_operands_must_fit_the_spec() -> None:
    x, y = TensorType(float32, (3, 4)), TensorType(float32, (5,))
    with pytest.raises(ShapeError, match="'kn' has shape"):
        letter_sizes("mk,kn->mn", x, y)
    with pytest.raises(ShapeError, match="'k' has sizes 4 and 5"):
        letter_sizes("mk,k->m", x, y)


def test_what_lies_outside_of_a_window_is_zero() -> None:
    """Taps 1, 10, 100 over [1, 2, 3], by hand."""
    x, y = np.array([1, 10, 100]), np.array([1, 2, 3])
    for spec, want in (
        ("k,[z+k-1]->z where z=3", [210, 321, 32]),
        ("k,[2z+k]->z where z=2", [321, 3]),
        ("k,[(z+k)/2]->z where z=4", [201, 20, 302, 30]),
        ("k,[z-k]->z where z=3", [1, 12, 123]),
    ):
        (got,) = get_op("contract").run_ref(ContractAttrs(spec), (x, y))
        np.testing.assert_array_equal(got, want)
