"""Leaves a model as it was: what runs in between sees and changes it as it likes.

The stages of `check` never write to a tensor of the user's: they trace the model and run what was
traced on copies. What a trace and the user's own code may change besides is kept here and put back:
attributes of modules (modes, hooks, tensors that a forward assigns, parameters that a first input
makes) and the containers among them, and the sources of random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from treadle.nn.init import generator_state, set_generator_state
from treadle.nn.module import Module
from treadle.tracer.generator import Generator, default_generator
from treadle.tracer.tensor import Tensor

Restore = Callable[[], None]


@contextmanager
def left_as_it_was(*roots: Any) -> Iterator[None]:
    """Whatever this block does to the modules among `roots`, or raises, it is undone behind it."""
    undo = _Undo()
    for root in (*roots, default_generator):
        undo.keep(root)
    undo.random_state()
    try:
        yield
    finally:
        undo.restore()


class _Undo:
    def __init__(self) -> None:
        self.steps: list[Restore] = []
        self.seen: dict[int, Any] = {}  # holds the objects, so that their ids stay their own

    def restore(self) -> None:
        for step in reversed(self.steps):
            step()

    def keep(self, value: Any) -> None:
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, (Module, Generator)):
            self._dict(value.__dict__)
        elif type(value) is dict:
            self._dict(value)
        elif type(value) is list:
            self._list(value)
        elif type(value) is set:
            self._set(value)
        elif isinstance(value, tuple):
            self._all(value)

    def _all(self, values: Any) -> None:
        for value in values:
            self.keep(value)

    def _dict(self, table: dict[Any, Any]) -> None:
        before = dict(table)

        def back() -> None:
            table.clear()
            table.update(before)

        self.steps.append(back)
        self._all(before.values())

    def _list(self, items: list[Any]) -> None:
        before = list(items)

        def back() -> None:
            items[:] = before

        self.steps.append(back)
        self._all(before)

    def _set(self, items: set[Any]) -> None:
        before = set(items)

        def back() -> None:
            items.clear()
            items.update(before)

        self.steps.append(back)

    def _tensor(self, x: Tensor) -> None:
        """The values and the gradient. Traces change neither; a loss that is called outright may
        draw from a generator, or write to a buffer of its own."""
        cell, history = x.cell, x.history
        if cell.home is not None:
            return
        version, written_at, buffer = cell.version, cell.written_at, cell.buffer
        grad, requires_grad = history.grad, history.requires_grad
        export, content = cell._export, buffer.copy()

        def back() -> None:
            history.grad, history.requires_grad = grad, requires_grad
            if cell.version == version and cell.buffer is buffer:
                return
            np.copyto(buffer, content)
            cell.buffer, cell._export = buffer, export
            cell.version, cell.written_at = version, written_at

        self.steps.append(back)

    def random_state(self) -> None:
        """The sources that a data set may draw from as well."""
        own, python, legacy = generator_state(), random.getstate(), np.random.get_state()
        self.steps.append(lambda: set_generator_state(own))
        self.steps.append(lambda: random.setstate(python))
        self.steps.append(lambda: np.random.set_state(legacy))
