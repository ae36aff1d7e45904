"""What a function can reach from outside: a walk over closures, globals and objects.

`reach` starts at a function and at the values bound to its parameters, and lists every tensor,
array, Python value and container that the function's code can come to, each with its path as the
user would write it (`self.fc1.weight`, `params['w']`, `opt.param_groups[0]['lr']`). Jit takes the
tensors and arrays as state, guards the rest, and compares the containers before and after a trace.

The walk is iterative and takes each object once; a second way to it is an `alias`. Functions are
followed into their closure, defaults, and the globals that their code names; objects into their
attributes and, for methods that some code names, into their class. Objects of any class are walked
into, whoever defined it, unless they are known to be immutable or to act on the outside only. An
attribute of a user's object that holds a plain value (a number, a string, nested lists of these)
counts only if some reached code spells its name, so that bookkeeping which the traced function
never sees is not guarded.
"""

from __future__ import annotations

import functools
import gc
import io
import operator
import random
import sys
import threading
import types
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Sequence
from contextvars import ContextVar
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any, Final

import numpy as np

from treadle.tracer.items import (
    MANY,
    MISSING,
    SCALARS,
    Item,
    Kind,
    Step,
    Tree,
    is_jitted,
    is_plain,
    is_value,
    library_classes,
    library_state,
    slot_names,
)  # fmt: skip
from treadle.tracer.names import (
    holds_values,
    is_treadle,
    is_user_class,
    is_user_module,
    reads_attributes,
)  # fmt: skip
from treadle.tracer.pytree import container_of, flatten
from treadle.tracer.tensor import Tensor
from treadle.tracer.walk import Reads
from treadle.tracer.walk_code import CodeWalk

_GENERATORS: Final = (np.random.Generator, np.random.RandomState, random.Random)
# Classes without code in Python that reads attributes of their instances.
_NAMESPACES: Final = frozenset({("types", "SimpleNamespace"), ("argparse", "Namespace")})
_NEUTRAL_BASES: Final = frozenset({"abc", "typing", "enum", "builtins", "contextlib", "numpy"})
_OUTSIDE: Final = frozenset({"time", "posix", "nt", "io", "_io"})  # see treadle.tracer.outside
# Immutable classes that a user's class may derive from: how their part of the value prints.
_BASES: Final = (int, float, complex, str, bytes)


