"""`torch.utils.data`: Treadle's datasets and loader, whose batches are the facade's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import treadle
from treadle.nn.data import (
    ConcatDataset,
    DataLoader as _DataLoader,
    Dataset as _Dataset,
    Subset,
    TensorDataset,
    default_collate as _default_collate,
    random_split as _random_split,
)
from treadle.torch.functions import facade
from treadle.torch.names import keyword_error, missing
from treadle.torch.tensor import adopted_tree
from treadle.tracer.promote import as_operand

__all__ = [
    "ConcatDataset", "DataLoader", "Dataset", "RandomSampler", "Sampler", "SequentialSampler",
    "Subset", "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "default_collate",
    "random_split",
]  # fmt: skip

_IGNORED = ("in_order", "persistent_workers", "pin_memory", "pin_memory_device")
_NOT_THERE = ("multiprocessing_context", "worker_init_fn")  # None, their default, asks for nothing


class Dataset(_Dataset):
    """Base of datasets; `Dataset[T]` is the same class."""

    def __class_getitem__(cls, item: Any) -> type[Dataset]:
        return cls


class DataLoader(_DataLoader):
    """Batches of a dataset as the facade's tensors; see `treadle.data.DataLoader`.

    `generator` gives the seed of the order. Raises TypeError, naming the nearest, for a keyword
    that the loader does not take.
    """

    def __init__(self, dataset: Any, batch_size: Any = 1, shuffle: Any = False, **kwargs: Any):
        options = {k: v for k, v in kwargs.items() if k not in _IGNORED}
        for name in _NOT_THERE:
            if name in options and options[name] is None:
                del options[name]
        generator = options.pop("generator", None)
        if generator is not None:
            options["seed"] = _seed_of(generator)
        try:
            super().__init__(dataset, batch_size, bool(shuffle), **options)
        except TypeError as error:
            told = keyword_error(_DataLoader.__init__, "DataLoader", options)
            if told is None:
                raise
            raise told from error

    def __iter__(self) -> Iterator[Any]:
        return map(adopted_tree, super().__iter__())


def _seed_of(generator: Any) -> int:
    """A number drawn from a generator."""
    return int(treadle.randint(0, 2**62, (), generator=generator))


def default_collate(batch: Sequence[Any]) -> Any:
    """A batch of samples, stacked."""
    return adopted_tree(_default_collate(batch))


@facade
def random_split(dataset: Any, lengths: Sequence[Any], generator: Any = None) -> Any:
    """Subsets of these sizes, or shares, drawn without overlap."""
    return _random_split(dataset, lengths, None if generator is None else _seed_of(generator))


class Sampler:
    """Base of what gives the order of samples: `__iter__` and `__len__`."""

    def __iter__(self) -> Iterator[int]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


class SequentialSampler(Sampler):
    """The samples in order."""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler):
    """The samples in random order, another one each time; or `num_samples` of them, which may
    come again with `replacement`."""

    def __init__(
        self, data_source: Any, replacement: bool = False, num_samples: int | None = None,
        generator: Any = None,
    ) -> None:  # fmt: skip
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self.num_samples = len(data_source) if num_samples is None else num_samples

    def __iter__(self) -> Iterator[int]:
        count, given = len(self.data_source), {"generator": self.generator}
        if self.replacement:
            yield from treadle.randint(0, count, (self.num_samples,), **given).tolist()
            return
        for _ in range(0, self.num_samples, max(count, 1)):
            left = self.num_samples - _
            yield from treadle.randperm(count, **given).tolist()[:left]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler):
    """These samples in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        order = treadle.randperm(len(self.indices), generator=self.generator).tolist()
        return (self.indices[i] for i in order)

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler):
    """`num_samples` samples, drawn in proportion to `weights`."""

    def __init__(
        self, weights: Any, num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        self.weights = as_operand(weights if hasattr(weights, "ndim") else treadle.tensor(weights))
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        drawn = treadle.multinomial(
            self.weights, self.num_samples, self.replacement, generator=self.generator
        )
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise missing("torch.utils.data", name, __all__)
