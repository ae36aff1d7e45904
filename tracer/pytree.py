"""Trees of values: tuple, namedtuple, list, dict, dataclass, None, and leaves.

`flatten` takes a tree apart into its leaves and a `TreeDef`, which is hashable and rebuilds the
tree from other leaves. Dictionaries keep their order of insertion and may have any hashable keys.
An instance of a subclass of list or dict, or of any class that is not registered, is a leaf, and
so are dtypes and tensor types;
`register_container` makes a container of a user's own class.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TreadleError
from treadle.ir.types import DType, TensorType


class TreeError(TreadleError, ValueError):
    """Two trees that should have the same structure do not."""


@dataclass(frozen=True, slots=True)
class TreeDef:
    """The structure of a tree. `type` is None for a leaf; `meta` is what besides the children is
    needed to rebuild the container (a dictionary's keys, a dataclass's field names)."""

    type: type[Any] | None
    meta: Any = None
    children: tuple[TreeDef, ...] = ()

    @property
    def is_leaf(self) -> bool:
        return self.type is None

    @property
    def leaf_count(self) -> int:
        if self.type is None:
            return 1
        return sum(child.leaf_count for child in self.children)

    def __str__(self) -> str:
        if self.type is None:
            return "*"
        if self.type is type(None):
            return "None"
        inside = ", ".join(map(str, self.children))
        return f"{self.type.__name__}({inside})"


LEAF = TreeDef(None)
_NONE = TreeDef(type(None))


@dataclass(frozen=True, slots=True)
class Container:
    """How a class is taken apart and built again.

    `parts(value)` gives its children and a hashable rest; `build(rest, children)` the inverse;
    `labels(rest, count)` how a child is written behind its parent's path: `[0]`, `['w']`, `.w`.
    """

    parts: Callable[[Any], tuple[Sequence[Any], Any]]
    build: Callable[[Any, Sequence[Any]], Any]
    labels: Callable[[Any, int], Iterable[str]]


def _indexes(_: Any, count: int) -> Iterable[str]:
    return [f"[{i}]" for i in range(count)]


def _keys(keys: tuple[Any, ...], _: int) -> Iterable[str]:
    return [f"[{k!r}]" for k in keys]


def _fields(names: tuple[str, ...], _: int) -> Iterable[str]:
    return [f".{n}" for n in names]


_containers: dict[type[Any], Container] = {
    tuple: Container(lambda t: (t, None), lambda _, c: tuple(c), _indexes),
    list: Container(lambda t: (t, None), lambda _, c: list(c), _indexes),
    dict: Container(
        lambda t: (list(t.values()), tuple(t)), lambda k, c: dict(zip(k, c, strict=True)), _keys
    ),
    OrderedDict: Container(
        lambda t: (list(t.values()), tuple(t)),
        lambda k, c: OrderedDict(zip(k, c, strict=True)),
        _keys,
    ),
    defaultdict: Container(
        lambda t: (list(t.values()), (t.default_factory, tuple(t))),
        lambda m, c: defaultdict(m[0], zip(m[1], c, strict=True)),
        lambda m, n: _keys(m[1], n),
    ),
}


def register_container(
    cls: type[Any],
    flatten: Callable[[Any], tuple[Sequence[Any], Any]],
    unflatten: Callable[[Any, Sequence[Any]], Any],
) -> None:
    """Make instances of `cls` containers.

    `flatten(value)` returns (children, rest) with a hashable rest; `unflatten(rest, children)`
    builds the value again. Raises ValueError where `cls` is a container already.
    """
    if cls in _containers:
        raise ValueError(f"{cls.__qualname__} is registered as a container already")
    _containers[cls] = Container(flatten, unflatten, _indexes)


def container_of(cls: type[Any]) -> Container | None:
    """How `cls` is taken apart; None for a leaf's class. (None itself is no leaf.)"""
    found = _containers.get(cls)
    if found is not None:
        return found
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _remember(cls, _namedtuple(cls))
    if dataclasses.is_dataclass(cls) and not issubclass(cls, (DType, TensorType)):
        return _remember(cls, _dataclass(cls))
    return None


