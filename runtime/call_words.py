"""Memory for the tables of the native call path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class Words:
    """Memory for tables: words, some of which are addresses of objects or of other words."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._words: list[int] = []
        self._inner: list[tuple[int, int]] = []  # (where, the position whose address goes there)
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._words)

    def object(self, x: Any) -> int:
        """The address of an object, which is kept alive."""
        if id(x) not in self._known:
            self._known[id(x)] = id(x)
            self.kept.append(x)
        return id(x)

    def reserve(self, count: int) -> int:
        """Room for so many words, all 0; its position."""
        position = len(self._words)
        self._words += [0] * count
        return position

    def put(self, values: Sequence[int]) -> int:
        """Words; their position."""
        position = len(self._words)
        self._words += values
        return position

    def set(self, position: int, value: int) -> None:
        self._words[position] = value

    def point(self, position: int, to: int) -> None:
        """The word at `position` becomes the address of the word at `to`."""
        self._inner.append((position, to))

    def finish(self) -> npt.NDArray[np.int64]:
        """The array, its inner addresses filled in."""
        made = np.array([*self._words, 0], np.int64)
        base = made.ctypes.data
        for position, to in self._inner:
            made[position] = base + 8 * to
        return made
