"""How a tensor prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.ir.types import bool_, float32, int64
from treadle.tracer.modes import modes

if TYPE_CHECKING:
    from treadle.tracer.tensor import Tensor

_ELEMENTS = 200  # above this NumPy abbreviates, and the shape is told


def show(x: Tensor) -> str:
    """`tensor([1., 2.], requires_grad=True)`; a traced one tells its type and where it was made.

    The dtype is told unless it is float32, or bool or int64, which the elements show.
    """
    if x.is_traced:
        return _traced(x)
    array = x.array()
    body = np.array2string(
        array, separator=", ", prefix="tensor(", threshold=_ELEMENTS, precision=6
    )
    notes = []
    if array.size > _ELEMENTS or array.size == 0:
        notes.append(f"shape={x.shape}")
    if x.dtype not in (float32, bool_, int64) or array.size == 0:
        notes.append(f"dtype={x.dtype.name}")
    if x.requires_grad:
        notes.append("requires_grad=True")
    return f"tensor({', '.join([body, *notes])})"


def _traced(x: Tensor) -> str:
    trace = modes.trace
    if x.cell.home is not None and x.cell.home is not trace:
        at = f" made at {x.cell.made_at}" if x.cell.made_at is not None else ""
        return f"<tensor {x.type} of a trace that has ended{at}>"
    where = f", {trace.origin(x)}" if trace is not None else ""
    return f"<traced tensor {x.type}{where}>"
