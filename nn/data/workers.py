"""Batches fetched by worker processes.

Job n goes to worker n modulo their number; each worker answers in order through a pipe of its own,
so that batches come in order without sorting. A worker that ends without an answer closes its pipe:
the reader sees that at once and says so, rather than waiting for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from treadle.nn.data.errors import WorkerError
from treadle.nn.data.fetching import Fetcher, Job, fetch


class _Worker:
    """One process, its pipe, and how many of its answers are still to come."""

    def __init__(self, number: int, fetcher: Fetcher) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.number = number
        self.pipe, other = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]  # both contexts have it
            target=_serve, args=(other, self.pipe, fetcher), daemon=True
        )
        with warnings.catch_warnings():
            # The pool's threads hold no lock that a worker takes; the warning is about those.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        other.close()

    def send(self, job: Job) -> None:
        try:
            self.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def receive(self, timeout: float) -> Any:
        """The next batch. Raises what the dataset raised, or WorkerError."""
        try:
            if timeout and not self.pipe.poll(timeout):
                raise WorkerError(f"worker {self.number} gave no batch within {timeout} seconds")
            batch, error, text = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        if error is not None:
            error.add_note(f"in worker {self.number}:\n{text}")
            raise error
        return batch

    def _died(self) -> WorkerError:
        self.process.join(1)
        code = self.process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return WorkerError(
            f"worker {self.number} (process {self.process.pid}) ended {how} while it read data"
        )

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()

    def join(self) -> None:
        self.process.join()


def fetch_in_processes(
    fetcher: Fetcher, jobs: Sequence[Job], count: int, ahead: int, timeout: float
) -> Iterator[Any]:
    """The batches of `jobs` in order, fetched by `count` processes, `ahead` batches each at most.

    Raises WorkerError where one dies or takes longer than `timeout` seconds (0: waits for ever).
    All processes have ended when this returns or raises.
    """
    workers = [_Worker(n, fetcher) for n in range(min(count, len(jobs)))]
    try:
        sent = 0
        for number in range(len(jobs)):
            while sent < min(len(jobs), number + ahead * len(workers)):
                workers[sent % len(workers)].send(jobs[sent])
                sent += 1
            yield workers[number % len(workers)].receive(timeout)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()


def _serve(pipe: Connection, parents: Connection, fetcher: Fetcher) -> None:
    """The loop of a worker: it ends when its parent closes the pipe."""
    parents.close()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            break
        try:
            answer: tuple[Any, BaseException | None, str] = (fetch(fetcher, job), None, "")
        except Exception as error:
            answer = (None, error, traceback.format_exc())
        try:
            pipe.send(answer)
        except (BrokenPipeError, OSError, KeyboardInterrupt):
            break
        except Exception as error:  # what cannot be pickled is told, not lost
            text = f"{type(error).__name__}: {error}"
            pipe.send((None, WorkerError(f"a batch or error cannot be sent: {text}"), ""))
    os._exit(0)  # leave the parent's exit handlers to the parent
