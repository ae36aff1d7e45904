"""A trace that is looked at while it is made, and then forgotten: what a function computes, on
tensors of which only the types are known.

    with shape_trace() as trace:
        x = trace.arg(TensorType(float32, (8, 3, 32, 32)), "x")
        y = model(x)                      # y.shape; nothing was computed
        trace.builder.instrs              # what would be

Tensors from outside are read as they are and keep their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from treadle.tracer.modes import modes, no_grad
from treadle.tracer.trace import Trace


class ShapeTrace(Trace):
    """A trace of shapes alone."""

    def __init__(self) -> None:
        numbers = count()
        super().__init__("shapes", lambda _: f"state{next(numbers)}")


@contextmanager
def shape_trace() -> Iterator[ShapeTrace]:
    """Everything in this block is traced, in no-grad mode."""
    trace = ShapeTrace()
    with trace, no_grad():
        yield trace


@contextmanager
def set_aside() -> Iterator[None]:
    """In this block the trace of this thread rests: tensors are made eagerly."""
    trace, modes.trace = modes.trace, None
    try:
        yield
    finally:
        modes.trace = trace
