"""The trees that go through loops and branches: taken apart, checked, and named in messages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import bool_
from treadle.tracer import pytree
from treadle.tracer.execute import apply
from treadle.tracer.promote import as_operand, as_tensor, is_operand, number_of
from treadle.tracer.region import RegionTrace
from treadle.tracer.tensor import Tensor


def tree_of(tree: Any, what: str) -> tuple[list[Tensor], pytree.TreeDef]:
    """The leaves of `tree` as tensors, and its structure; numbers become tensors."""
    listed, treedef = pytree.flatten_with_paths(tree)
    return [_tensor(leaf, path, what) for path, leaf in listed], treedef


def _tensor(leaf: Any, path: str, what: str) -> Tensor:
    if not is_operand(leaf):
        at = f" at {path}" if path else ""
        raise DTypeError(
            f"{what} a {type(leaf).__name__} {leaf!r:.40}{at}; expected trees of tensors, arrays "
            "and numbers"
        )
    return as_tensor(leaf)


def defined_at(fn: Callable[..., Any]) -> str:
    """` (model.py:12)`: where a function was defined; nothing where that is not known."""
    inner = inspect.unwrap(fn)
    inner = getattr(inner, "__func__", inner)
    code = getattr(inner, "__code__", None)
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code is not None else ""


def check_function(what: str, fn: object, arguments: int | None = None) -> None:
    """Raises DTypeError unless `fn` can be called, ArgumentError unless it takes that many
    arguments by position (where the number is given and Python knows what `fn` takes)."""
    if not callable(fn):
        shown = str(fn.type) if isinstance(fn, Tensor) else f"{fn!r:.60}"
        raise DTypeError(f"{what} expects a function, found {type(fn).__name__} {shown}")
    if arguments is None:
        return
    try:
        signature = inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(*range(arguments))
    except TypeError:
        counted = f"{arguments} argument{'' if arguments == 1 else 's'}"
        raise ArgumentError(
            f"{what}: its function{defined_at(fn)} is called with {counted}, it takes {signature}"
        ) from None


class Carry:
    """What a step hands to the next: `leaves`, their `names`, and how a tree is made of them."""

    def __init__(self, what: str, fn: Callable[..., Any], init: Any, arguments: int) -> None:
        check_function(what, fn, arguments)
        self.what = what
        self.defined = defined_at(fn)
        self.leaves, self._tree = tree_of(init, f"{what}'s init holds")
        self.names = pytree.leaf_paths(self._tree, "carry")

    def tree(self, leaves: Sequence[Tensor]) -> Any:
        """The carry as the user's function sees it."""
        return pytree.unflatten(self._tree, leaves)

    def checked(self, tree: Any) -> list[Tensor]:
        """The leaves of what a step gives; numbers take the dtype of their place.

        Raises ShapeError or DTypeError naming the carry that is not what it was.
        """
        listed, treedef = pytree.flatten_with_paths(tree, "carry")
        if treedef != self._tree:
            raise ShapeError(
                f"{self.what}: the carry goes in as {self._tree} and comes out of the body"
                f"{self.defined} as {treedef}; it keeps its structure"
            )
        return [
            self._checked(leaf, path, old)
            for (path, leaf), old in zip(listed, self.leaves, strict=True)
        ]

    def _checked(self, leaf: Any, path: str, old: Tensor) -> Tensor:
        if not is_operand(leaf):
            raise DTypeError(
                f"{self.what}: {path} comes out of the body{self.defined} as a "
                f"{type(leaf).__name__} {leaf!r:.40}, expected {old.type}"
            )
        new = as_operand(leaf)
        loose = new.weak or number_of(leaf) is not None
        if loose and new.dtype != old.dtype and _holds(old, new):
            new = apply("cast", new, dtype=old.dtype)
        elif new.weak:
            new = as_tensor(new)
        if new.type == old.type:
            return new
        fault = ShapeError if new.shape != old.shape else DTypeError
        raise fault(
            f"{self.what}: {path} goes in as {old.type} and comes out of the body{self.defined} "
            f"as {new.type}; a carry keeps its shape and dtype in every step"
        )


