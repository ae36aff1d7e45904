"""Where objects of C code keep their attributes, and which attributes are plain fields.

What the native call path reads without running Python code: a field has one place in all objects of
its class, which is found by looking for known values in the memory of examples.
"""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Sequence
from typing import Any, Final

from treadle.runtime.call_layout import NotFound, slot_offset, words

# Objects of C code and their attributes that are plain fields.
FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    types.FunctionType: ("__code__", "__globals__", "__closure__"),
    types.MethodType: ("__self__", "__func__"),
    types.CellType: ("cell_contents",),
    property: ("fget",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: (),
}
_DICT_FIELDS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)


class NotNative(Exception):
    """Something that only Python can check."""


def field_offset(owner: Any, name: str, value: Any) -> int:
    """Where an object of C code keeps one of its attributes."""
    if type(owner) is types.CellType:
        offset = contents_offset()
    elif type(owner) is types.FunctionType:
        offset = _function_offset(name)
    elif name in FIELDS.get(type(owner), ()):
        return slot_offset(getattr(type(owner), name), owner, value)
    else:
        raise NotNative
    if words(owner, type(owner).__basicsize__)[offset // 8] != id(value):
        raise NotFound(name)
    return offset


@functools.cache
def contents_offset() -> int:
    return _one_place([types.CellType(object()) for _ in range(2)], lambda c: c.cell_contents)


@functools.cache
def _function_offset(name: str) -> int:
    def made(n: int) -> Any:
        scope: dict[str, Any] = {}
        exec(f"def outer(x):\n    def f(): return x, {n}\n    return f\n", scope)
        return scope["outer"](n)

    return _one_place([made(1), made(2)], lambda f: getattr(f, name))


def _one_place(owners: Sequence[Any], get: Any) -> int:
    """The only place at which each owner holds what `get` gives."""
    found: set[int] | None = None
    for owner in owners:
        held = id(get(owner))
        memory = words(owner, type(owner).__basicsize__)
        here = {8 * n for n, w in enumerate(memory) if n > 1 and w == held}
        found = here if found is None else found & here
    if found is None or len(found) != 1:
        raise NotFound("a field")
    return found.pop()


def found_in_class(cls: type[Any], name: str) -> Any:
    """What the class finds under `name`, the first in the order of its bases; None: nothing."""
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def has_plain_dict(owner: Any, own: Any) -> bool:
    """Whether `own` is the dictionary that the object itself keeps its attributes in."""
    cls = type(owner)
    if not any(type(vars(base).get("__dict__")) in _DICT_FIELDS for base in cls.__mro__):
        return False
    read = ctypes.pythonapi.PyObject_GenericGetDict
    read.argtypes, read.restype = (ctypes.py_object, ctypes.c_void_p), ctypes.py_object
    return read(owner, None) is own
