"""Who is told of the values that `treadle.watch` names.

A watcher has a handler and patterns of names. Whether a name is asked for is decided where the
value is computed: eagerly at once, in a jitted function when it is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass

Handler = Callable[[str, npt.NDArray[Any]], object]


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """`handler(name, array)` is told of the values whose names fit one of `patterns`."""

    handler: Handler
    patterns: tuple[str, ...]

    def wants(self, name: str) -> bool:
        """Does `name` fit?"""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


class Watchers:
    """All watchers of the process, in the order in which they were added."""

    def __init__(self) -> None:
        self.all: tuple[Watcher, ...] = ()
        self.changed: Callable[[], None] = lambda: None  # called after each change

    def add(self, watcher: Watcher) -> None:
        """From now on, `watcher` is told."""
        self._set((*self.all, watcher))

    def remove(self, watcher: Watcher) -> None:
        """It is told no more."""
        self._set(tuple(w for w in self.all if w is not watcher))

    def _set(self, every: tuple[Watcher, ...]) -> None:
        self.all = every
        self.changed()

    def wanted(self, name: str) -> bool:
        """Does anybody ask for `name`?"""
        return bool(self.all) and any(w.wants(name) for w in self.all)

    def tell(self, name: str, array: npt.NDArray[Any]) -> None:
        """Hand `array` to those who ask for `name`; what a handler raises is raised."""
        for watcher in self.all:
            if watcher.wants(name):
                watcher.handler(name, array)


watchers = Watchers()


def read_only_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What Python code outside of the program gets to see: it may keep it, and cannot change it."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy
