"""`torch.linalg`: products and norms."""

from __future__ import annotations

from typing import Any

from treadle.torch.functions import facade
from treadle.torch.names import missing
from treadle.torch.products import cross, matmul, multi_dot
from treadle.tracer import api

__all__ = [
    "cross",
    "diagonal",
    "matmul",
    "matrix_norm",
    "multi_dot",
    "norm",
    "vecdot",
    "vector_norm",
]


@facade
def vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Any:
    """The norm of the elements over `dim`, or of all."""
    return api.norm(x, ord, axis=dim, keepdims=keepdim)


@facade
def matrix_norm(A: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Any:
    """The Frobenius norm of matrices. Raises ArgumentError for another."""
    return api.norm(A, ord, axis=tuple(dim), keepdims=keepdim)


@facade
def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Any:
    """`vector_norm`, of all elements or over `dim`."""
    return api.norm(A, 2.0 if ord is None else ord, axis=dim, keepdims=keepdim)


@facade
def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """The sum of products along `dim`."""
    return api.vecdot(x, y, axis=dim)


@facade
def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """The elements [.., i, .., i + offset, ..] of two dimensions, as a last one."""
    return api.diagonal(A, offset, dim1, dim2)


def __getattr__(name: str) -> Any:
    raise missing("torch.linalg", name, __all__)
