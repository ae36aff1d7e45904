"""Random programs over a little world of state: tensors, views, aliases, Python values, functions.

A program is a list of calls of one step, with changes of the world between them. The step itself
is a random list of statements. `history` runs it and writes down everything that can be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import treadle

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def double(x: Any) -> Any:
    return x * 2.0


def shift(x: Any) -> Any:
    return x + 3.0


class Part:
    """An object inside of the world."""

    def __init__(self, k: int) -> None:
        self.k = k

    def apply(self, x: Any) -> Any:
        return x * self.k


class OtherPart(Part):
    def apply(self, x: Any) -> Any:
        return x - self.k


def values(*numbers: float) -> treadle.Tensor:
    return treadle.tensor(np.array(numbers, np.float64))


class World:
    """Everything that a step may read and write."""

    def __init__(self) -> None:
        self.w = values(1, 2, 3)
        self.h = values(4, 5, 6)
        self.view = self.w[1:]
        self.p = values(1, -1, 2).requires_grad_()
        self.items = [self.w, values(7, 8, 9)]
        self.table = {"a": values(1, 1, 2)}
        self.log = [values(5, 5, 5)]
        self.twin = self.log
        self.array = np.array([1.0, 2.0, 3.0])
        self.counted = np.array([2.0])
        self.k = 2
        self.flag = False
        self.names = [1, 2]
        self.mode = "plain"
        self.part = Part(2)
        self.helper = double

    def seen(self) -> list[Any]:
        """All values, who shares storage with whom, gradients, and Python values."""
        tensors = [self.w, self.h, self.view, self.p, *self.items, *self.table.values()]
        tensors += [*self.log, *self.twin]
        shared = [[s.cell is t.cell for s in tensors] for t in tensors]
        shared.append([self.log is self.twin])
        grad = None if self.p.grad is None else self.p.grad.tolist()
        python = [self.k, self.flag, self.names[:], self.mode, self.part.k, self.helper.__name__]
        return [[t.tolist() for t in tensors], shared, grad, [*self.table], python]


def statement(world: World, name: str, y: Any) -> Any:
    """One statement of the step: `y` is what it has computed so far."""
    if name == "bind_w":
        world.w = world.h + y
    elif name == "bind_h":
        world.h = world.items[0] * 1.0
    elif name == "add_w":
        world.w += y
    elif name == "write_view":
        world.view[0:1] = y[0:1]
    elif name == "take_view":
        world.view = world.h[:2]
    elif name == "item":
        world.items[1] = y
    elif name == "alias":
        world.items[0] = world.h
    elif name == "swap":
        world.w, world.h = world.h, world.w
    elif name == "key":
        world.table["b"] = y + world.table["a"]
    elif name == "copy":
        world.h.copy_(y)
    elif name == "order":
        world.table["a"] = world.table.pop("a") + y
    elif name == "log":
        world.log.append(y)
        y = y + world.twin[-1]
    elif name == "new log":
        world.log = world.twin = [y, world.h]
    elif name == "flag":
        y = y + 1.0 if world.flag else y * world.k
    elif name == "names":
        y = y + float(len(world.names)) + world.names[-1]
    elif name == "mode":
        y = getattr(world.part, "apply")(y) if world.mode == "plain" else -y  # noqa: B009
    elif name == "helper":
        y = world.helper(y)
    elif name == "array":
        y = y + world.array
    elif name == "counted":
        y = y * float(world.counted[0])
    else:
        y = differentiated(world, name, y)
    return y


def differentiated(world: World, name: str, y: Any) -> Any:
    """The statements that differentiate, or keep from it."""
    if name == "parameter":
        return y * world.p
    if name == "grad":
        return y + treadle.grad(lambda z: (z * z * world.w).sum())(y.detach())
    if name == "second":
        inner = treadle.grad(lambda z: (z * z * z).sum())
        return y + treadle.grad(lambda z: inner(z).sum())(y.detach())
    if name == "backward":
        (world.p * world.p * y.detach()).sum().backward()
        return y
    if name == "zero_grad":
        world.p.grad = None
        return y
    if name == "no_grad":
        with treadle.no_grad():
            world.p.sub_(y.detach() * 0.5)
        return y.detach()
    return treadle.jit(lambda z: z * 0.5 + world.h)(y)  # an inner jit


STATE = ("bind_w", "bind_h", "add_w", "write_view", "take_view", "item", "alias", "swap", "key",
         "copy", "order", "log", "new log")  # fmt: skip
READS = ("flag", "names", "mode", "helper", "array", "counted")
GRADIENTS = ("parameter", "grad", "second", "backward", "zero_grad", "no_grad", "inner")

CHANGES: dict[str, Callable[[World], None]] = {
    "k": lambda w: setattr(w, "k", w.k + 1),
    "flag": lambda w: setattr(w, "flag", not w.flag),
    "names": lambda w: w.names.append(5),
    "name": lambda w: w.names.__setitem__(-1, 4),
    "mode": lambda w: setattr(w, "mode", "other"),
    "part": lambda w: setattr(w, "part", OtherPart(3)),
    "part.k": lambda w: setattr(w.part, "k", 5),
    "helper": lambda w: setattr(w, "helper", shift),
    "array": lambda w: w.array.__setitem__(1, 8.0),
    "counted": lambda w: w.counted.__setitem__(0, 3.0),
    "w": lambda w: setattr(w, "w", values(9, 8, 7)),
    "w is h": lambda w: setattr(w, "w", w.h),
    "view of h": lambda w: setattr(w, "view", w.h[::2]),
    "item": lambda w: w.items.__setitem__(0, values(3, 3, 3)),
    "longer": lambda w: w.items.append(values(1, 2, 3)),
    "key": lambda w: w.table.__setitem__("c", values(0, 0, 1)),
    "in place": lambda w: (w.h.add_(values(1, 1, 1)), None)[1],
    "parameter": lambda w: setattr(w, "p", values(2, 2, 2).requires_grad_()),
    "frozen": lambda w: setattr(w, "p", values(2, 2, 2)),
    "grad": lambda w: setattr(w.p, "grad", values(1, 1, 1)),
    "log": lambda w: setattr(w, "log", [*w.log]),
    "nothing": lambda w: None,
}


@dataclass(frozen=True)
class Program:
    """The statements of the step; before each call, a change; whether backward() follows it."""

    statements: tuple[str, ...]
    changes: tuple[str, ...]
    backward: bool


@st.composite
def programs(draw: st.DrawFn, names: tuple[str, ...] = STATE + READS + GRADIENTS) -> Program:
    statements = draw(st.lists(st.sampled_from(names), min_size=1, max_size=6))
    changes = draw(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=4))
    return Program(tuple(statements), ("nothing", *changes), draw(st.booleans()))


def plainly(f: Callable[..., Any]) -> Callable[..., Any]:
    """The wrap of plain Python."""
    return f


def history(program: Program, wrap: Wrap) -> list[Any]:
    """What can be seen after each call of the step; where a call raises, the kind of error."""
    world = World()

    def f(x: Any) -> Any:
        y = x
        for name in program.statements:
            y = statement(world, name, y)
        return y

    step = wrap(f)
    found: list[Any] = []
    for n, change in enumerate(program.changes):
        CHANGES[change](world)
        before, called = world.seen(), False
        try:
            y = step(values(n, 1, -1))
            called = True
            if program.backward and y.requires_grad:
                y.sum().backward()
            found.append([y.tolist(), y.requires_grad, world.seen()])
        except treadle.TreadleError as error:
            # Plain Python stops half way; a jitted call that fails has changed nothing.
            assert called or wrap is plainly or world.seen() == before
            found.append(type(error))
            break
    return found
