"""What a trace did to the user's objects: found by comparing containers before and after.

    before = Snapshot(tree)       shallow copies of every reachable container
    ... the user's function runs under a trace ...
    changes = before.changes()    which attribute, item, name or cell is bound to something else
    before.restore()              everything as it was, also where the trace raised

A change becomes an assignment that each call of the compiled function repeats.
"""

from __future__ import annotations

import copy
import marshal
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from treadle.ir.dataclass import dataclass
from treadle.tracer.items import MISSING, SCALARS, Item, Tree, slot_names
from treadle.tracer.walk import attribute_label

How = Literal["item", "attr", "cell", "whole"]


@dataclass(frozen=True, slots=True)
class Change:
    """In `container` (an item; `target` the very object), `key` is bound to `new`.

    `how`: item (a dictionary's or list's item), attr (a slot or class attribute), cell (a closure
    cell), whole (all elements of a list, deque or set; `new` is a list of them). `new` is MISSING
    for a deletion. `path` is what the user would write.
    """

    container: Item
    target: Any
    how: How
    key: Any
    new: Any
    path: str


class Snapshot:
    """Shallow copies of the containers of a tree; `live` replaces those that were rebuilt."""

    def __init__(self, tree: Tree, live: Mapping[int, Any]) -> None:
        self._entries: list[_Entry] = []
        for item in tree.items:
            value = live.get(item.number, item.value)
            entry = _entry(item, value, rebuilt=item.number in live)
            if entry is not None:
                self._entries.append(entry)

    def changes(self) -> list[Change]:
        """What is bound to something else now, in the order of the tree."""
        return [change for entry in self._entries for change in entry.changes()]

    def restore(self) -> None:
        """Put back what has changed."""
        for entry in self._entries:
            if not entry.rebuilt and next(iter(entry.changes()), None) is not None:
                entry.restore()


def same(old: Any, new: Any) -> bool:
    """Whether a binding is unchanged: the same object, or an equal plain value."""
    if old is new:
        return True
    if type(old) is not type(new) or type(old) not in SCALARS:
        return False
    return marshal.dumps(old, 0) == marshal.dumps(new, 0)  # bit for bit: -0.0 is not 0.0


class _Entry:
    """One container."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        self.item = item
        self.value = value
        self.rebuilt = rebuilt

    def changes(self) -> Iterator[Change]:
        raise NotImplementedError

    def restore(self) -> None:
        raise NotImplementedError


class _Mapping(_Entry):
    """A dictionary, an instance's attributes, the named globals of a module."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        super().__init__(item, value, rebuilt)
        self.only = _named(item) if item.kind == "names" else None
        self.before = self.now()

    def now(self) -> dict[Any, Any]:
        if self.only is None:
            return dict(self.value)
        return {k: self.value[k] for k in self.only if k in self.value}

    def path(self, key: Any) -> str:
        if self.item.kind == "dict":
            return f"{self.item.path}[{key!r}]"
        return self.item.path + attribute_label(key) if self.item.path else str(key)

    def changes(self) -> Iterator[Change]:
        now = self.now()
        keys = [*self.before, *(k for k in now if k not in self.before)]
        if self.item.kind == "dict" and [*now] != [k for k in keys if k in now]:
            yield Change(self.item, self.value, "whole", None, now, self.item.path)
            return
        for key in keys:
            old, new = self.before.get(key, MISSING), now.get(key, MISSING)
            if not same(old, new):
                yield Change(self.item, self.value, "item", key, new, self.path(key))

    def restore(self) -> None:
        if self.only is None:  # as a whole: the order of keys too
            kind = _plain_dict(self.value)
            kind.clear(self.value)
            kind.update(self.value, self.before)
            return
        for change in list(self.changes()):
            if change.key in self.before:
                self.value[change.key] = self.before[change.key]
            else:
                del self.value[change.key]


class _Unlisted(_Mapping):
    """The attributes of a dataclass that are none of its fields."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        assert item.parent is not None
        self.fields = {c.step.key for c in item.parent.children}
        super().__init__(item, value, rebuilt)

    def now(self) -> dict[Any, Any]:
        return {k: v for k, v in self.value.items() if k not in self.fields}

    def restore(self) -> None:
        for change in list(self.changes()):
            set_item(self.value, change.key, self.before.get(change.key, MISSING))


def _named(item: Item) -> tuple[str, ...]:
    return tuple(c.step.key for c in item.children if c.step.how == "item")


class _Class(_Mapping):
    """The named attributes of a class, whose `__dict__` is read-only, and those that it gets."""

    def __init__(self, item: Item, value: Any, cls: type[Any]) -> None:
        self.cls = cls
        self.old = frozenset(value)
        super().__init__(item, value, rebuilt=False)

    def now(self) -> dict[Any, Any]:
        new = {k: v for k, v in self.value.items() if k not in self.old and not _is_special(k)}
        return {**super().now(), **new}

    def changes(self) -> Iterator[Change]:
        for change in super().changes():
            yield Change(self.item, self.cls, "attr", change.key, change.new, change.path)

    def restore(self) -> None:
        for change in list(self.changes()):
            if change.key in self.before:
                setattr(self.cls, change.key, self.before[change.key])
            else:
                delattr(self.cls, change.key)


def _is_special(name: str) -> bool:
    """Whether Python itself may make an attribute of that name (`__annotations__`)."""
    return name.startswith("__") and name.endswith("__")


class _Elements(_Entry):
    """A list, a deque or a set: compared and replaced as a whole."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        super().__init__(item, value, rebuilt)
        self.before = list(value)

    def changes(self) -> Iterator[Change]:
        now = list(self.value)
        if len(now) != len(self.before) or not all(map(same, self.before, now)):
            yield Change(self.item, self.value, "whole", None, now, self.item.path)

    def restore(self) -> None:
        replace_elements(self.value, self.before)


