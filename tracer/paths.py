"""What a function can reach from outside: a walk over closures, globals and objects.

`reach` starts at a function and at the values bound to its parameters, and lists every tensor,
array, Python value and container that the function's code can come to, each with its path as the
user would write it (`self.fc1.weight`, `params['w']`, `opt.param_groups[0]['lr']`). Jit takes the
tensors and arrays as state, guards the rest, and compares the containers before and after a trace.

The walk is iterative and takes each object once; a second way to it is an `alias`. Functions are
followed into their closure, defaults, and the globals that their code names; objects into their
attributes and, for methods that some code names, into their class. A plain value (a number, a
string, nested lists of these) that is an attribute of an object counts only if some reached code
spells its name, so that bookkeeping which the traced function never sees is not guarded.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

import numpy as np

from treadle.ir.errors import TraceError
from treadle.tracer.items import (
    LIMIT,
    MANY,
    MISSING,
    SCALARS,
    VALUES,
    Item,
    Kind,
    Step,
    Tree,
    is_jitted,
    is_plain,
    slot_names,
)  # fmt: skip
from treadle.tracer.names import is_treadle, is_user_module, names_in
from treadle.tracer.pytree import container_of
from treadle.tracer.tensor import Tensor

_NOT_CALLED: Final = frozenset(
    {"__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"}
    | {"__del__", "__init_subclass__", "__class_getitem__", "__copy__", "__deepcopy__"}
)


class _Walk:
    """The state of one walk."""

    def __init__(self, home: str | None) -> None:
        self.tree = Tree()
        self.home = home  # the module whose globals are written without a prefix
        self.queue: deque[tuple[Any, Item | None, Step, str, bool, bool]] = deque()
        self.names: set[str] = set()
        self.everything = False
        self.waiting: dict[str, list[Callable[[], None]]] = {}
        self.namespaces: dict[int, Item] = {}
        self.entries: set[tuple[int, str]] = set()
        self.classes: set[type] = set()
        self.keys: dict[str, Any] = {}

    # --- the loop ----------------------------------------------------------------------------

    def later(
        self, value: Any, parent: Item | None, step: Step, path: str,
        argument: bool = False, guarded: bool = True,
    ) -> None:  # fmt: skip
        self.queue.append((value, parent, step, path, argument, guarded))

    def run(self) -> Tree:
        while self.queue:
            self.visit(*self.queue.popleft())
        if self.keys:
            for item in self.tree.items:
                item.path = self.with_keys(item.path)
        return self.tree

    def key_text(self, key: Any) -> str:
        """A dictionary's key as the user would write it; for an object, a mark that is replaced
        by its path at the end, when that is known."""
        if type(key) in SCALARS or isinstance(key, (tuple, Enum)):
            return repr(key)
        self.keys[f"\0{id(key)}\0"] = key
        return f"\0{id(key)}\0"

    def with_keys(self, path: str) -> str:
        for mark, key in self.keys.items() if "\0" in path else ():
            known = self.tree.by_id.get(id(key))
            path = path.replace(mark, known.path if known is not None else type(key).__name__)
        return path

    def add(
        self, parent: Item | None, step: Step, path: str, kind: Kind, value: Any,
        argument: bool = False, guarded: bool = True,
    ) -> Item:  # fmt: skip
        items = self.tree.items
        if len(items) >= LIMIT:
            raise TraceError(
                f"the jitted function reaches more than {LIMIT} values (the last one at {path}); "
                "pass what it needs as arguments, or keep large Python structures out of its reach"
            )
        item = Item(len(items), parent, step, path, kind, value, argument, None, guarded)
        items.append(item)
        if parent is not None:
            parent.children.append(item)
        return item

    def visit(
        self, value: Any, parent: Item | None, step: Step, path: str, argument: bool, guarded: bool
    ) -> None:
        cls = type(value)
        if argument and (cls is float or isinstance(value, np.floating)):
            self.add(parent, step, path, "input", value, argument)
            return
        if cls in SCALARS or isinstance(value, VALUES):
            kind: Kind = "scalar" if cls in SCALARS else "value"
            self.add(parent, step, path, kind, value, guarded=guarded)
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
        if cls is not tuple:  # equal constant tuples are one object or several, as it happens
            self.tree.by_id[id(value)] = item
        item.kind = self.open(item, value, cls)

    def open(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        """The kind of a thing with an identity; what is inside of it is visited later."""
        if isinstance(value, np.ndarray):
            return "array"
        if isinstance(value, FunctionType):
            return self.function(item, value)
        if isinstance(value, MethodType):
            return self.parts(
                item, "method", {"__self__": value.__self__, "__func__": value.__func__}
            )
        if isinstance(value, functools.partial):
            inside = {"func": value.func, "args": value.args, "keywords": value.keywords}
            return self.parts(item, "partial", inside)
        if is_jitted(value):
            self.later(value.__wrapped__, item, Step("attr", "__wrapped__"), item.path)
            return "same"
        if isinstance(value, type):
            self.class_(value, called=True)
            return "same"
        if isinstance(value, ModuleType):
            self.module(value)
            return "same"
        return self.container(item, value, cls)

    def container(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        if item.argument and cls not in (list, tuple, dict) and container_of(cls) is not None:
            return self.tree_part(item, value, cls)
        if isinstance(value, (list, tuple, dict)):
            return self.builtin(item, value, cls)
        if isinstance(value, deque):
            self.elements(item, value)
            return "deque"
        if isinstance(value, (set, frozenset)):
            return "set" if all(type(x) in SCALARS for x in value) else "same"
        if is_user_module(cls.__module__):
            return self.instance(item, value, cls)
        if isinstance(value, np.random.Generator):
            self.tree.generators.append(value)
        wrapped = getattr(value, "__wrapped__", None)  # functools.cache and the like
        if isinstance(wrapped, FunctionType):
            self.later(wrapped, item, Step("attr", "__wrapped__"), item.path)
        return "same"

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

    # --- containers --------------------------------------------------------------------------

    def elements(self, item: Item, value: Iterable[Any]) -> None:
        for n, element in enumerate(value):
            path = f"{item.path}[{n}]"
            self.later(element, item, Step("item", n), path, item.argument, item.guarded)

    def builtin(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        """list, tuple, dict and their subclasses."""
        exact = cls in (list, tuple, dict)
        if exact and not item.argument and len(value) > MANY and is_plain(value):
            return "data"
        if not exact and is_user_module(cls.__module__):
            self.class_(cls)
            self.attributes(item, value)
        if not isinstance(value, dict):
            self.elements(item, value)
            return "list" if isinstance(value, list) else "tuple"
        for key, child in value.items():
            path = f"{item.path}[{self.key_text(key)}]"
            self.later(child, item, Step("item", key), path, item.argument, item.guarded)
        return "dict"

    def tree_part(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        container = container_of(cls)
        assert container is not None
        children, meta = container.parts(value)
        labels = container.labels(meta, len(children))
        for n, (child, label) in enumerate(zip(children, labels, strict=True)):
            name = label[1:]
            step = Step("attr", name) if label.startswith(".") else Step("part", n)
            self.later(child, item, step, item.path + label, True)
        if is_user_module(cls.__module__):
            self.class_(cls)
        return "tree"

    # --- objects -----------------------------------------------------------------------------

    def instance(self, item: Item, value: Any, cls: type[Any]) -> Kind:
        self.class_(cls)
        self.attributes(item, value)
        for name in slot_names(cls):
            child = getattr(value, name, MISSING)
            step, path = Step("attr", name), f"{item.path}.{name}"
            if child is MISSING:
                self.add(item, step, path, "absent", name)
            else:
                self.attribute(child, item, step, path, name)
        return "object"

    def attributes(self, item: Item, value: Any) -> None:
        """The instance's `__dict__`, as an item of its own: it is compared after the trace."""
        inside = getattr(value, "__dict__", None)
        if not isinstance(inside, dict):
            return
        item = self.add(item, Step("attr", "__dict__"), item.path, "attrs", inside)
        for name, child in inside.items():
            path = item.path + attribute_label(name)
            self.attribute(child, item, Step("item", name), path, name)

    def attribute(self, value: Any, item: Item, step: Step, path: str, name: str) -> None:
        """Plain values wait until some code spells their name."""

        def enter() -> None:
            self.later(value, item, step, path)

        if isinstance(value, (int, float, str, type(None))) or is_plain(value) or _opaque(value):
            self.when_named(name, enter)
        else:
            enter()

    def when_named(self, name: str, then: Callable[[], None]) -> None:
        if self.everything or name in self.names:
            then()
        else:
            self.waiting.setdefault(name, []).append(then)

    def note_names(self, names: Iterable[str], computed: bool) -> None:
        """`names` are spelled by reached code: what waited for them is reached too."""
        for name in names:
            if name not in self.names:
                self.names.add(name)
                for then in self.waiting.pop(name, ()):
                    then()
        if computed and not self.everything:
            self.everything = True
            for waiting in list(self.waiting.values()):
                for then in waiting:
                    then()
            self.waiting.clear()

    # --- code --------------------------------------------------------------------------------

    def parts(self, item: Item, kind: Kind, inside: dict[str, Any]) -> Kind:
        for name, child in inside.items():
            self.later(child, item, Step("attr", name), f"{item.path}.{name}")
        return kind

    def function(self, item: Item, fn: FunctionType, root: bool = False) -> Kind:
        if not is_user_module(fn.__module__) and not root:
            return "same"
        if is_treadle(fn.__module__):
            item.guarded = False  # the package's own code does not change under a running program
        names = names_in(fn.__code__)
        self.note_names(names.attributes, names.computed and not is_treadle(fn.__module__))
        for n, cell in enumerate(fn.__closure__ or ()):
            self.closure(item, fn.__code__.co_freevars[n], cell, n, root)
        self.globals(fn, names.globals)
        for name in names.imports:
            self.imported(name)
        if not root:
            self.defaults(item, fn)
        return "function"

    def closure(self, item: Item, name: str, cell: Any, n: int, root: bool) -> None:
        # The cells of the jitted function itself never change; another function may be replaced
        # by one with the same code and other cells.
        step, parent = (Step("cell", cell), None) if root else (Step("closure", n), item)
        try:
            content = cell.cell_contents
        except ValueError:
            self.add(parent, step, name, "absent", cell)
            return
        if isinstance(content, FunctionType) and content is item.value:
            return  # a recursive function closes over itself
        self.later(content, parent, step, name, guarded=item.guarded)

    def globals(self, fn: FunctionType, names: Sequence[str]) -> None:
        own = fn.__globals__
        space = self.namespace(own, own.get("__name__"), not is_treadle(fn.__module__))
        builtins = own.get("__builtins__", {})
        known = builtins if isinstance(builtins, dict) else vars(builtins)
        for name in names:
            self.entry(space, name, known)

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

    def defaults(self, item: Item, fn: FunctionType) -> None:
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(fn, name)
            if value:
                self.later(value, item, Step("attr", name), f"{item.path}.{name}",
                           guarded=item.guarded)  # fmt: skip

    def imported(self, name: str) -> None:
        module = sys.modules.get(name)
        if module is not None:
            self.module(module)

    def module(self, module: ModuleType) -> None:
        """A user's module: the attributes that any reached code names."""
        name = module.__name__
        if not is_user_module(name) or is_treadle(name):
            return
        space = self.namespace(vars(module), name)
        for key in list(vars(module)):
            if not key.startswith("__"):
                self.when_named(key, functools.partial(self.entry, space, key))

    def class_(self, cls: type[Any], called: bool = False) -> None:
        """What the methods of a class (those that some code names) reach, and its data."""
        for base in cls.__mro__:
            if not is_user_module(base.__module__) or issubclass(base, Enum):
                continue
            if base not in self.classes:
                self.classes.add(base)
                self.class_body(base)
            if called:
                self.class_names(base, ("__init__", "__new__", "__post_init__"))

    def class_space(self, cls: type[Any]) -> Item:
        return self.namespace(vars(cls), cls.__qualname__, not is_treadle(cls.__module__), cls)

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
            if special and (not callable(value) or name in _NOT_CALLED | _CONSTRUCTORS):
                continue
            enter = functools.partial(self.class_entry, space, name)
            if special:
                enter()
            else:
                self.when_named(name, enter)

    def class_entry(self, space: Item, name: str) -> None:
        if (id(space.value), name) in self.entries:
            return
        self.entries.add((id(space.value), name))
        step, path = Step("item", name), f"{space.path}.{name}"
        value, trail = unwrapped(space.value[name])
        parent = space
        for attribute in trail:
            parent = self.add(parent, step, path, "open", None, guarded=space.guarded)
            step = Step("attr", attribute)
        self.later(value, parent, step, path, guarded=space.guarded)


