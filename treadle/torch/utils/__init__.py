"""`torch.utils`: data."""

from __future__ import annotations

from typing import Any

from treadle.torch.names import missing
from treadle.torch.utils import data

__all__ = ["data"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.utils", name, __all__)
