"""`DataLoader`: batches of a dataset, in an order that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from treadle.ir.errors import ArgumentError
from treadle.nn.data.collation import as_tensors, stacked
from treadle.nn.data.fetching import Fetcher, fetch
from treadle.nn.data.randomness import draw_seed, shuffled
from treadle.tracer.errors import located, located_errors


class DataLoader:
    """Batches of `dataset`, as tensors; each pass over the loader is an epoch.

    `shuffle` draws a new order for each epoch from `seed` (without one, from what
    `treadle.manual_seed` started). `sampler` gives the order instead, an iterable of sample
    numbers, `batch_sampler` the batches, lists of such: with it the options above have no say.
    `drop_last` leaves out a last batch that is smaller.

    `num_workers` processes fetch batches while the caller works, `prefetch_factor` (2) batches
    ahead each; with 0 workers, a `prefetch_factor` makes a thread do so, which helps while a
    compiled step runs. Batches and their order do not depend on either. `collate_fn` makes a batch
    of a list of samples. `timeout`: seconds to wait for a worker's batch, 0 for ever.

    `state_dict()` says which batch comes next; `load_state_dict` goes on there.

    Raises ArgumentError for numbers that make no sense. Iterating raises what the dataset raises,
    naming the sample, and WorkerError where a worker process dies.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        *,
        drop_last: bool = False,
        timeout: float = 0.0,
        prefetch_factor: int | None = None,
        seed: int | None = None,
    ) -> None:
        with located_errors():
            _check("batch_size", batch_size, 1)
            _check("num_workers", num_workers, 0)
            if prefetch_factor is not None:
                _check("prefetch_factor", prefetch_factor, 1)
            if not isinstance(timeout, (int, float)) or not timeout >= 0:
                raise ArgumentError(f"timeout must be at least 0 seconds, found {timeout!r:.60}")
            if shuffle and sampler is not None:
                raise ArgumentError("give shuffle or a sampler, not both")
            if batch_sampler is not None and (
                batch_size != 1 or shuffle or sampler is not None or drop_last
            ):
                raise ArgumentError(
                    "a batch_sampler says all: give no batch_size, shuffle, sampler or drop_last"
                )
            if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
                raise ArgumentError(
                    f"a dataset has __getitem__ and __len__, found {type(dataset).__name__}"
                )
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.num_workers, self.drop_last = num_workers, drop_last
        self.collate_fn, self.timeout, self.prefetch_factor = collate_fn, timeout, prefetch_factor
        self.seed = draw_seed() if seed is None else seed
        self.epoch = 0
        self._batch = 0  # of this epoch comes next
        self._resumes = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        if self.batch_sampler is not None:
            return _length(self.batch_sampler)
        samples = len(self.dataset) if self.sampler is None else _length(self.sampler)
        whole = samples / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch; after `load_state_dict` those that are left of it.

        An epoch that is left early is over: the next pass draws an order of its own.
        """
        if self._batch and not self._resumes:
            self.epoch, self._batch = self.epoch + 1, 0
        self._resumes = False
        batches = self._batches()[self._batch :]
        jobs = [(self.seed, self.epoch, rows) for rows in batches]
        for batch in self._fetched(jobs):
            self._batch += 1
            yield batch
        self.epoch, self._batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """The seed, the epoch, and the batch of it that comes next."""
        return {"seed": self.seed, "epoch": self.epoch, "batch": self._batch}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on where another loader of the same dataset stood. Raises ArgumentError where a key is
        missing."""
        missing = [key for key in ("seed", "epoch", "batch") if key not in state_dict]
        if missing:
            raise located(ArgumentError(f"the loader's state lacks {', '.join(missing)}"))
        self.seed, self.epoch = int(state_dict["seed"]), int(state_dict["epoch"])
        self._batch, self._resumes = int(state_dict["batch"]), True

    def _batches(self) -> list[list[int]]:
        """The sample numbers of each batch of this epoch."""
        if self.batch_sampler is not None:
            return [[int(i) for i in batch] for batch in self.batch_sampler]
        order: Sequence[int]
        if self.sampler is not None:
            order = [int(i) for i in self.sampler]
        elif self.shuffle:
            order = shuffled(len(self.dataset), self.seed, self.epoch)
        else:
            order = range(len(self.dataset))
        size = self.batch_size
        batches = [list(order[i : i + size]) for i in range(0, len(order), size)]
        if self.drop_last and batches and len(batches[-1]) < size:
            batches.pop()
        return batches

    def _fetched(self, jobs: list[tuple[int, int, list[int]]]) -> Iterator[Any]:
        # A process sends arrays; they become tensors here.
        collate = self.collate_fn or stacked
        fetcher = Fetcher(self.dataset, collate, self.collate_fn is None)
        finish = as_tensors if self.collate_fn is None else _unchanged
        ahead = self.prefetch_factor
        if self.num_workers:
            from treadle.nn.data.workers import fetch_in_processes

            found = fetch_in_processes(fetcher, jobs, self.num_workers, ahead or 2, self.timeout)
        elif ahead is not None:
            from treadle.nn.data.prefetching import fetch_in_thread

            found = fetch_in_thread(fetcher, jobs, ahead)
        else:
            found = (fetch(fetcher, job) for job in jobs)
        return map(finish, found)


def _unchanged(batch: Any) -> Any:
    return batch


def _check(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{name} must be an int that is at least {least}, found {value!r:.60}")


def _length(sampler: Any) -> int:
    if not hasattr(sampler, "__len__"):
        raise located(ArgumentError("the sampler has no length, so the loader has none"))
    return len(sampler)
