"""Tensors from data: `treadle.tensor`, and copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import DTypeError
from treadle.ir.op import get_op
from treadle.ir.types import DType, dtype_of, float32
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located_errors
from treadle.tracer.execute import apply, strong
from treadle.tracer.modes import modes
from treadle.tracer.promote import number_of
from treadle.tracer.tensor import Tensor


def tensor(data: Any, dtype: object = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: a number, a nested list, a NumPy array, a tensor.

    Python floats become float32, ints int64, bools bool; arrays keep their dtype; `dtype`
    overrides. Raises DTypeError for ragged lists, strings, and dtypes that Treadle lacks.
    """
    with located_errors():
        target = None if dtype is None else dtype_of(dtype)
        made = _tensor(data, target)
        return made if requires_grad is False else made.requires_grad_(requires_grad)


def _tensor(data: Any, dtype: DType | None) -> Tensor:
    if isinstance(data, Tensor):
        copy = clone(data.detach())
        return copy if dtype is None else copy.astype(dtype, copy=False)
    if isinstance(data, (list, tuple)) and any(isinstance(x, Tensor) for x in _leaves(data)):
        return _stacked(data, dtype).detach()
    if isinstance(data, np.ndarray) and modes.trace is not None:
        copy = clone(modes.trace.array(data))
        return copy if dtype is None else copy.astype(dtype, copy=False)
    array = _array(data, dtype)
    if modes.trace is not None:
        return modes.trace.constant(array, dtype_of(array.dtype))
    return Tensor(Cell.of(array))


def _leaves(data: Any) -> Iterator[Any]:
    """What a nested list holds."""
    if isinstance(data, (list, tuple)):
        for item in data:
            yield from _leaves(item)
    else:
        yield data


def _stacked(data: Any, dtype: DType | None) -> Tensor:
    """A nested list that holds tensors."""
    from treadle.tracer import api  # the array functions build on this module

    if not isinstance(data, (list, tuple)):
        return _tensor(data, dtype)
    found: Tensor = api.stack([_stacked(item, dtype) for item in data], axis=0)
    return found


def _array(data: Any, dtype: DType | None) -> npt.NDArray[Any]:
    """A fresh C-contiguous array. Python numbers take Treadle's default dtypes."""
    try:
        array = np.array(data, order="C")
    except (ValueError, TypeError) as error:
        raise DTypeError(f"data does not make an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"expected numbers, found {_described(data, array)}; {_HAVE}")
    own = isinstance(data, np.ndarray) or any(isinstance(x, np.ndarray) for x in _leaves(data))
    if dtype is None:
        dtype = dtype_of(array.dtype) if own or array.dtype.kind != "f" else float32
    elif dtype.is_integer and array.dtype.kind in "iu" and not own:
        _check_range(array, dtype)
    return array if array.dtype == dtype.dtype else _cast(array, dtype)


_HAVE = "Treadle's dtypes are bool, uint8, uint32, int32, int64, float32 and float64"


def _check_range(array: npt.NDArray[Any], dtype: DType) -> None:
    """Python integers that do not fit are a mistake; arrays are cast as arrays are."""
    limits = np.iinfo(dtype.dtype)
    outside = (array < limits.min) | (array > limits.max)
    if outside.any():
        raise DTypeError(f"{array[outside].flat[0]} does not fit {dtype.name}")


def _cast(array: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    """As `astype`: total, also from dtypes that Treadle lacks (float16, int8 ...)."""
    wide = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}[array.dtype.kind]
    op = get_op("cast")
    (out,) = op.run_ref(op.attrs(dtype=dtype), (array.astype(wide),))  # type: ignore[call-arg]
    return np.array(out, dtype.dtype, order="C")


def _described(data: Any, array: npt.NDArray[Any]) -> str:
    if array.dtype.kind in "US":
        return "strings"
    if array.dtype.kind == "c":
        return "complex numbers"
    if array.dtype.kind != "O":
        return f"dtype {array.dtype}"
    odds = [x for x in _leaves(data) if number_of(x) is None]
    if not odds:
        return "an integer beyond 64 bits"
    odd = odds[0]
    return f"{type(odd).__name__} {odd!r:.40}" if odd is not data else f"a {type(odd).__name__}"


def clone(x: Tensor) -> Tensor:
    """A copy with storage of its own; gradients flow through it."""
    return apply("reshape", strong(x), shape=x.shape)
