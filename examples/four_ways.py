"""One program said in four ways, and what each costs.

    v1 = Tensor([1]); v2 = exp(v1); v3 = v2 + 1; v4 = v2 * v3        10.10734

python -m treadle.examples.four_ways                 prints all of it
python -m treadle.examples.four_ways --out DIR       writes DIR/four_ways.png, the costs, too

docs/tour.md says what each way is good for; its figures are from this command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import treadle
from treadle import Tensor, nn

SMALL, LARGE = 1, 1_000_000
_SECONDS = 0.3  # of repeated calls, for each number


# --- first: declared, then run -----------------------------------------------------------------


def declared() -> Tensor:
    """The program, to be traced: nothing of it runs until something is fetched."""
    v1 = Tensor([1])
    v2 = treadle.exp(v1)
    v3 = v2 + 1
    v4 = v2 * v3
    return v4  # noqa: RET504  the name can be fetched


def show_declared() -> None:
    graph = treadle.trace(declared)
    print(f"the program\n{graph}\n")
    print(f"v4: {graph.run().numpy()}")  # type: ignore[union-attr]  # one value
    print(f"v3 alone: {graph.run('v3').numpy()}, for which is run\n{graph.part('v3')}\n")  # type: ignore[union-attr]
    fed = graph.run("v4", {"v2": [2.0]})
    print(f"v4 where v2 is given as 2: {fed.numpy()}\n")  # type: ignore[union-attr]


# --- second: defined by running ----------------------------------------------------------------


def by_running() -> tuple[Tensor, Tensor]:
    """Each line runs when it is reached, so Python can look at a value and decide."""
    v1 = Tensor([1])
    v2 = treadle.exp(v1)
    v3 = v2 + 1
    v4 = v2 * v3
    v5 = v4
    if v3.numpy() > 0.5:
        v5 = v4 * 2
    return v4, v5


def show_by_running() -> None:
    v4, v5 = by_running()
    print(f"v4: {v4.numpy()}, and v5, since v3 is above 0.5: {v5.numpy()}\n")


# --- third: layers with a forward and a backward of their own ------------------------------------


class Exp(treadle.Function):
    """The exponential, which keeps its result for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = treadle.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        y: Tensor
        (y,) = ctx.saved_tensors
        return dy * y


class AddOne(treadle.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + 1

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy


class Product(treadle.Function):
    """Of two tensors; a gradient that nobody asks for is not computed."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        for_a, for_b = ctx.needs_input_grad
        return dy * b if for_a else None, dy * a if for_b else None


def by_layers(v1: Tensor) -> Tensor:
    """The program of layers."""
    v2: Tensor = Exp.apply(v1)
    v3 = AddOne.apply(v2)
    v4: Tensor = Product.apply(v2, v3)
    return v4


# --- fourth: modules ---------------------------------------------------------------------------


class Shift(nn.Module):
    """Adds what it holds, which could be learnt."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.by = nn.Parameter([start])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


class Program(nn.Module):
    """The program, with the 1 that is added as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Shift(1.0)

    def forward(self, v1: Tensor) -> Tensor:
        v2 = treadle.exp(v1)
        v3 = self.shift(v2)
        v4: Tensor = v2 * v3
        return v4


def plain(v1: Tensor) -> Tensor:
    """The program of plain functions, as `by_running` has it."""
    v2 = treadle.exp(v1)
    v3 = v2 + 1
    return v2 * v3


def show_gradients() -> None:
    """d v4 / d v1 = 2 exp(2 v1) + exp(v1), by each way."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "plain functions": plain,
        "layers": by_layers,
        "modules": Program(),
    }
    for name, way in ways.items():
        v1 = treadle.tensor([1.0], requires_grad=True)
        v4 = way(v1)
        v4.sum().backward()
        print(f"{name}: v4 {v4.numpy()}, its derivative {v1.grad.numpy()}")  # type: ignore[union-attr]
    print()


