"""What the examples share: their arguments, a training loop that is timed, a table side by side.

An example makes a `step(*batch) -> loss` and hands it to `train` with a loader; with `--peer torch`
it does the same with the step of the same network written in PyTorch, from the same initial weights
and over the same batches, and prints both columns:

    parser = running.arguments("lenet", "LeNet on handwritten digits", epochs=6)
    args = parser.parse_args(argv)
    with running.complaints(parser):               # a bad --data is a message, not a traceback
        images = load(args.data)
    ours = running.train("Treadle", step, loader, args.epochs)
    columns = {"Treadle": {**ours.costs(), "accuracy": f"{accuracy:.2%}"}}
    if args.peer:
        program = running.torch_program("lenet")   # examples/torch_programs/lenet.py
        ...
    print(running.side_by_side(columns))

Pictures are in `treadle.examples.pictures`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle import nn
from treadle.data import DataError

Array = npt.NDArray[Any]


# --- arguments -------------------------------------------------------------------------------


def arguments(name: str, about: str, epochs: int) -> argparse.ArgumentParser:
    """The arguments that every example takes; one that has more adds them."""
    parser = argparse.ArgumentParser(prog=f"python -m treadle.examples.{name}", description=about)
    parser.add_argument("--data", type=Path, help="the folder with the files")
    parser.add_argument("--epochs", type=count, default=epochs, help=f"default {epochs}")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--out", type=folder, default=Path(), help="the folder for pictures: here")
    add_peer(parser)
    return parser


def add_peer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer", choices=["torch"], help="train the same network in PyTorch too, and compare"
    )


def count(text: str) -> int:
    """A whole number above 0, for argparse."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {found}")
    return found


def folder(text: str) -> Path:
    """A folder that can be written to, for argparse; made now, not after an hour of training."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be made: {error}") from None
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written to")
    return path


@contextmanager
def complaints(parser: argparse.ArgumentParser) -> Iterator[None]:
    """What is wrong with the user's files is a line on stderr and exit code 2."""
    try:
        yield
    except (DataError, OSError) as error:
        parser.error(str(error))


# --- training --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What training cost, in seconds, and the mean loss of each epoch.

    `seconds` is all of it: reading batches, the first step, which compiles, and every other. `step`
    is the median of all steps but the first.
    """

    seconds: float
    first_step: float
    step: float
    steps: int
    losses: tuple[float, ...]

    def costs(self) -> dict[str, str]:
        """Rows of a table."""
        return {
            "seconds in all": f"{self.seconds:.1f}",
            "first step, ms": f"{self.first_step * 1e3:.0f}",
            f"a step, ms (median of {self.steps - 1})": f"{self.step * 1e3:.3g}",
        }


def train(
    title: str,
    step: Callable[..., Any],
    batches: Iterable[Any],
    epochs: int,
    show: bool = True,
) -> Run:
    """Call `step(*batch)`, which gives the loss, for every batch of every epoch.

    `batches` is iterated once an epoch. `show`: a progress bar with the loss, and a line an epoch.
    Raises ValueError where there are no batches.
    """
    began = perf_counter()
    times: list[float] = []
    losses: list[float] = []
    for epoch in range(epochs):
        found: list[float] = []
        named = f"{title}, epoch {epoch + 1}/{epochs}" if epochs > 1 else title
        bar = progress(batches, named, show)
        for batch in bar:
            started = perf_counter()
            loss = step(*batch)
            times.append(perf_counter() - started)
            found.append(float(loss))
            tell(bar, found[-1])
        if not found:
            raise ValueError("there are no batches to train on")
        losses.append(fmean(found))
        if show:
            print(f"{named}: mean loss {losses[-1]:.4f}", flush=True)
    seconds = perf_counter() - began
    return Run(seconds, times[0], median(times[1:] or times), len(times), tuple(losses))


def progress(items: Iterable[Any], title: str, show: bool = True) -> Iterable[Any]:
    """`items` behind a progress bar of tqdm's, or a line every tenth of the way without it."""
    if not show:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return _lines(items, title)
    return tqdm(items, desc=title, unit="step", leave=False)


def tell(bar: Iterable[Any], loss: float) -> None:
    """Show the loss behind the bar, where it is one."""
    if hasattr(bar, "set_postfix_str"):
        bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)


def _lines(items: Iterable[Any], title: str) -> Iterator[Any]:
    total = len(items) if isinstance(items, Sized) else 0
    tenth = max(1, total // 10)
    for n, item in enumerate(items):
        if total and n % tenth == 0:
            print(f"{title}: {100 * n // total} %", flush=True)
        yield item


# --- PyTorch beside it -----------------------------------------------------------------------


def torch_program(name: str) -> Any:
    """The module examples/torch_programs/`name`.py. Without PyTorch the program ends and says what
    to install."""
    try:
        return import_module(f"treadle.examples.torch_programs.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        sys.exit("--peer torch needs PyTorch, which is not installed: pip install 'treadle[torch]'")


def weights(model: nn.Module) -> dict[str, Array]:
    """A copy of all parameters and buffers, by their `state_dict` names: the peer's start."""
    return {name: np.array(value.numpy()) for name, value in model.state_dict().items()}


class AsArrays:
    """The batches of a loader as NumPy arrays, which is what a program of another library takes."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        for batch in self.loader:
            yield tuple(np.asarray(part) for part in batch)


def side_by_side(columns: Mapping[str, Mapping[str, str]]) -> str:
    """A table with a column for each library and a row for each thing measured; what one of them
    lacks is left empty."""
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    left = max(map(len, rows), default=0)
    widths = [max(len(title), *map(len, column.values())) for title, column in columns.items()]
    titles = zip(columns, widths, strict=True)
    lines = [" " * left + "".join(f"  {title:>{width}}" for title, width in titles)]
    for row in rows:
        cells = (f"  {c.get(row, ''):>{w}}" for c, w in zip(columns.values(), widths, strict=True))
        lines.append(f"{row:<{left}}{''.join(cells)}")
    return "\n".join(lines)
