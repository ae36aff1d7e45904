"""`torch.optim`: Treadle's optimisers, with PyTorch's remaining keywords."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import treadle.optim as native
from treadle.nn.optim.optimizer import Optimizer as _Optimizer
from treadle.torch.names import keyword_error, missing
from treadle.torch.optim import lr_scheduler
from treadle.tracer.modes import enable_grad

# How PyTorch runs a step: nothing here depends on them.
_IGNORED = ("capturable", "differentiable", "foreach", "fused")


class Optimizer(_Optimizer):
    """Base of the facade's optimisers."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; `closure` computes them before, and the loss
        that it gives is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        super().step()
        return loss


def _optimizer(name: str, base: type[_Optimizer]) -> type[_Optimizer]:
    given = base.__init__

    @functools.wraps(given)
    def init(self: Any, params: Any, *args: Any, **kwargs: Any) -> None:
        options = {k: v for k, v in kwargs.items() if k not in _IGNORED}
        try:
            super(made, self).__init__(params, *args, **options)
        except TypeError as error:
            told = keyword_error(given, name, options)
            if told is None:
                raise
            raise told from error

    made: type[_Optimizer] = type(
        name,
        (Optimizer, base),
        {"__init__": init, "__module__": "treadle.torch.optim", "__doc__": base.__doc__},
    )
    return made


_NAMES = tuple(
    n
    for n in native.__all__
    if isinstance(getattr(native, n), type)
    and issubclass(getattr(native, n), _Optimizer)
    and getattr(native, n) is not _Optimizer
)
for _name in _NAMES:
    globals()[_name] = _optimizer(_name, getattr(native, _name))

__all__ = [*_NAMES, "Optimizer", "lr_scheduler"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.optim", name, __all__)
