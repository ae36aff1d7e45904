"""Random numbers drawn while a function is traced would be the same at every call: an error."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from treadle.ir.errors import TraceError

Generator: TypeAlias = np.random.Generator | np.random.RandomState | random.Random


def is_generator(value: object) -> bool:
    """Whether random numbers are drawn from `value`."""
    return isinstance(value, (np.random.Generator, np.random.RandomState, random.Random))


def _state(generator: Generator) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def _set_state(generator: Generator, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


class RandomState:
    """The state of Python's and NumPy's global generators, and of those that are reachable."""

    def __init__(self, generators: Sequence[Generator]) -> None:
        self.generators = list({id(g): g for g in generators}.values())
        self.python = random.getstate()
        self.numpy = np.random.get_state(legacy=False)
        self.own = [_state(g) for g in self.generators]
        self.bits = self._bits()

    def _bits(self) -> tuple[object, ...]:
        states = [np.random.get_state(legacy=False), *(_state(g) for g in self.generators)]
        return random.getstate(), *(pickle.dumps(s) for s in states)

    def restore(self) -> None:
        """Undo the draws."""
        if self._bits() == self.bits:
            return
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        for generator, state in zip(self.generators, self.own, strict=True):
            _set_state(generator, state)

    def check(self, name: str) -> None:
        """Raises TraceError where anything was drawn since this object was made."""
        if self._bits() != self.bits:
            raise TraceError(
                f"{name} draws random numbers from NumPy or Python's random while it is traced; "
                "they would be the same at every call; draw them outside and pass them as an "
                "argument"
            )
