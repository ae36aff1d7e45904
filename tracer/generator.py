"""`Generator`: where random numbers come from when no key is given.

A generator is a seed and the number of draws that were taken, two int64 tensors of rank 0. That is
ordinary state: a jitted function reads it and writes it back like any other, a call that fails
leaves it, it can be saved and copied. A draw of any size takes one number, so that what a program
draws later does not depend on shapes, nor on whether a draw is used at all.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import DType, int64, shape_text
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located, located_errors
from treadle.tracer.execute import apply, write
from treadle.tracer.items import library_classes, library_state
from treadle.tracer.modes import modes, no_grad
from treadle.tracer.promote import constant
from treadle.tracer.tensor import Tensor

_DRAWING: Final = threading.RLock()  # an eager draw reads and writes


class Generator:
    """A stream of random numbers, started by `seed`: the same seed and the same order of draws
    give the same numbers, eagerly and compiled, on any machine and any number of threads.

    Raises ArgumentError unless `seed` is an int from 0 to 2^64 - 1.
    """

    def __init__(self, seed: int = 0) -> None:
        number = seed_number(seed)
        with located_errors():
            self._seed = _scalar(number)
            self._draws = _scalar(0)

    def manual_seed(self, seed: int) -> Generator:
        """Start anew with `seed`; returns the generator. Inside a jitted function the compiled
        call does this each time that it runs."""
        number = seed_number(seed)
        with no_grad(), _DRAWING:
            write(self._seed, constant(number, int64))
            write(self._draws, constant(0, int64))
        return self

    def get_state(self) -> Tensor:
        """The seed and the number of draws taken, int64 [2]: a copy."""
        return apply("concat", *(apply("reshape", x, shape=(1,)) for x in self._parts()), axis=0)

    def set_state(self, state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave; returns the generator. Raises DTypeError and
        ShapeError for anything else."""
        if not isinstance(state, Tensor) or state.dtype != int64:
            what = str(state.type) if isinstance(state, Tensor) else type(state).__name__
            raise located(DTypeError(f"the state of a generator is an int64 tensor, found {what}"))
        if state.shape != (2,):
            what = shape_text(state.shape)
            raise located(ShapeError(f"the state of a generator has shape (2,), found {what}"))
        with no_grad(), _DRAWING:
            for own, part in zip(self._parts(), (state[0], state[1]), strict=True):
                write(own, part)
        return self

    def draw(self, op: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
        """The result of a random op for the next draw."""
        with no_grad(), _DRAWING:
            found = apply(op, self._seed, self._draws, shape=shape, dtype=dtype)
            write(self._draws, apply("add", self._draws, constant(1, int64)))
        return found

    def _parts(self) -> tuple[Tensor, Tensor]:
        return self._seed, self._draws

    def __repr__(self) -> str:
        if modes.trace is not None or self._seed.is_traced:
            return "Generator(traced)"
        return f"Generator(seed={int(self._seed)}, draws={int(self._draws)})"


def seed_number(seed: object) -> int:
    """A seed as an int64 of the same bits. Raises ArgumentError for what is no such int."""
    number = -1
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        number = int(seed)
    if not 0 <= number < 2**64:
        raise located(
            ArgumentError(
                f"a seed must be an int that is at least 0 and below 2**64, found {seed!r:.60}"
            )
        )
    return number - 2**64 if number >= 2**63 else number


def _scalar(number: int) -> Tensor:
    """A tensor of its own, or inside a trace a value of the trace."""
    if modes.trace is not None:
        return modes.trace.constant(number, int64)
    return Tensor(Cell.of(np.array(number, np.int64)))


default_generator: Final = Generator()
library_classes[Generator] = ("_seed", "_draws")
# Where nothing else leads to the default generator, a trace finds its tensors here.
library_state["treadle.default_generator.seed"] = default_generator._seed
library_state["treadle.default_generator.draws"] = default_generator._draws


def generator_or_default(generator: Any) -> Generator:
    """The generator given; the default one for None. Raises ArgumentError for anything else."""
    if generator is None:
        return default_generator
    if isinstance(generator, Generator):
        return generator
    raise ArgumentError(
        f"generator must be a treadle.Generator, found {type(generator).__name__} {generator!r:.60}"
    )
