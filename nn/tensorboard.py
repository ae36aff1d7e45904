"""`TensorBoard`: event files for TensorBoard, by tensorboardX (`pip install
'treadle[tensorboard]'`).

    board = nn.TensorBoard("runs/first")
    board.graph(model, images[:1])
    nn.fit(model, loss, optimizer, loader, epochs=10, validation=held, callbacks=[board])
    board.close()

What it lacks, its `writer` has: that is tensorboardX's SummaryWriter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.nn.module import Module
from treadle.nn.progress import Progress
from treadle.tracer.errors import located
from treadle.tracer.tensor import Tensor
from treadle.tracer.watching import watching

Array = npt.NDArray[Any]
_HELD_OUT = "validation "


class TensorBoard:
    """Writes what a training shows to an event file in `folder`; a callback for `fit`, and of use
    in a loop of your own.

    As a callback it writes after each epoch the losses and metrics (`loss/train` and
    `loss/validation` in one plot), the learning rates, and every `histograms` epochs (0: never)
    histograms of all parameters and of the gradients that the last step has left.

    Raises TreadleError where tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path, histograms: int = 1) -> None:
        if not isinstance(histograms, int) or histograms < 0:
            raise located(ArgumentError(f"histograms must be 0 or more, found {histograms!r}"))
        self.histograms_every = histograms
        self.writer = _summary_writer()(str(folder))
        self._seen: Counter[str] = Counter()

    def __call__(self, progress: Progress) -> None:
        """The numbers of the epoch that is over: what `fit` calls."""
        step = len(progress.epochs)
        self.scalars(progress.epochs[-1], step)
        for n, group in enumerate(progress.optimizer.param_groups):
            name = "learning_rate" if n == 0 else f"learning_rate_{n}"
            self.writer.add_scalar(name, float(group["lr"]), step)
        if self.histograms_every and step % self.histograms_every == 0:
            self.histograms(progress.model, step)
        self.writer.flush()

    def scalars(self, numbers: Mapping[str, Any], step: int) -> None:
        """Losses and metrics by name, numbers or tensors of one element; those that begin with
        "validation " are drawn beside the others."""
        for name, number in numbers.items():
            held_out = name.startswith(_HELD_OUT)
            kind = name.removeprefix(_HELD_OUT)
            where = "validation" if held_out else "train"
            self.writer.add_scalar(f"{kind}/{where}".replace(" ", "_"), float(number), step)

    def histograms(self, model: Module, step: int) -> None:
        """Every parameter of `model` under its path, and its gradient where there is one. NaN and
        infinite numbers are counted apart, as `.._not_finite`."""
        for name, param in model.named_parameters():
            self.histogram(f"parameters/{name}", param, step)
            if param.grad is not None:
                self.histogram(f"gradients/{name}", param.grad, step)

    def histogram(self, name: str, values: Any, step: int) -> None:
        """The distribution of the elements of a tensor or an array."""
        array = _array(values).astype(np.float64).ravel()
        finite = array[np.isfinite(array)]
        if finite.size < array.size:
            self.writer.add_scalar(f"{name}_not_finite", array.size - finite.size, step)
        if finite.size:
            self.writer.add_histogram(name, finite, step)

    def images(self, name: str, images: Any, step: int) -> None:
        """Images [N, C, H, W] of 1 or 3 channels, or [N, H, W], in one grid: from 0 to 1, or from
        0 to 255 for integers. Needs Pillow. Raises ArgumentError for other shapes."""
        array = _array(images)
        if array.ndim == 3:
            array = array[:, None]
        if array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array):
            raise located(
                ArgumentError(
                    f"images are [N, C, H, W] of 1 or 3 channels, or [N, H, W], found {array.shape}"
                )
            )
        if array.dtype.kind in "iu":
            array = np.clip(array, 0, 255).astype(np.uint8)
        else:
            array = np.clip(np.nan_to_num(array), 0.0, 1.0).astype(np.float32)
        self.writer.add_images(name, array, step)

    def graph(self, model: Module, *inputs: Any) -> None:
        """The traced program of `model` for inputs of these types (tensors, arrays, TensorTypes):
        one node an operation, grouped by layers. Nothing is computed; the model stays as it is."""
        from treadle.nn.tensorboard_graph import graph_of

        self.writer.file_writer.add_event(graph_of(model, inputs))

    @contextmanager
    def watching(self, names: str | Sequence[str] = "*") -> Iterator[None]:
        """In this block all values of `treadle.watch` with such names are written, single numbers
        as scalars, others as histograms; the n-th value of a name at step n."""

        def write(name: str, value: Array) -> None:
            step = self._seen[name] = self._seen[name] + 1
            if value.size == 1:
                self.writer.add_scalar(name, float(value.reshape(())), step)
            else:
                self.histogram(name, value, step)

        with watching(write, names):
            yield

    def close(self) -> None:
        """Write what is left and close the file."""
        self.writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise located(
            TreadleError(
                "TensorBoard's event files need tensorboardX, which is not installed: "
                "pip install 'treadle[tensorboard]'"
            )
        ) from None
    return SummaryWriter


def _array(values: Any) -> Array:
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
