"""What array functions do with their arguments before an op sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Final, ParamSpec, TypeAlias, TypeVar

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError
from treadle.ir.types import bool_, float32, int64, normalize_axes, normalize_axis
from treadle.tracer.execute import apply
from treadle.tracer.promote import as_operand, as_tensor, number_of, promote
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import door

P = ParamSpec("P")
R = TypeVar("R")

NUMBER_HINT: Final = (
    "; a float argument of a jitted function is a tensor, known only when the compiled code runs: "
    "read the number from the closure, a global or an attribute instead, which are guarded"
)

Axis: TypeAlias = "int | Sequence[int] | None"


def array_function(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, whose errors end with the user's line and leave without Treadle's frames."""
    return door(fn)


def as_float(x: object) -> Tensor:
    """`x` as a float tensor: integers and bools become float32."""
    return promote(x, floating=True)[0]


def as_float_tensor(x: object) -> Tensor:
    """As `as_float`, with a dtype of its own: what stands for a Python float becomes float32."""
    found = as_tensor(x)
    return found if found.dtype.is_float else apply("cast", found, dtype=float32)


def as_bool(x: object) -> Tensor:
    """`x` as bools: numbers are true where they are not 0."""
    found = as_operand(x)
    return found if found.dtype == bool_ else apply("cast", found, dtype=bool_)


def as_integer(x: object, what: str) -> Tensor:
    """`x` as a tensor; raises DTypeError unless it holds integers."""
    found = as_operand(x)
    if not found.dtype.is_integer:
        raise DTypeError(f"{what} must be integers, found {found.type}")
    return found


def accumulating(x: Tensor) -> Tensor:
    """`x` in the dtype in which sums and products accumulate: bools and integers in int64.

    The standard asks for uint64 where unsigned; Treadle has none, and int64 holds the same sums up
    to 2**63.
    """
    if x.dtype.is_float or x.dtype == int64:
        return x
    return apply("cast", x, dtype=int64)


def axes_of(x: Tensor, axis: Axis) -> tuple[int, ...]:
    """The axes, counted from the front, ascending; None means all of them."""
    if axis is not None and not isinstance(axis, (list, tuple)):
        return (axis_of(x, axis),)
    return normalize_axes(axis, x.ndim)


def axis_of(x: Tensor, axis: object) -> int:
    """One axis, counted from the front. Raises DTypeError unless it is an int, ShapeError where
    it is out of range."""
    if isinstance(axis, Tensor):
        axis = axis.__index__()
    return normalize_axis(axis, x.ndim)  # type: ignore[arg-type]


def flag(name: str, value: object) -> bool:
    """An option that is true or false; raises DTypeError for anything else."""
    if not isinstance(value, (bool, np.bool_)):
        raise DTypeError(f"{name} must be a bool, found {type(value).__name__} {value!r:.40}")
    return bool(value)


def real(name: str, value: object) -> float:
    """An option that is a Python number; raises DTypeError for anything else."""
    number = number_of(value)
    if number is None:
        raise DTypeError(
            f"{name} must be a Python number, found {type(value).__name__} {value!r:.60}"
            + (NUMBER_HINT if isinstance(value, Tensor) and value.is_traced else "")
        )
    return float(number)


def added_number(name: str, value: object) -> float:
    """A Python number that is added below a root: raises ArgumentError unless it is at least 0."""
    found = real(name, value)
    if not found >= 0:
        raise ArgumentError(f"{name} must be at least 0, found {found}")
    return found


def option(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """`value`, if it is one of those allowed; raises ArgumentError naming the nearest."""
    if isinstance(value, str) and value in allowed:
        return value
    near = get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(repr, allowed))
    raise ArgumentError(f"{name} must be one of {listed}, found {value!r:.40}{hint}")
