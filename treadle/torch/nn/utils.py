"""`torch.nn.utils`: gradients kept from growing, parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.nn import clipping as native
from treadle.torch.functions import facade
from treadle.torch.names import missing
from treadle.tracer import api
from treadle.tracer.modes import no_grad

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters",
]  # fmt: skip


@facade
def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:  # fmt: skip
    """Scale all gradients so that their norm together is at most `max_norm`; returns the norm."""
    return native.clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite)


@facade
def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Bring every element of every gradient into [-clip_value, clip_value]."""
    native.clip_grad_value_(parameters, clip_value)


@facade
def parameters_to_vector(parameters: Iterable[Any]) -> Any:
    """All parameters behind each other."""
    return api.concat([api.reshape(p, (-1,)) for p in parameters])


@facade
def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Write a vector into the parameters, one behind the other."""
    at = 0
    with no_grad():
        for param in parameters:
            count = int(param.type.size)
            param.copy_(api.reshape(vec[at : at + count], param.shape))
            at += count


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.nn.utils", name, __all__)
