"""Random programs of lookups, checks, prints, gradients and writes to state, some of which fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import treadle

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Statement = Callable[["Stock", Any, Any, Any], Any]

SIZE = 6


class Stock:
    """The state that a program reads and writes."""

    def __init__(self) -> None:
        self.a = treadle.tensor(np.arange(1.0, SIZE + 1))
        self.count = treadle.tensor(0)
        self.p = treadle.tensor(np.ones(SIZE)).requires_grad_()
        self.table = {"q": treadle.tensor(np.zeros((4, SIZE)))}
        self.kept: list[Any] = []

    def seen(self) -> list[Any]:
        """Everything that can be seen of it."""
        grad = None if self.p.grad is None else self.p.grad.tolist()
        found = [self.a, self.count, self.p, *self.table.values(), *self.kept]
        return [[t.tolist() for t in found], grad]


def unused(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.a[i]
    return y


def looked_up(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + s.a[i]


def from_the_end(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + s.a[-i - 1]


def labelled(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + treadle.cross_entropy(y.reshape((1, SIZE)), i[:1])


def checked(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    treadle.check(y < limit, "too large")
    return y


def checked_as_a_whole(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    treadle.check(treadle.sum(y) < limit * SIZE, "the sum is too large")
    return y


def printed(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    treadle.debug_print("{} of {}", i, s.count)
    return y


def counted(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.count += 1
    return y


def bound(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.a = s.a + y
    return y


def added(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.a.add_(y)
    return y


def written(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.table["q"][i[0]] = y
    return y


def scattered(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.a = treadle.scatter_add(s.a, i, y)
    return y


def taken_along(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + treadle.take_along_axis(s.a, i)


def embedded(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    rows = treadle.nn.functional.embedding(i, s.a.reshape((SIZE, 1)), 0)
    return y + rows.reshape((SIZE,))


def kept(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    s.kept.append(y * 1)
    return y


def differentiated(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + treadle.grad(lambda z: (z[i] * z).sum())(y)


def differentiated_jitted(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    return y + treadle.grad(treadle.jit(lambda z: (z[i] * z * z).sum()))(y)


def backward(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    (s.p[i] * y).sum().backward()
    return y


def stepped(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    with treadle.no_grad():
        s.p.sub_(y * 0.25)
    return y


def inner(s: Stock, y: Any, i: Any, limit: Any) -> Any:
    @treadle.jit
    def part(z: Any) -> Any:
        s.count += 1
        s.a.mul_(1.5)
        return z[i] + s.a

    return part(y)


STATEMENTS: tuple[Statement, ...] = (
    unused, looked_up, from_the_end, labelled, checked, checked_as_a_whole, printed, counted,
    bound, added, written, scattered, kept, differentiated, differentiated_jitted, backward,
    stepped, inner, taken_along, embedded,
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """Statements, and for each call the indices and the limit. `tracked`: what the call returns
    requires grad, so that it is compiled with its derivative."""

    statements: tuple[Statement, ...]
    calls: tuple[tuple[tuple[int, ...], float], ...]
    tracked: bool


@st.composite
def programs(draw: st.DrawFn) -> Program:
    statements = draw(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=6))
    good = st.integers(0, 3)
    index = st.one_of(good, good, good, st.sampled_from([SIZE, -SIZE - 1, 2**40]))
    indices = st.lists(index, min_size=SIZE, max_size=SIZE).map(tuple)
    call = st.tuples(indices, st.sampled_from([1e9, 1e9, 30.0]))
    calls = draw(st.lists(call, min_size=1, max_size=3))
    return Program(tuple(statements), tuple(calls), draw(st.booleans()))


def history(program: Program, wrap: Wrap, shown: Callable[[], str]) -> list[Any]:
    """For each call up to the first that fails: what it gave or raised, what it printed, and the
    state; after a failure the state is that before the call, which only a compiled one restores."""
    stock = Stock()

    def f(i: Any, limit: float) -> Any:
        y = stock.p.detach() + stock.count
        for statement in program.statements:
            y = statement(stock, y, i, limit)
        return y * stock.p if program.tracked else y

    step = wrap(f)
    found: list[Any] = []
    for indices, limit in program.calls:
        before = stock.seen()
        try:
            y = step(treadle.tensor(np.array(indices)), limit)
            found.append([y.tolist(), y.requires_grad, shown(), stock.seen()])
        except (treadle.IndexFault, treadle.CheckError) as error:
            after = before if wrap is plain else stock.seen()
            found.append([type(error).__name__, str(error), shown(), after])
            break
    return found


def plain(f: Callable[..., Any]) -> Callable[..., Any]:
    return f
