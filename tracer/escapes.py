"""What leaves a trace: traced values that the function returned or bound to something reachable.

Each becomes a result of the Function and a recipe. A tensor from outside leaves as itself (or as a
view of itself), so that aliases mean the same as without jit; tensors made in the trace share
storage afterwards where they shared it inside.
"""

from __future__ import annotations

import builtins
import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, Protocol

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TraceError
from treadle.ir.graph import Loc, Result, Value
from treadle.ir.types import TensorType
from treadle.tracer import pytree
from treadle.tracer.cell import Cell
from treadle.tracer.errors import leak_error, located, unreachable_error
from treadle.tracer.history import History
from treadle.tracer.items import SCALARS, VALUES, Item, Tree, slot_names
from treadle.tracer.recipes import (
    Assembled,
    Constant,
    CopyOf,
    Fresh,
    Known,
    Number,
    Recipe,
    Remade,
    Shared,
)  # fmt: skip
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace, reached_from
from treadle.tracer.views import Maps

Where = Literal["out", "state"]
Role = Literal["plain", "leaf", "tracked", "spent", "stale"]


class Positions(Protocol):
    def of(self, item: Item) -> int: ...


@dataclass(frozen=True, slots=True)
class FreshTensor:
    """A tensor that the function made: of result `result`, whose storage others may share, or a
    view of the tensor `outside` (by position), whose storage was there before the call.

    `role`: plain; leaf (made with requires_grad=True in the function); tracked (backward() through
    the call reaches it; `value` is then what to differentiate); spent (its history was used up by
    a backward() inside); stale (changed at `written` behind its history's back). Tensors of one
    `history` share it; it lies above `depth` of the maps. The history of None is that of the
    tensor outside.
    """

    result: int
    maps: Maps
    type: TensorType
    weak: bool
    role: Role
    history: int | None
    value: Value | None
    depth: int = 0
    written: Loc | None = None
    outside: int | None = None
    kind: builtins.type[Tensor] = Tensor  # of which class
    relative: bool = False  # maps lead on from what the tensor outside shows, not its storage


