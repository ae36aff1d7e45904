"""The operators of `Tensor`: arithmetic, comparison, bits, matmul; reflected and in place.

Each stands for the array function of that meaning (`treadle.tracer.api`). An operand that no
array function takes gives NotImplemented, so that Python asks the other operand, then says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.tracer.tensor import Tensor

Binary = Callable[[Any, Any], "Tensor"]
InPlace = Callable[[Any, Any], Any]


def _call(name: str, *operands: Any) -> Any:
    from treadle.tracer import api  # the array functions build on Tensor

    return getattr(api, name)(*operands)


def _takes(other: object) -> bool:
    from treadle.tracer.promote import is_operand

    return is_operand(other)


def _forward(name: str) -> Binary:
    def operator(self: Any, other: Any) -> Any:
        return _call(name, self, other) if _takes(other) else NotImplemented

    operator.__doc__ = f"Elementwise `treadle.{name}(self, other)`, broadcast."
    return operator


def _reflected(name: str) -> Binary:
    def operator(self: Any, other: Any) -> Any:
        return _call(name, other, self) if _takes(other) else NotImplemented

    operator.__doc__ = f"Elementwise `treadle.{name}(other, self)`, broadcast."
    return operator


def _in_place(name: str) -> InPlace:
    def operator(self: Any, other: Any) -> Any:
        return in_place(name, self, other) if _takes(other) else NotImplemented

    operator.__doc__ = f"`treadle.{name}(self, other)` written over `self`."
    return operator


def in_place(name: str, x: Tensor, other: Any) -> Tensor:
    """Write `api.<name>(x, other)` over `x` and return it. Raises ShapeError or DTypeError, with
    `x` unchanged, where the result does not fit."""
    from treadle.tracer.execute import check_writable, update

    check_writable(x)
    return update(x, _call(name, x, other), name)


def _unary(name: str) -> Callable[[Any], Tensor]:
    def operator(self: Any) -> Any:
        return _call(name, self)

    operator.__doc__ = f"Elementwise `treadle.{name}(self)`."
    return operator


class Operators:
    """The operators, as methods."""

    __slots__ = ()

    __neg__ = _unary("negative")
    __pos__ = _unary("positive")
    __abs__ = _unary("abs")
    __invert__ = _unary("bitwise_invert")

    __add__, __radd__, __iadd__ = _forward("add"), _reflected("add"), _in_place("add")
    __sub__, __rsub__ = _forward("subtract"), _reflected("subtract")
    __isub__ = _in_place("subtract")
    __mul__, __rmul__ = _forward("multiply"), _reflected("multiply")
    __imul__ = _in_place("multiply")
    __truediv__, __rtruediv__ = _forward("divide"), _reflected("divide")
    __itruediv__ = _in_place("divide")
    __floordiv__, __rfloordiv__ = _forward("floor_divide"), _reflected("floor_divide")
    __ifloordiv__ = _in_place("floor_divide")
    __mod__, __rmod__ = _forward("remainder"), _reflected("remainder")
    __imod__ = _in_place("remainder")
    __pow__, __rpow__, __ipow__ = _forward("pow"), _reflected("pow"), _in_place("pow")
    __matmul__, __rmatmul__ = _forward("matmul"), _reflected("matmul")
    __imatmul__ = _in_place("matmul")

    __and__, __rand__ = _forward("bitwise_and"), _reflected("bitwise_and")
    __iand__ = _in_place("bitwise_and")
    __or__, __ror__ = _forward("bitwise_or"), _reflected("bitwise_or")
    __ior__ = _in_place("bitwise_or")
    __xor__, __rxor__ = _forward("bitwise_xor"), _reflected("bitwise_xor")
    __ixor__ = _in_place("bitwise_xor")
    __lshift__, __rlshift__ = _forward("bitwise_left_shift"), _reflected("bitwise_left_shift")
    __ilshift__ = _in_place("bitwise_left_shift")
    __rshift__, __rrshift__ = _forward("bitwise_right_shift"), _reflected("bitwise_right_shift")
    __irshift__ = _in_place("bitwise_right_shift")

    __eq__ = _forward("equal")  # type: ignore[assignment]
    __ne__ = _forward("not_equal")  # type: ignore[assignment]
    __lt__, __le__ = _forward("less"), _forward("less_equal")
    __gt__, __ge__ = _forward("greater"), _forward("greater_equal")
    __hash__ = object.__hash__
