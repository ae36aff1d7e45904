"""Devices: there is the CPU, and errors that say so."""

from __future__ import annotations

from typing import Any

from treadle.ir.errors import ArgumentError
from treadle.tracer.errors import located


class device:  # noqa: N801  PyTorch's name
    """`torch.device("cpu")`, the only one; ArgumentError for any other."""

    __slots__ = ()
    type = "cpu"
    index = None

    def __init__(self, kind: Any = "cpu", index: int | None = None) -> None:
        checked_device(kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) or other == "cpu"

    def __hash__(self) -> int:
        return hash("cpu")

    def __repr__(self) -> str:
        return "device(type='cpu')"

    def __str__(self) -> str:
        return "cpu"


CPU = device.__new__(device)


def checked_device(given: Any) -> None:
    """Raises ArgumentError unless `given` is the CPU (or None)."""
    if given is None or isinstance(given, device):
        return
    if not isinstance(given, str) or given.partition(":")[0] != "cpu":
        raise no_cuda(given)


def no_cuda(given: Any = "cuda") -> ArgumentError:
    found = ArgumentError(
        f"there is no device {given!r}: Treadle computes on the CPU; write .to('cpu'), or leave it "
        "out"
    )
    located(found)
    return found
