"""`jit(check="eager")`: the first call of each specialization is compared with plain Python.

The function runs eagerly first, then everything that it reaches is put back, then the compiled
call runs; results and state must agree within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import TraceError
from treadle.tracer import pytree
from treadle.tracer.cell import Cell
from treadle.tracer.effects import Snapshot
from treadle.tracer.history import History
from treadle.tracer.items import Tree
from treadle.tracer.tensor import Tensor

# float32: some thousand operations, each rounded in another order; float64 accordingly
_RELATIVE = {"f4": 1e-4, "f8": 1e-10}


def compare_with_eager(
    name: str, tree: Tree, eager: Callable[[], Any], compiled: Callable[[], Any]
) -> Any:
    """The result of `compiled()`. Raises TraceError naming the first value that differs from what
    `eager()` gives or leaves behind."""
    before = _State(tree)
    expected = _values(eager())
    expected_state = before.contents()
    before.restore()
    result = compiled()
    _compare(name, "the result", expected, _values(result))
    for (path, was), (_, now) in zip(expected_state, before.contents(), strict=True):
        _compare(name, path, [was], [now])
    return result


class _State:
    """The tensors that a function reaches: their contents, gradients, and containers."""

    def __init__(self, tree: Tree) -> None:
        tensors = [item for item in tree.items if item.kind == "tensor"]
        self.cells: dict[Cell, tuple[str, npt.NDArray[Any]]] = {}
        self.histories: dict[History, Tensor | None] = {}
        for item in tensors:
            cell = item.value.cell
            self.cells.setdefault(cell, (item.path, cell.buffer.copy()))
            self.histories.setdefault(item.value.history, item.value.history.grad)
        self.snapshot = Snapshot(tree, {})

    def contents(self) -> list[tuple[str, npt.NDArray[Any]]]:
        """What the storages hold, what is bound to a container, and the gradients."""
        found = [(path, cell.buffer.copy()) for cell, (path, _) in self.cells.items()]
        for (path, _), history in zip(self.cells.values(), self.histories, strict=False):
            if history.grad is not None:
                found.append((f"{path}.grad", history.grad.array().copy()))
        for change in self.snapshot.changes():
            found += [(change.path, value) for value in _values(change.new)]
        return found

    def restore(self) -> None:
        self.snapshot.restore()
        for cell, (_, content) in self.cells.items():
            np.copyto(cell.writable(), content)
            cell.wrote(None)
        for history, grad in self.histories.items():
            history.grad = grad


def _values(tree: Any) -> list[npt.NDArray[Any]]:
    leaves = pytree.flatten(tree)[0]
    return [np.array(x.array() if isinstance(x, Tensor) else x) for x in leaves if _numeric(x)]


def _numeric(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray, bool, int, float))


def _compare(
    name: str, what: str, expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]
) -> None:
    shapes = [e.shape for e in expected], [f.shape for f in found]
    if shapes[0] != shapes[1]:
        raise TraceError(f"{name}: {what} is {shapes[1]} compiled and {shapes[0]} eagerly")
    for e, f in zip(expected, found, strict=True):
        rtol = _RELATIVE.get(e.dtype.str[1:], 0.0)
        scale = float(np.max(np.abs(e), initial=0.0, where=np.isfinite(e))) if rtol else 0.0
        if not np.allclose(f, e, rtol=rtol, atol=rtol * scale, equal_nan=rtol > 0):
            worst = float(np.nanmax(np.abs(f.astype(np.float64) - e.astype(np.float64))))
            raise TraceError(
                f"{name}: {what} differs from the eager result by up to {worst:.3g} "
                '(jit(check="eager")); please report it with the program that `ir()` prints'
            )
