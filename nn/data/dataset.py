"""Datasets: what has a length and gives a sample by its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.nn.data.randomness import draw_seed
from treadle.tracer.errors import located, located_errors
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]


class Dataset:
    """Base of datasets: a subclass defines `__getitem__` and `__len__`.

    Any object with both serves as well. One that can fetch many samples faster than one by one
    defines `rows(indices)` too, which gives the batch as a default collation would, in arrays.
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__()")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")


class TensorDataset(Dataset):
    """Samples are rows of arrays or tensors of equal first size: (x[i], y[i], ..).

    Raises ShapeError where the first sizes differ, ArgumentError without arrays.
    """

    def __init__(self, *arrays: Any) -> None:
        with located_errors():
            if not arrays:
                raise ArgumentError("a TensorDataset needs at least one array")
            self.arrays = tuple(np.asarray(a) for a in arrays)
            sizes = [a.shape[0] if a.ndim else None for a in self.arrays]
            if None in sizes or len(set(sizes)) > 1:
                shapes = ", ".join(str(a.shape) for a in self.arrays)
                raise ShapeError(
                    f"arrays of a TensorDataset share their first size, found {shapes}"
                )

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        return tuple(a[index] for a in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def rows(self, indices: Sequence[int]) -> tuple[Array, ...]:
        """The samples of these numbers, stacked."""
        chosen = np.asarray(indices, np.int64)
        return tuple(a[chosen] for a in self.arrays)


class Subset(Dataset):
    """The samples of another dataset at `indices`, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = [int(i) for i in indices]
        wrong = [i for i in self.indices if not -len(dataset) <= i < len(dataset)]
        if wrong:
            raise located(
                ArgumentError(f"index {wrong[0]} is out of range for {len(dataset)} samples")
            )

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset):
    """The samples of several datasets, one after the other."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = list(datasets)
        self.ends = np.cumsum([len(d) for d in self.datasets]) if self.datasets else np.zeros(0)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        at = index % len(self)
        which = int(np.searchsorted(self.ends, at, side="right"))
        start = int(self.ends[which - 1]) if which else 0
        return self.datasets[which][at - start]

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0


def random_split(
    dataset: Any, lengths: Sequence[int | float], seed: int | None = None
) -> list[Subset]:
    """Subsets of these sizes (or shares that add up to 1), drawn without overlap.

    `seed`: the same seed gives the same split; without one it follows `treadle.manual_seed`.
    Raises ArgumentError where the sizes do not add up to the dataset's.
    """
    total = len(dataset)
    shares = [float(x) for x in lengths]
    if shares and abs(sum(shares) - 1) < 1e-9 and total != 1:
        sizes = [int(total * share) for share in shares]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(x) for x in lengths]
    if sum(sizes) != total or min(sizes, default=0) < 0:
        raise located(ArgumentError(f"{total} samples cannot be split into {list(lengths)}"))
    order = np.random.default_rng(draw_seed() if seed is None else seed).permutation(total)
    cuts = np.cumsum(sizes)[:-1]
    return [Subset(dataset, part.tolist()) for part in np.split(order, cuts)]


def as_array(value: Any) -> Array:
    """The values of a tensor or of anything that NumPy takes."""
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)
