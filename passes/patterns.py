"""What rewrite rules ask of a value: is it a constant, one number everywhere, finite?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.graph import Value
from treadle.ir.op import ArrayData

LAYOUT = frozenset({"broadcast_to", "reshape", "permute", "flip"})
_SPLAT_LIMIT = 4096  # elements of a constant that are looked at one by one


def constant(value: Value) -> ArrayData | None:
    """The data of a `const`, else None."""
    made = value.producer
    if made is None or made.op.name != "const":
        return None
    data = getattr(made.attrs, "data", None)
    return data if isinstance(data, ArrayData) else None


def splat(value: Value) -> npt.NDArray[Any] | None:
    """The rank-0 array that every element of `value` equals bit for bit, if one is known."""
    while value.producer is not None and value.producer.op.name in LAYOUT:
        value = value.producer.args[0]
    data = constant(value)
    if data is None:
        return None
    array = data.array().reshape(-1)
    if array.size == 0 or array.size > _SPLAT_LIMIT:
        return None
    one = array[:1].tobytes()
    return array[0:1].reshape(()) if data.data == one * array.size else None


def number(value: Value) -> float | int | bool | None:
    """`splat` as a Python number."""
    found = splat(value)
    return None if found is None else found.item()


def is_number(value: Value, expected: float) -> bool:
    """Every element is `expected`, the sign of a zero included."""
    found = number(value)
    if found is None or found != expected:
        return False
    return bool(np.signbit(float(found)) == np.signbit(float(expected)))


def is_power_of_two(found: float) -> bool:
    """Multiplying by `found` and dividing by it are exact up to overflow and underflow, and 1 /
    found is exact too, in float32 as in float64."""
    if found == 0.0 or not np.isfinite(found):
        return False
    mantissa, exponent = np.frexp(found)
    return abs(float(mantissa)) == 0.5 and -100 < int(exponent) < 100


def attr(value: Any, name: str) -> Any:
    """An attribute of the instruction `value`, whose attribute classes the op files own."""
    return getattr(value.attrs, name)
