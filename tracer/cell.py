"""`Cell`: one piece of storage, shared by a tensor and all of its views.

An eager cell owns a C-contiguous NumPy buffer. A cell that was made in a trace has none: what it
holds at each point of the trace is an IR Value that the Trace keeps, never the cell, so that a
trace that raises leaves every cell as it was.

`version` counts the writes. A handed-out NumPy view (`t.numpy()`) is an export of the buffer;
while one lives, a write moves the cell to a fresh buffer, and the view keeps its values. Exports
are counted here, through the one object that all views of a buffer have as their base, because
CPython's reference counts also count borrowed references and temporaries.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treadle.ir.graph import Loc
from treadle.ir.types import TensorType, type_of_array

if TYPE_CHECKING:
    from treadle.tracer.trace import Trace

Array = npt.NDArray[Any]


class Export:
    """The base of every NumPy view of one buffer: the buffer is pinned while this lives."""

    __slots__ = ("__array_interface__", "__weakref__", "buffer")

    def __init__(self, buffer: Array) -> None:
        self.buffer = buffer
        interface = dict(buffer.__array_interface__)
        interface["data"] = (interface["data"][0], True)  # True: read-only
        self.__array_interface__ = interface


class Cell:
    """Storage of one type. `home` is the trace that made it, None for an eager cell."""

    __slots__ = ("__weakref__", "_export", "buffer", "home", "made_at", "type", "version",
                 "written_at")  # fmt: skip

    buffer: Array
    home: Trace | None

    def __init__(self, type: TensorType) -> None:
        self.type = type
        self.version = 0
        self.home = None
        self.made_at: Loc | None = None
        self.written_at: Loc | None = None
        self._export: weakref.ref[Export] | None = None

    @staticmethod
    def of(buffer: Array, type: TensorType | None = None) -> Cell:
        """An eager cell that takes over `buffer`: C-contiguous, and nobody else's."""
        cell = Cell(type_of_array(buffer) if type is None else type)
        cell.buffer = buffer
        return cell

    @staticmethod
    def traced(type: TensorType, home: Trace, made_at: Loc | None) -> Cell:
        """A cell whose content the trace `home` keeps."""
        cell = Cell(type)
        cell.home = home
        cell.made_at = made_at
        return cell

    @property
    def pinned(self) -> bool:
        """True while a NumPy view of the buffer is in somebody's hands."""
        if self._export is None:
            return False
        if self._export() is None:
            self._export = None  # so that the next call need not ask
            return False
        return True

    def export(self) -> Array:
        """A read-only NumPy array over the whole buffer; it and its views pin the buffer."""
        holder = self._export() if self._export is not None else None
        if holder is None:
            holder = Export(self.buffer)
            self._export = weakref.ref(holder)
        return np.asarray(holder)

    def writable(self, keep: bool = True) -> Array:
        """The buffer, ready to be overwritten: a fresh one where the present one is pinned.

        `keep=False` promises that every element will be written, so that nothing is copied.
        The caller writes at once and then calls `wrote`.
        """
        if self.pinned:
            self.replace(self.buffer.copy() if keep else np.empty_like(self.buffer))
        return self.buffer

    def replace(self, buffer: Array) -> None:
        """Take over another buffer of the same type (nobody else's, C-contiguous)."""
        self.buffer = buffer
        self._export = None

    def wrote(self, loc: Loc | None) -> None:
        """Count a write, made by the user's line `loc`."""
        self.version += 1
        self.written_at = loc
