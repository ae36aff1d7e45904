"""Gradients kept from growing: by their norm, by their values."""

from __future__ import annotations

import math
from collections.abc import Iterable

from treadle.ir.errors import ArgumentError
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients, in place, so that the norm of them together is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)), as PyTorch's. `norm_type` may be inf. Returns
    the norm from before, of rank 0. With `error_if_nonfinite` CheckError is raised, and nothing
    changed, where it is inf or NaN. Raises ArgumentError for a `max_norm` below 0, which would turn
    the gradients round.
    """
    grads = _grads(parameters)
    _at_least_0("max_norm", max_norm)
    if norm_type <= 0:
        raise located(ArgumentError(f"norm_type must be above 0, found {norm_type}"))
    with no_grad():
        if not grads:
            return api.zeros(())
        total = _norm(grads, float(norm_type))
        if error_if_nonfinite:
            api.check(api.isfinite(total), "the norm of the gradients is inf or NaN")
        factor = api.minimum(max_norm / (total + 1e-6), 1.0)
        for grad in grads:
            grad.mul_(factor.astype(grad.dtype))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of every gradient into [-clip_value, clip_value], in place.

    Raises ArgumentError for a `clip_value` below 0."""
    _at_least_0("clip_value", clip_value)
    with no_grad():
        for grad in _grads(parameters):
            grad.copy_(api.clip(grad, -clip_value, clip_value))


def _at_least_0(name: str, value: object) -> None:
    if isinstance(value, (int, float)) and not value >= 0:
        raise located(ArgumentError(f"{name} must be at least 0, found {value}"))


def _grads(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in params if p.grad is not None]


def _norm(grads: list[Tensor], order: float) -> Tensor:
    if order == math.inf:
        return api.max(api.stack([api.max(api.abs(g)) for g in grads]))
    if order == 2:
        return api.sqrt(sum((api.sum(g * g) for g in grads[1:]), api.sum(grads[0] * grads[0])))
    powers = [api.sum(api.abs(g) ** order) for g in grads]
    return sum(powers[1:], powers[0]) ** (1 / order)
