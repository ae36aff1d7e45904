"""How many threads a call runs on, and the pool that they belong to.

The first of these that was given counts: `jit(threads=)`, `num_threads` around the call,
`set_num_threads`, the knob TREADLE_NUM_THREADS, the cores that this process may use. A
number that was given is honoured even above the cores. Results do not depend on it: tiles and the
order of sums come from shapes and the target alone.

The pool's code is compiled when a call first has work for more than one thread; its workers are
started by that call. Forking is safe: the child has no workers and starts its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

from treadle.runtime import knobs
from treadle.runtime.cores import usable_cores

MAX_THREADS: Final = 256

# Nanoseconds for which a thread with nothing to do looks for work before it sleeps. Long enough to
# bridge what Python does between two steps of a loop; waking a sleeper costs 50 to 100 us.
SPIN: Final = 500_000
# The same where more threads want to run than there are cores.
BRIEF_SPIN: Final = 5_000

_around: ContextVar[int | None] = ContextVar("treadle.num_threads", default=None)


class _Default:
    """What holds outside `num_threads`; None: not asked for yet."""

    count: int | None = None


_default = _Default()


def checked(count: int, what: str = "a number of threads") -> int:
    """`count` itself. Raises TypeError or ValueError where it is no whole number from 1 to 256."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{what} must be an int, found {type(count).__name__} {count!r}")
    if not 1 <= count <= MAX_THREADS:
        raise ValueError(f"{what} must be from 1 to {MAX_THREADS}, found {count}")
    return count


def set_num_threads(count: int | None) -> None:
    """Run compiled functions on `count` threads from now on; None: as many as there are cores.

    Raises ValueError for a number outside 1 .. 256.
    """
    _default.count = None if count is None else checked(count)
    if count is None:
        usable_cores_once.cache_clear()


def get_num_threads() -> int:
    """How many threads a compiled function called here may run on."""
    return _around.get() or _default.count or _asked()


def _asked() -> int:
    """The knob's number, else the usable cores; kept for the next calls."""
    _default.count = knobs.num_threads() or min(usable_cores_once(), MAX_THREADS)
    return _default.count


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Inside, compiled functions that this thread calls run on `count` threads.

    Raises ValueError for a number outside 1 .. 256.
    """
    token = _around.set(checked(count))
    try:
        yield
    finally:
        _around.reset(token)


@cache
def usable_cores_once() -> int:
    """The cores that this process may use, looked up once."""
    return usable_cores()


# --- the pool --------------------------------------------------------------------------------


class Pool:
    """The process's pool: the address of its `parallel`, and what Python may ask of it."""

    def __init__(self) -> None:
        from treadle.codegen.pool import PARALLEL, RESET, WORKERS, emit_pool, parking_of
        from treadle.codegen.target import host
        from treadle.runtime.kept import load_kept

        parking = parking_of(host())
        self.parallel = 0
        if parking is None:
            return
        code = load_kept(emit_pool(host(), parking), host())
        # Workers run in this code until the process ends, so it must never be released.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
        numbers = [ctypes.c_int64] * 3
        reset: Callable[..., Any] = ctypes.CFUNCTYPE(None, *numbers)(code.address(RESET))
        self._workers = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(WORKERS))
        self._reset = reset
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)
        self.parallel = code.address(PARALLEL)

    def reset(self) -> None:
        """Forget all workers: for the child of a fork, which has none."""
        self._reset(usable_cores_once(), SPIN, BRIEF_SPIN)

    @property
    def workers(self) -> int:
        """How many workers have been started; they are never stopped."""
        return int(self._workers()) if self.parallel else 0


_pools: list[Pool] = []


def pool() -> Pool:
    """The pool, its code compiled at the first call. Its `parallel` is 0 where the system has no
    way to make one: all runs on the caller's thread then."""
    if not _pools:
        from treadle.runtime.native import compiling

        with compiling():
            if not _pools:
                _pools.append(Pool())
    return _pools[0]
