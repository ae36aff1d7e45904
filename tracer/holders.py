"""Who holds an object, in words: for the error about a traced value that was kept somewhere.

The garbage collector knows which objects refer to which. This is a search over all of them, made
only when an error is about to be raised.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Iterator
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any

from treadle.tracer.location import is_inside

_MOST = 3
_SEQUENCES = (list, tuple, deque)


def held_by(thing: object) -> str:
    """`item 0 of the list `cache` of demo`, ...; "" where nobody but running code holds it."""
    found = list(dict.fromkeys(_holders(thing, depth=3)))
    return ", ".join(found[:_MOST])


def _holders(thing: object, depth: int) -> Iterator[str]:
    for holder in gc.get_referrers(thing):
        yield from _described(holder, thing, depth)


def _described(holder: Any, thing: object, depth: int) -> Iterator[str]:
    if isinstance(holder, FrameType):
        yield from _variable(holder, thing)
    elif isinstance(holder, dict):
        yield from _entry(holder, thing, depth)
    elif isinstance(holder, _SEQUENCES):
        places = [n for n, item in enumerate(holder) if item is thing]
        if places:
            yield from _inside(holder, f"item {places[0]} of a {type(holder).__name__}", depth)
    elif isinstance(holder, (set, frozenset)):
        yield from _inside(holder, f"an element of a {type(holder).__name__}", depth)
    elif isinstance(holder, CellType):
        yield from _closures(holder)
    elif not isinstance(holder, (ModuleType, FunctionType)):
        name = _attribute(holder, thing)
        if name is not None and not _is_own(holder):
            yield f"the attribute {name!r} of {_kind(holder)}"


def _variable(frame: FrameType, thing: object) -> Iterator[str]:
    code = frame.f_code
    if is_inside(code.co_filename):
        return
    for name, value in frame.f_locals.items():
        if value is thing:
            where = f" in {code.co_name}()" if code.co_name != "<module>" else ""
            yield f"the variable {name!r}{where}"


def _entry(table: dict[Any, Any], thing: object, depth: int) -> Iterator[str]:
    key = next((k for k, v in table.items() if v is thing), None)
    if key is None:
        return
    for owner in (*gc.get_referrers(table), *_thread_locals()):
        if isinstance(owner, ModuleType) and vars(owner) is table:
            yield f"the global {key!r} of {owner.__name__}"
            return
        if getattr(owner, "__dict__", None) is table and not isinstance(owner, FunctionType):
            if not _is_own(owner):
                yield f"the attribute {key!r} of {_kind(owner)}"
            return
    yield from _inside(table, f"item {key!r} of a dict", depth)


def _thread_locals() -> Iterator[object]:
    """What keeps a dict for each thread that no referrer tells of."""
    # By type: isinstance would ask the object, and some answer with a warning.
    return (thing for thing in gc.get_objects() if issubclass(type(thing), threading.local))


def _kind(holder: object) -> str:
    name = type(holder).__qualname__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _inside(container: object, words: str, depth: int) -> Iterator[str]:
    """With what holds the container. One that nothing of the user's holds is the library's."""
    if depth > 1:
        for outer in dict.fromkeys(_holders(container, depth - 1)):
            yield f"{words}, which is {outer}"


def _closures(cell: CellType) -> Iterator[str]:
    for owner in gc.get_referrers(cell):
        for fn in gc.get_referrers(owner) if isinstance(owner, tuple) else ():
            if isinstance(fn, FunctionType) and not is_inside(fn.__code__.co_filename):
                name = fn.__code__.co_freevars[list(fn.__closure__ or ()).index(cell)]
                yield f"the variable {name!r} that {fn.__qualname__}() closes over"


def _attribute(holder: Any, thing: object) -> str | None:
    names = [*getattr(holder, "__dict__", ()), *_slots(type(holder))]
    return next((n for n in names if getattr(holder, n, None) is thing), None)


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _is_own(holder: object) -> bool:
    """An object of the library's own machinery."""
    return (type(holder).__module__ or "").startswith(("treadle.tracer", "treadle.ir"))
