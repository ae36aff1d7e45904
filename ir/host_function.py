"""A Python function as an attribute of an instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class HostFunction:
    """A function of this process. `call` takes arrays and gives arrays, numbers or lists, in the
    order of the results. `label` and `number` tell it apart from others of its program."""

    __slots__ = ("call", "label", "number")

    def __init__(self, call: Callable[..., Sequence[Any]], label: str, number: int) -> None:
        self.call = call
        self.label = label
        self.number = number

    def __str__(self) -> str:
        return f"{self.label}#{self.number}"

    def __repr__(self) -> str:
        return f"<{self}>"
