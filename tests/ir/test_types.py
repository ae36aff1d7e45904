"""Dimensions and the rules that type rules share."""

import numpy as np
import pytest

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.types import (
    DTYPES,
    Dim,
    TensorType,
    broadcast_shapes,
    dtype_of,
    exact_div,
    float32,
    int64,
    normalize_axes,
    resolve_reshape,
)

N, M = Dim.of("n"), Dim.of("m")


def test_dimensions_compute_as_polynomials() -> None:
    assert (N + 1) * 2 == N * 2 + 2
    assert N * M == M * N
    assert N - N == 0
    assert (N + 3) - N == 3
    assert str(N * M * 2 - 1) == "2*m*n-1"
    assert (N * 2 + M).evaluate({"n": 3, "m": 4}) == 10


def test_exact_division_of_dimensions() -> None:
    assert exact_div(N * 6, 3) == N * 2
    assert exact_div(N * M, N) == M
    assert exact_div(N * 6, 4) is None
    assert exact_div(N, M) is None


def test_broadcasting_is_numpys_and_knows_names() -> None:
    assert broadcast_shapes((N, 1), (4,)) == (N, 4)
    assert broadcast_shapes((0,), (1,)) == (0,)
    assert broadcast_shapes() == ()
    with pytest.raises(ShapeError, match=r"\(n,\) and \(m,\) do not broadcast"):
        broadcast_shapes((N,), (M,))
    with pytest.raises(ShapeError, match="axis -1"):
        broadcast_shapes((2, 3), (4,))


def test_reshape_fills_in_and_checks_counts() -> None:
    assert resolve_reshape((N, 4), (-1, 2)) == (N * 2, 2)
    assert resolve_reshape((0, 4), (0,)) == (0,)
    with pytest.raises(ShapeError, match="6 elements"):
        resolve_reshape((2, 3), (4,))
    with pytest.raises(ShapeError, match="only one"):
        resolve_reshape((4,), (-1, -1))
    with pytest.raises(ShapeError, match="cannot reshape"):
        resolve_reshape((0, 3), (0, -1))


def test_axes_are_checked_by_name() -> None:
    assert normalize_axes((-1, 0), 3) == (0, 2)
    assert normalize_axes(None, 2) == (0, 1)
    with pytest.raises(ShapeError, match="axis 3 is out of range for a tensor of rank 2"):
        normalize_axes(3, 2)
    with pytest.raises(ShapeError, match="twice"):
        normalize_axes((0, -2), 2)
    with pytest.raises(DTypeError, match="must be an int, found float"):
        normalize_axes((0.5,), 2)


def test_dtypes_are_found_by_every_usual_name() -> None:
    for dtype in DTYPES:
        assert dtype_of(dtype.name) is dtype
        assert dtype_of(dtype.dtype) is dtype
        assert np.dtype(dtype) == dtype.dtype
    assert dtype_of(float) is float32
    assert dtype_of(int) is int64
    with pytest.raises(DTypeError, match="complex128"):
        dtype_of("complex128")


def test_a_type_knows_its_bytes_and_its_text() -> None:
    assert TensorType(float32, (2, 3)).nbytes == 24
    assert str(TensorType(float32, (N, 3))) == "f32[n, 3]"
    with pytest.raises(ShapeError, match="symbolic"):
        _ = TensorType(float32, (N,)).static_shape
