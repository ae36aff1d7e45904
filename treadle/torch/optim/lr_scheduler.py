"""`torch.optim.lr_scheduler`: Treadle's schedules."""

from __future__ import annotations

from typing import Any

from treadle.optim import lr_scheduler as native
from treadle.torch.names import missing

__all__ = [n for n in dir(native) if isinstance(getattr(native, n), type) and not n.startswith("_")]
for _name in __all__:
    globals()[_name] = getattr(native, _name)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.optim.lr_scheduler", name, __all__)
