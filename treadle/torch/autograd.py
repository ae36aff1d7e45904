"""`torch.autograd`: gradients by chosen leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.errors import ArgumentError, GradientError
from treadle.torch.functions import facade
from treadle.torch.names import missing
from treadle.torch.tensor import Tensor
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.grad import gradients_by
from treadle.tracer.modes import enable_grad, no_grad
from treadle.tracer.tensor import Tensor as _Tensor

__all__ = ["Variable", "backward", "enable_grad", "grad", "no_grad"]


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, _Tensor) else list(given)


@facade
def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> Any:
    """The gradients of `outputs`, weighted by `grad_outputs` (1 for a single element), with respect
    to `inputs`, leaves that require grad, as a tuple; `.grad` stays as it is.

    The history stays, whatever `retain_graph` says. Raises GradientError for an input that is no
    leaf, or that the outputs do not depend on unless `allow_unused` (None) or `materialize_grads`
    (zeros).
    """
    ys, xs = _listed(outputs), _listed(inputs)
    weights = [None] * len(ys) if grad_outputs is None else _listed(grad_outputs)
    for n, x in enumerate(xs):
        if not x.requires_grad or not x.is_leaf:
            raise located(
                GradientError(
                    f"input {n}, {x.type}, is no leaf that requires grad; start from "
                    "x.detach().requires_grad_(), or use treadle.grad"
                )
            )
    with enable_grad():
        total = _total(ys, weights)
    found = gradients_by(total, xs, create_graph)
    for n, (x, g) in enumerate(zip(xs, found, strict=True)):
        if g is None and materialize_grads:
            found[n] = api.zeros_like(x)
        elif g is None and not allow_unused:
            raise located(
                GradientError(
                    f"the outputs do not depend on input {n}, {x.type}; allow_unused=True gives "
                    "None for it"
                )
            )
    return tuple(found)


def _total(ys: Sequence[Any], weights: Sequence[Any]) -> Any:
    """The sum whose gradient is asked for."""
    total: Any = None
    for y, weight in zip(ys, weights, strict=True):
        if weight is None and y.numel() != 1:
            raise located(
                GradientError(
                    f"autograd.grad of {y.type} needs grad_outputs; only a single element has an "
                    "implied gradient of 1"
                )
            )
        if not y.requires_grad:
            raise located(GradientError(f"autograd.grad of {y.type}, which does not require grad"))
        part = api.sum(y if weight is None else y * weight)
        total = part if total is None else total + part
    if total is None:
        raise located(ArgumentError("autograd.grad needs outputs"))
    return total


@facade
def backward(tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None) -> None:
    """Adds the gradients of `tensors` to `.grad` of the leaves that they were computed from."""
    ys = _listed(tensors)
    weights = [None] * len(ys) if grad_tensors is None else _listed(grad_tensors)
    _total(ys, weights).backward(retain_graph=bool(retain_graph))


def Variable(data: Any, requires_grad: bool = False) -> Tensor:
    """The tensor, as a leaf."""
    found: Tensor = data.detach()
    return found.requires_grad_(requires_grad)


def __getattr__(name: str) -> Any:
    if name == "Function":
        import treadle

        if hasattr(treadle, "Function"):
            return treadle.Function
    raise missing("torch.autograd", name, __all__)
