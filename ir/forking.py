"""What a fork waits for, and what its child makes anew.

A fork copies the thread that asks for it and no other. A lock that another thread held at that
moment stays taken in the child for ever, and what that thread had begun is never ended. So either
the fork waits, which is for what is short (`no_fork`, `fork_waits_for`), or the child makes a fresh
one (`in_child`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final

no_fork: Final = threading.RLock()
"""While a thread holds it, no other thread forks. Held in LLVM, and around imports that happen
late: the child of a fork in the middle of an import would wait for its end."""

_also: Final[list[Callable[[], Any]]] = []
_held: Final[list[Any]] = []  # by the thread that forks


def fork_waits_for(find_lock: Callable[[], Any]) -> None:
    """A fork takes the lock that `find_lock` then finds, if any, after `no_fork`."""
    _also.append(find_lock)


def in_child(renew: Callable[[], None]) -> None:
    """Call `renew` in the child of every fork from now on, where this system has forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def _before() -> None:
    no_fork.acquire()
    for find_lock in _also:
        lock = find_lock()
        if lock is not None:
            lock.acquire()
            _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()
    no_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
