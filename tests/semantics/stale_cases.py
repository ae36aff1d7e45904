"""Programs whose result depends on something besides their tensors, and a change of it.

Each case is a function without arguments that returns (f, change): `f(x)` gives another result
after `change()`. The tests call it eagerly, jitted, and again after the change. The cases are in
`stale_*_cases.py`, a file a subject; importing a file adds its cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Case = tuple[Callable[[Any], Any], Callable[[], None]]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


class Box:
    """An object with the attributes that it is given."""

    kind = 2

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def scaled(self, x: Any) -> Any:
        return x * 2


def setter(target: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(target, name, value)
