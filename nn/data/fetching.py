"""How one batch is fetched, in whatever process or thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from treadle.ir.dataclass import dataclass
from treadle.nn.data.randomness import sampling

Job: TypeAlias = tuple[int, int, list[int]]  # the loader's seed, the epoch, the sample numbers


@dataclass(frozen=True)
class Fetcher:
    """A dataset and how its samples become a batch; `plainly`: by the default collation."""

    dataset: Any
    collate: Callable[[list[Any]], Any]
    plainly: bool


def fetch(fetcher: Fetcher, job: Job) -> Any:
    """The batch of `job`. What the dataset raises gets a note that names the sample."""
    seed, epoch, indices = job
    if fetcher.plainly and callable(getattr(fetcher.dataset, "rows", None)):
        return fetcher.dataset.rows(indices)
    samples = []
    for index in indices:
        with sampling(seed, epoch, index):
            try:
                samples.append(fetcher.dataset[index])
            except Exception as error:
                error.add_note(f"while sample {index} of {type(fetcher.dataset).__name__} was read")
                raise
    return fetcher.collate(samples)
