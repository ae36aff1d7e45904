"""How a tensor is shown in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.notebook import pre, table
from treadle.tracer.show import show

if TYPE_CHECKING:
    from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]
_EDGE: Final = 4  # rows and columns that are shown at each end


def tensor_html(x: Tensor) -> str:
    """The type, and the elements as a table (rank 1 and 2, cut in the middle) or as text; of a
    traced tensor where it was made. Nothing is computed but what is shown."""
    if x.is_traced:
        return f"<div>{pre([show(x)])}</div>"
    note = ", requires_grad" if x.requires_grad else ""
    head = pre([f"{type(x).__name__} {x.type}{note}"])
    array = x.array()
    if array.ndim not in (1, 2) or array.size == 0:
        text = np.array2string(array, separator=", ", threshold=100, edgeitems=2, precision=4)
        return f"<div>{head}{pre(text.splitlines())}</div>"
    return f"<div>{head}{table(_cells(array if array.ndim == 2 else array[None]))}</div>"


def _cells(array: Array) -> list[list[str]]:
    rows, columns = (_kept(size) for size in array.shape)
    return [["…" if r is None or c is None else _text(array[r, c]) for c in columns] for r in rows]


def _kept(size: int) -> list[int | None]:
    """The places that are shown, None for the gap."""
    if size <= 2 * _EDGE + 1:
        return list(range(size))
    return [*range(_EDGE), None, *range(size - _EDGE, size)]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value)
