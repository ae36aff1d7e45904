"""A line on stderr where a compilation takes long, so that nobody takes it for a program that
hangs; quick ones say nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from treadle.ir.graph import Function
from treadle.runtime import knobs

PATIENCE: Final = 2.0
"""Seconds after which a compilation is told."""


@contextmanager
def progress(fn: Function) -> Iterator[None]:
    """Tell on stderr that `fn` is being compiled once that has taken `PATIENCE`, and its end."""
    if not knobs.shows_progress():
        yield
        return
    name = _name(fn)
    told = threading.Event()

    def tell() -> None:
        told.set()
        print(f"treadle: compiling {name}, {len(fn.instrs)} ops ...", file=sys.stderr, flush=True)

    started = perf_counter()
    timer = threading.Timer(PATIENCE, tell)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread to be had: nothing is told
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if told.is_set():
            seconds = perf_counter() - started
            print(f"treadle: compiled {name} in {seconds:.1f} s", file=sys.stderr, flush=True)


def _name(fn: Function) -> str:
    """Its name, and the user's line where it begins."""
    loc = next((i.loc for i in fn.instrs if i.loc is not None), None)
    return fn.name if loc is None else f"{fn.name} ({loc.file}:{loc.line})"
