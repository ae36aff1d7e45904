"""Dropout: elements are left out at random, and the others grow by as much."""

from __future__ import annotations

from treadle.ir.types import DType, float32
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, as_float_tensor, flag
from treadle.tracer.generator import Generator
from treadle.tracer.promote import Operand, constant, number_of
from treadle.tracer.random_draws import as_real, checked_probability
from treadle.tracer.random_keys import drawn
from treadle.tracer.tensor import Tensor

__all__ = ["dropout"]


@array_function
def dropout(
    input: Operand,
    p: Operand = 0.5,
    training: bool = True,
    *,
    key: Tensor | Generator | None = None,
) -> Tensor:
    """x / (1 - p) where a random number is at least `p`, else 0 (Srivastava et al., 2014); `input`
    itself unless `training`. Integers and bools become float32.

    `p` is a probability, to multiples of 2^-24: 0 keeps all elements, 1 none. A number is compiled
    in; a tensor of rank 0 and a float argument of a jitted function are not. `key` is a key, a
    generator, or None for the default generator. What is left out is 0 whatever it was, NaN and
    infinities too, and its gradient is 0.

    In compiled code the mask takes no memory: the backward pass draws it again.

    Raises ArgumentError for a number that is not from 0 to 1.
    """
    x = as_float_tensor(input)
    checked_probability(p)
    if not flag("training", training):
        return x
    even = drawn(key, "random_uniform", x.shape, float32)
    kept = api.greater_equal(even, as_real(p, float32))
    return api.where(kept, api.multiply(x, _scale(p, x.dtype)), constant(0.0, x.dtype))


def _scale(p: Operand, dtype: DType) -> Tensor:
    """1 / (1 - p); 0 for a p of 1, which keeps nothing."""
    number = number_of(p)
    if number is not None:
        return constant(0.0 if number == 1 else 1 / (1 - number), dtype)
    rest = api.subtract(1.0, as_real(p, dtype))
    return api.where(api.greater(rest, 0.0), api.reciprocal(rest), constant(0.0, dtype))
