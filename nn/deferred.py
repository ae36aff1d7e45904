"""Layers that take their input size from their first input.

    model = nn.Sequential(nn.Conv2d(None, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(None, 10))
    model(treadle.zeros((1, 3, 32, 32)))        # every layer knows its size now

Until then a layer has no parameters, and asking for them is an error that says so.
"""

from __future__ import annotations

from treadle.ir.errors import TreadleError
from treadle.nn.module import Module
from treadle.tracer.errors import located
from treadle.tracer.modes import active_trace
from treadle.tracer.shapes import ShapeTrace, set_aside


class Deferred(Module):
    """Base of such layers: `settle` makes the parameters, at once or at the first input."""

    waits = False

    def wait(self) -> None:
        """The input size is not known yet."""
        self.waits = True

    def settle(self, size: int) -> None:
        """Make the parameters for inputs of `size` features or channels."""
        raise NotImplementedError

    def settle_by(self, size: int) -> None:
        """The first input has come. Raises TreadleError inside a jitted function: what the call
        would make there is no part of its results."""
        trace = active_trace()
        if trace is not None and not isinstance(trace, ShapeTrace):
            raise located(
                TreadleError(
                    f"{type(self).__name__} has no input size yet: give the model one input before "
                    "a jitted function uses it"
                )
            )
        self.waits = False
        try:
            with set_aside():
                self.settle(size)
        except BaseException:
            self.waits = True
            raise

    def _check_complete(self, path: str) -> None:
        if self.waits:
            where = f" at {path!r}" if path else ""
            raise located(
                TreadleError(
                    f"{type(self).__name__}{where} has no parameters before its first input: give "
                    "the model one input first, or the layer its input size"
                )
            )
