"""Operands and dtype promotion, by the rules of the Array API standard.

Python numbers are weak: they take the dtype of the tensor beside them if it can hold their kind.

    bool < integers < floats            integer with float: the float's dtype
    uint32 with int32                   int64, which holds both
    tensor with a Python bool/int/float the tensor's dtype; an int beside bool gives int64, a
                                        float beside bool or integer gives float32
    NumPy scalars (np.float64(2))       as the Python number of their kind
    arrays of rank 0                    as arrays: their dtype counts

A float argument of a jitted function is a weak tensor: rank 0, float64 until it meets a tensor.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import DTypeError
from treadle.ir.types import (
    DType,
    bool_,
    dtype_of,
    float32,
    float64,
    int32,
    int64,
    type_of_array,
    uint8,
    uint32,
)  # fmt: skip
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located, located_errors
from treadle.tracer.execute import apply
from treadle.tracer.modes import modes
from treadle.tracer.tensor import Tensor

Number: TypeAlias = bool | int | float
Operand: TypeAlias = "Tensor | npt.NDArray[Any] | np.generic | Number"

_ORDER = (bool_, uint8, uint32, int32, int64, float32, float64)
_DEFAULT = {"b": bool_, "i": int64, "f": float32}


def promote_types(a: DType, b: DType) -> DType:
    """The dtype that holds the values of both."""
    if a == b:
        return a
    if {a, b} == {uint32, int32}:
        return int64
    return max(a, b, key=_ORDER.index)


def number_of(x: object) -> Number | None:
    """The Python number that `x` is or stands for (a NumPy scalar), else None."""
    if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
        return x
    if isinstance(x, (np.bool_, np.integer, np.floating)):
        found: Number = x.item()
        return found
    return None


def _kind(number: Number) -> str:
    return "b" if isinstance(number, bool) else "i" if isinstance(number, int) else "f"


def is_operand(x: object) -> bool:
    """Whether operators take `x`: a tensor, a NumPy array, a number."""
    return isinstance(x, (Tensor, np.ndarray)) or number_of(x) is not None


def as_operand(x: object) -> Tensor:
    """`x` as a tensor: tensors as they are (weak ones too), arrays copied, numbers as constants
    of their kind's default dtype. Raises DTypeError for anything else."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        with located_errors():
            return _from_array(x)
    number = number_of(x)
    if number is None:
        raise located(
            DTypeError(
                f"expected a tensor, a NumPy array or a number, found {type(x).__name__} {x!r:.60}"
                + ("; make a tensor of it with treadle.tensor" if _listed(x) else "")
            )
        )
    return constant(number, _DEFAULT[_kind(number)])


def as_tensor(x: object) -> Tensor:
    """As `as_operand`, with a dtype of its own: a weak tensor becomes float32."""
    found = as_operand(x)
    return apply("cast", found, dtype=float32) if found.weak else found


def _listed(x: object) -> bool:
    return isinstance(x, (list, tuple))


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    if modes.trace is not None:
        return modes.trace.array(array)
    type = type_of_array(array)
    return Tensor(Cell.of(np.array(array, order="C"), type))


def constant(value: Number, dtype: DType) -> Tensor:
    """A rank-0 constant. Raises DTypeError where an integer does not fit the dtype."""
    if dtype.is_integer:
        limits = np.iinfo(dtype.dtype)
        if not limits.min <= value <= limits.max:
            raise located(DTypeError(f"{value} does not fit {dtype.name}"))
    if modes.trace is not None:
        return modes.trace.constant(value, dtype)
    with np.errstate(over="ignore"):  # 1e300 is inf in float32
        return Tensor(Cell.of(np.array(value, dtype.dtype)))


def result_dtype(*operands: object) -> DType:
    """The dtype that the operands have in common; Python numbers and weak tensors are weak."""
    strong: DType | None = None
    weak = ""
    for x in operands:
        number = number_of(x)
        if number is not None or (isinstance(x, Tensor) and x.weak):
            kind = "f" if number is None else _kind(number)
            weak = max(weak, kind, key=" bif".index) if weak else kind
            continue
        here = x.dtype if isinstance(x, Tensor) else dtype_of(getattr(x, "dtype", type(x)))
        strong = here if strong is None else promote_types(strong, here)
    if strong is None:
        return _DEFAULT[weak]
    if weak == "f" and not strong.is_float:
        return float32
    if weak == "i" and strong == bool_:
        return int64
    return strong


def promote(*operands: object, floating: bool = False) -> tuple[Tensor, ...]:
    """The operands as tensors of one dtype; `floating` makes integers and bools float32.

    Where all are Python numbers or weak tensors, and one is a weak tensor, the results stay weak
    float64.
    """
    if len(operands) == 2:  # the common case: tensors of one dtype
        x, y = operands
        if isinstance(x, Tensor) and isinstance(y, Tensor) and _alike(x, y, floating):
            return x, y
    found = tuple(x if number_of(x) is not None else as_operand(x) for x in operands)
    if _stays_weak(found):
        return tuple(weak_constant(x) for x in found)
    dtype = result_dtype(*found)
    if floating and not dtype.is_float:
        dtype = float32
    return tuple(_as(x, dtype) for x in found)


def _alike(x: Tensor, y: Tensor, floating: bool) -> bool:
    return x.dtype == y.dtype and x.weak == y.weak and (x.dtype.is_float or not floating)


def _stays_weak(operands: tuple[object, ...]) -> bool:
    weak = False
    for x in operands:
        if isinstance(x, Tensor) and x.weak:
            weak = True
        elif number_of(x) is None:
            return False
    return weak


def weak_constant(x: object) -> Tensor:
    """A Python number (or a weak tensor, as it is) as a weak tensor."""
    if isinstance(x, Tensor):
        return x
    number = number_of(x)
    assert number is not None
    found = constant(float(number), float64)
    found.weak = True
    return found


def _as(x: object, dtype: DType) -> Tensor:
    number = number_of(x)
    if number is not None:
        return constant(number, dtype)
    found = as_operand(x)
    if found.dtype == dtype and not found.weak:
        return found
    return apply("cast", found, dtype=dtype)
