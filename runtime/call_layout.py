"""Where CPython and NumPy keep things inside of their objects, found by looking at objects here.

The native call path reads a few fields of objects directly. Nothing is assumed of their places: a
field is searched for in objects whose field is known, and counts only where every probe finds it at
one and the same place. `layout()` is None where anything is not found, on other implementations of
Python, and on free-threaded builds, where borrowed references are not safe: calls then take the
path through Python.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from treadle.codegen.call_table import Layout, ObjectLayout, TensorSlots
from treadle.tracer.cell import Cell
from treadle.tracer.history import History
from treadle.tracer.tensor import Tensor

_WORD: Final = 8
_HEAD: Final = 8  # the reference count is never what is searched for


class NotFound(Exception):
    """A field is not where it could be read from."""


@cache
def objects() -> ObjectLayout | None:
    """Offsets in CPython's and NumPy's own objects; None where they are not to be had."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != _WORD:
        return None
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return None
    try:
        return _objects()
    except NotFound:
        return None


def words(x: object, size: int) -> tuple[int, ...]:
    """The memory of an object, as words."""
    return struct.unpack(f"{size // _WORD}q", ctypes.string_at(id(x), size // _WORD * _WORD))


def _only(found: set[int], what: str) -> int:
    if len(found) != 1:
        raise NotFound(what)
    return found.pop()


def _place(what: str, probes: Sequence[tuple[object, int, int]]) -> int:
    """The byte offset at which each probe (object, its size, a word that it holds) agrees."""
    places: set[int] | None = None
    for x, size, word in probes:
        here = {_WORD * n for n, w in enumerate(words(x, size)) if w == word and _WORD * n >= _HEAD}
        places = here if places is None else places & here
    return _only(places or set(), what)


def _pointers(what: str, size: int, *pairs: tuple[object, object]) -> int:
    return _place(what, [(x, size, id(held)) for x, held in pairs])


def _objects() -> ObjectLayout:
    one, other = object(), object()
    tuples = (one, other), (other, one, one)
    lists: tuple[list[object], ...] = ([one, other], [other, one, one])
    arrays = np.empty((3, 5), np.float32), np.empty((7, 2, 4), np.int64)[:, 1]
    size = np.ndarray.__basicsize__
    floats = 1.2345678, -9.8765e-7
    base = tuple.__basicsize__
    return ObjectLayout(
        type=_pointers("type", 16, (one, object), (2.5, float), ("", str)),
        size=_only(
            {_place("size", [(t, base, len(t)) for t in tuples]),
             _place("size", [(x, base, len(x)) for x in lists])}, "size",
        ),
        tuple_items=_pointers("items", base + 8, *((t, t[0]) for t in tuples)),
        list_items=_list_items(lists, (one, other)),
        float_value=_place(
            "float", [(x, float.__basicsize__, struct.unpack("q", struct.pack("d", x))[0])
                      for x in floats],
        ),
        array_data=_place("data", [(a, size, a.ctypes.data) for a in arrays]),
        array_rank=_rank_place(arrays, size),
        array_shape=_shape_place(arrays, size),
        array_dtype=_pointers("dtype", size, *((a, a.dtype) for a in arrays)),
        array_flags=_flags_place(arrays, size),
        dict_version=_dict_version(),
    )  # fmt: skip


def _list_items(lists: Sequence[list[object]], first: Sequence[object]) -> int:
    """The word that points to an array whose first word is the first element."""
    found: set[int] | None = None
    for x, element in zip(lists, first, strict=True):
        here = set()
        for n, word in enumerate(words(x, list.__basicsize__)):
            # A pointer into the heap: near the list itself, and not a small number.
            if n > 1 and word > 1 << 16 and _readable(word) == id(element):
                here.add(_WORD * n)
        found = here if found is None else found & here
    return _only(found or set(), "list items")


def _readable(address: int) -> int:
    """The word at an address that is known to be a valid pointer."""
    return int(ctypes.c_int64.from_address(address).value)


def _half_words(x: object, size: int) -> tuple[int, ...]:
    return struct.unpack(f"{size // 4}i", ctypes.string_at(id(x), size // 4 * 4))


def _rank_place(arrays: Sequence[Any], size: int) -> int:
    after = [_place("data", [(a, size, a.ctypes.data) for a in arrays]) + _WORD]
    offset = after[0]
    if any(_half_words(a, size)[offset // 4] != a.ndim for a in (*arrays, np.empty(()))):
        raise NotFound("rank")
    return offset


def _shape_place(arrays: Sequence[Any], size: int) -> int:
    """NumPy keeps shape and strides in one block, whose address follows the rank."""
    offset = _rank_place(arrays, size) + _WORD
    for a in arrays:
        address = words(a, size)[offset // _WORD]
        if not _points(address) or [_readable(address + 8 * n) for n in range(a.ndim)] != [
            *a.shape
        ]:
            raise NotFound("shape")
    return offset


def _points(address: int) -> bool:
    """Whether an address may be one of the heap."""
    return address > 1 << 16 and address % _WORD == 0


_FLAGS: Final = 0x1 | 0x100 | 0x400  # contiguous, aligned, writeable


def _flags_place(arrays: Sequence[Any], size: int) -> int:
    frozen = np.empty((3, 5), np.float32)
    frozen.flags.writeable = False
    probes = (*arrays, frozen, np.empty(6, np.int32), np.zeros(9, np.uint8)[1:9].view(np.int64))
    found = None
    for a in probes:
        flags = 0x1 * a.flags.c_contiguous | 0x100 * a.flags.aligned | 0x400 * a.flags.writeable
        here = {4 * n for n, w in enumerate(_half_words(a, size))
                if n >= 4 and w & _FLAGS == flags and 0 <= w < 0x4000}  # fmt: skip
        found = here if found is None else found & here
    return _only(found or set(), "flags")


def _dict_version() -> int:
    """The word that is another one after each change of a dictionary, and unique; -1 where there
    is none (from Python 3.13 on)."""
    if sys.version_info >= (3, 13):
        return -1
    size, one, other = dict.__basicsize__, {"a": 1}, {"a": 1}
    offset = 24
    seen = [words(d, size)[offset // _WORD] for d in (one, other)]
    changes: tuple[Callable[[dict[str, int]], object], ...] = (
        lambda d: d.update(a=2),
        lambda d: d.update(b=3),
        lambda d: d.pop("b"),
        lambda d: d.clear(),
    )
    for change in changes:
        change(one)
        seen.append(words(one, size)[offset // _WORD])
    if len(set(seen)) != len(seen):
        raise NotFound("dict version")
    return offset


# --- slots -----------------------------------------------------------------------------------


class _Member(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t),
    )  # fmt: skip


# Where a member descriptor keeps its definition: behind head, class, name and qualified name.
_DEFINITION: Final = 40


def slot_offset(descriptor: Any, owner: object, value: object) -> int:
    """The byte offset of a slot of `owner`, which holds `value`. Raises NotFound where the
    descriptor is of another kind or the object does not agree."""
    if type(descriptor) is not types.MemberDescriptorType:
        raise NotFound("a slot")
    address = _readable(id(descriptor) + _DEFINITION)
    offset = int(_Member.from_address(address).offset)
    if not 0 < offset < type(owner).__basicsize__ or _readable(id(owner) + offset) != id(value):
        raise NotFound(descriptor.__name__)
    return offset


def offset_of(owner: Any, name: str) -> int:
    """The byte offset of a slot that is filled."""
    descriptor = getattr(type(owner), name)
    return slot_offset(descriptor, owner, descriptor.__get__(owner))


@cache
def tensor_slots() -> TensorSlots:
    """The slots of a Tensor and its parts. Raises NotFound."""
    x = Tensor(Cell.of(np.zeros(3, np.float32)))
    cell, history = x.cell, x.history
    assert isinstance(history, History)
    of: Callable[[Any, str], int] = offset_of
    return TensorSlots(
        cell=of(x, "cell"), maps=of(x, "maps"), history=of(x, "history"), type=of(x, "type"),
        weak=of(x, "weak"), cell_buffer=of(cell, "buffer"), cell_home=of(cell, "home"),
        cell_version=of(cell, "version"), cell_written_at=of(cell, "written_at"),
        cell_export=of(cell, "_export"), requires_grad=of(history, "requires_grad"),
        leaf=of(history, "leaf"), depth=of(history, "depth"), variable=of(history, "variable"),
        open=of(history, "open"), grad=of(history, "grad"),
    )  # fmt: skip


def layout(dispatcher: Any, call: Any, switches: Any) -> Layout | None:
    """What the code of the call path must know; None where it cannot be had."""
    found = objects()
    if found is None:
        return None
    try:
        return Layout(
            found,
            tensor_slots(),
            calls=offset_of(dispatcher, "calls"),
            table=offset_of(call, "table"),
            disabled=offset_of(switches, "disabled"),
        )
    except NotFound:
        return None
