"""The reachable things that `treadle.tracer.paths` finds: items in a tree.

item        one reachable thing: its parent, the step that leads to it, its kind and value
argument    items of an argument's tree are inputs: floats are run-time values there
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from enum import Enum
from types import CodeType
from typing import Any, Final, Literal

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType, TensorType
from treadle.tracer.tensor import Tensor

MISSING: Final = object()

Kind = Literal[
    "tensor",  # state or input: type, requires_grad, weak and maps are guarded
    "array",  # the same for a NumPy array
    "input",  # a Python float of an argument: only that it is one
    "scalar",  # None, bool, int, float, str: guarded by type and value, floats bit for bit
    "value",  # another immutable value (enum, dtype, bytes ...): by type and ==
    "data",  # many plain values in nested containers: guarded as one block
    "list", "tuple", "deque",  # type and length, then the elements
    "dict",  # type and keys in order, then the values
    "set",  # elements, which are plain values
    "tree",  # a dataclass or registered container in an argument: type, then the parts
    "object",  # an instance: type, then the attributes
    "attrs",  # an instance's `__dict__`: the number of attributes, then the attributes
    "names",  # a module's globals or a class's attributes: only those that code names
    "function",  # its code, then what it reaches
    "method", "partial",  # type, then the parts
    "same",  # opaque (a module, a class, an object of a library): identity
    "alias",  # the object that another path led to
    "absent",  # a name that is not there (a builtin that nobody shadows, an empty closure cell)
    "open",  # leads on, nothing to check
]  # fmt: skip

LIMIT: Final = 50_000
MANY: Final = 16  # plain containers longer than this are compared as one block
SCALARS: Final = frozenset({type(None), bool, int, float, str})
VALUES: Final = (
    bytes, complex, range, np.dtype, DType, TensorType, Enum, np.generic, type(Ellipsis)
)  # fmt: skip
# Immutable classes of the standard library, by module: compared by what they print.
_VALUE_MODULES: Final = frozenset(
    {"fractions", "decimal", "_decimal", "datetime", "uuid", "pathlib", "zoneinfo", "ipaddress"}
)
# Generators that a module of the library owns (initialisers draw from one): drawing from one of
# these in a trace is noticed even where no path leads to it.
library_generators: list[np.random.Generator] = []
# Tensors that the library itself keeps, by name: state that no path of the user's leads to.
library_state: dict[str, Tensor] = {}
# Classes of the library whose objects hold state, with the attributes that are.
library_classes: dict[type[Any], tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Step:
    """How an item is reached from its parent: `how` and a key.

    root (n-th bound argument), const (the object itself), item (p[key]), attr (p.key),
    closure (n-th cell of a function), cell (a cell's content), part (n-th part of a registered
    container), grad (a tensor's .grad), apply (key(p): what is inside of an object of C code).
    """

    how: Literal["root", "const", "item", "attr", "closure", "cell", "part", "grad", "apply"]
    key: Any = None


@dataclass(slots=True, eq=False)
class Item:
    """One reachable thing. `number` orders parents before children."""

    number: int
    parent: Item | None
    step: Step
    path: str
    kind: Kind
    value: Any
    argument: bool = False
    of: Item | None = None  # of an alias: the item that came first
    guarded: bool = True
    owner: type[Any] | None = None  # the class whose attributes these are
    children: list[Item] = field(default_factory=list)


def is_value(value: Any) -> bool:
    """Whether `value` is immutable, and equal values print alike."""
    cls = type(value)
    if isinstance(value, VALUES):
        return True
    if cls is slice:
        return all(type(x) in SCALARS for x in (value.start, value.stop, value.step))
    return cls.__module__ in _VALUE_MODULES and not hasattr(cls, "prec")  # no decimal context


def is_jitted(value: object) -> bool:
    """Whether `value` is a jitted function, which a trace inlines."""
    return getattr(type(value), "__treadle_jit__", False)


def is_plain(value: Any) -> bool:
    """Numbers, strings, None, and lists, tuples and dictionaries of these."""
    stack, seen = [value], 0
    while stack:
        here = stack.pop()
        if type(here) in SCALARS or type(here) is bytes:
            continue
        seen += 1
        if seen > LIMIT:
            return False
        if type(here) in (list, tuple):
            stack.extend(here)
        elif type(here) is dict:
            stack.extend(here)
            stack.extend(here.values())
        else:
            return False
    return True


class Tree:
    """Everything that a function reaches, in order; parents before children."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.by_id: dict[int, Item] = {}
        self.cells: dict[int, Item] = {}
        self.generators: list[Any] = list(library_generators)  # of random numbers
        self.moving: list[Item] = []  # iterators, files, what `apply` looked into
        self.caches: list[Any] = []  # of functools
        self.words: set[str] = set()  # all names in code that was followed
        self.user_words: set[str] = set()  # those in code that is not Treadle's own
        self.codes: dict[CodeType, None] = {}  # of the functions that were followed
        self.everything = False  # attributes may be read by computed names
        self.imports: set[str] = set()  # modules that code imports and that are not loaded yet

    def release(self) -> None:
        """Let go of everything at once: parents and children hold each other."""
        for item in self.items:
            item.children.clear()
            item.parent = item.of = item.value = None
        self.items, self.moving, self.generators, self.caches = [], [], [], []
        self.by_id, self.cells = {}, {}

    def path_of(self, x: Any) -> str | None:
        """The path of an eager tensor's cell or of an array; None where nothing leads to it."""
        item = self.item_of(x)
        return item.path if item is not None else None

    def item_of(self, x: Any) -> Item | None:
        if isinstance(x, Tensor):
            return self.cells.get(id(x.cell))
        return self.by_id.get(id(x))


def slot_names(cls: type[Any]) -> Iterator[str]:
    """The attributes that instances of `cls` keep in slots."""
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in ("__dict__", "__weakref__"):
                continue
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{base.__name__.lstrip('_')}{name}" if private else name
