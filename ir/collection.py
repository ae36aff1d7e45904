"""Python's collector of cycles, paused while something large is built.

A compilation makes hundreds of thousands of objects and no garbage to speak of; looking through all
of them again and again takes a fifth of its time, and more the longer the program is. So does an
import, for a tenth.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from treadle.ir.forking import in_child


class _State:
    lock = threading.Lock()
    pauses = 0
    enabled = False  # before the first of them


_state: Final = _State()


def _in_child() -> None:
    """The threads that compiled are not in the child of a fork, to end their pauses."""
    _state.lock = threading.Lock()
    if _state.pauses and _state.enabled:
        gc.enable()
    _state.pauses = 0


in_child(_in_child)


@contextmanager
def paused() -> Iterator[None]:
    """No collection inside, in any thread; where the user has switched it off it stays off."""
    with _state.lock:
        if not _state.pauses:
            _state.enabled = gc.isenabled()
            gc.disable()
        _state.pauses += 1
    try:
        yield
    finally:
        with _state.lock:
            _state.pauses = max(_state.pauses - 1, 0)  # none in the child of a fork inside
            if not _state.pauses and _state.enabled:
                gc.enable()
