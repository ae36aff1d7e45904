"""What the fields of an op's attributes may hold, read from their annotations.

Type rules, references and lowerings take it for granted that an axis is an int and a shape a tuple
of sizes. Programs that come as text are held to it here, so that a wrong attribute is a message
that names it, never an exception from inside a rule.
"""

from __future__ import annotations

import types
import typing
from dataclasses import fields
from functools import cache
from typing import Any

from treadle.ir.op import ArrayData, Attrs
from treadle.ir.types import Dim, DType, Shape, Size

_NAMES = {"ArrayData": ArrayData, "Dim": Dim, "DType": DType, "Shape": Shape, "Size": Size}


def wrong_attributes(attrs: Attrs) -> list[str]:
    """A message for each field of `attrs` that does not hold what its annotation says."""
    kind: Any = type(attrs)
    expected = _annotations(kind)
    wrong = []
    for field in fields(attrs):
        value = getattr(attrs, field.name)
        if field.name in expected and not _fits(value, expected[field.name]):
            wanted = _text(expected[field.name])
            wrong.append(f"attribute {field.name} must be {wanted}, found {value!r}")
    return wrong


@cache
def _annotations(attrs: type[Any]) -> dict[str, Any]:
    """The field types of a class of attributes; none where its author's names cannot be looked up
    (a class made inside a function), so that such a class goes unchecked."""
    try:
        return typing.get_type_hints(attrs, localns=_NAMES)
    except NameError:
        return {}


def _fits(value: object, wanted: Any) -> bool:
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, typing.get_args(wanted))
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, wanted) if isinstance(wanted, type) else True


def _items_fit(items: tuple[object, ...], wanted: tuple[Any, ...]) -> bool:
    if len(wanted) == 2 and wanted[1] is Ellipsis:
        return all(_fits(item, wanted[0]) for item in items)
    return len(items) == len(wanted) and all(map(_fits, items, wanted))


_WORDS = {int: "int", float: "float", Dim: "symbolic size"}


def _text(wanted: Any) -> str:
    """A type as messages name it: `a tuple of int or symbolic size`."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_text(one) for one in typing.get_args(wanted))
    if origin is tuple:
        return f"a tuple of {_text(typing.get_args(wanted)[0])}"
    return _WORDS.get(wanted) or str(getattr(wanted, "__name__", wanted))
