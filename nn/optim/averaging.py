"""An exponential moving average of a network's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from treadle.ir.errors import ArgumentError
from treadle.nn.optim.group import number
from treadle.nn.optim.optimizer import checked
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor


class ExponentialMovingAverage:
    """a = decay * a + (1 - decay) * p for each parameter p, beginning with a = p.

    `update()` after each step of the optimiser, inside a jitted step or outside; in the block of
    `with ema.applied():` the parameters have their averages' values.
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999) -> None:
        self.params = list(params)
        if not self.params:
            raise located(ArgumentError("an average of parameters got no parameters"))
        self.decay = number(checked("decay", decay, below=1.0))
        self.averages = [param.detach().clone() for param in self.params]

    def update(self) -> None:
        """Bring the averages nearer to the parameters, in place."""
        with no_grad():
            for average, param in zip(self.averages, self.params, strict=True):
                average.add_((1 - self.decay) * (param - average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters have their averages' values in this block, and their own after it."""
        own = [param.detach().clone() for param in self.params]
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """The decay and the averages, which share their storage with these."""
        return {"decay": self.decay.item(), "averages": [a.detach() for a in self.averages]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy saved averages into these, in place. Raises ArgumentError where the number or a
        shape differs; nothing is changed then."""
        self.check_state_dict(state_dict)
        with no_grad():
            self.decay.copy_(state_dict["decay"])
            for average, saved in zip(self.averages, state_dict["averages"], strict=True):
                average.copy_(saved)

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raises as `load_state_dict` would, and changes nothing."""
        found = [tuple(a.shape) for a in state_dict["averages"]]
        own = [a.shape for a in self.averages]
        if found != own:
            raise located(
                ArgumentError(f"the averages have shapes {own}, the state_dict brings {found}")
            )

    def _write(self, values: list[Tensor]) -> None:
        with no_grad():
            for param, value in zip(self.params, values, strict=True):
                param.copy_(value)
