"""The functions of the facade as methods of its tensors; those that write have an underscore."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from treadle.ir.errors import DTypeError
from treadle.ir.types import bool_, float32, float64, int32, int64, uint8
from treadle.torch import combining, creation, indexing, pointwise, products, reductions, shaping
from treadle.torch.functions import facade
from treadle.torch.tensor import Tensor
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.execute import check_writable
from treadle.tracer.modes import modes, no_grad

_NO_METHODS = frozenset(
    {"atleast_1d", "atleast_2d", "broadcast_tensors", "cat", "column_stack", "concat"}
    | {"concatenate", "hstack", "meshgrid", "row_stack", "stack", "vstack", "chain_matmul"}
    | {"einsum", "tensordot", "bucketize", "searchsorted", "expit", "rsub", "threshold"}
)


def _writing(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The method that writes what `fn` gives over the tensor."""

    @functools.wraps(fn)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_writable(self)
        # What a derivative needs of the operand is not what is written.
        operand = self.clone() if modes.grad and self.requires_grad else self
        found = fn(operand, *args, **kwargs)
        if found.dtype.is_float and not self.dtype.is_float:
            raise located(
                DTypeError(
                    f"{name} gives {found.dtype.name}, which a tensor of {self.dtype.name} cannot "
                    f"hold; write x = x.{fn.__name__}(..)"
                )
            )
        return self.copy_(found)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Writes `{fn.__name__}(self, ..)` over the tensor; returns it."
    return method


def _cast(name: str, dtype: Any) -> Callable[..., Any]:
    def method(self: Any) -> Any:
        return self.to(dtype)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"The elements as {dtype.name}."
    return method


def _drawing(name: str, draw: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(draw)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with no_grad():
            return self.copy_(draw(self, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    return method


def _normal(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
    """Writes numbers of the normal distribution; returns the tensor."""
    return creation.randn_like(self, generator=generator) * std + mean


def _uniform(self: Any, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Any:
    """Writes numbers that are even in [a, b); returns the tensor."""
    return creation.rand_like(self, generator=generator) * (b - a) + a


def _bernoulli(self: Any, p: Any = 0.5, *, generator: Any = None) -> Any:
    """Writes 1 with probability `p`, else 0; returns the tensor."""
    return creation.rand(self.shape, generator=generator) < p


def _random(self: Any, low: int = 0, high: int | None = None, *, generator: Any = None) -> Any:
    """Writes integers of [low, high), or [0, low); returns the tensor."""
    first, last = (0, low) if high is None else (low, high)
    return creation.randint(first, last, self.shape, generator=generator)


def _copy(self: Any, src: Any, non_blocking: bool = False) -> Any:
    """Writes `src`, cast and broadcast; returns the tensor."""
    return super(Tensor, self).copy_(src)


def _fill_diagonal(self: Any, fill_value: Any) -> Any:
    """Writes a value on the diagonal of a matrix; returns the tensor."""
    return self.copy_(api.where(api.eye(*self.shape, dtype=bool_), fill_value, self))


def _where(self: Any, condition: Any, other: Any) -> Any:
    """The elements where the condition holds, else those of `other`."""
    return api.where(condition, self, other)


def _attach() -> None:
    for module in (pointwise, reductions, shaping, indexing, products):
        for name in module.__all__:
            if name not in _NO_METHODS:
                setattr(Tensor, name, getattr(module, name))
        for name in getattr(module, "IN_PLACE", ()):
            if name in shaping.IN_PLACE and name not in ("tril", "triu"):
                continue  # a tensor keeps its shape
            setattr(Tensor, f"{name}_", _writing(f"{name}_", getattr(module, name)))
    for name, of in _COMPARING.items():
        setattr(Tensor, f"{name}_", _writing(f"{name}_", getattr(pointwise, of)))
    for other in (creation, combining):
        for name in other.METHODS:
            setattr(Tensor, name, getattr(other, name))
    for name, dtype in _CASTS.items():
        setattr(Tensor, name, _cast(name, dtype))
    for name, draw in _DRAWS.items():
        setattr(Tensor, name, _drawing(name, draw))
    methods: dict[str, Any] = {
        "copy_": _copy, "fill_diagonal_": _fill_diagonal, "where": facade(_where),
    }  # fmt: skip
    for name, method in methods.items():
        setattr(Tensor, name, method)


_COMPARING = {n: n for n in ("eq", "ge", "gt", "le", "lt", "ne", "logical_and", "logical_or")}
_CASTS = {
    "bool": bool_, "byte": uint8, "double": float64, "float": float32, "int": int32, "long": int64,
}  # fmt: skip
_DRAWS: dict[str, Callable[..., Any]] = {
    "normal_": _normal, "uniform_": _uniform, "bernoulli_": _bernoulli, "random_": _random,
}  # fmt: skip

_attach()