class Escapes:
    """Collects results while recipes are made."""

    def __init__(
        self,
        trace: Trace,
        tree: Tree,
        positions: Positions,
        views_given: Mapping[Cell, tuple[History, int]],
        live: Mapping[int, Any],
    ) -> None:
        self.trace = trace
        self.tree = tree
        self.positions = positions
        self.views_given = views_given
        self.results: list[Result] = []
        self.fresh: list[FreshTensor] = []
        self._made: dict[int, tuple[Tensor, Fresh]] = {}
        self._storages: dict[Cell, int] = {}
        self._shown: dict[Cell, set[Maps]] = {}
        self._histories: dict[History, int] = {}
        tensors = [item for item in tree.items if item.kind == "tensor"]
        self._owners = {item.value.history: item for item in reversed(tensors)}
        self._known = {id(v): tree.items[n] for n, v in live.items()}
        self._met: dict[int, int] = {}  # by id: in how many places it leaves
        self._shared: dict[int, Shared] = {}
        self._kept: list[Any] = []  # so that their ids stay their own

    def announce(self, *groups: Iterable[Any]) -> None:
        """Look at all that will leave, so that storage is shared only where it has to be."""
        stack = [tree for group in groups for tree in group]
        while stack:
            here = stack.pop()
            if isinstance(here, Tensor):
                if here.cell.home is self.trace:
                    self._shown.setdefault(here.cell, set()).add(here.maps)
            elif type(here) not in SCALARS and not self._stays(here):
                met = self._met[id(here)] = self._met.get(id(here), 0) + 1
                container = pytree.container_of(type(here))
                if container is not None and met == 1:
                    stack.extend(container.parts(here)[0])

    def seal(self) -> None:
        """All recipes are made."""
        for shared in self._shared.values():
            shared.tensors = len(self.fresh)

    def first_of(self, history: History) -> int | None:
        """The number of a fresh tensor with this history that leaves."""
        number = self._histories.get(history)
        if number is None:
            return None
        return next((n for n, f in enumerate(self.fresh) if f.history == number), None)

    def output(self, value: Any) -> Recipe:
        """The recipe of the function's result; float arguments come back as floats."""
        return self._recipe(value, "out", "out", numbers=True)

    def refer(self, value: Any, path: str, numbers: bool = False) -> Recipe:
        """The recipe of something that state is bound to. `numbers`: what was computed from float
        arguments becomes a float, as in the arguments' own containers; elsewhere, where a float
        would be guarded and trace each call again, it stays a tensor that stands for one."""
        return self._recipe(value, path, "state", numbers)

    def _recipe(self, value: Any, path: str, kind: Where, numbers: bool) -> Recipe:
        if self._stays(value) or self._met.get(id(value), 0) > 1:
            return self._leaf(value, path, kind, numbers)
        return self._made_here(value, path, kind, numbers)

    def _made_here(self, value: Any, path: str, kind: Where, numbers: bool) -> Recipe:
        """The recipe of a container that the function has made, or of a leaf."""
        if value is not None and pytree.container_of(type(value)) is None:
            return self._leaf(value, path, kind, numbers)
        leaves, treedef = pytree.flatten(value, self._stands_alone)
        paths = pytree.leaf_paths(treedef, path)
        recipes = [self._leaf(x, p, kind, numbers) for x, p in zip(leaves, paths, strict=True)]
        return Assembled(treedef, tuple(recipes))

    def _stands_alone(self, value: Any) -> bool:
        """Whether `value`, inside of a container, is more than a part of it."""
        return self._met.get(id(value), 0) > 1 or self._stays(value)

    def _stays(self, value: Any) -> bool:
        """Whether `value` is a container that was there before the call, and is the same after."""
        item = self._item(value)
        if item is None or pytree.container_of(type(value)) is None:
            return False
        return not any(child.step.how == "part" for child in item.children)

    def _several(self, value: Any, path: str, kind: Where, numbers: bool) -> Recipe:
        """The recipe of something that the function makes and puts in several places."""
        found = self._shared.get(id(value))
        if found is None:
            found = self._shared[id(value)] = Shared(len(self._shared))
            self._kept.append(value)
            if pytree.container_of(type(value)) is not None:
                found.recipe = self._made_here(value, path, kind, numbers)
            else:
                found.recipe = self._object(value, path)
        if found.recipe is None:
            raise located(
                TraceError(
                    f"{path} is {_kind_of(value)} that the jitted function makes and that holds "
                    "itself; make it outside of the function"
                )
            )
        return found.recipe if isinstance(found.recipe, Constant) else found

    def _item(self, value: Any) -> Item | None:
        found = self._known.get(id(value)) or self.tree.by_id.get(id(value))
        return None if found is None or isinstance(value, Tensor) else found

    def _leaf(self, value: Any, path: str, kind: Where, numbers: bool) -> Recipe:
        if type(value) in SCALARS:
            return Constant(value)
        if isinstance(value, Tensor):
            recipe = self._tensor(value, path, kind)
            if numbers and isinstance(recipe, Fresh) and value.weak and not value.requires_grad:
                return Number(recipe.position)
            return recipe
        item = self._item(value)
        if item is not None and item.kind != "same":
            return Known(self.positions.of(item))
        if self._met.get(id(value), 0) > 1:
            return self._several(value, path, kind, numbers)
        return self._object(value, path)

    def _object(self, value: Any, path: str) -> Recipe:
        """The recipe of an object, no container, that the function makes."""
        if isinstance(value, np.ndarray):
            return CopyOf(np.array(value))
        if isinstance(value, Iterator):
            raise located(
                TraceError(
                    f"{path} is {_kind_of(value)} that the jitted function makes; each call would "
                    "go on with the same one: return or assign a list"
                )
            )
        hidden, known = self._inside(value)
        if hidden is not None:
            raise leak_error(
                hidden,
                hidden.cell.made_at,
                f"inside {path}, {_kind_of(value)} (return or assign tensors, containers or "
                "dataclasses of them)",
            )
        if not _is_mutable(value):
            return Constant(value)
        return Remade(value, {old: self.positions.of(item) for old, item in known.items()})

    def _inside(self, value: Any) -> tuple[Tensor | None, dict[int, Item]]:
        """A tensor that an object made by the function keeps, within reason; and, by id, the
        objects that were there before and that it leads to."""
        stack, seen = [value], {id(value)}
        known: dict[int, Item] = {}
        while stack and len(seen) < 10_000:
            here = stack.pop()
            item = self._item(here)
            if item is not None:
                known[id(here)] = item
            if item is not None or isinstance(here, (type, ModuleType)):
                continue
            if isinstance(here, Tensor):
                return here, {}
            for child in _inside(here):
                if id(child) not in seen and type(child) not in SCALARS:
                    seen.add(id(child))
                    stack.append(child)
        return None, known

    # --- tensors -----------------------------------------------------------------------------

    def _tensor(self, x: Tensor, path: str, kind: Where) -> Recipe:
        made = self._made.get(id(x))
        if made is not None:
            return made[1]
        if x.cell.home is None:
            return self._from_outside(x)
        if x.cell.home is not self.trace:
            raise leak_error(x, x.cell.made_at, f"at {path}, outside of its trace")
        given = self.views_given.get(x.cell)
        if given is not None:
            return self._of_view(x, *given)
        return self._add(x, self._fresh(x, path, kind))

    def _from_outside(self, x: Tensor) -> Recipe:
        item = self.tree.by_id.get(id(x))
        if item is not None:
            return Known(self.positions.of(item))
        owner = self._owners.get(x.history)
        item = self.tree.cells.get(id(x.cell)) if owner is None else owner
        if item is None:
            raise unreachable_error(x)
        return self._add(x, self._shares(x, self.positions.of(item), owner is not None))

    def _of_view(self, x: Tensor, history: History, position: int) -> Recipe:
        """An argument that is a view, of which `history` is that in the trace, or a part of it."""
        attached = x.history is history
        if attached and not x.maps:
            return Known(position)
        return self._add(x, replace(self._shares(x, position, attached), relative=True))

    def _shares(self, x: Tensor, position: int, attached: bool) -> FreshTensor:
        """`x`, which shows storage from outside; `attached`: with the history of its owner."""
        if attached:
            return FreshTensor(
                -1, x.maps, x.type, x.weak, "plain", None, None, outside=position,
                kind=x.result_class,
            )  # fmt: skip
        role, value = self._role(x), None
        if role == "tracked":
            value = self.trace.computed_value(x.history)[0]
        return FreshTensor(
            -1, x.maps, x.type, x.weak, role, self._history(x), value, x.history.depth,
            self.trace.written.get(x.cell), position, x.result_class,
        )  # fmt: skip

    def _fresh(self, x: Tensor, path: str, kind: Where) -> FreshTensor:
        role = self._role(x)
        maps: Maps = ()
        depth = 0
        if len(self._shown.get(x.cell, ())) <= 1:
            shown = value = self.trace.value_of(x)
            if role == "tracked":
                shown = value = self.trace.tracked_value(x)
        else:
            shown = value = self.trace.content(x)
            maps, depth = x.maps, x.history.depth
            if role == "tracked":
                value = self.trace.computed_value(x.history)[0]
        result = self._storage(x.cell, shown, path, kind)
        written = self.trace.written.get(x.cell)
        history = self._history(x)
        return FreshTensor(
            result, maps, x.type, x.weak, role, history, value, depth, written,
            kind=x.result_class,
        )  # fmt: skip

    def _history(self, x: Tensor) -> int:
        return self._histories.setdefault(x.history, len(self._histories))

    def _add(self, x: Tensor, made: FreshTensor) -> Fresh:
        self.fresh.append(made)
        recipe = Fresh(len(self.fresh) - 1)
        self._made[id(x)] = (x, recipe)
        return recipe

    def _storage(self, cell: Cell, value: Value, path: str, kind: Where) -> int:
        found = self._storages.get(cell)
        if found is None:
            found = self._storages[cell] = self._result(value, path, kind)
        return found

    def _result(self, value: Value, path: str, kind: Where) -> int:
        self.results.append(Result(value, path, kind))
        return len(self.results) - 1

    def _role(self, x: Tensor) -> Role:
        if not self.trace.computed(x.history):
            return "leaf" if x.history.requires_grad and x.history.leaf else "plain"
        if not x.dtype.is_float:
            return "plain"
        value, current = self.trace.computed_value(x.history)
        if not current:
            return "stale"
        return "spent" if self.trace.is_spent(reached_from(value)) else "tracked"


def _kind_of(value: Any) -> str:
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}"


def _is_mutable(value: Any) -> bool:
    """Whether a caller could change the object that it gets."""
    if isinstance(
        value, (*VALUES, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
    ):
        return False
    try:
        copied = copy.deepcopy(value)
    except Exception:  # a lock, a file: whatever its class refuses; it stays the one it is
        return False
    return copied is not value


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    found = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, functools.partial):
        found += [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        found.append(value.__self__)
    found += [getattr(value, name) for name in slot_names(type(value)) if hasattr(value, name)]
    for cell in getattr(value, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found
