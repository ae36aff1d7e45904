"""Random programs over views and writes, which NumPy, eager Treadle and jitted Treadle all run.

A program is a list of statements over numbered arrays; `run` interprets it on arrays of any kind.
Values are small integers in float64, so that every result is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

Shape = tuple[int, ...]
Index = tuple[Any, ...]


@dataclass(frozen=True)
class Statement:
    """One step: `kind` on array `of`, with what it needs in `with_`."""

    kind: str
    of: int
    with_: Any = None


@dataclass(frozen=True)
class Program:
    """Arrays `shapes` to begin with, then statements."""

    shapes: tuple[Shape, ...]
    statements: tuple[Statement, ...]

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        return [
            (np.arange(np.prod(shape, dtype=int)) + 10.0 * n).reshape(shape)
            for n, shape in enumerate(self.shapes)
        ]


def laid_out(x: Any) -> np.ndarray[Any, Any]:
    """What NumPy has computed, as Treadle has it: an array also at rank 0, and row by row. NumPy
    keeps the order of its operands, and whether a reshape is a view depends on that."""
    return np.array(x, order="C")


def run(
    program: Program,
    given: list[Any],
    permute: Callable[[Any, Any], Any],
    lift: Callable[[Any], Any] = lambda x: x,
) -> list[Any]:
    """All arrays of the program, in order; `given` are changed in place. `lift`: see `laid_out`."""
    arrays = list(given)
    for s in program.statements:
        x = arrays[s.of]
        if s.kind == "index":
            arrays.append(x[s.with_])
        elif s.kind == "reshape":
            arrays.append(x.reshape(s.with_))
        elif s.kind == "permute":
            arrays.append(permute(x, s.with_))
        elif s.kind == "copy":
            arrays.append(lift(x * 2.0 + 1.0))
        elif s.kind == "fill":
            index, number = s.with_
            x[index] = number
        elif s.kind == "write":
            index, other, other_index = s.with_
            x[index] = arrays[other][other_index]
        elif s.kind == "add":
            x[...] += s.with_
        elif s.kind == "combine":
            x[...] += arrays[s.with_]
        else:
            index, number = s.with_
            x[index] *= number
    return arrays


@st.composite
def programs(draw: st.DrawFn, statements: int = 8) -> Program:
    """A program whose statements all fit: their shapes are followed on NumPy arrays."""
    shapes = tuple(draw(st.lists(_shapes(), min_size=1, max_size=2)))
    program = Program(shapes, ())
    arrays: list[Any] = list(program.arrays())
    done: list[Statement] = []
    for _ in range(draw(st.integers(1, statements))):
        made = _statement(draw, arrays)
        done.append(made)
        step = Program(shapes, (made,))
        arrays = run(step, arrays, np.transpose, laid_out)
    return Program(shapes, tuple(done))


def _shapes() -> st.SearchStrategy[Shape]:
    return st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def _statement(draw: st.DrawFn, arrays: list[Any]) -> Statement:
    of = draw(st.integers(0, len(arrays) - 1))
    x = arrays[of]
    kind = draw(
        st.sampled_from(
            ["index", "index", "reshape", "permute", "copy", "fill", "write", "add", "combine",
             "scale"]
        )
    )  # fmt: skip
    if kind == "index":
        return Statement(kind, of, _index(draw, x.shape))
    if kind == "reshape":
        return Statement(kind, of, draw(st.sampled_from(_reshapes(x))))
    if kind == "permute":
        return Statement(kind, of, tuple(draw(st.permutations(range(x.ndim)))))
    if kind == "copy":
        return Statement(kind, of)
    if kind in ("fill", "scale"):
        return Statement(kind, of, (_index(draw, x.shape), float(draw(st.integers(-2, 2)))))
    if kind == "add":
        return Statement(kind, of, float(draw(st.integers(-2, 2))))
    return _of_two(draw, kind, of, arrays)


def _of_two(draw: st.DrawFn, kind: str, of: int, arrays: list[Any]) -> Statement:
    """A statement that reads another array whose shape fits; else one that reads a number."""
    x = arrays[of]
    if kind == "combine":
        fitting = [n for n, y in enumerate(arrays) if _fits(y.shape, x.shape)]
        return Statement(kind, of, draw(st.sampled_from(fitting)))
    index = _index(draw, x.shape)
    other = draw(st.integers(0, len(arrays) - 1))
    other_index = _index(draw, arrays[other].shape)
    if _fits(arrays[other][other_index].shape, x[index].shape):
        return Statement(kind, of, (index, other, other_index))
    return Statement("fill", of, (index, 1.0))


def _fits(part: Shape, whole: Shape) -> bool:
    try:
        return np.broadcast_shapes(part, whole) == whole
    except ValueError:
        return False


def _index(draw: st.DrawFn, shape: Shape) -> Index:
    """A basic index: integers, slices with any step, None and the ellipsis."""
    parts: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        if size and draw(st.integers(0, 3)) == 0:
            parts.append(draw(st.integers(-size, size - 1)))
            continue
        start, stop = (draw(st.none() | st.integers(-size, size)) for _ in range(2))
        parts.append(slice(start, stop, draw(st.sampled_from([None, 1, 2, -1, -2]))))
    extra = draw(st.integers(0, 5))
    if extra == 0:
        parts.append(None)
    if extra == 1 or all(isinstance(p, int) for p in parts):
        parts.append(Ellipsis)  # an element is a view of rank 0, not a number
    return tuple(parts)


def _reshapes(x: Any) -> list[Shape]:
    found: list[Shape] = [(x.size,), (1, x.size), (*x.shape, 1)]
    found += [(n, x.size // n) for n in (2, 3) if x.size and x.size % n == 0]
    return found
