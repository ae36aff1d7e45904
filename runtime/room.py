"""Memory for LLVM, which ends the process where it gets none.

So some is asked for before LLVM is entered, and given back at once: an address range that nobody
touches costs two system calls. Where that fails it is a MemoryError, and nothing has happened yet.
Another thread may take the memory in between; a system that promises more than it has ends
processes as it likes.
"""

from __future__ import annotations

import mmap
from typing import Final

# Resident memory of LLVM: 20 to 30 MiB for its first module, then some 10 to 40 bytes for each
# byte of its text (measured on programs of 2 to 500 kB).
_BASE: Final = 32 << 20
_PER_BYTE: Final = 64


def make_sure_of_room(text: int) -> None:
    """Raises MemoryError, which tells the size, where LLVM may lack the memory for so many bytes of
    text or object code."""
    size = _BASE + _PER_BYTE * text
    try:
        mmap.mmap(-1, size).close()
    except (OSError, ValueError, OverflowError):
        raise MemoryError(
            f"there is no memory for the compiler: it may need {size / (1 << 20):.0f} MiB"
        ) from None
