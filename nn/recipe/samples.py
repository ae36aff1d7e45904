"""The data that `check` looks at, read once: a loader, a data set, or arrays."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ArgumentError
from treadle.nn.data.collation import stacked
from treadle.nn.data.dataset import TensorDataset, as_array
from treadle.nn.data.loader import DataLoader
from treadle.tracer.errors import located
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]

_MOST = 10_000  # samples that are looked at
_BYTES = 256 << 20  # of them
_CHUNK = 64
_EXPECTED = "a DataLoader, a Dataset, or a pair of arrays (inputs, targets)"


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples along the first axis of each array.

    total     how many the data has, None where it does not say
    batch     the loader's batch size, 0 without a loader
    shuffles  whether the loader does; None where nobody knows
    """

    inputs: tuple[Array, ...]
    target: Array
    total: int | None
    batch: int
    shuffles: bool | None

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, which: Sequence[int] | Array) -> Samples:
        """The samples of these numbers."""
        chosen = np.asarray(which, np.int64)
        inputs = tuple(np.ascontiguousarray(x[chosen]) for x in self.inputs)
        target = np.ascontiguousarray(self.target[chosen])
        return Samples(inputs, target, self.total, self.batch, self.shuffles)

    def cycled(self, count: int, within: int | None = None) -> Samples:
        """`count` samples: the first `within` of these (all), again and again."""
        return self.rows(np.arange(count) % min(within or len(self), len(self)))

    def named(self) -> dict[str, Array]:
        """The arrays by the names that arguments of traces have."""
        return {f"input{n}": x for n, x in enumerate(self.inputs)} | {"target0": self.target}


def read(data: Any, seconds: float) -> Samples:
    """The first samples of `data`, for at most so long; a loader is left where it stands.

    Raises ArgumentError for anything else than a loader, a data set, arrays of one first size or a
    list of batches, and for data without samples or without targets.
    """
    total, batch, shuffles = None, 0, None
    if isinstance(data, DataLoader):
        total, batch, shuffles = len(data.dataset), data.batch_size, data.shuffle
        if data.sampler is not None:
            shuffles = None
        batches = iter(_resting(data))
    elif _are_arrays(data):
        arrays = [as_array(a) for a in data]
        total = len(arrays[0])
        batches = _chunks(TensorDataset(*arrays))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _is_list(data):
        total = len(data)
        batches = _chunks(data)
    elif isinstance(data, Iterable) and not isinstance(data, (Iterator, str, bytes, dict)):
        batches = iter(data)
    else:
        raise located(ArgumentError(f"data must be {_EXPECTED}, found {type(data).__name__}"))
    inputs, target = _joined(batches, time.monotonic() + seconds)
    return Samples(inputs, target, total, batch, shuffles)


def _resting(loader: DataLoader) -> DataLoader:
    """A loader of the same batches that starts no process."""
    own = copy.copy(loader)
    own.num_workers, own.prefetch_factor = 0, None
    own._batch, own._resumes = 0, False
    return own


def _are_arrays(data: Any) -> bool:
    kinds = (np.ndarray, Tensor)
    return isinstance(data, (tuple, list)) and len(data) > 1 and all(
        isinstance(a, kinds) for a in data
    )  # fmt: skip


def _is_list(data: Any) -> bool:
    """Whether this is a list of batches: its items are tuples of arrays."""
    if not isinstance(data, (list, tuple)) or not data:
        return isinstance(data, (list, tuple))
    return isinstance(data[0], (tuple, list)) and all(
        isinstance(a, (np.ndarray, Tensor)) and a.ndim > 0 for a in data[0]
    )


def _chunks(dataset: Any) -> Iterator[Any]:
    count = len(dataset)
    for start in range(0, count, _CHUNK):
        rows = range(start, min(start + _CHUNK, count))
        if hasattr(dataset, "rows"):
            yield dataset.rows(list(rows))
        else:
            yield stacked([dataset[i] for i in rows])


def _joined(batches: Iterable[Any], deadline: float) -> tuple[tuple[Array, ...], Array]:
    """What batches (inputs.., target) hold; those of other sizes than the first are left out."""
    kept: list[tuple[Array, ...]] = []
    count = size = 0
    for batch in batches:
        parts = _parts(batch)
        if kept and [p.shape[1:] for p in parts] != [p.shape[1:] for p in kept[0]]:
            continue
        kept.append(parts)
        count += len(parts[-1])
        size += sum(p.nbytes for p in parts)
        if count >= _MOST or size >= _BYTES or time.monotonic() > deadline:
            break
    if count == 0:
        raise located(ArgumentError("the data has no samples"))
    *inputs, target = (np.concatenate(part)[:_MOST] for part in zip(*kept, strict=True))
    return tuple(inputs), target


def _parts(batch: Any) -> tuple[Array, ...]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        found = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise located(ArgumentError(f"a batch is a tuple (inputs.., targets), found {found}"))
    parts = []
    for part in batch:
        array = as_array(part)
        if array.dtype.kind not in "biuf":
            kind = type(part).__name__ if array.dtype == object else array.dtype
            raise located(ArgumentError(f"the parts of a batch are numbers, found {kind}"))
        parts.append(array)
    sizes = [p.shape[0] if p.ndim else None for p in parts]
    if None in sizes or len(set(sizes)) > 1:
        shapes = ", ".join(str(p.shape) for p in parts)
        raise located(
            ArgumentError(f"the first axis of inputs and targets counts samples, found {shapes}")
        )
    return tuple(parts)
