"""Linear algebra, by the names of the Array API standard's extension `linalg`."""

from treadle.tracer.api import (
    matmul,
    matrix_transpose,
    outer,
    tensordot,
    vecdot,
    vector_norm,
)
from treadle.tracer.api.diagonals import diagonal, trace

__all__ = [
    "diagonal",
    "matmul",
    "matrix_transpose",
    "outer",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
