"""New tensors: from data, of one value, of numbers in order, at random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import treadle
from treadle.ir.errors import ArgumentError, DTypeError
from treadle.ir.types import float32, int64
from treadle.torch.device import checked_device
from treadle.torch.functions import facade
from treadle.torch.tensor import sizes
from treadle.tracer import api
from treadle.tracer.create import tensor as _tensor
from treadle.tracer.errors import located
from treadle.tracer.promote import as_operand
from treadle.tracer.tensor import Tensor as _Tensor


def _sizes(shape: tuple[Any, ...], size: Any) -> tuple[int, ...]:
    """Sizes as arguments, as one sequence, or as `size=`."""
    return sizes(shape if size is None else (size,))


def _made(x: Any, device: Any, requires_grad: Any) -> Any:
    checked_device(device)
    return x.requires_grad_() if requires_grad else x


@facade
def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Any:  # fmt: skip
    """A new tensor with a copy of `data`: Python floats become float32, ints int64."""
    checked_device(device)
    return _tensor(data, dtype, requires_grad)


@facade
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """The tensor itself where it is one of that dtype; else a copy, of NumPy arrays too."""
    checked_device(device)
    if isinstance(data, _Tensor):
        return data if dtype is None else api.astype(data, dtype, copy=False)
    return _tensor(data, dtype)


@facade
def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """As `as_tensor`; with `copy` always a new one."""
    found = _tensor(obj, dtype) if copy else as_tensor(obj, dtype, device)
    return _made(found, device, requires_grad)


@facade
def from_numpy(ndarray: Any) -> Any:
    """A copy of a NumPy array; in PyTorch it shares the array's memory."""
    if not isinstance(ndarray, np.ndarray):
        raise located(DTypeError(f"from_numpy takes a NumPy array, found {type(ndarray).__name__}"))
    return _tensor(ndarray)


@facade
def zeros(
    *shape: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None,
) -> Any:  # fmt: skip
    """Zeros, float32 unless `dtype` is given."""
    return _made(api.zeros(_sizes(shape, size), dtype=dtype), device, requires_grad)


@facade
def ones(
    *shape: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None,
) -> Any:  # fmt: skip
    """Ones, float32 unless `dtype` is given."""
    return _made(api.ones(_sizes(shape, size), dtype=dtype), device, requires_grad)


@facade
def empty(
    *shape: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
    memory_format: Any = None,
) -> Any:  # fmt: skip
    """Zeros: nothing in Treadle is left without a value."""
    return _made(api.zeros(_sizes(shape, size), dtype=dtype), device, requires_grad)


@facade
def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """One value everywhere."""
    return _made(api.full(sizes((size,)), fill_value, dtype=dtype), device, requires_grad)


@facade
def zeros_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
               memory_format: Any = None) -> Any:  # fmt: skip
    """Zeros in the shape and dtype of `input`."""
    return _made(api.zeros_like(input, dtype=dtype), device, requires_grad)


@facade
def ones_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
              memory_format: Any = None) -> Any:  # fmt: skip
    """Ones in the shape and dtype of `input`."""
    return _made(api.ones_like(input, dtype=dtype), device, requires_grad)


@facade
def empty_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
               memory_format: Any = None) -> Any:  # fmt: skip
    """Zeros in the shape and dtype of `input`."""
    return _made(api.zeros_like(input, dtype=dtype), device, requires_grad)


@facade
def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, memory_format: Any = None,
) -> Any:  # fmt: skip
    """One value in the shape and dtype of `input`."""
    return _made(api.full_like(input, fill_value, dtype=dtype), device, requires_grad)


@facade
def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """A number as a tensor of rank 0, float32 unless `dtype` is given."""
    return _made(_tensor(s, float32 if dtype is None else dtype), device, False)


# --- numbers in order ------------------------------------------------------------------------


