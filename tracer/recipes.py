"""How a compiled call builds what the Python function would have returned or assigned.

A recipe is made once, when the function is traced, and built at each call from

    found   the values that the guard fetched (arguments, state, containers), by position
    fresh   the tensors made of this call's results, by position
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.tracer import pytree
from treadle.tracer.items import MISSING
from treadle.tracer.tensor import Tensor


class Recipe(Protocol):
    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same Python object at every call."""

    value: Any

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return self.value


@dataclass(frozen=True, slots=True, eq=False)
class CopyOf:
    """A fresh copy of an array that the function makes."""

    value: npt.NDArray[Any]

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return np.array(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class Remade:
    """An object that the function makes: a copy at each call, so that none is changed for the
    next one. `known`: where in it (by id) objects stand that were there before the call, each with
    its position; they are not copied."""

    value: Any
    known: Mapping[int, int]

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return copy.deepcopy(self.value, {old: found[at] for old, at in self.known.items()})


@dataclass(frozen=True, slots=True)
class Known:
    """An object that was there before the call."""

    position: int

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return found[self.position]


@dataclass(frozen=True, slots=True)
class Fresh:
    """A tensor that the call made."""

    position: int

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return fresh[self.position]


@dataclass(frozen=True, slots=True)
class Number:
    """A Python float computed from float arguments: a float again, as without jit."""

    position: int

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return fresh[self.position].cell.buffer.item()


@dataclass(slots=True, eq=False)
class Shared:
    """An object that the call makes and that stands in several places: made once a call, and kept
    behind the tensors in `fresh` until all places have it."""

    number: int
    recipe: Recipe | None = None  # None while it is being written
    tensors: int = 0  # how many there are in `fresh`

    def build(self, found: Sequence[Any], fresh: Sequence[Any]) -> Any:
        assert isinstance(fresh, list) and self.recipe is not None
        place = self.tensors + self.number
        fresh.extend([MISSING] * (place + 1 - len(fresh)))
        if fresh[place] is MISSING:
            fresh[place] = self.recipe.build(found, fresh)
        return fresh[place]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A tree of such things."""

    tree: pytree.TreeDef
    leaves: tuple[Recipe, ...]

    def build(self, found: Sequence[Any], fresh: Sequence[Tensor]) -> Any:
        return pytree.unflatten(self.tree, [leaf.build(found, fresh) for leaf in self.leaves])
