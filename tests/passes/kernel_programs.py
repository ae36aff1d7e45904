"""Random CORE programs for fusion and the memory plan: every op family, state and reshapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result, Value
from treadle.ir.types import TensorType, broadcast_shapes, float32, int64
from treadle.passes import dce, expand
from treadle.passes.manager import run_pass

Choose = Callable[[int], int]  # a number below n


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def lowered(fn: Function) -> Function:
    """`fn` at CORE level."""
    return run_pass(dce.PASS, run_pass(expand.PASS, fn))


def returning(b: Builder, *values: Value) -> Function:
    return b.finish([Result(v, f"r{n}") for n, v in enumerate(values)])


def arguments(fn: Function, seed: int = 0) -> list[npt.NDArray[Any]]:
    """Arrays for the parameters; integers are small indices."""
    rng = np.random.default_rng(seed)
    arrays: list[npt.NDArray[Any]] = []
    for p in fn.params:
        shape = p.value.type.static_shape
        if p.value.type.dtype.is_float:
            arrays.append(rng.uniform(-2, 2, shape).astype(p.value.type.dtype.dtype))
        else:
            arrays.append(rng.integers(0, 2, shape).astype(p.value.type.dtype.dtype))
    return arrays


_UNARY = ("neg", "exp", "tanh", "relu", "sigmoid", "abs", "floor")
_BINARY = ("add", "sub", "mul", "maximum")
_SHAPES = ((4, 6), (4, 1), (1, 6), (6,), (), (4, 4), (24,), (2, 2, 6), (4,))


@dataclass
class Random:
    """Draws one program; `choose` makes every decision, so that hypothesis can shrink it."""

    choose: Choose
    b: Builder = field(default_factory=lambda: Builder("random"))
    values: list[Value] = field(default_factory=list)

    def program(self, size: int, states: int) -> Function:
        for n in range(2 + self.choose(3)):
            shape = _SHAPES[self.choose(len(_SHAPES))]
            self.values.append(self.b.param(f32(*shape), f"x{n}"))
        labels = self.b.param(TensorType(int64, (4,)), "labels")
        held: dict[str, Value] = {}
        for n in range(states):
            shape = _SHAPES[self.choose(len(_SHAPES))]
            held[f"s{n}"] = self.b.param(f32(*shape), f"s{n}", "state")
        self.values.extend(held.values())
        full = len(self.values) + size
        for _ in range(4 * size):  # a step that does not fit what it picked makes nothing
            if len(self.values) < full:
                self._step(labels)
        results = [Result(self.pick(), f"r{n}") for n in range(1 + self.choose(4))]
        results += [self._new_state(path, old) for path, old in held.items()]
        return lowered(self.b.finish(results))

    def pick(self) -> Value:
        recent = self.values[-8:] if self.choose(2) else self.values
        return recent[self.choose(len(recent))]

    def _new_state(self, path: str, old: Value) -> Result:
        same = [v for v in self.values if v.type == old.type]
        return Result(same[-1 - self.choose(len(same))], path, "state")

    def _step(self, labels: Value) -> None:
        x, b = self.pick(), self.b
        kind = self.choose(14)
        made: Value | None = None
        if kind < 3:
            made = b.call(_UNARY[self.choose(len(_UNARY))], x)
        elif kind < 6:
            y = self.pick()
            if _fits(x, y):
                made = b.call(_BINARY[self.choose(len(_BINARY))], x, y)
        elif kind == 6 and x.type.rank:
            axes = [a for a in range(x.type.rank) if self.choose(2)] or [0]
            name = ("sum", "max", "min")[self.choose(3)]
            made = b.call(name, x, axes=tuple(axes), keepdims=bool(self.choose(2)))
        elif kind == 7 and x.type.rank:
            made = b.call("softmax", x, axis=self.choose(x.type.rank))
        elif kind == 8:
            same = [s for s in _SHAPES if int(np.prod(s)) == x.type.size]
            made = b.reshape(x, same[self.choose(len(same))]) if same else None
        elif kind == 9 and x.type.rank:
            made = b.permute(x, tuple(reversed(range(x.type.rank))))
        elif kind == 10:
            made = self._moved(x)
        elif kind == 11:
            made = self._product(x)
        elif kind == 12 and x.type.rank and x.type.shape[0] != 1:
            made = b.call("gather", x, labels, axes=(0,), checked=bool(self.choose(2)))
        elif kind == 13 and x.type.shape == (4, 6):
            made = b.call("scatter_add", x, x, labels, axes=(0,), checked=True)
        if made is not None and made.type.size != 0 and _small(made):
            self.values.append(made)

    def _moved(self, x: Value) -> Value | None:
        b, shape = self.b, x.type.static_shape
        if not shape:
            return b.broadcast_to(x, (4, 6))
        which = self.choose(5)
        if which == 0:
            return b.call("flip", x, axes=(len(shape) - 1,))
        if which == 1:
            half = tuple(max(s // 2, 1) for s in shape)
            return b.call("slice", x, starts=(0,) * len(shape), steps=(1,) * len(shape), shape=half)
        if which == 2:
            low = (1,) * len(shape)
            return b.call("pad", x, low=low, high=(0,) * len(shape), value=0.5)
        if which == 3:
            return b.call("concat", x, x, axis=len(shape) - 1)
        return b.call("slice_update", x, x, starts=(0,) * len(shape), steps=(1,) * len(shape))

    def _product(self, x: Value) -> Value | None:
        y = self.pick()
        if x.type.rank < 2 or y.type.rank < 2:
            return None
        if x.type.shape[-1] != y.type.shape[-2]:
            y = self.b.transpose(y)
        if x.type.shape[-1] != y.type.shape[-2]:
            return None
        batches = x.type.shape[:-2], y.type.shape[:-2]
        return self.b.matmul(x, y) if _broadcast(*batches) else None


def _fits(x: Value, y: Value) -> bool:
    return _broadcast(x.type.shape, y.type.shape)


def _broadcast(*shapes: Any) -> bool:
    try:
        broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _small(value: Value) -> bool:
    return value.type.nbytes <= 4096
