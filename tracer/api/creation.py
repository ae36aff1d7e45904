"""Creation functions, by the Array API standard: zeros, full, arange, linspace, eye, tril, ...

Shapes and counts are Python numbers: they decide the type of the result, so a traced value cannot.
The default dtypes are float32, int64 and bool.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import DType, bool_, dtype_of, float32, float64, int64
from treadle.tracer.api.arguments import array_function, flag, option
from treadle.tracer.create import tensor
from treadle.tracer.execute import apply, view
from treadle.tracer.promote import Number, Operand, as_operand, as_tensor, constant, number_of
from treadle.tracer.tensor import Tensor
from treadle.tracer.views import BroadcastMap, PermuteMap, ReshapeMap

SizeLike = int | Sequence[int]


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape given as an int or a sequence of ints; -1 passes. Raises DTypeError for others."""
    arrays = isinstance(shape, (np.ndarray, Tensor)) and shape.ndim > 0
    sizes = shape if arrays or isinstance(shape, (list, tuple)) else (shape,)
    return tuple(as_int(s, "a size of a shape") for s in sizes)


def as_int(value: Any, what: str) -> int:
    """`value` as a Python int; raises DTypeError naming `what` for floats, bools and the like."""
    if isinstance(value, (bool, np.bool_)):
        raise DTypeError(f"{what} must be an int, found the bool {value}")
    try:
        return operator.index(value)
    except TypeError:
        raise DTypeError(
            f"{what} must be an int, found {type(value).__name__} {value!r:.60}"
        ) from None


def _checked_shape(shape: Any) -> tuple[int, ...]:
    sizes = as_shape(shape)
    if any(s < 0 for s in sizes):
        raise ShapeError(f"the sizes of a shape must be at least 0, found {sizes}")
    return sizes


def _number(value: Any, what: str) -> Number:
    number = number_of(value)
    if number is None:
        raise DTypeError(
            f"{what} must be a Python number, since it decides the result's shape or dtype; found "
            f"{type(value).__name__}"
        )
    return number


def _default_dtype(number: Number) -> DType:
    if isinstance(number, bool):
        return bool_
    return int64 if isinstance(number, int) else float32


# --- one value everywhere --------------------------------------------------------------------


@array_function
def full(shape: SizeLike, fill_value: Number | Operand, *, dtype: object = None) -> Tensor:
    """A tensor of `shape` with `fill_value` (a number, or a tensor of rank 0) everywhere.

    The dtype is that of the value: int64, float32 or bool for Python numbers. Raises ShapeError
    for a negative size, DTypeError where an integer does not fit `dtype`.
    """
    sizes = _checked_shape(shape)
    number = number_of(fill_value)
    if number is not None:
        target = _default_dtype(number) if dtype is None else dtype_of(dtype)
        value = _constant(number, target)
    else:
        value = as_tensor(fill_value)
        target = value.dtype if dtype is None else dtype_of(dtype)
        value = value.astype(target, copy=not sizes)
    if value.ndim:
        raise ShapeError(f"fill_value must be a number or of rank 0, found shape {value.shape}")
    return apply("broadcast_to", value, shape=sizes) if sizes else value


def _constant(number: Number, dtype: DType) -> Tensor:
    """A number as a constant of `dtype`, converted as `cast` does where its kind is another."""
    kind = _default_dtype(number)
    if dtype.is_float or kind.kind == "b" or (dtype.is_integer and kind is int64):
        return constant(number, dtype)
    return apply("cast", constant(number, float64 if kind is float32 else kind), dtype=dtype)


def zeros(shape: SizeLike, *, dtype: object = None) -> Tensor:
    """Zeros of `shape`; float32 unless `dtype` is given."""
    return full(shape, 0, dtype=float32 if dtype is None else dtype)


def ones(shape: SizeLike, *, dtype: object = None) -> Tensor:
    """Ones of `shape`; float32 unless `dtype` is given."""
    return full(shape, 1, dtype=float32 if dtype is None else dtype)


