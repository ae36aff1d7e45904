"""`Parameter`: a tensor that a module registers and an optimiser updates."""

from __future__ import annotations

from typing import Any

from treadle.tracer.create import tensor
from treadle.tracer.history import History
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import open_constructor


class Parameter(Tensor):
    """A tensor that requires grad. It shares the storage of a tensor that it is made from.

    `data`: a Tensor, or anything that `treadle.tensor` takes. Raises DTypeError for a dtype that
    is not float, unless `requires_grad` is False.
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        source = data if isinstance(data, Tensor) else tensor(data)
        super().__init__(source.cell, source.maps, History(len(source.maps)), source.type)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


open_constructor(Parameter)
