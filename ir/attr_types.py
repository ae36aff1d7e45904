"""What the fields of an op's attributes may hold, read from their annotations.

Type rules, references and lowerings take it for granted that an axis is an int and a shape a tuple
of sizes. Programs that come as text are held to it here, so that a wrong attribute is a message
that names it, never an exception from inside a rule.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any

from treadle.ir.op import ArrayData, Attrs
from treadle.ir.types import Dim, DType, Shape, Size

_NAMES = {"ArrayData": ArrayData, "Dim": Dim, "DType": DType, "Shape": Shape, "Size": Size}


def wrong_attributes(attrs: Attrs) -> list[str]:
    """A message for each field of `attrs` that does not hold what its annotation says."""
    kind: Any = type(attrs)
    wrong = []
    for name, wanted, fits in _checks(kind):
        value = getattr(attrs, name)
        if not fits(value):
            wrong.append(f"attribute {name} must be {_text(wanted)}, found {value!r}")
    return wrong


Check = Callable[[object], bool]


@cache
def _checks(attrs: type[Any]) -> tuple[tuple[str, Any, Check], ...]:
    """Name, annotation and check of each field of a class of attributes; none where its author's
    names cannot be looked up (a class made inside a function): such a class goes unchecked."""
    try:
        expected = typing.get_type_hints(attrs, localns=_NAMES)
    except NameError:
        return ()
    named = ((f.name, expected.get(f.name, object)) for f in fields(attrs))
    return tuple((name, wanted, _check(wanted)) for name, wanted in named)


def _check(wanted: Any) -> Check:
    """Whether a value is of the annotated type; an annotation of another form takes anything."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        one_of = tuple(map(_check, typing.get_args(wanted)))
        return lambda value: any(fits(value) for fits in one_of)
    if origin is tuple:
        return _check_items(typing.get_args(wanted))
    if wanted is int:
        return lambda value: type(value) is int or _is_number(value, int)
    if wanted is float:
        return lambda value: _is_number(value, (int, float))
    if isinstance(wanted, type):
        return lambda value: isinstance(value, wanted)
    return lambda value: True


def _check_items(wanted: tuple[Any, ...]) -> Check:
    if len(wanted) == 2 and wanted[1] is Ellipsis:
        every = _check(wanted[0])
        return lambda value: isinstance(value, tuple) and all(map(every, value))
    each = tuple(map(_check, wanted))
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(each)
        and all(fits(item) for fits, item in zip(each, value, strict=True))
    )


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


_WORDS = {int: "int", float: "float", Dim: "symbolic size"}


def _text(wanted: Any) -> str:
    """A type as messages name it: `a tuple of int or symbolic size`."""
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_text(one) for one in typing.get_args(wanted))
    if origin is tuple:
        return f"a tuple of {_text(typing.get_args(wanted)[0])}"
    return _WORDS.get(wanted) or str(getattr(wanted, "__name__", wanted))
