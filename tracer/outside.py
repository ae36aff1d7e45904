"""What a traced function reads from outside of the program: clocks, files, entropy, generators.

Such a read gives one value, when the function is traced, and every later call would see that value
again. Fresh entropy and an advanced generator are errors, a clock or a file is a warning, for the
line that reads it. Entropy is seen where it is drawn (`treadle.tracer.entropy`), all else by a
profiler that runs during the trace. It makes a trace two or three times slower, and runs only where
code of the user's that the function reaches spells one of the names below.
"""

from __future__ import annotations

import builtins
import datetime
import io
import os
import sys
import time
import warnings
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any, Final, Literal

from treadle.ir.errors import TraceError
from treadle.ir.graph import Loc
from treadle.tracer import entropy
from treadle.tracer.location import is_inside
from treadle.tracer.names import is_user_module

Kind = Literal["clock", "file", "entropy"]

_CLOCKS: Final = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
    "process_time", "process_time_ns", "thread_time", "localtime", "gmtime", "ctime", "strftime",
)  # fmt: skip
_DATES: Final = frozenset({"now", "today", "utcnow"})
_FILES: Final = ("stat", "lstat", "listdir", "scandir", "getcwd", "open", "read", "access")
_READS: Final = frozenset({"read", "readline", "readlines", "readinto", "read1"})
_CALLS: Final[dict[Any, Kind]] = {
    **{getattr(time, name): "clock" for name in _CLOCKS},
    **{getattr(os, name): "file" for name in _FILES if hasattr(os, name)},
    builtins.open: "file",
    os.urandom: "entropy",
    builtins.input: "entropy",
}
_NAMES: Final = frozenset(
    {*_CLOCKS, *_DATES, *_FILES, *_READS, "read_text", "read_bytes", "exists", "is_file", "is_dir"}
    | {"glob", "iterdir", "getsize", "getmtime", "load", "loadtxt", "fromfile", "input", "urandom"}
    | {"uuid1", "abspath", "realpath", "resolve", "absolute", "cwd"}
)
_TRANSPARENT: Final = frozenset({"numpy"})  # libraries between the user's line and the read
_HIDDEN: Final = frozenset({"importlib", "zipimport", "linecache", "warnings", "traceback"})


class Outside:
    """Watches one trace; a context manager around it. `words` are those of the user's code."""

    def __init__(self, words: Collection[str], generators: Sequence[tuple[str, Any]]) -> None:
        frames = {id(g.gi_frame): path for path, g in generators if g.gi_frame is not None}
        self._generators = frames
        self._needed = bool(frames) or not _NAMES.isdisjoint(words)
        self._drawn = not entropy.NAMES.isdisjoint(words)
        self.advanced: str | None = None  # the path of a generator
        self.reads: dict[tuple[Kind, str, Loc], None] = {}

    def __enter__(self) -> Outside:
        self._needed = self._needed and sys.getprofile() is None  # someone else's profiler stays
        if self._needed:
            sys.setprofile(self._event)
        self._drawn = self._drawn and entropy.watch(self._draw)
        return self

    def __exit__(self, *_: object) -> None:
        if self._needed:
            sys.setprofile(None)
        if self._drawn:
            entropy.unwatch()

    def _draw(self, frame: FrameType) -> None:
        at = _user_line(frame)
        if at is not None:
            self.reads["entropy", "os.urandom", at] = None

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self.advanced = self.advanced or self._generators.get(id(frame))
        elif event == "c_call":
            kind = _kind(arg)
            at = _user_line(frame) if kind is not None else None
            if kind is not None and at is not None:
                self.reads[kind, _called(arg), at] = None

    def check(self, name: str) -> None:
        """Raises TraceError for entropy and generators; warns of clocks and files."""
        if self.advanced is not None:
            raise TraceError(
                f"{name} advances the generator {self.advanced} while it is traced, which a "
                "compiled call could not repeat; call next() outside and pass what it gives as an "
                "argument"
            )
        for kind, what, at in self.reads:
            if kind == "entropy":
                raise TraceError(
                    f"{name} calls {what}() (at {at}) while it is traced; what it gives would be "
                    "the same at every call; call it outside and pass it as an argument"
                )
        for kind, what, at in self.reads:
            source = "the clock" if kind == "clock" else "from a file"
            text = (
                f"{name} reads {source}, {what}(), while it is traced: later calls see the same "
                "value; read it outside and pass it as an argument"
            )
            warnings.warn_explicit(text, RuntimeWarning, at.file, at.line)


def _kind(called: Any) -> Kind | None:
    try:
        found = _CALLS.get(called)
    except TypeError:  # a method of something that has no hash
        return None
    if found is not None:
        return found
    owner = getattr(called, "__self__", None)
    name = getattr(called, "__name__", "")
    if name in _DATES and isinstance(owner, type) and issubclass(owner, datetime.date):
        return "clock"
    return "file" if name in _READS and isinstance(owner, io.IOBase) else None


def _called(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    if isinstance(owner, type):
        return f"{owner.__name__}.{called.__name__}"
    module = getattr(called, "__module__", None)
    plain = module in (None, "builtins", "_io", "io")
    return str(called.__name__ if plain else f"{module}.{called.__name__}")


def _user_line(frame: FrameType | None) -> Loc | None:
    """The line of the user behind frames of the standard library; None where Treadle itself,
    Python's import or another library (a hook of the garbage collector) asks."""
    while frame is not None:
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top in _HIDDEN or top == "treadle":
            return None
        if not (top in _TRANSPARENT or (top in sys.stdlib_module_names and top != "__main__")):
            filename = frame.f_code.co_filename
            followed = is_user_module(frame.f_globals.get("__name__") or "__main__")
            return Loc(filename, frame.f_lineno) if followed and not is_inside(filename) else None
        frame = frame.f_back
    return None
