"""Which names a function's code reads from outside, and whose code is the user's.

The walk of what a function can reach (`treadle.tracer.paths`) follows functions and classes of the
user, of `treadle.nn`, and of installed packages that use treadle. The standard library, NumPy and
treadle's own core are opaque: they cannot reach the user's tensors except through arguments.
"""

from __future__ import annotations

import dis
import functools
import sys
from dataclasses import dataclass
from types import CodeType, ModuleType

_OPEN_PARTS = ("treadle.nn", "treadle.examples", "treadle.bench")
_OPAQUE = frozenset({"numpy", "llvmlite", "torch", "jax", "jaxlib", "builtins", "pytest"})
# Reading an attribute by a computed name: any method may be meant.
_BY_COMPUTED_NAME = frozenset(
    {"getattr", "vars", "__dict__", "methodcaller", "attrgetter", "asdict", "astuple", "fields"}
    | {"copy", "deepcopy", "pickle"}
)


@dataclass(frozen=True, slots=True)
class CodeNames:
    """The names that one code object, with those nested in it, reads or writes."""

    globals: tuple[str, ...]
    attributes: frozenset[str]
    imports: tuple[str, ...]

    @property
    def computed(self) -> bool:
        """Whether attributes may be read whose names the code does not spell."""
        return not _BY_COMPUTED_NAME.isdisjoint(self.attributes)


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> CodeNames:
    """What `code` and the code nested in it (lambdas, comprehensions, inner functions) names."""
    found: dict[str, None] = {}
    imports: dict[str, None] = {}
    attributes: set[str] = set()
    stack = [code]
    while stack:
        here = stack.pop()
        attributes.update(here.co_names)
        for const in here.co_consts:
            if isinstance(const, CodeType):
                stack.append(const)
            elif isinstance(const, str) and const.isidentifier():
                attributes.add(const)  # getattr(x, "name")
        for instruction in dis.get_instructions(here):
            if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"):
                found[instruction.argval] = None
            elif instruction.opname == "IMPORT_NAME":
                imports[instruction.argval] = None
    return CodeNames(tuple(found), frozenset(attributes), tuple(imports))


def is_user_module(name: str | None) -> bool:
    """Whether the code of the module called `name` is followed."""
    if name is None:
        return False
    top = name.partition(".")[0]
    if top == "treadle":
        return name.startswith(_OPEN_PARTS)
    if name == "__main__":
        return True
    if top in _OPAQUE or top in sys.stdlib_module_names:
        return False
    return _top_is_user(top)


def is_treadle(name: str | None) -> bool:
    """Whether the module called `name` is part of the package: its globals do not change."""
    return name is not None and name.partition(".")[0] == "treadle"


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
