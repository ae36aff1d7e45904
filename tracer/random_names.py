"""Random numbers by PyTorch's names, from the default generator or the one that is given.

The functions themselves are `treadle.random`'s (`treadle.tracer.random_draws`), which take keys as
well.
"""

from __future__ import annotations

from typing import Any

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import dtype_of, float32, int64, shape_text
from treadle.tracer import api, random_draws
from treadle.tracer.api import sorting
from treadle.tracer.api.arguments import array_function, flag
from treadle.tracer.api.creation import SizeLike, as_int
from treadle.tracer.generator import Generator, generator_or_default
from treadle.tracer.promote import Operand, as_operand
from treadle.tracer.random_draws import as_real, sizes_of
from treadle.tracer.tensor import Tensor

__all__ = [
    "bernoulli",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "randperm",
]


def _sizes(size: tuple[Any, ...]) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))`."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        return sizes_of(size[0])
    return sizes_of(size)


@array_function
def rand(*size: SizeLike, generator: Generator | None = None, dtype: object = None) -> Tensor:
    """Evenly from [0, 1); float32 unless `dtype` is given."""
    return random_draws.uniform(generator_or_default(generator), _sizes(size), dtype=dtype)


@array_function
def randn(*size: SizeLike, generator: Generator | None = None, dtype: object = None) -> Tensor:
    """From the standard normal distribution; float32 unless `dtype` is given."""
    return random_draws.normal(generator_or_default(generator), _sizes(size), dtype=dtype)


def _like(x: Operand, dtype: object) -> tuple[tuple[int, ...], object]:
    given = as_operand(x)
    own = float32 if given.weak or not given.dtype.is_float else given.dtype
    return given.shape, own if dtype is None else dtype


@array_function
def rand_like(x: Operand, /, *, generator: Generator | None = None, dtype: object = None) -> Tensor:
    """`rand` with the shape of `x`, and its dtype where that is a float."""
    shape, kind = _like(x, dtype)
    return random_draws.uniform(generator_or_default(generator), shape, dtype=kind)


@array_function
def randn_like(
    x: Operand, /, *, generator: Generator | None = None, dtype: object = None
) -> Tensor:
    """`randn` with the shape of `x`, and its dtype where that is a float."""
    shape, kind = _like(x, dtype)
    return random_draws.normal(generator_or_default(generator), shape, dtype=kind)


@array_function
def normal(
    mean: Operand = 0.0,
    std: Operand = 1.0,
    size: SizeLike | None = None,
    *,
    generator: Generator | None = None,
    dtype: object = None,
) -> Tensor:
    """From the normal distribution with this mean and deviation, numbers or tensors, of which the
    shape is that of both where `size` is None. Raises ArgumentError for a negative `std`."""
    given = [x for x in (mean, std) if isinstance(x, Tensor) and not x.weak]
    if dtype is None and any(x.dtype.is_float for x in given):
        dtype = max((x.dtype for x in given if x.dtype.is_float), key=lambda d: d.bits)
    shape = api.broadcast_arrays(*given)[0].shape if size is None and given else size
    drawn = () if shape is None else sizes_of(shape)
    return random_draws.normal(generator_or_default(generator), drawn, mean, std, dtype=dtype)


@array_function
def randint(
    low: int,
    high: int | SizeLike | None = None,
    size: SizeLike | None = None,
    *,
    generator: Generator | None = None,
    dtype: object = None,
) -> Tensor:
    """Integers from [low, high); `randint(high, size)` begins at 0. int64 unless `dtype` is given.

    Raises ArgumentError unless low < high, DTypeError where they do not fit `dtype`.
    """
    first, last, shape = (0, low, high) if size is None else (low, high, size)
    if shape is None:
        raise ArgumentError("randint needs high and size, or low, high and size")
    if last is None:
        first, last = 0, first
    bounds = as_int(first, "randint's low"), as_int(last, "randint's high")
    return random_draws.randint(generator_or_default(generator), shape, *bounds, dtype=dtype)


@array_function
def randperm(n: int, *, generator: Generator | None = None, dtype: object = None) -> Tensor:
    """The numbers 0 to n - 1 in random order; int64 unless `dtype` is given. Raises ArgumentError
    for a negative `n`."""
    kind = int64 if dtype is None else dtype_of(dtype)
    found = random_draws.permutation(generator_or_default(generator), n)
    return api.astype(found, kind, copy=False)


@array_function
def bernoulli(p: Operand, /, *, generator: Generator | None = None) -> Tensor:
    """1 with the probabilities `p`, else 0, in the shape and dtype of `p`, a float tensor.

    Probabilities are not checked: below 0 they count as 0, above 1 as 1.
    """
    given = as_operand(p)
    if not given.dtype.is_float:
        raise DTypeError(f"bernoulli takes probabilities as a float tensor, found {given.type}")
    kind = float32 if given.weak else given.dtype
    return api.astype(random_draws.bernoulli(generator_or_default(generator), given), kind)


@array_function
def multinomial(
    probs: Operand,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices of the last axis of `probs` [n] or [m, n], drawn in proportion to it: int64
    [num_samples] or [m, num_samples].

    Without `replacement` no index comes twice in a row: the greatest log p + Gumbel numbers (Kool
    et al., 2019), which draw one by one. Raises ShapeError for another rank, or more samples than
    there are indices to draw.
    """
    given = as_operand(probs)
    given = given if given.dtype.is_float and not given.weak else as_real(given, float32)
    count = as_int(num_samples, "num_samples")
    if given.ndim not in (1, 2) or given.shape[-1] == 0:
        raise ShapeError(f"multinomial takes probabilities [n] or [m, n], found {given.type}")
    if count < 1:
        raise ArgumentError(f"num_samples must be at least 1, found {count}")
    again = flag("replacement", replacement)
    if not again and count > given.shape[-1]:
        raise ShapeError(
            f"num_samples {count} without replacement exceeds the number of probabilities, "
            f"{shape_text(given.shape)}"
        )
    source, logits = generator_or_default(generator), api.log(given)
    if again:
        rows = (*given.shape[:-1], count)
        return random_draws.categorical(source, api.expand_dims(logits, axis=-2), shape=rows)
    noise = random_draws.gumbel(source, given.shape, dtype=given.dtype)
    return sorting.topk(api.add(logits, noise), count)[1]