_DESCRIPTORS = (MemberDescriptorType, GetSetDescriptorType)
_CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__"})
_TRAILS: tuple[tuple[type[Any], str], ...] = (
    (staticmethod, "__func__"), (classmethod, "__func__"), (property, "fget"),
    (functools.cached_property, "func"), (functools.partialmethod, "func"),
)  # fmt: skip


def unwrapped(value: Any) -> tuple[Any, list[str]]:
    """The function inside a class's staticmethod, property and the like, and the way to it."""
    for cls, attribute in _TRAILS:
        if isinstance(value, cls):
            return getattr(value, attribute), [attribute]
    return value, []


def attribute_label(name: Any) -> str:
    """`.name`; for the children of a Sequential `[0]`."""
    text = str(name)
    if text.isidentifier():
        return f".{text}"
    return f"[{text}]" if text.isdigit() else f".__dict__[{name!r}]"


def _opaque(value: Any) -> bool:
    """Things that hold no tensors as far as the walk can see: read only by their name."""
    if isinstance(value, (Tensor, list, tuple, dict, set, deque, FunctionType, MethodType)):
        return False
    if isinstance(value, functools.partial) or is_jitted(value):
        return False
    return not is_user_module(type(value).__module__) or isinstance(value, BuiltinFunctionType)


def reach(
    fn: Callable[..., Any], names: Sequence[str], bound: Sequence[Any], self_name: str = "self"
) -> Tree:
    """Everything that `fn` reaches when it is called with `bound` for its parameters `names`.

    `fn` may be a function, a bound method, a `functools.partial` or an object with `__call__`
    (whose path is `self_name`). Raises TraceError where that is more than LIMIT values.
    """
    module = getattr(fn, "__module__", None) or type(fn).__module__
    walk = _Walk(module)
    for n, (name, value) in enumerate(zip(names, bound, strict=True)):
        walk.later(value, None, Step("root", n), name, True)
    if isinstance(fn, MethodType):
        walk.later(fn.__self__, None, Step("const", fn.__self__), self_name)
        fn = fn.__func__
    if isinstance(fn, FunctionType):
        item = walk.add(None, Step("const", fn), fn.__name__, "function", fn)
        walk.tree.by_id[id(fn)] = item
        walk.function(item, fn, root=True)
    else:
        walk.note_names(("__call__",), False)
        walk.later(fn, None, Step("const", fn), self_name)
    return walk.run()
