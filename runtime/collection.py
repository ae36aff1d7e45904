"""Python's collector of cycles, paused while something large is built.

A compilation makes hundreds of thousands of objects and no garbage to speak of; looking through all
of them again and again takes a fifth of its time, and more the longer the program is.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_lock: Final = threading.Lock()


class _State:
    pauses = 0
    enabled = False  # before the first of them


_state: Final = _State()


@contextmanager
def paused() -> Iterator[None]:
    """No collection inside, in any thread; where the user has switched it off it stays off."""
    with _lock:
        if not _state.pauses:
            _state.enabled = gc.isenabled()
            gc.disable()
        _state.pauses += 1
    try:
        yield
    finally:
        with _lock:
            _state.pauses -= 1
            if not _state.pauses and _state.enabled:
                gc.enable()
