"""Random draws of data loading: every sample has a generator of its own.

A transform that draws asks `sample_generator()`. While a loader fetches sample `i` in epoch `e`,
that generator is seeded by (the loader's seed, e, i): what is drawn depends neither on the number
of workers nor on what was fetched before, and a resumed run draws what the first one would have.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from treadle.nn.init import draw_seed as draw_seed

_local = threading.local()


def sample_generator() -> np.random.Generator:
    """The generator of the sample that is being fetched; outside of a loader one that follows
    `treadle.manual_seed`."""
    current: np.random.Generator | None = getattr(_local, "generator", None)
    return np.random.default_rng(draw_seed()) if current is None else current


@contextmanager
def sampling(seed: int, epoch: int, index: int) -> Iterator[None]:
    """In this block sample `index` of an epoch is fetched."""
    before = getattr(_local, "generator", None)
    _local.generator = np.random.default_rng((seed, epoch, index))
    try:
        yield
    finally:
        _local.generator = before


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch: 0 to count - 1, shuffled by (seed, epoch)."""
    order: list[int] = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    return order