class _Walk(CodeWalk):
    """The part of the walk that looks into objects."""

    float_inputs = True  # floats among the arguments are run-time numbers

    def visit(
        self, value: Any, parent: Item | None, step: Step, path: str, argument: bool, guarded: bool
    ) -> None:
        cls = type(value)
        if argument and self.float_inputs and (cls is float or isinstance(value, np.floating)):
            self.add(parent, step, path, "input", value, argument)
            return
        if cls in SCALARS or is_value(value):
            kind: Kind = "scalar" if cls in SCALARS else "value"
            item = self.add(parent, step, path, kind, value, guarded=guarded)
            if isinstance(value, Enum):
                self.member(item, value)
            return
        if isinstance(value, Tensor):
            self.tensor(value, parent, step, path, argument)
            return
        if isinstance(value, np.ndarray) and argument:
            self.add(parent, step, path, "array", value, argument)
            return
        first = self.tree.by_id.get(id(value))
        if first is not None:
            self.add(parent, step, path, "alias", value, argument, guarded).of = first
            return
        item = self.add(parent, step, path, "same", value, argument, guarded)
        if cls not in (tuple, frozenset):  # equal constants are one object or several
            self.tree.by_id[id(value)] = item
        item.kind = self.open(item, value, cls)
        if id(value) in self.called_by_host and item.kind != "same":
            self.add(item, Step("apply", _itself), path, "same", value, guarded=guarded)

    def open(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        """The kind of a thing with an identity; what is inside of it is visited later."""
        if isinstance(value, np.ndarray):
            return self.array(item, value)
        if isinstance(value, FunctionType):
            return self.function(item, value)
        if isinstance(value, MethodType):
            return self.parts(item, value, "method", "__self__", "__func__")
        if isinstance(value, functools.partial):
            return self.parts(item, value, "partial", "func", "args", "keywords")
        if is_jitted(value):
            self.jitted(item, value)
            return self.parts(item, value, "same", "__wrapped__")
        if isinstance(value, type):
            self.foreign(value, value.__module__)
            self.class_(value, called=True)
            return "same"
        if isinstance(value, ModuleType):
            self.module(item, value)
            return "same"
        if value is sys.modules:
            for module in list(sys.modules.values()):
                if isinstance(module, ModuleType) and is_user_module(module.__name__):
                    self.module(item, module)
            return "same"
        return self.container(item, value, cls)

    def container(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        if item.argument and cls not in (list, tuple, dict) and container_of(cls) is not None:
            return self.tree_part(item, value, cls)
        if isinstance(value, (list, tuple, dict)):
            return self.builtin(item, value, cls)
        if isinstance(value, deque):
            self.elements(item, value, argument=False)  # a trace reads its floats as they are
            return "deque"
        if isinstance(value, (set, frozenset)):
            return self.set_(item, value, cls)
        if isinstance(value, _GENERATORS):
            self.tree.generators.append(value)
        if cls in library_classes:
            return self.parts(item, value, "object", *library_classes[cls])
        if is_user_class(cls):
            return self.instance(item, value, cls, self.reads(cls))
        return self.foreign_object(item, value, cls)

    # --- leaves ------------------------------------------------------------------------------

    def tensor(self, x: Tensor, parent: Item | None, step: Step, path: str, argument: bool) -> None:
        first = self.tree.by_id.get(id(x))
        if first is not None:
            self.add(parent, step, path, "alias", x, argument).of = first
            return
        item = self.add(parent, step, path, "tensor", x, argument)
        self.tree.by_id[id(x)] = item
        self.tree.cells.setdefault(id(x.cell), item)
        base = "" if len(x.maps) == x.history.depth else ".base"  # a view has no grad of its own
        self.later(x.history.grad, item, Step("grad"), f"{path}{base}.grad", guarded=False)
        self.attributes(item, x)

    def array(self, item: Item, value: np.ndarray[Any, Any]) -> Kind:
        """A NumPy array: its content is compared, or (objects) walked into."""
        if type(value) is not np.ndarray:
            self.attributes(item, value, "all")
        if value.dtype.hasobject:
            self.inside(item, np.ndarray.tolist)
        self.tree.moving.append(item)
        return "array"

    def member(self, item: Item, value: Enum) -> None:
        """An enum's member: methods, and a value that may change."""
        if is_user_class(type(value)):
            self.class_(type(value))
        if not (type(value.value) in SCALARS or is_value(value.value)):
            self.later(value.value, item, Step("attr", "_value_"), f"{item.path}.value")

    # --- containers --------------------------------------------------------------------------

    def elements(self, item: Item, value: Iterable[Any], argument: bool) -> None:
        for n, element in enumerate(value):
            path = f"{item.path}[{n}]"
            self.later(element, item, Step("item", n), path, argument, item.guarded)

    def builtin(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        """list, tuple, dict and their subclasses."""
        exact = cls in (list, tuple, dict)
        if exact and not item.argument and len(value) > MANY and is_plain(value):
            return "data"
        if not exact and is_user_class(cls):
            self.class_(cls)
            self.attributes(item, value, self.reads(cls))
        if not isinstance(value, dict):
            self.elements(item, value, item.argument)
            return "list" if isinstance(value, list) else "tuple"
        if isinstance(value, defaultdict) and value.default_factory is not None:
            factory = Step("attr", "default_factory")
            self.later(value.default_factory, item, factory, f"{item.path}.default_factory")
        for key, child in value.items():
            path = f"{item.path}[{self.key_text(key)}]"
            self.later(child, item, Step("item", key), path, item.argument, item.guarded)
        return "dict"

    def set_(self, item: Item, value: Iterable[Any], cls: type[Any]) -> Kind:
        if not all(map(is_plain, value)):
            self.inside(item, list)
        if cls not in (set, frozenset) and is_user_class(cls):
            self.class_(cls)
            self.attributes(item, value, self.reads(cls))
        return "set"

    def tree_part(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        container = container_of(cls)
        assert container is not None
        children, meta = container.parts(value)
        labels = list(container.labels(meta, len(children)))
        for n, (child, label) in enumerate(zip(children, labels, strict=True)):
            name = label[1:]
            step = Step("attr", name) if label.startswith(".") else Step("part", n)
            self.later(child, item, step, item.path + label, True)
        if is_user_class(cls):
            self.class_(cls)
            self.attributes(item, value, self.reads(cls), [label[1:] for label in labels])
        return "tree"

    # --- objects -----------------------------------------------------------------------------

    def parts(self, item: Item, value: Any, kind: Kind, *names: str) -> Kind:
        """Attributes of C objects, and of what is known to matter."""
        for name in names:
            path = item.path if name == "__wrapped__" else f"{item.path}.{name}"
            self.later(getattr(value, name), item, Step("attr", name), path, guarded=item.guarded)
        return kind

    def inside(self, item: Item, look: Callable[[Any], Any]) -> None:
        """What `look` finds in an object of C code; it is looked at again after the trace."""
        try:
            found = look(item.value)
        except Exception:
            return  # an array that is not on this machine, a context without a value
        child = self.add(item, Step("apply", look), item.path, "open", found, guarded=item.guarded)
        self.tree.moving.append(child)
        if type(found) in (list, dict):
            child.kind = "list" if type(found) is list else "dict"
            for key, part in enumerate(found) if type(found) is list else found.items():
                path = f"{item.path}[{self.key_text(key)}]"
                self.later(part, child, Step("item", key), path, guarded=item.guarded)
        elif isinstance(found, np.ndarray):
            child.kind = self.array(child, found)
        elif type(found) in SCALARS or is_value(found):
            child.kind = "scalar" if type(found) in SCALARS else "value"
        else:
            self.later(found, child, Step("apply", _itself), item.path, guarded=item.guarded)

    def reads(self, cls: type[Any]) -> Reads:
        """Which attributes of an instance code may read that is not followed."""
        for base in cls.__mro__:
            if (base.__module__, base.__name__) in _NAMESPACES:
                return "compared"
            neutral = str(base.__module__).partition(".")[0] in _NEUTRAL_BASES
            if not is_user_class(base) and not neutral:
                return "all"
        return "named"

    def instance(self, item: Item, value: Any, cls: type[Any], reads: Reads) -> Kind:
        self.class_(cls)
        self.attributes(item, value, reads)
        for name in slot_names(cls):
            child = getattr(value, name, MISSING)
            step, path = Step("attr", name), f"{item.path}.{name}"
            if child is MISSING:
                self.add(item, step, path, "absent", name, guarded=item.guarded)
            else:
                self.attribute(child, item, step, path, name, reads)
        for base in _BASES:
            if isinstance(value, base):
                self.inside(item, base.__repr__)
        if hasattr(cls, "__next__") and not is_user_class(_definer(cls, "__next__")):
            self.tree.moving.append(item)
        return "object"

    def foreign_object(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        """An object of a class whose code is not followed."""
        home = cls.__module__
        look = _look(value)
        if look is not None:
            self.inside(item, look)
            return "same"
        if cls is BuiltinFunctionType and value.__module__ in _OUTSIDE:
            self.note_names((value.__name__,), False)  # a clock that sits in a list is one too
        names = _PARTS.get(cls)
        if names is not None:
            return self.parts(item, value, "same", *names)
        if isinstance(value, _BY_COMPUTED_NAME):
            self.note_names((), True)
            return "same"
        if hasattr(cls, "__next__") or isinstance(value, io.IOBase):
            self.tree.moving.append(item)
            return "same"
        if isinstance(getattr(value, "__wrapped__", None), FunctionType):  # functools.cache
            self.cache(item, value)
            return self.parts(item, value, "same", "__wrapped__")
        if isinstance(value, threading.local):  # another object's attributes in each thread
            self.attributes(item, value, "all")
            return "same"
        if not holds_values(home):
            return "same"
        if reads_attributes(home):
            self.note_names((), True)
        has_slots = next(iter(slot_names(cls)), None) is not None
        if not isinstance(getattr(value, "__dict__", None), dict) and not has_slots:
            return "same"
        return self.instance(item, value, cls, self.reads(cls))

    def cache(self, item: Item, value: Any) -> None:
        """Tensors that a `functools.cache` keeps are state, known by the arguments given for."""
        if not hasattr(value, "cache_clear"):
            return
        self.tree.caches.append(value)
        kept = cached_tensors(value)
        if kept:
            child = self.add(item, Step("apply", cached_tensors), item.path, "open", kept)
            child.guarded = False
            for key, result in kept.items():
                self.later(result, child, Step("item", key), f"{item.path}({key})")

    def lingers(self, value: Any) -> bool:
        if isinstance(value, (int, float, str, type(None))) or is_plain(value) or is_value(value):
            return True
        if isinstance(value, (Tensor, list, tuple, dict, set, deque, FunctionType, MethodType)):
            return False
        if isinstance(value, functools.partial) or is_jitted(value):
            return False
        return not is_user_class(type(value)) or isinstance(value, BuiltinFunctionType)


# --- objects of C code -----------------------------------------------------------------------


def _itself(value: Any) -> Any:
    return value


def _referent(reference: Any) -> Any:
    return reference()


def context_value(variable: ContextVar[Any]) -> Any:
    """The variable's value; None where it has none, which is an error to read."""
    try:
        return variable.get()
    except LookupError:
        return None


def cached_tensors(cache: Any) -> dict[Any, Any]:
    """The results with tensors that a `functools.cache` keeps, by key."""
    inside = gc.get_referents(cache)
    kept: dict[Any, Any] = {}
    for n, part in enumerate(inside):
        if isinstance(part, type) and part.__name__ == "_lru_list_elem":
            kept[inside[n - 2]] = inside[n - 1]  # one of a bounded cache: key, result, its class
        elif type(part) is dict and part is not vars(cache):
            kept.update((k, v) for k, v in part.items() if type(v).__name__ != "_lru_list_elem")
    return {k: v for k, v in kept.items() if any(isinstance(x, Tensor) for x in flatten(v)[0])}


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    """The content of an array of another library."""
    detach = getattr(value, "detach", None)
    return np.asarray(value if detach is None else detach())


_PARTS: Final[dict[type[Any], tuple[str, ...]]] = {
    BuiltinFunctionType: (),
    MethodWrapperType: ("__self__",),
    types.CellType: ("cell_contents",),
    staticmethod: ("__func__",), classmethod: ("__func__",), property: ("fget",),
    functools.partialmethod: ("func", "args", "keywords"),
}  # fmt: skip


def _look(value: Any) -> Callable[[Any], Any] | None:
    """How to see what is inside of an object without attributes; None where nothing is known."""
    if isinstance(value, types.MappingProxyType):
        return dict
    if isinstance(value, _DICT_VIEWS):
        return _viewed
    if isinstance(value, weakref.ReferenceType):
        return _referent
    if isinstance(value, ContextVar):
        return context_value
    if isinstance(value, (bytearray, memoryview)):
        return bytes
    if isinstance(value, BuiltinFunctionType):  # a bound method: `table.get`
        owner = value.__self__
        return None if owner is None or isinstance(owner, (ModuleType, type)) else _owner
    if hasattr(value, "__array__") and not isinstance(value, type):
        return _as_array
    if hasattr(value, "typecode") or type(value).__module__ in ("_ctypes", "ctypes", "mmap"):
        return bytes
    return None


_DICT_VIEWS: Final[tuple[type[Any], ...]] = (type({}.keys()), type({}.values()), type({}.items()))
_BY_COMPUTED_NAME: Final = (operator.attrgetter, operator.methodcaller)


def _viewed(view: Any) -> dict[Any, Any]:
    return dict(view.mapping)


def _owner(method: Any) -> Any:
    return method.__self__


def _definer(cls: type[Any], name: str) -> type[Any]:
    return next(base for base in cls.__mro__ if name in vars(base))


def reach(
    fn: Callable[..., Any],
    names: Sequence[str],
    bound: Sequence[Any],
    self_name: str = "self",
    called_by_host: Container[int] = (),
) -> Tree:
    """Everything that `fn` reaches when it is called with `bound` for its parameters `names`.

    `fn` may be a function, a bound method, a `functools.partial` or an object with `__call__`
    (whose path is `self_name`). `called_by_host`: the ids of what callbacks call: functions that
    are not followed, objects that stay the same ones. Raises TraceError where that is more than
    LIMIT values.
    """
    module = getattr(fn, "__module__", None) or type(fn).__module__
    walk = _Walk(module)
    walk.called_by_host = called_by_host
    for n, (name, value) in enumerate(zip(names, bound, strict=True)):
        walk.later(value, None, Step("root", n), name, True)
    if isinstance(fn, MethodType):
        walk.later(fn.__self__, None, Step("const", fn.__self__), self_name)
        fn = fn.__func__
    if isinstance(fn, FunctionType):
        # An array function decides by its numbers (the order of a norm): they are guarded.
        home = fn.__globals__.get("__name__")
        walk.float_inputs = not is_treadle(home) or is_user_module(home)
        item = walk.add(None, Step("const", fn), fn.__name__, "function", fn)
        walk.tree.by_id[id(fn)] = item
        walk.function(item, fn, root=True)
    else:
        walk.note_names(("__call__",), False)
        walk.later(fn, None, Step("const", fn), self_name)
    return _with_library_state(walk, walk.run())


def _with_library_state(walk: _Walk, tree: Tree) -> Tree:
    """The library's own tensors behind all others: guarded only where a trace has read them."""
    for name, x in library_state.items():
        if id(x) not in tree.by_id:
            item = walk.add(None, Step("const", x), name, "tensor", x, guarded=False)
            tree.by_id[id(x)] = item
            tree.cells.setdefault(id(x.cell), item)
    return tree
