"""Tracebacks that show the user's frames only.

An error travels through many frames of the library before it reaches the user's code. The doors,
the functions that users call, take those frames out of the traceback as it passes; the user's own
frames, those in between included (the body of a jitted function), stay, and so do the causes.

An error that is not Treadle's own and was raised inside of Treadle is a bug of the library: its
traceback is left whole. `set_traceback("full")`, or TREADLE_TRACEBACK=full, leaves all whole.
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numpy as np

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.tracer.errors import located
from treadle.tracer.location import is_inside

P = ParamSpec("P")
R = TypeVar("R")

Mode = Literal["user", "full"]


class _Switch:
    full = False


_switch = _Switch()
_doors: set[CodeType] = set()
_LIBRARIES = (f"{sysconfig.get_path('stdlib')}/", f"{Path(np.__file__).parent}/", "<")


def set_traceback(mode: Mode) -> None:
    """Whether tracebacks leave out Treadle's own frames ("user", as it is by default) or show all
    ("full"). Raises ArgumentError for another word."""
    if mode not in ("user", "full"):
        raise ArgumentError(f'set_traceback takes "user" or "full", found {mode!r}')
    _switch.full = mode == "full"


def door(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, which users call: its errors end with the user's line, and leave without Treadle's
    frames."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return fn(*args, **kwargs)
        except BaseException as error:
            leaving(error)
            raise  # a bare raise adds no entry to the traceback

    _doors.add(cast(FunctionType, call).__code__)
    return call


def as_door(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` itself, marked: an ordinary error raised by what it calls is the user's (a call with
    the wrong arguments), not a bug of the library."""
    _doors.add(cast(FunctionType, fn).__code__)
    return fn


def open_doors(cls: type, besides: Collection[str] = ()) -> None:
    """Make the methods that `cls` defines doors, and what sets its properties; not private ones,
    nor those `besides`, which the library itself calls all the time and which cannot fail."""
    for name, value in list(vars(cls).items()):
        if name in besides or (name.startswith("_") and not name.startswith("__")):
            continue
        if isinstance(value, FunctionType) and value.__code__ not in _doors:
            setattr(cls, name, door(value))
        elif isinstance(value, property) and value.fset is not None:
            setattr(cls, name, value.setter(door(value.fset)))


def open_constructor(cls: type) -> None:
    """Make the constructor that `cls`, a class of the library, defines a door. A subclass of the
    user's keeps its own frames."""
    init = vars(cls).get("__init__")
    if isinstance(init, FunctionType) and is_inside(init.__code__.co_filename):
        setattr(cls, "__init__", door(init))  # noqa: B010  mypy forbids the assignment


def leaving(error: BaseException) -> None:
    """An error is about to leave Treadle: give it the user's line, take out Treadle's frames."""
    if isinstance(error, TreadleError):
        located(error)
    if _switch.full:
        return
    for each in _chain(error):
        each.__traceback__ = _trimmed(each)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes, and what they were raised in the course of."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        waiting += [e for e in (here.__cause__, here.__context__) if e is not None]


def _trimmed(error: BaseException) -> TracebackType | None:
    entries = list(_entries(error.__traceback__))
    if isinstance(error, Exception) and not isinstance(error, TreadleError):
        last = next((e for e in reversed(entries) if not _is_library(_file(e))), None)
        if last is not None and is_inside(_file(last)) and last.tb_frame.f_code not in _doors:
            return error.__traceback__
    trimmed: TracebackType | None = None
    for entry in reversed(list(_of_the_user(entries))):
        trimmed = TracebackType(trimmed, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return trimmed


def _of_the_user(entries: Sequence[TracebackType]) -> Iterator[TracebackType]:
    """Without Treadle's frames, and those of libraries that Treadle calls."""
    inside = False
    for entry in entries:
        inside = is_inside(_file(entry)) or (inside and _is_library(_file(entry)))
        if not inside:
            yield entry


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _file(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename


def _is_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES) and not filename.startswith(("<stdin", "<ipython"))


def opened(names: dict[str, Any]) -> dict[str, Any]:
    """The plain functions in a table of public names, as doors."""
    return {
        name: door(value)
        for name, value in names.items()
        if isinstance(value, FunctionType) and value.__code__ not in _doors
    }
