"""What reading data raises."""

from __future__ import annotations

from treadle.ir.errors import TreadleError


class DataError(TreadleError, ValueError):
    """A file is damaged, or is not of the format that it should be of. The message names it."""


class WorkerError(TreadleError, RuntimeError):
    """A process that fetches data died, or gave no batch in time."""
