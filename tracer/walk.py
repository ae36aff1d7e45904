"""The loop of the walk over what a function can reach, and its rule for attributes.

A value that is an attribute of an object counts only where code that was reached spells its name;
until then it waits. Code that reads attributes by computed names lets all of them in.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Literal

from treadle.ir.errors import TraceError
from treadle.tracer.items import LIMIT, SCALARS, Item, Kind, Step, Tree

# How attributes of an object are read: by code that spells their names; also by comparing or
# printing the object; by code that is not followed.
Reads = Literal["named", "compared", "all"]
_COMPARED = ("__eq__", "__repr__")


class Walk:
    """The state of one walk."""

    def __init__(self, home: str | None) -> None:
        self.tree = Tree()
        self.home = home  # the module whose globals are written without a prefix
        self.queue: deque[tuple[Any, Item | None, Step, str, bool, bool]] = deque()
        self.waiting: dict[str, list[Callable[[], None]]] = {}
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

    def visit(
        self, value: Any, parent: Item | None, step: Step, path: str, argument: bool, guarded: bool
    ) -> None:
        raise NotImplementedError

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

    # --- names -------------------------------------------------------------------------------

    def when_named(self, names: tuple[str, ...], then: Callable[[], None]) -> None:
        """Run `then` once, when code that spells one of `names` is reached."""
        if self.tree.everything or not self.tree.words.isdisjoint(names):
            then()
            return
        if len(names) > 1:
            then = _once(then)
        for name in names:
            self.waiting.setdefault(name, []).append(then)

    def note_names(self, names: Collection[str], computed: bool, own: bool = False) -> None:
        """`names` are spelled by reached code: what waited for them is reached too. `own`: by
        Treadle's own."""
        if not own:
            self.tree.user_words.update(names)
        for name in names:
            if name not in self.tree.words:
                self.tree.words.add(name)
                for then in self.waiting.pop(name, ()):
                    then()
        if computed and not self.tree.everything:
            self.tree.everything = True
            for waiting in list(self.waiting.values()):
                for then in waiting:
                    then()
            self.waiting.clear()

    # --- attributes --------------------------------------------------------------------------

    def attributes(
        self, item: Item, value: Any, reads: Reads = "named", without: Collection[str] = ()
    ) -> None:
        """The instance's `__dict__`, as an item of its own: it is compared after the trace.
        `without`: names that are items of another kind."""
        inside = instance_dict(value)
        if not isinstance(inside, dict):
            return
        step = Step("attr", "__dict__")
        reading: Any = type(value).__getattribute__
        if reading is not object.__getattribute__:
            step = Step("apply", instance_dict)  # `value.__dict__` would run code of the user's
        item = self.add(item, step, item.path, "attrs", inside, guarded=item.guarded)
        for name, child in inside.items():
            if name in without:
                continue
            path = item.path + attribute_label(name)
            self.attribute(child, item, Step("item", name), path, name, reads)

    def attribute(
        self, value: Any, item: Item, step: Step, path: str, name: str, reads: Reads
    ) -> None:
        """Plain values wait until some code spells their name."""

        def enter() -> None:
            self.later(value, item, step, path, guarded=item.guarded)

        if reads == "all" or not self.lingers(value):
            enter()
        else:
            names = (name, *_COMPARED) if reads == "compared" else (name,)
            self.when_named(names, enter)

    def lingers(self, value: Any) -> bool:
        """Whether `value`, an attribute, may wait for its name."""
        raise NotImplementedError


def instance_dict(value: Any) -> Any:
    """`value.__dict__`, whatever its class says about reading attributes."""
    if isinstance(value, threading.local):
        return value.__dict__  # another one in each thread
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def _once(then: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def first_time() -> None:
        if not done:
            done.append(True)
            then()

    return first_time


def attribute_label(name: Any) -> str:
    """`.name`; for the children of a Sequential `[0]`."""
    text = str(name)
    if text.isidentifier():
        return f".{text}"
    return f"[{text}]" if text.isdigit() else f".__dict__[{name!r}]"