def empty(shape: SizeLike, *, dtype: object = None) -> Tensor:
    """A tensor whose elements do not matter (they are 0); float32 unless `dtype` is given."""
    return zeros(shape, dtype=dtype)


@array_function
def full_like(x: Operand, /, fill_value: Number | Operand, *, dtype: object = None) -> Tensor:
    """`full` with the shape of `x`, and its dtype unless `dtype` is given."""
    like = as_operand(x)
    own = float32 if like.weak else like.dtype
    return full(like.shape, fill_value, dtype=own if dtype is None else dtype)


def zeros_like(x: Operand, /, *, dtype: object = None) -> Tensor:
    """Zeros with the shape of `x`, and its dtype unless `dtype` is given."""
    return full_like(x, 0, dtype=dtype)


def ones_like(x: Operand, /, *, dtype: object = None) -> Tensor:
    """Ones with the shape of `x`, and its dtype unless `dtype` is given."""
    return full_like(x, 1, dtype=dtype)


def empty_like(x: Operand, /, *, dtype: object = None) -> Tensor:
    """A tensor like `x` whose elements do not matter (they are 0)."""
    return full_like(x, 0, dtype=dtype)


@array_function
def asarray(obj: Any, /, *, dtype: object = None, copy: bool | None = None) -> Tensor:
    """`obj` as a tensor: itself where it is one of that dtype already (unless `copy`), else a copy.

    Raises DTypeError for what is not numeric, ArgumentError where `copy=False` cannot be kept.
    """
    copy = None if copy is None else flag("copy", copy)
    same = isinstance(obj, Tensor) and (dtype is None or obj.dtype == dtype_of(dtype))
    if same and not copy:
        return as_tensor(obj)
    if copy is False:
        raise ArgumentError("asarray(copy=False) takes a tensor that has the asked dtype already")
    return tensor(obj, dtype=dtype)


# --- ranges ----------------------------------------------------------------------------------


def _iota(size: int, dtype: DType) -> Tensor:
    return apply("iota", shape=(size,), axis=0, dtype=dtype)


def _scaled_iota(size: int, start: Number, step: Number, kind: DType) -> Tensor:
    """start + i * step in `kind` (int64 or float64)."""
    count = _iota(size, kind)
    scaled = count if step == 1 else apply("mul", count, constant(step, kind))
    return scaled if start == 0 else apply("add", scaled, constant(start, kind))


