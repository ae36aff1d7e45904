"""A module of its own with the values of another."""

from __future__ import annotations

from typing import TypeVar

from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tracer.tensor import Tensor

M = TypeVar("M", bound=Module)


def fresh_copy(module: M) -> M:
    """A module like `module` whose parameters and buffers are tensors of their own with the same
    values; what it shares inside stays shared. Other attributes are the same objects."""
    return _copied(module, {})


def _copied(module: M, made: dict[int, object]) -> M:
    if id(module) in made:
        return made[id(module)]  # type: ignore[return-value]  # the copy of this module
    twin = type(module).__new__(type(module))
    made[id(module)] = twin
    for name, value in module.__dict__.items():
        if isinstance(value, Module):
            twin.__dict__[name] = _copied(value, made)
        elif isinstance(value, Tensor):
            if id(value) not in made:
                made[id(value)] = _tensor(value)
            twin.__dict__[name] = made[id(value)]
        else:
            twin.__dict__[name] = value
    return twin


def _tensor(value: Tensor) -> Tensor:
    copy = value.detach().clone()
    return Parameter(copy, value.requires_grad) if isinstance(value, Parameter) else copy