@facade
def arange(
    start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """start, start + step, .. before `end`: int64 for ints, else float32."""
    first, last = (0, start) if end is None else (start, end)
    return _made(api.arange(first, last, step, dtype=dtype), device, requires_grad)


@facade
def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """`steps` numbers from `start` to `end`, both included."""
    return _made(api.linspace(start, end, steps, dtype=dtype), device, requires_grad)


@facade
def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """`base` to the power of `steps` numbers from `start` to `end`."""
    powers = api.linspace(start, end, steps, dtype="float64")
    found = api.exp(powers * math.log(base)).astype(float32 if dtype is None else dtype)
    return _made(found, device, requires_grad)


@facade
def eye(
    n: int, m: int | None = None, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """Ones on the diagonal of a matrix [n, m], n by n without `m`."""
    return _made(api.eye(n, m, dtype=dtype), device, requires_grad)


def _triangle(keep: Any) -> Any:
    rows, columns = np.nonzero(keep)
    return _tensor(np.stack([rows, columns]))


@facade
def tril_indices(row: int, col: int, offset: int = 0) -> Any:
    """The rows and columns of a lower triangle's elements, [2, n]."""
    return _triangle(np.tri(row, col, offset, dtype=bool))


@facade
def triu_indices(row: int, col: int, offset: int = 0) -> Any:
    """The rows and columns of an upper triangle's elements, [2, n]."""
    return _triangle(~np.tri(row, col, offset - 1, dtype=bool))


# --- at random -------------------------------------------------------------------------------


def _generator(given: Any) -> dict[str, Any]:
    return {} if given is None else {"generator": given}


@facade
def rand(
    *shape: Any, size: Any = None, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """Evenly from [0, 1)."""
    drawn = treadle.rand(_sizes(shape, size), dtype=dtype, **_generator(generator))
    return _made(drawn, device, requires_grad)


@facade
def randn(
    *shape: Any, size: Any = None, generator: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Any:  # fmt: skip
    """From the standard normal distribution."""
    drawn = treadle.randn(_sizes(shape, size), dtype=dtype, **_generator(generator))
    return _made(drawn, device, requires_grad)


@facade
def randint(
    low: Any, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = None,
    device: Any = None,
) -> Any:  # fmt: skip
    """Integers from [low, high); `randint(high, size)` begins at 0."""
    first, last, shape = (0, low, high) if size is None else (low, high, size)
    if last is None:
        first, last = 0, first
    if shape is None:
        raise located(ArgumentError("randint takes high and size, or low, high and size"))
    kind = None if dtype is None or not treadle_float(dtype) else dtype
    drawn = treadle.randint(
        int(first), int(last), sizes((shape,)), dtype=None if kind else dtype,
        **_generator(generator),
    )  # fmt: skip
    return _made(drawn if kind is None else drawn.astype(kind), device, False)


def treadle_float(dtype: Any) -> bool:
    """Whether a dtype is a float."""
    from treadle.ir.types import dtype_of

    return dtype_of(dtype).is_float


@facade
def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Any:
    """The numbers 0 to n - 1 in random order."""
    drawn = treadle.randperm(n, dtype=int64 if dtype is None else dtype, **_generator(generator))
    return _made(drawn, device, False)


@facade
def rand_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
              generator: Any = None) -> Any:  # fmt: skip
    """`rand` in the shape and dtype of `input`."""
    drawn = treadle.rand_like(input, dtype=dtype, **_generator(generator))
    return _made(drawn, device, requires_grad)


@facade
def randn_like(input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
               generator: Any = None) -> Any:  # fmt: skip
    """`randn` in the shape and dtype of `input`."""
    drawn = treadle.randn_like(input, dtype=dtype, **_generator(generator))
    return _made(drawn, device, requires_grad)


@facade
def randint_like(input: Any, low: Any, high: Any = None, *, dtype: Any = None) -> Any:
    """`randint` in the shape and dtype of `input`."""
    x = as_operand(input)
    first, last = (0, low) if high is None else (low, high)
    return randint(first, last, x.shape, dtype=x.dtype if dtype is None else dtype)


@facade
def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, dtype: Any = None,
    device: Any = None,
) -> Any:  # fmt: skip
    """From the normal distribution with this mean and deviation, numbers or tensors."""
    shape = None if size is None else sizes((size,))
    drawn = treadle.normal(mean, std, shape, dtype=dtype, **_generator(generator))
    return _made(drawn, device, False)


@facade
def bernoulli(input: Any, p: Any = None, *, generator: Any = None) -> Any:
    """1 with the probabilities `input`, or `p`, else 0."""
    x = as_operand(input)
    chances = x if p is None else api.full_like(x, p)
    return treadle.bernoulli(chances, **_generator(generator))


@facade
def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Any:
    """Indices of the last dimension, drawn in proportion to it."""
    return treadle.multinomial(input, num_samples, replacement, **_generator(generator))


METHODS = ("bernoulli", "multinomial")

__all__ = [
    "arange", "as_tensor", "asarray", "bernoulli", "empty", "empty_like", "eye", "from_numpy",
    "full", "full_like", "linspace", "logspace", "multinomial", "normal", "ones", "ones_like",
    "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm",
    "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like",
]  # fmt: skip
