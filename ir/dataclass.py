"""`dataclass`: the standard library's, for a tenth of its price.

The standard decorator writes and compiles six methods for each class, 0.3 to 0.5 ms each time that
Python starts; Treadle has some 160 of these classes, a third of the time to a first result. Here
methods are shared between all classes and read the fields from a tuple of getters. Only `__init__`
is written and compiled, and that when the first instance is made.

Instances and classes can be told from the standard ones by nobody: `fields`, `replace`, `asdict`,
`match`, copies and pickles work, and type checkers are shown the standard decorator. Supported are
the parameters below, defaults and `field(...)`, ClassVar and inheritance. A class that defines one
of the methods itself keeps its own. Not for `treadle.nn`, whose classes are guarded as a user's
are: there `__init__` must stay the same object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from inspect import get_annotations
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        cls: type | None = None,
        /,
        *,
        frozen: bool = False,
        slots: bool = False,
        eq: bool = True,
        kw_only: bool = False,
    ) -> Any:
        """See `dataclasses.dataclass`. Raises TypeError for a field without a default that follows
        one with a default."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq, kw_only)
        return _made(cls, frozen, slots, eq, kw_only)


_FIELDS: Final = "__dataclass_fields__"
_set: Final = object.__setattr__

Field = dataclasses.Field
Fields = dict[str, "Field[Any]"]


# What the standard library's `fields` and `replace` look for in an ordinary field.
_ORDINARY: Final = dataclasses._FIELD  # type: ignore[attr-defined]


def _made(cls: type, frozen: bool, slots: bool, eq: bool, kw_only: bool) -> type:
    own = _own_fields(cls, kw_only)
    inherited: Fields = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= getattr(base, _FIELDS, {})
    found = inherited | own
    _check_defaults(cls, found)
    added: dict[str, Any] = {"__dataclass_fields__": found, "__repr__": _repr}
    added["__match_args__"] = tuple(n for n, f in found.items() if f.init and not f.kw_only)
    if eq:
        added["_compared"] = _getter([n for n, f in found.items() if f.compare])
        added["__eq__"] = _eq
        added["__hash__"] = _hash if frozen else None
    if frozen:
        added["__setattr__"], added["__delattr__"] = _no_setattr, _no_delattr
    if slots and frozen:  # without these, copying would assign to what is frozen
        added["__getstate__"], added["__setstate__"] = _getstate, _setstate
    missing = {n: x for n, x in added.items() if n not in cls.__dict__ or _is_implied(cls, n)}
    if slots:
        cls = _with_slots(cls, own, inherited, missing)
    else:
        for name, x in missing.items():
            setattr(cls, name, x)
    if "__init__" not in cls.__dict__:
        cls.__init__ = _written_at_first_use(cls, found, frozen, slots)  # type: ignore[misc]
    return cls


def _own_fields(cls: type, kw_only: bool) -> Fields:
    """Those that the class body annotates; in its namespace only their defaults are left."""
    found: Fields = {}
    for name, annotation in get_annotations(cls).items():
        if "ClassVar" in str(annotation):
            continue
        default = cls.__dict__.get(name, dataclasses.MISSING)
        f = default if isinstance(default, Field) else dataclasses.field(default=default)
        f.name, f.type = name, annotation
        f._field_type = _ORDINARY  # type: ignore[union-attr]
        f.kw_only = kw_only if f.kw_only is dataclasses.MISSING else f.kw_only
        if f.default is not dataclasses.MISSING:
            setattr(cls, name, f.default)
        elif isinstance(default, Field):
            delattr(cls, name)
        found[name] = f
    return found


def _check_defaults(cls: type, found: Fields) -> None:
    before = ""
    for name, f in found.items():
        if not f.init or f.kw_only:
            continue
        if not _is_required(f):
            before = name
        elif before:
            raise TypeError(f"{cls.__name__}.{name} has no default and follows {before}")


def _is_required(f: Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _is_implied(cls: type, name: str) -> bool:
    """Whether Python itself has put `name` there: `__hash__ = None` comes with an `__eq__`."""
    return name == "__hash__" and cls.__dict__[name] is None and "__eq__" in cls.__dict__


def _with_slots(cls: type, own: Fields, inherited: Fields, added: dict[str, Any]) -> type:
    """The class made anew: slots cannot be added to one that is there."""
    left_out = {*own, "__dict__", "__weakref__"}
    namespace = {n: x for n, x in cls.__dict__.items() if n not in left_out}
    namespace.update(added)
    namespace["__slots__"] = tuple(n for n in own if n not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


# --- methods ---------------------------------------------------------------------------------


def _getter(names: list[str]) -> Callable[[Any], Any]:
    """What gives the values of `names`, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return staticmethod(lambda _: ())
    (name,) = names
    return staticmethod(lambda x: (getattr(x, name),))


def _repr(self: Any) -> str:
    shown = [f"{n}={getattr(self, n)!r}" for n, f in getattr(self, _FIELDS).items() if f.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return self._compared(self) == self._compared(other)


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _no_setattr(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        _set(self, name, value)


# --- __init__ --------------------------------------------------------------------------------


def _written_at_first_use(
    cls: type, found: Fields, frozen: bool, slots: bool
) -> Callable[..., None]:
    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        init = cls.__init__ = _written(cls, found, frozen, slots)  # type: ignore[misc]
        init(self, *args, **kwargs)

    return __init__


def _written(cls: type, found: Fields, frozen: bool, slots: bool) -> Callable[..., None]:
    """The `__init__`: one assignment a field, as fast as the kind of class allows."""
    scope: dict[str, Any] = {"_set": _set, "_unset": dataclasses.MISSING}
    parameters: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for name, f in found.items():
        value = name
        if f.init:
            text = name
            if f.default is not dataclasses.MISSING:
                scope[f"_default_{name}"] = f.default
                text = f"{name}=_default_{name}"
            elif f.default_factory is not dataclasses.MISSING:
                text = f"{name}=_unset"
            (by_name if f.kw_only else parameters).append(text)
        elif f.default is not dataclasses.MISSING:
            scope[f"_default_{name}"] = f.default
            value = f"_default_{name}"
        if f.default_factory is not dataclasses.MISSING:
            scope[f"_factory_{name}"] = f.default_factory
            made = f"_factory_{name}()"
            value = f"{made} if {name} is _unset else {name}" if f.init else made
        elif not f.init and f.default is dataclasses.MISSING:
            continue
        if not frozen:
            body.append(f"self.{name} = {value}")
        elif slots:  # the slot's own setter costs two thirds of object.__setattr__
            scope[f"_set_{name}"] = getattr(cls, name).__set__
            body.append(f"_set_{name}(self, {value})")
        else:
            body.append(f"_set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    listed = ", ".join(["self", *parameters, *(["*", *by_name] if by_name else [])])
    text = "\n    ".join([f"def __init__({listed}):", *(body or ["pass"])])
    exec(text, scope)  # of names of fields, nothing else
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return init
