"""What code reaches: functions into closure, globals and defaults; classes into their methods.

Code of the user, of `treadle.nn` and of packages that use treadle is followed; a function of
another library is one opaque thing, and where it may read attributes of what it is given, all
attributes count.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Container, Iterable, Sequence
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final

from treadle.tracer.items import Item, Kind, Step, is_jitted, is_plain
from treadle.tracer.location import is_inside
from treadle.tracer.names import (
    CodeNames,
    is_treadle,
    is_user_class,
    is_user_function,
    is_user_module,
    names_in,
    reads_attributes,
)  # fmt: skip
from treadle.tracer.walk import Walk

# Special methods that run only where some code asks for them by name, or formats a value.
_ASKED_FOR: Final = frozenset(
    {"__repr__", "__str__", "__format__", "__getstate__", "__setstate__", "__reduce__"}
    | {"__reduce_ex__", "__del__", "__init_subclass__", "__class_getitem__", "__copy__"}
    | {"__deepcopy__", "__dir__", "__sizeof__"}
)
# Names in code that notices a missing attribute.
_ASKING: Final = (
    "hasattr", "getattr", "AttributeError", "Exception", "BaseException", "suppress", "__dict__",
    "vars", "dir",
)  # fmt: skip
_ITSELF: Final = "<the jitted function>"  # a name that no code has
# Attributes of a jitted function that are its own.
_JITTED: Final = frozenset({"options", "limit", "check", "threads", "specializations"})
_CONSTRUCTORS: Final = frozenset({"__init__", "__new__", "__post_init__"})
_DESCRIPTORS: Final = (MemberDescriptorType, GetSetDescriptorType)
# Streams are replaced by whoever redirects output; what is printed is no result.
_NOT_GUARDED: Final = frozenset({("sys", "stdout"), ("sys", "stderr"), ("sys", "stdin")})


class CodeWalk(Walk):
    """The part of the walk that follows code."""

    def __init__(self, home: str | None) -> None:
        super().__init__(home)
        self.namespaces: dict[int, Item] = {}
        self.entries: set[tuple[int, str]] = set()
        self.classes: set[type] = set()
        self.evaluated: set[int] = set()
        self.called_by_host: Container[int] = ()  # ids: see treadle.tracer.callback
        self.root: FunctionType | None = None  # the jitted function, where it is a function

    # --- functions ---------------------------------------------------------------------------

    def function(self, item: Item, fn: FunctionType, root: bool = False) -> Kind:
        if root:
            self.root = fn
        home = fn.__globals__.get("__name__")
        if id(fn) in self.called_by_host:
            return "same"
        if not is_user_function(fn) and not root:
            self.foreign(fn, home)
            return "same"
        # What the package's own functions read does not change, save for what they are given to
        # wrap: `no_grad()(f)` and `grad(f)` keep `f` in a closure.
        guarded = item.guarded and not is_treadle(home)
        names = names_in(fn.__code__)
        self.tree.codes[fn.__code__] = None
        unspelled = (names.computed or names.evaluates) and not is_treadle(home)
        self.note_names(names.attributes, unspelled, is_inside(fn.__code__.co_filename))
        for n, cell in enumerate(fn.__closure__ or ()):
            self.closure(item, fn.__code__.co_freevars[n], cell, n, root, item.guarded)
        self.globals(fn, names)
        for name, level in names.imports:
            self.imported(name, level, fn)
        if not root:
            self.defaults(item, fn, guarded)
        self.function_attributes(item, fn, root, guarded)
        return "function"

    def function_attributes(self, item: Item, fn: FunctionType, root: bool, guarded: bool) -> None:
        if fn.__dict__ and item.guarded:
            self.attributes(item, fn)
        elif guarded and not root:
            self.no_attributes(item, fn)
        elif guarded:  # the jitted function itself: where code comes to it by its name
            self.when_named((fn.__name__, _ITSELF), functools.partial(self.no_attributes, item, fn))

    def no_attributes(self, item: Item, fn: FunctionType) -> None:
        """A function may get attributes while it is traced; that it has none counts where code
        might ask."""
        step = Step("attr", "__dict__")
        none = self.add(item, step, item.path, "attrs", fn.__dict__, guarded=False)
        self.when_named(_ASKING, functools.partial(setattr, none, "guarded", True))

    def foreign(self, value: Any, home: str | None) -> None:
        """Something of a library whose code is not followed."""
        if reads_attributes(home):
            self.note_names((), True)
        if value is os.getenv:
            self.later(os.environ, None, Step("const", os.environ), "os.environ")

    def closure(self, item: Item, name: str, cell: Any, n: int, root: bool, guarded: bool) -> None:
        # The cells of the jitted function itself never change; another function may be replaced
        # by one with the same code and other cells.
        step, parent = (Step("cell", cell), None) if root else (Step("closure", n), item)
        try:
            content = cell.cell_contents
        except ValueError:
            self.add(parent, step, name, "absent", cell)
            return
        if content is self.root:
            self.note_names((_ITSELF,), False)
        if isinstance(content, FunctionType) and content is item.value:
            return  # a recursive function closes over itself
        if isinstance(content, type) and is_treadle(content.__module__):
            guarded = False  # what `super()` looks at
        self.later(content, parent, step, name, guarded=guarded)

    def globals(self, fn: FunctionType, names: CodeNames) -> None:
        own = fn.__globals__
        home = own.get("__name__")
        space = self.namespace(own, home, not is_treadle(home))
        builtins = own.get("__builtins__", {})
        known = builtins if isinstance(builtins, dict) else vars(builtins)
        for name in names.globals:
            self.entry(space, name, known)
        for name, attribute in names.chains:
            found = own.get(name)
            if isinstance(found, ModuleType) and not is_treadle(home):
                self.chain(found, attribute)
            elif is_jitted(found) and attribute not in _JITTED:
                self.entry(self.jitted_space(found, name), attribute, {})
        if names.evaluates and not is_treadle(home) and id(own) not in self.evaluated:
            self.evaluated.add(id(own))
            for name in list(own):
                if not name.startswith("__"):
                    self.entry(space, name)

    def jitted_space(self, fn: Any, path: str) -> Item:
        """What was stored on a jitted function; all besides is its own."""
        return self.namespace(vars(fn), path)

    def jitted(self, item: Item, fn: Any) -> None:
        inside = vars(fn) if hasattr(fn, "specializations") else {}
        for name in inside:
            if not name.startswith("_") and name not in _JITTED:
                enter = functools.partial(self.entry, self.jitted_space(fn, item.path), name)
                self.when_named((name,), enter)

    def chain(self, module: ModuleType, attribute: str) -> None:
        """`module.attribute`, spelled in code."""
        name = module.__name__
        if (name, attribute) in _NOT_GUARDED:
            return
        space = self.namespace(vars(module), name)
        self.entry(space, attribute, {})

    def namespace(
        self, inside: Any, name: str | None, guarded: bool = True, owner: type[Any] | None = None
    ) -> Item:
        """The item of a module's globals, or of the attributes of the class `owner`."""
        key = id(inside if owner is None else owner)
        found = self.namespaces.get(key)
        if found is None:
            prefix = "" if name is None or name == self.home else name
            found = self.add(None, Step("const", inside), prefix, "names", inside, guarded=guarded)
            found.owner = owner
            self.namespaces[key] = found
        return found

    def entry(self, space: Item, name: str, builtins: Any = None) -> None:
        """The name `name` of a module's globals or a class."""
        if (id(space.value), name) in self.entries:
            return
        self.entries.add((id(space.value), name))
        path = f"{space.path}.{name}" if space.path else name
        step = Step("item", name)
        if name in space.value:
            self.later(space.value[name], space, step, path, guarded=space.guarded)
        elif builtins is not None:
            self.add(space, step, path, "absent", name, guarded=space.guarded)

    def defaults(self, item: Item, fn: FunctionType, guarded: bool) -> None:
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(fn, name)
            if value:
                step, path = Step("attr", name), f"{item.path}.{name}"
                self.later(value, item, step, path, guarded=guarded)

    # --- modules -----------------------------------------------------------------------------

    def imported(self, name: str, level: int, fn: FunctionType) -> None:
        """A module that code imports when it runs."""
        if level:
            package = fn.__globals__.get("__package__") or ""
            try:
                name = importlib.util.resolve_name("." * level + name, package)
            except ImportError:
                return
        if not is_user_module(name) or is_treadle(name):
            if name in sys.modules:
                self.spelled(sys.modules[name])
            return
        modules = self.namespace(sys.modules, "sys.modules")
        if name in sys.modules:
            self.entry(modules, name)
        else:
            self.tree.imports.add(name)

    def spelled(self, module: ModuleType) -> None:
        """A module of a library that is no global of the code: what any code spells of it."""
        space = self.namespace(vars(module), module.__name__)
        for key, value in list(vars(module).items()):
            known = callable(value) or isinstance(value, ModuleType) or is_plain(value)
            if key.startswith("__") or (module.__name__, key) in _NOT_GUARDED:
                continue
            if known or value is os.environ:
                self.when_named((key,), functools.partial(self.entry, space, key))

    def module(self, item: Item, module: ModuleType) -> None:
        """A user's module: the attributes that any reached code names."""
        name = module.__name__
        if not is_user_module(name) or is_treadle(name):
            self.foreign(module, name)
            parent = item.parent
            if parent is None or parent.kind != "names" or parent.owner is not None:
                self.spelled(module)
            return
        space = self.namespace(vars(module), name)
        if "__getattr__" in vars(module):
            self.entry(space, "__getattr__")
        for key in list(vars(module)):
            if not key.startswith("__"):
                self.when_named((key,), functools.partial(self.entry, space, key))

    # --- classes -----------------------------------------------------------------------------

    def class_(self, cls: type[Any], called: bool = False) -> None:
        """What the methods of a class (those that some code names) reach, and its data."""
        for base in (*cls.__mro__, *type(cls).__mro__):
            if not is_user_class(base):
                continue
            if base not in self.classes:
                self.classes.add(base)
                self.class_body(base)
            if called:
                self.class_names(base, _CONSTRUCTORS)

    def class_space(self, cls: type[Any]) -> Item:
        return self.namespace(vars(cls), cls.__qualname__, True, cls)

    def class_names(self, cls: type[Any], names: Iterable[str]) -> None:
        space = self.class_space(cls)
        for name in names:
            if name in vars(cls):
                self.class_entry(space, name)

    def class_body(self, cls: type[Any]) -> None:
        space = self.class_space(cls)
        for name, value in list(vars(cls).items()):
            special = name.startswith("__") and name.endswith("__")
            if isinstance(value, _DESCRIPTORS) or name.startswith("_abc"):
                continue
            if special and (not callable(value) or name in _CONSTRUCTORS):
                continue
            enter = functools.partial(self.class_entry, space, name)
            if special and name not in _ASKED_FOR:
                enter()
            else:
                self.when_named((name,), enter)

    def class_entry(self, space: Item, name: str) -> None:
        if (id(space.value), name) in self.entries:
            return
        self.entries.add((id(space.value), name))
        path = f"{space.path}.{name}"
        for value, parent, step in self.inside_descriptor(space, name, path):
            self.later(value, parent, step, path, guarded=space.guarded)

    def inside_descriptor(
        self, space: Item, name: str, path: str
    ) -> Sequence[tuple[Any, Item, Step]]:
        """The functions inside a staticmethod, property and the like; else the value itself."""
        value, step = space.value[name], Step("item", name)
        for cls, attributes in _TRAILS:
            if type(value) is cls:
                parent = self.add(space, step, path, "open", None, guarded=space.guarded)
                inside = [(getattr(value, a), parent, Step("attr", a)) for a in attributes]
                return [part for part in inside if part[0] is not None]
        return [(value, space, step)]


_TRAILS: Final[tuple[tuple[type[Any], tuple[str, ...]], ...]] = (
    (staticmethod, ("__func__",)), (classmethod, ("__func__",)),
    (property, ("fget", "fset", "fdel")), (functools.cached_property, ("func",)),
    (functools.partialmethod, ("func", "args", "keywords")),
)  # fmt: skip