def _holds(old: Tensor, new: Tensor) -> bool:
    """Can a Python number's tensor take the dtype of `old`?"""
    order = "biuf"
    kinds = [np.dtype(t.dtype.dtype).kind.replace("u", "i") for t in (old, new)]
    return order.index(kinds[0]) >= order.index(kinds[1])


class Rows:
    """What a scan runs over: `leaves` with one first axis of size `count`, and its outputs."""

    def __init__(self, what: str, xs: Any, length: int | None) -> None:
        if length is not None and (type(length) is not int or length < 0):
            raise ArgumentError(
                f"{what}: length must be an int of at least 0 or None, found {length!r}"
            )
        self.what = what
        self.leaves, self._tree = tree_of(xs, f"{what}'s xs hold")
        self.names = pytree.leaf_paths(self._tree, "x")
        self.count = self._count(length)
        self._outputs: pytree.TreeDef | None = None

    def _count(self, length: int | None) -> int:
        found, known = length, "length"
        for name, leaf in zip(self.names, self.leaves, strict=True):
            shown = f"xs{name[1:]}"
            if not leaf.ndim:
                raise ShapeError(f"{self.what}: {shown} is {leaf.type}, which has no rows")
            if found is not None and leaf.shape[0] != found:
                raise ShapeError(
                    f"{self.what}: {shown} is {leaf.type}, with {leaf.shape[0]} rows; {known} has "
                    f"{found}"
                )
            found, known = leaf.shape[0], shown
        if found is None:
            raise ArgumentError(f"{self.what}: xs holds no tensors, so length must be given")
        return found

    def tree(self, leaves: Sequence[Tensor]) -> Any:
        """A row as the user's function sees it."""
        return pytree.unflatten(self._tree, leaves)

    def outputs(self, tree: Any, defined: str) -> list[Tensor]:
        """The leaves of what a step gives; they have one structure in all steps."""
        leaves, treedef = tree_of(tree, f"{self.what}: y, from the body{defined}, holds")
        if self._outputs is not None and self._outputs != treedef:
            raise ShapeError(
                f"{self.what}: the body{defined} gives y as {treedef}, and gave {self._outputs}"
            )
        self._outputs = treedef
        return leaves

    def output_tree(self, leaves: Sequence[Tensor]) -> Any:
        """The stacked outputs."""
        assert self._outputs is not None
        return pytree.unflatten(self._outputs, leaves)


def as_predicate(x: Any, what: str) -> Tensor:
    """One bool. Raises DTypeError or ShapeError for anything else."""
    if not is_operand(x):
        raise DTypeError(f"{what} must be one bool, found {type(x).__name__} {x!r:.40}")
    found = as_operand(x)
    if found.dtype != bool_:
        raise DTypeError(f"{what} must be one bool, found {found.type}; compare it, as x > 0")
    if found.ndim:
        raise ShapeError(f"{what} must be one bool, found {found.type}; use all() or any()")
    return found


def same_results(
    regions: Sequence[RegionTrace],
    trees: Sequence[pytree.TreeDef],
    given: Sequence[list[Tensor]],
    whats: Sequence[str],
) -> list[list[Tensor]]:
    """Raises ShapeError or DTypeError where what branches give differs in structure or types."""
    names = pytree.leaf_paths(trees[0], "result")
    for tree, leaves, what in zip(trees[1:], given[1:], whats[1:], strict=True):
        if tree != trees[0]:
            raise ShapeError(f"{whats[0]} gives {trees[0]}, {what} gives {tree}")
        for name, first, leaf in zip(names, given[0], leaves, strict=True):
            if first.type != leaf.type:
                fault = ShapeError if first.shape != leaf.shape else DTypeError
                raise fault(
                    f"{whats[0]} gives {name} as {first.type}, {what} as {leaf.type}; branches "
                    "give one shape and dtype"
                )
    return [list(leaves) for leaves in given]


def without_numbers(tree: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """The tensors of a tree, and what puts others in their places; what else it holds stays."""
    leaves, treedef = pytree.flatten(tree)
    tensors = [n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def rebuilt(new: Sequence[Tensor]) -> Any:
        replaced = list(leaves)
        for n, x in zip(tensors, new, strict=True):
            replaced[n] = x
        return pytree.unflatten(treedef, replaced)

    return [as_tensor(leaves[n]) for n in tensors], rebuilt
