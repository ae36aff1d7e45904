"""Batches fetched by a thread while the caller works.

A compiled step runs without the interpreter's lock, so that the thread reads the next batch during
it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from treadle.nn.data.fetching import Fetcher, Job, fetch

_POLL = 0.05  # seconds after which a waiting thread looks whether its reader has gone


def fetch_in_thread(fetcher: Fetcher, jobs: Sequence[Job], ahead: int) -> Iterator[Any]:
    """The batches of `jobs` in order, at most `ahead` of them waiting.

    An error of the dataset is raised where its batch would have come. Leaving the loop early ends
    the thread.
    """
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(ahead)
    gone = threading.Event()
    thread = threading.Thread(
        target=_fill, args=(waiting, gone, fetcher, jobs), daemon=True, name="treadle-prefetch"
    )
    thread.start()
    try:
        for _ in jobs:
            batch, error = waiting.get()
            if error is not None:
                raise error
            yield batch
    finally:
        gone.set()
        thread.join()


def _fill(
    waiting: queue.Queue[tuple[Any, BaseException | None]],
    gone: threading.Event,
    fetcher: Fetcher,
    jobs: Sequence[Job],
) -> None:
    for job in jobs:
        try:
            found: tuple[Any, BaseException | None] = (fetch(fetcher, job), None)
        except BaseException as error:
            found = (None, error)
        while not gone.is_set():
            try:
                waiting.put(found, timeout=_POLL)
                break
            except queue.Full:
                continue
        if gone.is_set() or found[1] is not None:
            return