class _Data(_Entry):
    """Nested plain values, which are guarded as one block."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        super().__init__(item, value, rebuilt)
        self.before = copy.deepcopy(value)
        self.bits = marshal.dumps(value, 0)

    def changes(self) -> Iterator[Change]:
        if marshal.dumps(self.value, 0) != self.bits:
            now = copy.deepcopy(self.value)
            yield Change(self.item, self.value, "whole", None, now, self.item.path)

    def restore(self) -> None:
        replace_elements(self.value, self.before)


class _Slots(_Entry):
    """The attributes that an instance keeps in slots."""

    def __init__(self, item: Item, value: Any, rebuilt: bool) -> None:
        super().__init__(item, value, rebuilt)
        self.before = self.now()

    def now(self) -> dict[str, Any]:
        return {n: getattr(self.value, n, MISSING) for n in slot_names(type(self.value))}

    def changes(self) -> Iterator[Change]:
        for name, new in self.now().items():
            if not same(self.before[name], new):
                path = f"{self.item.path}.{name}"
                yield Change(self.item, self.value, "attr", name, new, path)

    def restore(self) -> None:
        for change in list(self.changes()):
            set_attribute(self.value, change.key, self.before[change.key])


class _Cell(_Entry):
    """A variable of an enclosing function."""

    def __init__(self, item: Item, cell: Any) -> None:
        super().__init__(item, cell, rebuilt=False)
        self.before = self.now()

    def now(self) -> Any:
        try:
            return self.value.cell_contents
        except ValueError:
            return MISSING

    def changes(self) -> Iterator[Change]:
        new = self.now()
        if not same(self.before, new):
            yield Change(self.item, self.value, "cell", None, new, self.item.path)

    def restore(self) -> None:
        set_cell(self.value, self.before)


def _entry(item: Item, value: Any, rebuilt: bool) -> _Entry | None:
    """How the container `value` is compared; None where there is nothing to compare."""
    if item.step.how == "cell":
        return _both(item, value, rebuilt)
    if item.step.how == "closure":
        assert item.parent is not None
        cells = item.parent.value.__closure__
        return _Pair(_Cell(item, cells[item.step.key]), _content(item, value, rebuilt))
    return _content(item, value, rebuilt)


def _both(item: Item, value: Any, rebuilt: bool) -> _Entry:
    return _Pair(_Cell(item, item.step.key), _content(item, value, rebuilt))


class _Pair(_Entry):
    """A closure variable, and the container that it holds."""

    def __init__(self, first: _Entry, second: _Entry | None) -> None:
        super().__init__(first.item, first.value, False)
        self.entries = [first] if second is None else [first, second]

    def changes(self) -> Iterator[Change]:
        for entry in self.entries:
            yield from entry.changes()

    def restore(self) -> None:
        for entry in self.entries:
            entry.restore()


def _content(item: Item, value: Any, rebuilt: bool) -> _Entry | None:
    kind = item.kind
    if item.step.how == "apply" and kind != "attrs":
        return None  # seen through a copy; a change is refused
    if kind == "names":
        if item.owner is not None:
            return _Class(item, value, item.owner)
        return _Mapping(item, value, False)
    if kind == "attrs" and item.parent is not None and item.parent.kind == "tree":
        return _Unlisted(item, value, rebuilt)
    if kind in ("dict", "attrs"):
        return _Mapping(item, value, rebuilt)
    if kind in ("list", "deque", "set") and not isinstance(value, (tuple, frozenset)):
        return _Elements(item, value, rebuilt)
    if kind == "data" and not isinstance(value, tuple):
        return _Data(item, value, rebuilt)
    if kind == "object" and any(True for _ in slot_names(type(value))):
        return _Slots(item, value, rebuilt)
    if kind == "tree":
        return _fields(item, value, rebuilt)
    return None


def _fields(item: Item, value: Any, rebuilt: bool) -> _Entry | None:
    """The fields of a dataclass that an argument holds."""
    if isinstance(value, tuple) or any(c.step.how == "part" for c in item.children):
        return None
    return _Fields(item, value, rebuilt)


class _Fields(_Slots):
    def now(self) -> dict[str, Any]:
        return {c.step.key: getattr(self.value, c.step.key, MISSING) for c in self.item.children}


# --- writing ---------------------------------------------------------------------------------


def replace_elements(target: Any, elements: Any) -> None:
    """Make `elements` the content of a list, deque, set or dictionary, which stays itself."""
    if isinstance(target, list):
        target[:] = elements
        return
    if isinstance(target, dict):
        kind = _plain_dict(target)
        kind.clear(target)
        kind.update(target, elements)
        return
    target.clear()
    (target.extend if hasattr(target, "extend") else target.update)(elements)


def set_cell(cell: Any, value: Any) -> None:
    if value is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = value


def set_attribute(target: Any, name: str, value: Any) -> None:
    """Set or delete an attribute, also of a frozen dataclass."""
    if isinstance(target, type):
        if value is MISSING:
            delattr(target, name)
        else:
            setattr(target, name, value)
    elif value is MISSING:
        object.__delattr__(target, name)
    else:
        object.__setattr__(target, name, value)


def set_item(target: Any, key: Any, value: Any) -> None:
    """Set or delete an item of a dictionary; of a subclass, without its own `__setitem__`."""
    kind = _plain_dict(target)
    if value is MISSING:
        kind.__delitem__(target, key)
    else:
        kind.__setitem__(target, key, value)


def _plain_dict(target: Any) -> type[dict[Any, Any]]:
    """The class of the library whose methods change `target`: an OrderedDict links its keys."""
    return OrderedDict if isinstance(target, OrderedDict) else dict