@array_function
def arange(
    start: Number, /, stop: Number | None = None, step: Number = 1, *, dtype: object = None
) -> Tensor:
    """start + i * step for i from 0, up to `stop` (not included); `arange(n)` counts from 0.

    int64 for ints, float32 where a float is among them; computed in float64 and rounded once.
    Raises ArgumentError for a step of 0 and for numbers that are not finite.
    """
    given = {"start": start, "step": step} | ({} if stop is None else {"stop": stop})
    numbers = {name: _number(value, f"arange's {name}") for name, value in given.items()}
    infinite = next((f"{k} {n}" for k, n in numbers.items() if not math.isfinite(n)), None)
    if infinite is not None:
        raise ArgumentError(f"arange needs finite numbers, found {infinite}")
    first, last = (0, numbers["start"]) if stop is None else (numbers["start"], numbers["stop"])
    by = numbers["step"]
    if by == 0:
        raise ArgumentError("arange's step must not be 0")
    whole = all(isinstance(n, int) for n in (first, last, by))
    size = max(-((first - last) // by) if whole else math.ceil((last - first) / by), 0)
    target = dtype_of(dtype) if dtype is not None else int64 if whole else float32
    kind = int64 if whole and not target.is_float else float64
    return apply_cast(_scaled_iota(int(size), first, by, kind), target)


def apply_cast(x: Tensor, dtype: DType) -> Tensor:
    """`x` as `dtype`; itself where it is that already."""
    return x if x.dtype == dtype else apply("cast", x, dtype=dtype)


@array_function
def linspace(
    start: Number, stop: Number, /, num: int, *, dtype: object = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced values from `start` to `stop`, which is the last unless not `endpoint`.

    float32 unless `dtype` is given; computed in float64 and rounded once.
    """
    size = as_int(num, "linspace's num")
    first, last = _number(start, "linspace's start"), _number(stop, "linspace's stop")
    if size < 0:
        raise ShapeError(f"linspace's num must be at least 0, found {size}")
    target = float32 if dtype is None else dtype_of(dtype)
    endpoint = flag("endpoint", endpoint)
    parts = size - 1 if endpoint else size
    values = _scaled_iota(size, float(first), (last - first) / parts if parts > 0 else 0.0, float64)
    if endpoint and parts > 0:  # the last value is `stop` itself, whatever the rounding
        at_end = apply("eq", _iota(size, int64), constant(parts, int64))
        values = apply("where", at_end, constant(float(last), float64), values)
    return apply_cast(values, target)


# --- matrices --------------------------------------------------------------------------------


def _diagonal_distance(rows: int, columns: int, k: int) -> Tensor:
    """row - column + k, an int64 (rows, columns)."""
    shape = (rows, columns)
    row = apply("iota", shape=shape, axis=0, dtype=int64)
    column = apply("iota", shape=shape, axis=1, dtype=int64)
    return apply("add", apply("sub", row, column), constant(k, int64))


@array_function
def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: object = None) -> Tensor:
    """Ones on the `k`-th diagonal (above the main one for k > 0), zeros elsewhere; float32."""
    rows = as_int(n_rows, "eye's n_rows")
    columns = rows if n_cols is None else as_int(n_cols, "eye's n_cols")
    _checked_shape((rows, columns))
    distance = _diagonal_distance(rows, columns, as_int(k, "eye's k"))
    on_diagonal = apply("eq", distance, constant(0, int64))
    return apply_cast(on_diagonal, float32 if dtype is None else dtype_of(dtype))


def _triangle(name: str, x: Operand, k: int, keep: str) -> Tensor:
    source = as_tensor(x)
    if source.ndim < 2:
        raise ShapeError(f"{name} needs rank 2 or more, found shape {source.shape}")
    distance = _diagonal_distance(source.shape[-2], source.shape[-1], as_int(k, f"{name}'s k"))
    kept = apply(keep, distance, constant(0, int64))
    return apply("where", kept, source, constant(0, source.dtype))


@array_function
def tril(x: Operand, /, *, k: int = 0) -> Tensor:
    """The lower triangle of the matrices `x[..., m, n]`, zeros above the `k`-th diagonal."""
    return _triangle("tril", x, k, "ge")


@array_function
def triu(x: Operand, /, *, k: int = 0) -> Tensor:
    """The upper triangle of the matrices `x[..., m, n]`, zeros below the `k`-th diagonal."""
    return _triangle("triu", x, k, "le")


@array_function
def meshgrid(*arrays: Operand, indexing: str = "xy") -> list[Tensor]:
    """Coordinate tensors of the grid that 1-D `arrays` span: read-only views.

    `indexing`: "ij" puts the first array along the first axis, "xy" along the second.
    """
    option("meshgrid's indexing", indexing, ("xy", "ij"))
    axes = [as_tensor(x) for x in arrays]
    if any(x.ndim != 1 for x in axes):
        raise ShapeError(f"meshgrid needs 1-D tensors, found shapes {[x.shape for x in axes]}")
    shape = tuple(x.shape[0] for x in axes)
    swapped = (1, 0, *range(2, len(axes)))
    grids = []
    for axis, x in enumerate(axes):
        line = tuple(-1 if i == axis else 1 for i in range(len(axes)))
        sizes = tuple(x.shape[0] if s == -1 else 1 for s in line)
        grid = view(x, ReshapeMap(sizes), BroadcastMap(shape))
        swap = indexing == "xy" and len(axes) > 1
        grids.append(view(grid, PermuteMap(swapped)) if swap else grid)
    return grids
