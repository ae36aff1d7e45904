"""The numbers of a training run as a picture (matplotlib: `pip install treadle[plot]`)."""

from __future__ import annotations

from pathlib import Path

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.nn.progress import Progress
from treadle.tracer.errors import located


def plot_history(progress: Progress, path: str | Path) -> None:
    """Write a picture (PNG, or what `path` ends with): one plot for each kind of number, with the
    numbers of training and validation together, and the best epoch marked.

    Raises ArgumentError for a run without epochs.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise located(
            TreadleError("plots need matplotlib, which is not installed: pip install treadle[plot]")
        ) from None
    if not progress.epochs:
        raise located(ArgumentError("there are no epochs to plot"))
    names = list(progress.epochs[0])
    kinds = list(dict.fromkeys(name.removeprefix("validation ") for name in names))
    figure = Figure(figsize=(4.5 * len(kinds), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = range(1, len(progress.epochs) + 1)
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for name in (kind, f"validation {kind}"):
            if name in names:
                axes.plot(epochs, progress.column(name), marker=".", label=name)
        axes.axvline(progress.best_epoch + 1, color="grey", linewidth=0.5, linestyle=":")
        axes.set_xlabel("epoch")
        axes.legend()
    figure.savefig(path)
