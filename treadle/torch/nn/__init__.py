"""`torch.nn`: Treadle's layers, whose parameters and results are the facade's tensors."""

from __future__ import annotations

from typing import Any

from treadle.torch.names import missing as _missing
from treadle.torch.nn import functional, init, utils
from treadle.torch.nn.modules import LAYERS as _LAYERS, Module
from treadle.torch.tensor import Parameter

globals().update(_LAYERS)

__all__ = [*_LAYERS, "Module", "Parameter", "functional", "init", "utils"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise _missing("torch.nn", name, __all__)
