"""Random numbers from a key, a generator or the default one: `treadle.random`.

Each function takes the source first: a key (`treadle.random.key`), a `treadle.Generator`, or None
for the default generator. Shapes are known when a function is traced; bounds, means and
probabilities may be tensors or float arguments of a jitted function, which are not compiled in.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.regions import broadcasts_to
from treadle.ir.types import (
    DType,
    dtype_of,
    float32,
    float64,
    int64,
    shape_text,
)
from treadle.tracer import api
from treadle.tracer.api import sorting
from treadle.tracer.api.arguments import array_function, axis_of
from treadle.tracer.api.creation import SizeLike, as_int, as_shape
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand, as_operand, as_tensor, constant, number_of
from treadle.tracer.random_keys import Source, drawn
from treadle.tracer.tensor import Tensor

_SQRT_2: Final = math.sqrt(2)


def sizes_of(shape: SizeLike) -> tuple[int, ...]:
    """A shape; raises ShapeError for a negative size, DTypeError for what is no int."""
    sizes = as_shape(shape)
    if any(s < 0 for s in sizes):
        raise ShapeError(f"the sizes of a shape must be at least 0, found {shape_text(sizes)}")
    return sizes


def float_dtype(dtype: object) -> DType:
    """float32 unless given; raises DTypeError unless it is a float dtype."""
    found = float32 if dtype is None else dtype_of(dtype)
    if not found.is_float:
        raise DTypeError(f"dtype must be float32 or float64, found {found.name}")
    return found


def checked_bounds(low: object, high: object) -> None:
    """Raises ArgumentError unless low < high, as far as they are numbers."""
    a, b = number_of(low), number_of(high)
    if (a is not None and not math.isfinite(a)) or (b is not None and not math.isfinite(b)):
        raise ArgumentError(f"low and high must be finite, found {low!r} and {high!r}")
    if a is not None and b is not None and not a < b:
        raise ArgumentError(f"low must be below high, found {low!r} and {high!r}")


def checked_probability(p: object) -> None:
    """Raises ArgumentError unless `p` is from 0 to 1, as far as it is a number."""
    number = number_of(p)
    if number is not None and not 0 <= number <= 1:
        raise ArgumentError(f"a probability must be from 0 to 1, found {p!r}")


def as_real(x: Any, dtype: DType) -> Tensor:
    """A number or a tensor as a tensor of `dtype`."""
    number = number_of(x)
    if number is not None:
        return constant(float(number), dtype)
    found = as_operand(x)
    return found if found.dtype == dtype and not found.weak else apply("cast", found, dtype=dtype)


def _fits(shape: tuple[int, ...], **operands: object) -> tuple[int, ...]:
    """`shape`, to which tensors among the operands must broadcast. Raises ShapeError."""
    for name, x in operands.items():
        if isinstance(x, (Tensor, np.ndarray)):
            _check_broadcast(name, tuple(x.shape), shape)
    return shape


def _check_broadcast(name: str, own: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if not broadcasts_to(own, shape):
        raise ShapeError(
            f"{name}, of shape {shape_text(own)}, does not broadcast to the result's shape "
            f"{shape_text(shape)}"
        )


# --- floats ------------------------------------------------------------------------------------


@array_function
def uniform(
    key: Source,
    shape: SizeLike = (),
    low: Operand = 0.0,
    high: Operand = 1.0,
    *,
    dtype: object = None,
) -> Tensor:
    """Evenly from [low, high): multiples of 2^-24 (float64: 2^-53), scaled. float32 unless `dtype`
    is given. Where `low` or `high` is a tensor, rounding may give `high` itself.

    Raises ArgumentError unless low < high and both are finite, ShapeError for a negative size.
    """
    kind, sizes = float_dtype(dtype), _fits(sizes_of(shape), low=low, high=high)
    checked_bounds(low, high)
    found = drawn(key, "random_uniform", sizes, kind)
    if number_of(low) == 0 and number_of(high) == 1:
        return found
    a, b = as_real(low, kind), as_real(high, kind)
    found = api.add(api.multiply(found, api.subtract(b, a)), a)
    top, bottom = number_of(high), number_of(low)
    if top is None or bottom is None:
        return found
    with np.errstate(over="ignore"):
        last = np.nextafter(kind.dtype.type(top), kind.dtype.type(-np.inf))
    return api.minimum(found, constant(float(last), kind))


@array_function
def normal(
    key: Source,
    shape: SizeLike = (),
    mean: Operand = 0.0,
    std: Operand = 1.0,
    *,
    dtype: object = None,
) -> Tensor:
    """From the normal distribution (Box and Muller's method). float32 unless `dtype` is given.

    Raises ArgumentError for a negative `std`, ShapeError for a negative size.
    """
    kind, sizes = float_dtype(dtype), _fits(sizes_of(shape), mean=mean, std=std)
    deviation, middle = number_of(std), number_of(mean)
    if deviation is not None and not deviation >= 0:
        raise ArgumentError(f"std must be at least 0, found {std!r}")
    found = drawn(key, "random_normal", sizes, kind)
    if deviation != 1:
        found = api.multiply(found, as_real(std, kind))
    return found if middle == 0 else api.add(found, as_real(mean, kind))


@array_function
def truncated_normal(
    key: Source,
    lower: Operand,
    upper: Operand,
    shape: SizeLike = (),
    *,
    dtype: object = None,
) -> Tensor:
    """From the normal distribution, given that the number is in [lower, upper]: its quantile
    function at an even number between the bounds' probabilities, in float64.

    Beyond 8 standard deviations the bounds' probabilities round to 0 or 1. Raises ArgumentError
    unless lower < upper, ShapeError for a negative size.
    """
    kind, sizes = float_dtype(dtype), _fits(sizes_of(shape), lower=lower, upper=upper)
    a, b = number_of(lower), number_of(upper)
    if a is not None and b is not None and not a < b:
        raise ArgumentError(f"lower must be below upper, found {lower!r} and {upper!r}")
    low, high = as_real(lower, float64), as_real(upper, float64)
    first, last = (api.erf(api.multiply(x, 1 / _SQRT_2)) for x in (low, high))
    even = drawn(key, "random_uniform", sizes, float64)
    mass = api.add(api.multiply(even, api.subtract(last, first)), first)
    found = api.multiply(api.erfinv(mass), _SQRT_2)
    return api.astype(api.minimum(api.maximum(found, low), high), kind, copy=False)


@array_function
def gumbel(key: Source, shape: SizeLike = (), *, dtype: object = None) -> Tensor:
    """From the standard Gumbel distribution, -log(-log(u)). float32 unless `dtype` is given."""
    kind, sizes = float_dtype(dtype), sizes_of(shape)
    even = drawn(key, "random_uniform", sizes, kind)
    even = api.maximum(even, constant(2.0**-25 if kind is float32 else 2.0**-54, kind))
    return api.negative(api.log(api.negative(api.log(even))))


# --- bools and integers ------------------------------------------------------------------------


@array_function
def bernoulli(key: Source, p: Operand = 0.5, shape: SizeLike | None = None) -> Tensor:
    """True with probability `p`, a number or a tensor; the shape is that of `p` unless given.

    Probabilities are taken to multiples of 2^-24 (float64: 2^-53); 0 and 1 are exact. Raises
    ArgumentError for a number that is not from 0 to 1.
    """
    checked_probability(p)
    chance = as_real(p, float32) if number_of(p) is not None else as_operand(p)
    kind = float64 if chance.dtype == float64 and not chance.weak else float32
    sizes = chance.shape if shape is None else _fits(sizes_of(shape), p=chance)
    return api.less(drawn(key, "random_uniform", sizes, kind), as_real(chance, kind))


@array_function
def randint(key: Source, shape: SizeLike, low: int, high: int, *, dtype: object = None) -> Tensor:
    """Integers from [low, high), int64 unless `dtype` is given: floor(range x) of a random
    fraction x of 64 bits, of 128 bits where the range exceeds 2^32.

    No integer is more likely than another by more than one part in 2^32. Raises ArgumentError
    unless low < high, DTypeError where they do not fit `dtype`.
    """
    first, last = as_int(low, "randint's low"), as_int(high, "randint's high")
    kind, sizes = int64 if dtype is None else dtype_of(dtype), sizes_of(shape)
    if not kind.is_integer:
        raise DTypeError(f"randint makes integers, found dtype {kind.name}")
    if first >= last:
        raise ArgumentError(f"low must be below high, found {first} and {last}")
    limits = np.iinfo(kind.dtype)
    if first < limits.min or last - 1 > limits.max:
        raise DTypeError(f"[{first}, {last}) does not fit {kind.name}")
    count = last - first
    if count <= 2**32:
        found = _scaled(drawn(key, "random_bits", sizes, int64), count)
    else:
        words = drawn(key, "random_bits", (2, *sizes), int64)
        found = _scaled_wide(words[0], words[1], count)
    shifted = api.add(found, constant(first, int64)) if first else found
    return api.astype(shifted, kind, copy=False)


def _int(value: int) -> Tensor:
    """The 64 bits of an integer below 2^64."""
    return constant(value - 2**64 if value >= 2**63 else value, int64)


def _upper(x: Tensor) -> Tensor:
    """The upper 32 of 64 bits."""
    return api.bitwise_and(api.bitwise_right_shift(x, _int(32)), _int(2**32 - 1))


def _lower(x: Tensor) -> Tensor:
    return api.bitwise_and(x, _int(2**32 - 1))


def _scaled(x: Tensor, count: int) -> Tensor:
    """floor(count x / 2^64) of unsigned 64 bits; `count` is at most 2^32."""
    if count == 2**32:
        return _upper(x)
    by = _int(count)
    carried = _upper(api.multiply(_lower(x), by))
    return _upper(api.add(api.multiply(_upper(x), by), carried))


def _product_upper(x: Tensor, count: int) -> Tensor:
    """The upper half of the product of unsigned 64-bit numbers."""
    low, high = _int(count & (2**32 - 1)), _int(count >> 32)
    a, b = _lower(x), _upper(x)
    inner = api.add(api.multiply(b, low), _upper(api.multiply(a, low)))
    other = api.add(api.multiply(a, high), _lower(inner))
    return api.add(api.add(api.multiply(b, high), _upper(inner)), _upper(other))


def _scaled_wide(x: Tensor, y: Tensor, count: int) -> Tensor:
    """floor(count (x + y / 2^64) / 2^64)."""
    if count == 2**64:
        return x
    low = api.multiply(x, _int(count))
    total = api.add(low, _product_upper(y, count))
    turned = _int(2**63)  # as unsigned numbers compare
    carry = api.less(api.bitwise_xor(total, turned), api.bitwise_xor(low, turned))
    return api.add(_product_upper(x, count), api.astype(carry, int64))


@array_function
def categorical(
    key: Source, logits: Operand, axis: int = -1, shape: SizeLike | None = None
) -> Tensor:
    """An index along `axis` with probability softmax(logits): the greatest of the logits plus
    Gumbel numbers. int64, of the shape of `logits` without the axis.

    `shape`, which that broadcasts to, asks for more draws. -inf is never drawn while another is
    not. Raises ShapeError where the shapes do not fit.
    """
    given = as_operand(logits)
    given = given if given.dtype.is_float and not given.weak else as_real(given, float32)
    if given.ndim == 0 or given.shape[axis_of(given, axis)] == 0:
        raise ShapeError(f"categorical needs something to choose from, found {given.type}")
    given = api.moveaxis(given, axis_of(given, axis), -1)
    batch = given.shape[:-1]
    sizes = batch if shape is None else sizes_of(shape)
    _check_broadcast("logits without their axis", tuple(batch), sizes)
    noise = gumbel(key, (*sizes, given.shape[-1]), dtype=given.dtype)
    return api.argmax(api.add(given, noise), axis=-1)


@array_function
def permutation(key: Source, x: int | Operand, axis: int = 0) -> Tensor:
    """The numbers 0 to x - 1 in random order (int64) for an int `x`, else `x` with its parts along
    `axis` in random order.

    They are sorted by random numbers of 64 bits: two of n are equal, and keep their order, with a
    probability below n^2 / 2^65. Raises ArgumentError for a negative number.
    """
    if isinstance(x, (int, np.integer)):
        count = as_int(x, "permutation's number")
        if count < 0:
            raise ArgumentError(f"a permutation is of 0 numbers or more, found {count}")
        return sorting.argsort(drawn(key, "random_bits", (count,), int64))
    given = as_tensor(x)
    where = axis_of(given, axis)
    order = sorting.argsort(drawn(key, "random_bits", (given.shape[where],), int64))
    return api.take(given, order, axis=where)


__all__ = [
    "bernoulli",
    "categorical",
    "gumbel",
    "normal",
    "permutation",
    "randint",
    "truncated_normal",
    "uniform",
]
