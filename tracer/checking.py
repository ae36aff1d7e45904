"""`jit(check="eager")`: the first call of each specialization is compared with plain Python.

The function runs eagerly first, then everything that it reaches is put back, then the compiled
call runs; results and state must agree within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TraceError, TreadleError
from treadle.ir.graph import Loc
from treadle.tracer import pytree
from treadle.tracer.cell import Cell
from treadle.tracer.effects import Snapshot
from treadle.tracer.history import Edge, History
from treadle.tracer.items import Tree
from treadle.tracer.tensor import Tensor

# float32: some thousand operations, each rounded in another order; float64 accordingly
_RELATIVE = {"f4": 1e-4, "f8": 1e-10}
_REPORT = 'jit(check="eager")); please report it with the program that `ir()` prints'

Array = npt.NDArray[Any]


def compare_with_eager(
    name: str, tree: Tree, eager: Callable[[], Any], compiled: Callable[[], Any]
) -> Any:
    """The result of `compiled()`. Raises TraceError naming the first value that differs from what
    `eager()` gives or leaves behind, with all state as before. An error that both raise is raised;
    one that only one of them raises is such a difference."""
    before = _State(tree)
    try:
        expected: Any = eager()
        expected_state = before.contents()
    except TreadleError as error:
        before.restore()
        _expect_error(name, before, error, compiled)
        raise
    except BaseException:
        before.restore()
        raise
    before.restore()
    result = compiled()
    try:
        _compare_trees(name, expected, result)
        _compare_states(name, expected_state, before.contents())
    except TraceError:
        before.restore()
        raise
    return result


def _expect_error(
    name: str, before: _State, error: TreadleError, compiled: Callable[[], Any]
) -> None:
    """Raises what `compiled()` raises; where it raises nothing, TraceError."""
    compiled()
    before.restore()
    raise TraceError(
        f"{name}: eagerly it raises {type(error).__name__} ({error}), compiled it does not "
        f"({_REPORT}"
    ) from error


class _State:
    """The tensors that a function reaches: their contents, histories, gradients, and containers."""

    def __init__(self, tree: Tree) -> None:
        tensors = [item for item in tree.items if item.kind == "tensor"]
        self.tensors: list[tuple[Tensor, History]] = []
        self.cells: dict[Cell, _Content] = {}
        self.histories: dict[History, _Past] = {}
        for item in tensors:
            x: Tensor = item.value
            self.tensors.append((x, x.history))
            self.cells.setdefault(x.cell, _Content.of(item.path, x.cell))
            self.histories.setdefault(x.history, _Past.of(item.path, x.history))
        self.snapshot = Snapshot(tree, {})

    def contents(self) -> dict[str, list[Array]]:
        """By path what the storages hold, what is bound to a container, and the gradients."""
        found = {content.path: [cell.buffer.copy()] for cell, content in self.cells.items()}
        for history, past in self.histories.items():
            if history.grad is not None:
                found[f"{past.path}.grad"] = [history.grad.array().copy()]
        for change in self.snapshot.changes():
            found[f"{change.path} (bound anew)"] = _values(change.new)
        return found

    def restore(self) -> None:
        """As if nothing had run: a history that was recorded before describes its values still."""
        self.snapshot.restore()
        for cell, content in self.cells.items():
            if cell.version != content.version:
                np.copyto(cell.writable(), content.values)
                cell.version, cell.written_at = content.version, content.written_at
        for history, past in self.histories.items():
            past.restore(history)
        for x, own in self.tensors:
            x.history = own


@dataclass(frozen=True, slots=True)
class _Content:
    """What a storage held."""

    path: str
    values: Array
    version: int
    written_at: Loc | None

    @staticmethod
    def of(path: str, cell: Cell) -> _Content:
        return _Content(path, cell.buffer.copy(), cell.version, cell.written_at)


@dataclass(frozen=True, slots=True)
class _Past:
    """What a history was."""

    path: str
    requires_grad: bool
    leaf: bool
    edge: Edge | None
    version: int
    grad: Tensor | None

    @staticmethod
    def of(path: str, h: History) -> _Past:
        return _Past(path, h.requires_grad, h.leaf, h.edge, h.version, h.grad)

    def restore(self, h: History) -> None:
        h.requires_grad, h.leaf, h.edge = self.requires_grad, self.leaf, self.edge
        h.version, h.grad = self.version, self.grad


def _values(tree: Any) -> list[Array]:
    leaves = pytree.flatten(tree)[0]
    return [np.array(x.array() if isinstance(x, Tensor) else x) for x in leaves if _numeric(x)]


def _numeric(x: Any) -> bool:
    return isinstance(x, (Tensor, np.ndarray, bool, int, float))


def _compare_trees(name: str, expected: Any, found: Any) -> None:
    """Of the results."""
    trees = [pytree.flatten(x)[1] for x in (expected, found)]
    if trees[0] != trees[1]:
        raise TraceError(
            f"{name}: the result is {type(found).__name__} {found!r:.60} compiled and "
            f"{type(expected).__name__} {expected!r:.60} eagerly ({_REPORT}"
        )
    _compare(name, "the result", _values(expected), _values(found))


def _compare_states(
    name: str, expected: dict[str, list[Array]], found: dict[str, list[Array]]
) -> None:
    """Of what was left behind, by path."""
    for path in [*expected, *(p for p in found if p not in expected)]:
        if path not in found or path not in expected:
            one = "eagerly" if path in expected else "compiled"
            raise TraceError(f"{name}: {path} is set {one} only ({_REPORT}")
        _compare(name, path, expected[path], found[path])


def _compare(name: str, what: str, expected: Sequence[Array], found: Sequence[Array]) -> None:
    types = [[f"{x.dtype}{list(x.shape)}" for x in xs] for xs in (expected, found)]
    if types[0] != types[1]:
        raise TraceError(
            f"{name}: {what} is {', '.join(types[1])} compiled and {', '.join(types[0])} eagerly "
            f"({_REPORT}"
        )
    for e, f in zip(expected, found, strict=True):
        rtol = _RELATIVE.get(e.dtype.str[1:], 0.0)
        scale = float(np.max(np.abs(e), initial=0.0, where=np.isfinite(e))) if rtol else 0.0
        if not np.allclose(f, e, rtol=rtol, atol=rtol * scale, equal_nan=rtol > 0):
            with np.errstate(invalid="ignore"):  # infinities
                apart = np.abs(f.astype(np.float64) - e.astype(np.float64))
            worst = float(np.max(apart, initial=0.0, where=~np.isnan(apart)))
            raise TraceError(
                f"{name}: {what} differs from the eager result by up to {worst:.3g} ({_REPORT}"
            )
