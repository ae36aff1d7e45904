"""What distinguishes one call from another, in words: for explanations and errors.

The guard of a specialization answers yes or no; this module walks a call again and tells what
differs: `x.shape: (32, 4) -> (16, 4)`, `self.training: True -> False`, and what to do about it.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.types import shape_text
from treadle.tracer.guards import GuardPlan, digest
from treadle.tracer.items import Item, is_jitted, is_plain
from treadle.tracer.traceback import as_door

NOT_THERE = "(not there)"
Facts = dict[str, dict[str, str]]  # by path: what it is called, and its value in words


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that changed."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old} -> {self.new}"

    @property
    def hint(self) -> str:
        """What the user can do about it."""
        if self.what.endswith(".shape"):
            return "keep shapes equal (pad or drop a last, smaller batch) to compile once"
        if self.what.startswith("content of "):
            return (
                "Python or NumPy code reads this array while it is traced; make it a tensor or an "
                "argument to have it read at each call"
            )
        if self.what.startswith(("len(", "keys of ")):
            return "let structures that the function reads keep their size"
        if self.what.endswith((".dtype", ".requires_grad", " is a view of")):
            return "pass tensors of one kind"
        if _is_number(self.old) and _is_number(self.new):
            return "keep a number that changes in a 0-d tensor, or pass it as a float argument"
        if self.old == NOT_THERE or self.new == NOT_THERE:
            return "let structures that the function reads keep their size"
        return "each combination of such values is compiled once"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text not in ("True", "False")


def describe(plan: GuardPlan) -> Facts:
    """All facts that the guard of `plan` checks."""
    facts: Facts = {}
    for item in plan.needed():
        if plan.checked(item):
            found = item_facts(item)
            if item.kind == "array" and plan.checks_content(item):
                found[f"content of {item.path}"] = _content(item.value)
            if found:
                facts.setdefault(item.path, {}).update(found)
    return facts


def item_facts(item: Item) -> dict[str, str]:
    """The facts of one item, by what they are called."""
    value, path = item.value, item.path
    if item.kind == "tensor":
        facts = {f"{path}.shape": shape_text(value.shape), f"{path}.dtype": value.dtype.name}
        if value.history.requires_grad:
            facts[f"{path}.requires_grad"] = "True"
        if value.history.variable:
            facts[f"{path} is an argument of treadle.grad"] = "True"
        return {**_type_of(item), **facts}
    if item.kind == "array":
        facts = {f"{path}.shape": shape_text(value.shape), f"{path}.dtype": str(value.dtype)}
        return {**_type_of(item), **facts}
    if item.kind in ("list", "tuple", "deque"):
        return {**_type_of(item), f"len({path})": str(len(value))}
    if item.kind == "dict":
        return {**_type_of(item), f"keys of {path}": _brief(_keys(value))}
    if item.kind == "attrs":
        return {f"attributes of {path}": _brief([*value])}
    if item.kind in ("scalar", "value", "data"):
        return {path: _brief(value)}
    if item.kind == "set":
        return {path: _brief(sorted(value, key=repr))}
    if item.kind == "alias":
        return {f"{path} is": item.of.path if item.of is not None else ""}
    if item.kind == "function":
        return {f"code of {path}": f"line {value.__code__.co_firstlineno} of {_named(value)}"}
    if item.kind == "absent":
        return {path: NOT_THERE}
    if item.kind == "same":
        return {path: _identity(value)}
    if item.kind == "names" and item.owner is not None:
        bases = ", ".join(base.__qualname__ for base in item.owner.__mro__[1:])
        return {f"attributes of {path}": f"{len(value)} of them", f"bases of {path}": bases}
    return {} if item.kind in ("names", "open") else _type_of(item)


def _content(array: np.ndarray[Any, Any]) -> str:
    """A few values, and a mark that differs where others differ."""
    if array.dtype.hasobject:
        return "objects"
    with np.printoptions(threshold=4, edgeitems=2, precision=4):
        shown = " ".join(str(np.asarray(array)).split())
    return f"{shown} #{digest(array).hex()[:6]}"


def _keys(value: Any) -> list[Any]:
    """The keys of a dictionary; objects among them by their class."""
    return [k if is_plain(k) else type(k) for k in value]


def _type_of(item: Item) -> dict[str, str]:
    return {f"type({item.path})": type(item.value).__qualname__}


def _named(value: Any) -> str:
    return str(getattr(value, "__qualname__", repr(value)))


def _identity(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return str(name) if name else f"{type(value).__qualname__} at {id(value):#x}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:45]}...{text[-12:]}"


def differences(old: Facts, new: Facts) -> list[Difference]:
    """What differs, in the order of the old call."""
    found = []
    for path, were in old.items():
        now = new.get(path)
        if now is not None:
            found += _different(were, now)
    gone = [Difference(path, "there", NOT_THERE) for path in old if path not in new]
    come = [Difference(path, NOT_THERE, _summary(now)) for path, now in new.items()
            if path not in old]  # fmt: skip
    return found or [*gone, *come]


def _different(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    """The facts of one path: where the kind of thing differs, only that."""
    if _kind(old) != _kind(new):
        (what, _), *_ = old.items()
        return [
            Difference(what.removeprefix("type(").removesuffix(")"), _summary(old), _summary(new))
        ]
    labels = [*old, *(w for w in new if w not in old)]
    pairs = [(w, old.get(w, "False"), new.get(w, "False")) for w in labels]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _kind(facts: Mapping[str, str]) -> str:
    what, value = next(iter(facts.items()))
    return value if what.startswith("type(") else what


def _summary(facts: Mapping[str, str]) -> str:
    return next(iter(facts.values()))


def reason(found: Sequence[Difference]) -> str:
    """The differences for a line of output, the first three of them."""
    shown = "; ".join(str(d) for d in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return shown + more


# --- binding arguments -----------------------------------------------------------------------


class Parameters:
    """The parameters of a Python function, and how a call fills them."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._made_from = _signature_parts(fn)
        try:
            self.signature = _signature(fn)
        except (TypeError, ValueError):
            anything = [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
            self.signature = inspect.Signature(anything)
        parameters = self.signature.parameters
        self.names = tuple(parameters)
        self._kinds = tuple(p.kind for p in parameters.values())
        simple = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._plain = len(self.names) if all(k in simple for k in self._kinds) else -1

    @as_door
    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """One value a parameter, defaults filled in. Raises TypeError as the call would."""
        if not kwargs and len(args) == self._plain:
            return args
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def refreshed(self) -> Parameters:
        """These, or those that the function has now: code and defaults may be replaced."""
        now = _signature_parts(self._fn)
        same = len(now) == len(self._made_from) and all(map(operator.is_, now, self._made_from))
        return self if same else Parameters(self._fn)

    @property
    def positional(self) -> int:
        """How many positional arguments are the parameters as they are; -1 where some are
        variadic or by keyword only."""
        return self._plain

    def unbind(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments that fill the parameters with `values`."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, kind, value in zip(self.names, self._kinds, values, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs


def _signature(fn: Any) -> inspect.Signature:
    """What `fn` itself takes. A decorator's wrapper shows the signature of the function that it
    wraps, but whether an argument is given by name may matter to the wrapper."""
    if is_jitted(fn):
        fn = fn.__wrapped__
    if isinstance(fn, FunctionType) and "__signature__" in vars(fn):
        fn = _bare(fn)
    return inspect.signature(fn, follow_wrapped=False)


def _bare(fn: FunctionType) -> FunctionType:
    """`fn` without attributes."""
    bare = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    bare.__kwdefaults__ = fn.__kwdefaults__
    return bare


def _signature_parts(fn: Any) -> list[Any]:
    """The objects that the signature of `fn` was made from."""
    if is_jitted(fn):
        fn = fn.__wrapped__
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    if not isinstance(fn, FunctionType):
        fn = type(fn).__call__
    if not isinstance(fn, FunctionType):
        return []
    by_name = fn.__kwdefaults__ or {}
    return [fn.__code__, fn.__defaults__, *by_name, *by_name.values()]


def is_float_argument(value: object) -> bool:
    """Whether an argument is a run-time number."""
    return type(value) is float or isinstance(value, np.floating)
