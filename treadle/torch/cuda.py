"""`torch.cuda`: there is none, and programs that ask find out."""

from __future__ import annotations

from typing import Any

__all__ = [
    "device_count",
    "empty_cache",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "synchronize",
]


def is_available() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0"""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: there is no generator of a device."""


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Nothing."""


def synchronize(device: Any = None) -> None:
    """Nothing: a call returns when its results are there."""


def __getattr__(name: str) -> Any:
    from treadle.torch.names import missing

    raise missing("torch.cuda, where nothing computes,", name, __all__)
