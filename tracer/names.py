"""Which names a function's code reads from outside, and whose code is followed.

The walk of what a function can reach (`treadle.tracer.paths`) follows functions and classes of the
user, of `treadle.nn`, and of installed packages that use treadle. The code of other libraries is
not followed; objects of theirs are walked into, for they may hold values that shape a trace.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.tracer.bytecode import NOTHING, Instruction, instructions, is_remainder

_OPEN_PARTS = (
    "treadle.nn", "treadle.torch.nn", "treadle.torch.optim", "treadle.examples", "treadle.bench",
    "treadle.tracer.custom", "treadle.tracer.function",  # what these call is the user's
)  # fmt: skip
_OPAQUE = frozenset({"numpy", "llvmlite", "torch", "jax", "jaxlib", "builtins", "pytest"})
# Objects of these act on the world around the program; they carry no values of it.
_EFFECTS = frozenset(
    {"logging", "threading", "_thread", "concurrent", "asyncio", "multiprocessing", "socket", "io"}
    | {"_io", "unittest", "typing", "abc", "ast", "inspect", "dis", "importlib", "warnings", "re"}
    | {"subprocess", "selectors", "tempfile", "traceback", "gc", "signal", "itertools"}
)
# Reading an attribute by a computed name: any may be meant.
_BY_COMPUTED_NAME = frozenset(
    {"getattr", "vars", "dir", "__dict__", "__getattribute__", "__slots__", "methodcaller"}
    | {"attrgetter", "getmembers", "asdict", "astuple", "fields", "__getstate__"}
    | {"copy", "deepcopy", "pickle", "__reduce__", "__reduce_ex__"}
)
# Modules of the standard library whose functions read attributes of what they are given.
_READ_ATTRIBUTES = frozenset(
    {"copy", "copyreg", "pickle", "dataclasses", "inspect", "pprint", "reprlib", "string"}
)
_EVALUATE = frozenset({"eval", "exec", "globals", "__globals__"})
_FORMAT = frozenset({"repr", "str", "format", "print", "ascii", "format_map", "join"})
_FORMATTING = frozenset({"FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE"})
_GLOBALS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"})
_WORD = re.compile(r"[^\W\d]\w*")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_LONG = 10_000  # characters of a string constant that are searched for words


@dataclass(frozen=True, slots=True)
class CodeNames:
    """The names that one code object, with those nested in it, reads or writes.

    `attributes` includes the words of string constants (`getattr(x, "name")`, `"{x.name}"`), and
    `__repr__` where values are formatted, `__eq__` where two variables are compared. `chains`:
    (global, attribute) where an attribute is read from a global directly. `imports`: names of
    modules, with the number of dots before them.
    """

    globals: tuple[str, ...]
    attributes: frozenset[str]
    imports: tuple[tuple[str, int], ...]
    chains: tuple[tuple[str, str], ...]
    computed: bool  # attributes may be read whose names the code does not spell
    evaluates: bool  # globals may be read whose names the code does not spell


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> CodeNames:
    """What `code` and the code nested in it (lambdas, comprehensions, inner functions) names."""
    found = _Names()
    stack = [code]
    while stack:
        here = stack.pop()
        found.add(here)
        stack += [const for const in here.co_consts if isinstance(const, CodeType)]
    return CodeNames(
        globals=tuple(found.globals),
        attributes=frozenset(found.attributes),
        imports=tuple(found.imports),
        chains=tuple(found.chains),
        computed=found.computed or not _BY_COMPUTED_NAME.isdisjoint(found.attributes),
        evaluates=not _EVALUATE.isdisjoint(found.globals) or "__globals__" in found.attributes,
    )


class _Names:
    """Collects the names of some code objects."""

    def __init__(self) -> None:
        self.globals: dict[str, None] = {}
        self.attributes: set[str] = set()
        self.imports: dict[tuple[str, int], None] = {}
        self.chains: dict[tuple[str, str], None] = {}
        self.computed = False

    def add(self, code: CodeType) -> None:
        self.attributes.update(code.co_names)
        for const in code.co_consts[_has_docstring(code) :]:
            self.attributes.update(_words(const))
        first = second = NOTHING
        for here in instructions(code):
            self.instruction(here, first, second)
            first, second = second, here
        if not _FORMAT.isdisjoint(code.co_names):
            self.attributes.update(_REPRESENTATION)

    def instruction(self, here: Instruction, first: Instruction, last: Instruction) -> None:
        """`first` and `last`: the two before it."""
        op, arg, value = here
        if op in _GLOBALS:
            self.globals[value] = None
        elif op in _ATTRIBUTES and last[0] in _GLOBALS:
            self.chains[last[2], value] = None
        elif op == "IMPORT_NAME":
            level = first[1] if first[0] == "LOAD_SMALL_INT" else first[2]
            self.imports[value, level if isinstance(level, int) else 0] = None
        elif op == "MATCH_CLASS":
            self.computed = True  # __match_args__ says which attributes
        elif op in _FORMATTING or (op == "BINARY_OP" and is_remainder(arg)):
            self.attributes.update(_REPRESENTATION)
        elif op == "CONTAINS_OP" or (op == "COMPARE_OP" and last[0] != "LOAD_CONST"):
            self.attributes.add("__eq__")


_REPRESENTATION = ("__repr__", "__str__", "__format__")


def _has_docstring(code: CodeType) -> bool:
    """Whether the first constant is the docstring of a function, or None in its place."""
    if not code.co_flags & inspect.CO_NEWLOCALS or code.co_name.startswith("<"):
        return False
    return sys.version_info < (3, 14) or bool(code.co_flags & 0x4000000)  # CO_HAS_DOCSTRING


def _words(const: Any) -> Iterator[str]:
    """Identifiers in string constants, also in tuples of these."""
    if isinstance(const, str):
        yield from _WORD.findall(const[:_LONG])
    elif isinstance(const, (tuple, frozenset)):
        for part in const:
            yield from _words(part)


def is_user_function(fn: FunctionType) -> bool:
    """Whether the code of `fn` is followed. `functools.wraps` changes `__module__`, and `exec` may
    leave it out: what counts is where the code looks up its globals, and where it pretends to."""
    home = fn.__globals__.get("__name__")
    if home in (None, "builtins") or is_user_module(home) or is_user_module(fn.__module__):
        return True
    return vars(sys.modules.get(home, sys)) is not fn.__globals__  # it only bears that name


def is_user_class(cls: type[Any]) -> bool:
    """Whether the methods of `cls` are followed."""
    made_by_class_statement = bool(cls.__flags__ & _HEAP_TYPE)
    if cls.__module__ == "builtins":  # also the module of a class that `exec` made
        return made_by_class_statement
    return is_user_module(cls.__module__)


def is_user_module(name: object) -> bool:
    """Whether the code of the module called `name` is followed. Functions without a module were
    made by `exec`, which the user has called."""
    if name is None:
        return True
    if not isinstance(name, str):  # classes of C code may have a descriptor there
        return False
    top = name.partition(".")[0]
    if top == "treadle":
        return name.startswith(_OPEN_PARTS)
    if name == "__main__":
        return True
    if top in _OPAQUE or top in sys.stdlib_module_names:
        return False
    return _top_is_user(top)


def is_treadle(name: object) -> bool:
    """Whether the module called `name` is part of the package: its globals do not change."""
    return isinstance(name, str) and name.partition(".")[0] == "treadle"


def holds_values(name: object) -> bool:
    """Whether objects of a class of that module, which is not followed, are walked into."""
    top = name.partition(".")[0] if isinstance(name, str) else ""
    return top not in _EFFECTS and top not in ("treadle", "llvmlite", "builtins", "pytest")


def reads_attributes(name: object) -> bool:
    """Whether the code of that module, which is not followed, may read attributes by any name."""
    top = name.partition(".")[0] if isinstance(name, str) else ""
    if top in sys.stdlib_module_names:
        return top in _READ_ATTRIBUTES
    return bool(top) and top not in _OPAQUE and top != "treadle" and not is_user_module(name)


@functools.lru_cache(maxsize=1024)
def _top_is_user(top: str) -> bool:
    """An installed package counts where any of its modules uses treadle; a script always."""
    module = sys.modules.get(top)
    where = getattr(module, "__file__", None) or ""
    if not where and module is not None:
        where = next(iter(getattr(module, "__path__", [])), "")
    if "site-packages" not in where and "dist-packages" not in where:
        return True
    inside = [m for n, m in list(sys.modules.items()) if n.partition(".")[0] == top]
    return any(_uses_treadle(m) for m in inside)


def _uses_treadle(module: object) -> bool:
    for value in list(getattr(module, "__dict__", {}).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if isinstance(name, str) and is_treadle(name):
            return True
    return False
