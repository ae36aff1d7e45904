"""`torch.special`: functions that have a place of their own in PyTorch."""

from __future__ import annotations

from typing import Any

from treadle.torch import pointwise, reductions
from treadle.torch.names import missing

_POINTWISE = (
    "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "log1p", "log_softmax", "logit", "round",
    "sinc", "softmax", "xlogy",
)  # fmt: skip
for _name in _POINTWISE:
    globals()[_name] = getattr(pointwise, _name)
logsumexp = reductions.logsumexp

__all__ = [*_POINTWISE, "logsumexp"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.special", name, __all__)