def _remember(cls: type[Any], container: Container) -> Container:
    _containers[cls] = container
    return container


def _namedtuple(cls: Any) -> Container:
    names: tuple[str, ...] = cls._fields
    return Container(lambda t: (t, names), lambda _, c: cls(*c), _fields)


def _dataclass(cls: type[Any]) -> Container:
    names = tuple(f.name for f in dataclasses.fields(cls))

    def build(_: Any, children: Sequence[Any]) -> Any:
        # Not through __init__: it may have other parameters, and __post_init__ may compute.
        value = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(value, name, child)
        return value

    return Container(lambda t: ([getattr(t, n) for n in names], names), build, _fields)


def _never(_: Any) -> bool:
    return False


def flatten(tree: Any, leaf: Callable[[Any], bool] = _never) -> tuple[list[Any], TreeDef]:
    """The leaves of `tree`, in order, and its structure. None has no leaves. What is inside of
    `tree` and for which `leaf` holds is a leaf as well."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves, leaf)


def _flatten(tree: Any, leaves: list[Any], leaf: Callable[[Any], bool]) -> TreeDef:
    if tree is None:
        return _NONE
    container = container_of(type(tree))
    if container is None:
        leaves.append(tree)
        return LEAF
    children, meta = container.parts(tree)
    inside = [_inside(child, leaves, leaf) for child in children]
    return TreeDef(type(tree), meta, tuple(inside))


def _inside(tree: Any, leaves: list[Any], leaf: Callable[[Any], bool]) -> TreeDef:
    if leaf is not _never and leaf(tree):
        leaves.append(tree)
        return LEAF
    return _flatten(tree, leaves, leaf)


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """The tree of structure `treedef` with the given leaves. Raises TreeError for a wrong count."""
    rest = iter(leaves)
    try:
        tree = _unflatten(treedef, rest)
    except StopIteration:
        raise TreeError(f"too few leaves for a tree {treedef}") from None
    if next(rest, LEAF) is not LEAF:
        raise TreeError(f"too many leaves for a tree {treedef}, which has {treedef.leaf_count}")
    return tree


def _unflatten(treedef: TreeDef, leaves: Iterator[Any]) -> Any:
    if treedef.type is None:
        return next(leaves)
    if treedef.type is type(None):
        return None
    container = container_of(treedef.type)
    assert container is not None
    children = [_unflatten(child, leaves) for child in treedef.children]
    return container.build(treedef.meta, children)


def leaf_paths(treedef: TreeDef, root: str = "") -> list[str]:
    """Where each leaf is found, as the user would write it: `batch['image']`, `params.w[0]`."""
    found: list[str] = []
    _collect_paths(treedef, root, found)
    return found


def _collect_paths(treedef: TreeDef, path: str, found: list[str]) -> None:
    if treedef.type is None:
        found.append(path)
    if not treedef.children or treedef.type is None:
        return
    container = container_of(treedef.type)
    assert container is not None
    labels = container.labels(treedef.meta, len(treedef.children))
    for label, child in zip(labels, treedef.children, strict=True):
        _collect_paths(child, path + label, found)


def flatten_with_paths(tree: Any, root: str = "") -> tuple[list[tuple[str, Any]], TreeDef]:
    """As `flatten`, each leaf with its path behind `root`."""
    leaves, treedef = flatten(tree)
    return list(zip(leaf_paths(treedef, root), leaves, strict=True)), treedef


def tree_map(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of `fn(leaf, *leaves at the same place of rest)`.

    Raises TreeError where the structures differ.
    """
    leaves, treedef = flatten(tree)
    columns = [leaves]
    for number, other in enumerate(rest, 2):
        others, structure = flatten(other)
        if structure != treedef:
            raise TreeError(
                f"trees differ in structure: the first is {treedef}, number {number} is {structure}"
            )
        columns.append(others)
    return unflatten(treedef, [fn(*row) for row in zip(*columns, strict=True)])
