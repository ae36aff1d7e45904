"""`torch.nn.init`: Treadle's initialisers."""

from __future__ import annotations

from typing import Any

from treadle.nn import init as native
from treadle.torch.functions import facade
from treadle.torch.names import missing

_NAMES = (
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_",
    "normal_", "ones_", "orthogonal_", "trunc_normal_", "uniform_", "xavier_normal_",
    "xavier_uniform_", "zeros_",
)  # fmt: skip
for _name in _NAMES:
    globals()[_name] = facade(getattr(native, _name))

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.nn.init", name, __all__)
