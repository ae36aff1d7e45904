"""Rows of a table by number: embedding."""

from __future__ import annotations

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.tracer import api
from treadle.tracer.api.arguments import array_function, as_float_tensor, as_integer
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand
from treadle.tracer.tensor import Tensor


@array_function
def embedding(input: Operand, weight: Operand, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` [rows, features] that the integers `input` name: [.., features].

    The gradient of a row is the sum over its uses, in their order, the same bits for any number of
    threads. The row `padding_idx` gets none; it counts from the end where negative. Negative
    numbers in `input` count from the end as everywhere in Treadle; one out of range raises
    IndexFault and changes nothing.

    Raises ShapeError for a weight that has not two axes, DTypeError for an input of other dtypes,
    ArgumentError for a padding_idx out of range.
    """
    numbers = as_integer(input, "the input of embedding")
    table = as_float_tensor(weight)
    if table.ndim != 2:
        raise ShapeError(f"embedding needs a weight [rows, features], found {table.type}")
    if padding_idx is None:
        return apply("gather", table, numbers, axes=(0,), checked=True)
    rows, padding = table.shape[0], as_int(padding_idx, "padding_idx")
    if not -rows <= padding < rows:
        raise ArgumentError(
            f"padding_idx must be from {-rows} to {rows - 1} for {rows} rows, found {padding}"
        )
    padding %= rows
    found = apply("gather", table, numbers, axes=(0,), checked=True)
    is_padding = api.logical_or(numbers == padding, numbers == padding - rows)
    return api.where(api.expand_dims(is_padding, axis=-1), found.detach(), found)
