"""Batches fetched by worker processes.

Job n goes to worker n modulo their number; each worker answers in order through a pipe of its own,
so that batches come in order without sorting. A worker has its jobs from the start and is only told
to go on: jobs sent through the pipe, thousands of numbers each, could fill it while the worker
waits for room in it for its batch. A worker that ends without an answer closes its pipe: the reader
sees that at once and says so, rather than waiting for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
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

    def __init__(self, number: int, fetcher: Fetcher, jobs: Sequence[Job]) -> None:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.number = number
        self.pipe, other = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]  # both contexts have it
            target=_serve, args=(other, self.pipe, fetcher, jobs), daemon=True
        )
        with warnings.catch_warnings():
            # The pool's threads hold no lock that a worker takes; the warning is about those.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        other.close()

    def begin_next(self) -> None:
        """Let the worker fetch one more of its batches."""
        try:
            self.pipe.send_bytes(b"+")
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
        self.process.kill()  # a handler of SIGTERM that the program has would live on in it

    def join(self) -> None:
        self.process.join()


def fetch_in_processes(
    fetcher: Fetcher, jobs: Sequence[Job], count: int, ahead: int, timeout: float
) -> Iterator[Any]:
    """The batches of `jobs` in order, fetched by `count` processes, `ahead` batches each at most.

    Raises WorkerError where one dies or takes longer than `timeout` seconds (0: waits for ever).
    All processes have ended when this returns or raises.
    """
    count = min(count, len(jobs))
    workers: list[_Worker] = []
    try:
        # One by one: those that have begun end, too, where another cannot.
        for n in range(count):
            workers += [_Worker(n, fetcher, jobs[n::count])]
        sent = 0
        for number in range(len(jobs)):
            while sent < min(len(jobs), number + ahead * count):
                workers[sent % count].begin_next()
                sent += 1
            yield workers[number % count].receive(timeout)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join()


def _serve(pipe: Connection, parents: Connection, fetcher: Fetcher, jobs: Sequence[Job]) -> None:
    """The loop of a worker: it ends when its parent closes the pipe. Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parents.close()
    for job in jobs:
        try:
            pipe.recv_bytes()
        except (EOFError, OSError):
            break
        try:
            answer: tuple[Any, BaseException | None, str] = (fetch(fetcher, job), None, "")
        except Exception as error:
            answer = (None, _sendable(error), traceback.format_exc())
        try:
            pipe.send(answer)
        except OSError:
            break
        except Exception as error:  # what cannot be pickled is told, not lost
            text = f"{type(error).__name__}: {error}"
            pipe.send((None, WorkerError(f"a batch cannot be sent: {text}"), ""))
    os._exit(0)  # leave the parent's exit handlers to the parent


def _sendable(error: Exception) -> Exception:
    """`error`, or a WorkerError that says the same where `error` does not survive the pipe: its
    constructor takes other arguments than it passed on, or its class is local."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")
    return error
