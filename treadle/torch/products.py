"""Products of matrices and vectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from treadle.ir.errors import ShapeError
from treadle.torch.functions import facade
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand


def _ranks(name: str, *pairs: tuple[Any, int]) -> None:
    """Raises ShapeError unless each tensor has its rank."""
    for x, rank in pairs:
        found = as_operand(x)
        if found.ndim != rank:
            raise located(
                ShapeError(f"{name} takes a tensor of rank {rank} here, found {found.type}")
            )


@facade
def matmul(input: Any, other: Any) -> Any:
    """The product of matrices, batched and broadcast."""
    return api.matmul(input, other)


@facade
def mm(input: Any, mat2: Any) -> Any:
    """The product of two matrices."""
    _ranks("mm", (input, 2), (mat2, 2))
    return api.matmul(input, mat2)


@facade
def bmm(input: Any, mat2: Any) -> Any:
    """The products of two batches of matrices."""
    _ranks("bmm", (input, 3), (mat2, 3))
    return api.matmul(input, mat2)


@facade
def mv(input: Any, vec: Any) -> Any:
    """The product of a matrix and a vector."""
    _ranks("mv", (input, 2), (vec, 1))
    return api.matmul(input, vec)


@facade
def dot(input: Any, tensor: Any) -> Any:
    """The product of two vectors."""
    _ranks("dot", (input, 1), (tensor, 1))
    return api.vecdot(input, tensor)


vdot = dot


@facade
def inner(input: Any, other: Any) -> Any:
    """The sum of products over the last dimensions of both."""
    x, y = as_operand(input), as_operand(other)
    if x.ndim == 0 or y.ndim == 0:
        return api.multiply(x, y)
    return api.tensordot(x, y, axes=([-1], [-1]))


@facade
def outer(input: Any, vec2: Any) -> Any:
    """All products of two vectors' elements."""
    return api.outer(input, vec2)


ger = outer


def _mixed(input: Any, product: Any, beta: Any, alpha: Any) -> Any:
    scaled = product if alpha == 1 else api.multiply(product, alpha)
    if beta == 0:
        return scaled
    return api.add(input if beta == 1 else api.multiply(input, beta), scaled)


@facade
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * mat1 @ mat2"""
    _ranks("addmm", (mat1, 2), (mat2, 2))
    return _mixed(input, api.matmul(mat1, mat2), beta, alpha)


@facade
def addmv(input: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * mat @ vec"""
    _ranks("addmv", (mat, 2), (vec, 1))
    return _mixed(input, api.matmul(mat, vec), beta, alpha)


@facade
def addr(input: Any, vec1: Any, vec2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * outer(vec1, vec2)"""
    return _mixed(input, api.outer(vec1, vec2), beta, alpha)


@facade
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * batch1 @ batch2"""
    _ranks("baddbmm", (batch1, 3), (batch2, 3))
    return _mixed(input, api.matmul(batch1, batch2), beta, alpha)


@facade
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta * input + alpha * the sum of batch1 @ batch2"""
    _ranks("addbmm", (batch1, 3), (batch2, 3))
    return _mixed(input, api.sum(api.matmul(batch1, batch2), axis=0), beta, alpha)


@facade
def einsum(equation: str, *operands: Any) -> Any:
    """Sums of products, as `treadle.einsum`."""
    one = len(operands) == 1 and isinstance(operands[0], (list, tuple))
    return api.einsum(equation, *(operands[0] if one else operands))


@facade
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """The sum of products over pairs of dimensions."""
    return api.tensordot(a, b, axes=dims if isinstance(dims, int) else (dims[0], dims[1]))


@facade
def kron(input: Any, other: Any) -> Any:
    """The Kronecker product of two tensors of one rank."""
    x, y = as_operand(input), as_operand(other)
    if x.ndim != y.ndim:
        raise located(ShapeError(f"kron takes tensors of one rank, found {x.type} and {y.type}"))
    wide = [s for n in x.shape for s in (n, 1)]
    thin = [s for n in y.shape for s in (1, n)]
    both = api.multiply(api.reshape(x, tuple(wide)), api.reshape(y, tuple(thin)))
    return api.reshape(both, tuple(n * m for n, m in zip(x.shape, y.shape, strict=True)))


@facade
def chain_matmul(*matrices: Any) -> Any:
    """The product of several matrices, from the left."""
    return functools.reduce(api.matmul, matrices)


@facade
def multi_dot(tensors: Sequence[Any]) -> Any:
    """The product of several matrices, from the left."""
    return functools.reduce(api.matmul, tensors)


@facade
def cross(input: Any, other: Any, dim: int = -1) -> Any:
    """The cross product along a dimension of size 3."""
    x, y = api.broadcast_arrays(input, other)
    if x.shape[dim] != 3:
        raise located(ShapeError(f"cross takes a dimension of size 3, found {x.type}"))
    one, two = ([1, 2, 0], [2, 0, 1])
    turned = [api.take(a, api.asarray(p), axis=dim) for a in (x, y) for p in (one, two)]
    return turned[0] * turned[3] - turned[1] * turned[2]


IN_PLACE = ("addmm", "addmv", "addr", "baddbmm", "addbmm")
FUNCTIONS_ONLY = ("chain_matmul", "einsum", "tensordot")

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "cross", "dot",
    "einsum", "ger", "inner", "kron", "matmul", "mm", "mv", "outer", "tensordot", "vdot",
]  # fmt: skip
