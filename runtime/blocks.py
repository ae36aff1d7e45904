"""Memory for large results, kept for the next ones when the last array that looks into it dies.

A fresh block of 64 MiB costs 3 ms of page faults, more than computing what goes into it; and from
128 KiB on the C library gives a block back to the system as soon as it is free, until the process
has freed a larger one, so that each call pays for its pages again. So a result of `LARGE` bytes or
more lies in a block of its own that comes back here when no array uses
it any more, and the next result of about that size takes it. Blocks have a few sizes for each power
of two (the pages beyond the end of an array are never touched). At most `MOST_KEPT` bytes and
`MOST_BLOCKS` blocks wait here, the latest ones: what came back first is given back to the system
first.

A block comes back when its `_Owner` dies, the object at the end of the arrays' chain of `base`.
That may happen at any time, on any thread, even while the same thread holds the lock of the free
list; hence it appends to a deque, which is emptied by whoever gets the lock without waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.forking import in_child

Array = npt.NDArray[Any]

ALIGN: Final = 64
LARGE: Final = 1 << 16
MOST_KEPT: Final = 256 << 20
MOST_BLOCKS: Final = 256  # which are searched one by one


def aligned_block(nbytes: int) -> Array:
    """A block of bytes that starts at a multiple of 64."""
    raw = np.empty(nbytes + ALIGN, np.uint8)
    skip = -raw.ctypes.data % ALIGN
    return raw[skip : skip + nbytes]


class _Owner:
    """Holds a block for the arrays in it; its death is theirs."""

    __slots__ = ("__array_interface__", "_block", "_home")

    def __init__(self, block: Array, home: Blocks) -> None:
        self._block, self._home = block, home
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._home.take_back(self._block)


class Blocks:
    """A free list. May be used from several threads."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._most = most_kept
        self._returned: deque[Array] = deque()
        self._free: list[Array] = []  # the longest waiting first
        self._bytes = 0  # of those
        self._lock = threading.Lock()

    def renew(self) -> None:
        """For the child of a fork: another thread may have been at the free list."""
        self._lock = threading.Lock()
        self._bytes = sum(block.nbytes for block in self._free)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array; its data are aligned to 64 bytes where it is large.

        Raises MemoryError, which tells the shape and the size.
        """
        count = 1
        for size in shape:
            count *= size
        nbytes = count * dtype.itemsize
        try:
            if nbytes < LARGE:
                return np.empty(shape, dtype)
            owner = _Owner(self._block(nbytes), self)
        except MemoryError:
            raise _shortage(f"a result of shape {shape} and dtype {dtype}", nbytes) from None
        return np.asarray(owner)[:nbytes].view(dtype).reshape(shape)

    def workspace(self, nbytes: int) -> Array:
        """An uninitialised block for what a call needs besides its operands and results. It does
        not come back here. Raises MemoryError, which tells the size."""
        try:
            return self._fresh(nbytes, nbytes)
        except MemoryError:
            what = "what a call needs besides its operands and results"
            raise _shortage(what, nbytes) from None

    def take_back(self, block: Array) -> None:
        """Keep a block that no array looks into any more."""
        self._returned.append(block)
        self._settle()

    def kept(self) -> int:
        """Bytes that wait for their next use."""
        self._settle()
        return self._bytes

    def _block(self, least: int) -> Array:
        """The block of about that size that was used last, or a fresh one."""
        found = None
        nbytes = _rounded(least)
        with self._lock:
            for place in range(len(self._free) - 1, -1, -1):
                if self._free[place].nbytes == nbytes:
                    found = self._free.pop(place)
                    self._bytes -= nbytes
                    break
        self._settle()
        return self._fresh(nbytes, least) if found is None else found

    def _fresh(self, nbytes: int, least: int) -> Array:
        """A block that is not from the free list; where the system has no memory any more, what
        waits in that list is given back first. Raises MemoryError."""
        try:
            return aligned_block(nbytes)
        except MemoryError:
            self.give_back()
        return aligned_block(least)

    def give_back(self) -> None:
        """Give everything that waits here back to the system."""
        self._settle()
        with self._lock:
            self._free.clear()
            self._bytes = 0

    def _settle(self) -> None:
        """Put in order what has come back; to be called whenever the lock has been released."""
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    block = self._returned.popleft()
                    self._free.append(block)
                    self._bytes += block.nbytes
                while self._bytes > self._most or len(self._free) > MOST_BLOCKS:
                    self._bytes -= self._free.pop(0).nbytes
            finally:
                self._lock.release()


def _shortage(what: str, nbytes: int) -> MemoryError:
    size = f"{nbytes / (1 << 20):,.1f} MiB" if nbytes >= 1 << 20 else f"{nbytes:,} bytes"
    return MemoryError(f"there is no memory for {what}: {size}")


def _rounded(nbytes: int) -> int:
    """The size of the block for so many bytes: less than a quarter more."""
    step = 1 << max((nbytes - 1).bit_length() - 3, 0)
    return -(-nbytes // step) * step


blocks: Final = Blocks()
in_child(blocks.renew)