# --- what each costs ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the first call and of later ones, for 1 and for 1,000,000 numbers."""

    name: str
    first: float
    small: float
    large: float


def costs() -> list[Cost]:
    """Each way with its gradient: value and derivative of the sum of v4."""
    return [
        _declared_cost(),
        _cost("by running", _eager(plain)),
        _cost("by running, jit", _compiled(plain)),
        _cost("layers", _eager(by_layers)),
        _cost("layers, jit", _compiled(by_layers)),
        _cost("modules", _eager(Program())),
        _cost("modules, jit", _compiled(Program())),
    ]


def _value_and_derivative(way: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    def total(x: Tensor) -> Tensor:
        return way(x).sum()

    value, slope = treadle.value_and_grad(total)(x)
    # Both could be differentiated by a module's parameters: nobody does, so they need no history.
    return value.detach(), slope.detach()


def _eager(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Any]:
    return lambda x: _value_and_derivative(way, x)


def _compiled(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Any]:
    @treadle.jit
    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        return _value_and_derivative(way, x)

    return step


def _declared_cost() -> Cost:
    def build(size: int) -> Callable[[Tensor], Any]:
        with treadle.define() as d:
            v1 = d.input("v1", f"f32[{size}]")
            return treadle.function([v1], list(_value_and_derivative(plain, v1)))

    first = {}
    for size in (SMALL, LARGE):
        began = perf_counter()
        run, x = build(size), treadle.ones(size)
        run(x)
        first[size] = perf_counter() - began, _each(run, x)
    return Cost("declared", first[SMALL][0], first[SMALL][1], first[LARGE][1])


def _cost(name: str, run: Callable[[Tensor], Any]) -> Cost:
    x = treadle.ones(SMALL)
    began = perf_counter()
    run(x)
    first = perf_counter() - began
    return Cost(name, first, _each(run, x), _each(run, treadle.ones(LARGE)))


def _each(run: Callable[[Tensor], Any], x: Tensor) -> float:
    """The shortest of the calls that fit into a moment."""
    run(x)
    best, end = np.inf, perf_counter() + _SECONDS
    while perf_counter() < end:
        began = perf_counter()
        run(x)
        best = min(best, perf_counter() - began)
    return float(best)


def table(found: list[Cost]) -> str:
    """A line for each way: milliseconds of the first call, microseconds of the others."""
    lines = [f"{'value and derivative':<20} first, ms   1 number, us   1,000,000 numbers, us"]
    lines += [
        f"{c.name:<20} {c.first * 1e3:9.1f}   {c.small * 1e6:12.1f}   {c.large * 1e6:21,.0f}"
        for c in found
    ]
    return "\n".join(lines)


def draw(found: list[Cost], path: Path) -> None:
    """Bars of the times of later calls, on logarithmic scales (needs matplotlib)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(figure)
    names = [c.name for c in found][::-1]
    for axes, title, times in zip(
        figure.subplots(1, 2, sharey=True),
        ("1 number", "1,000,000 numbers"),
        ([c.small for c in found], [c.large for c in found]),
        strict=True,
    ):
        axes.barh(names, [t * 1e6 for t in times][::-1])
        axes.set_xscale("log")
        axes.set_xlim(left=10 ** np.floor(np.log10(min(times) * 1e6) - 0.5))
        axes.set_xlabel("microseconds a call")
        axes.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    """Show the four ways, then their costs."""
    parser = argparse.ArgumentParser(prog="python -m treadle.examples.four_ways")
    parser.add_argument("--out", type=Path, help="a folder for a picture of the costs")
    args = parser.parse_args(argv)
    for title, show in (
        ("1. Declared, then run", show_declared),
        ("2. Defined by running", show_by_running),
        ("3. and 4. Layers with a backward of their own; modules", show_gradients),
    ):
        print(f"{title}\n{'-' * len(title)}")
        show()
    found = costs()
    print(table(found))
    if args.out:
        draw(found, args.out / "four_ways.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
