"""Notices fresh entropy that is drawn while a function is traced.

All that draws it from Python's library (`secrets`, `SystemRandom`, `uuid4`, NumPy's unseeded
generators) goes through `os.urandom`, by that name or by the one that `random` has for it. For as
long as anybody watches, these names lead through a function that tells the watcher of its thread.
It costs a trace nothing, where a profiler doubles its time.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Final

from treadle.ir.forking import in_child

NAMES: Final = frozenset(
    {"uuid4", "secrets", "token_hex", "token_bytes", "randbelow", "default_rng", "SystemRandom"}
    | {"RandomState", "Random", "urandom"}
)
"""What code spells that may draw."""

_DOORS: Final[tuple[tuple[ModuleType, str], ...]] = ((os, "urandom"), (random, "_urandom"))
_urandom: Final = os.urandom

Watcher = Callable[[FrameType], None]

_watchers: Final[dict[int, Watcher]] = {}  # by thread


class _State:
    lock = threading.Lock()


_state: Final = _State()


def _in_child() -> None:
    """Of all threads the child of a fork has this one."""
    own = _watchers.get(threading.get_ident())
    _state.lock = threading.Lock()
    _watchers.clear()
    if own is None:
        _put(_watched, _urandom)
    else:
        _watchers[threading.get_ident()] = own


def watch(watcher: Watcher) -> bool:
    """Call `watcher` with the frame that draws, for each draw of this thread; False where there is
    one already (a trace in a trace), which goes on."""
    thread = threading.get_ident()
    with _state.lock:
        if thread in _watchers:
            return False
        _watchers[thread] = watcher
        _put(_urandom, _watched)
    return True


def unwatch() -> None:
    """End what `watch` began on this thread."""
    with _state.lock:
        _watchers.pop(threading.get_ident(), None)
        if not _watchers:
            _put(_watched, _urandom)


def _put(old: object, new: object) -> None:
    """What somebody else has put in the place stays there."""
    for module, name in _DOORS:
        if getattr(module, name, None) is old:
            setattr(module, name, new)


in_child(_in_child)


def _watched(size: int, /) -> bytes:
    watcher = _watchers.get(threading.get_ident())
    if watcher is not None:
        watcher(sys._getframe(1))
    return _urandom(size)
