"""What a profile says: the table of kernels, a timeline, a roofline.

A kernel's limit is the least time in which this machine could do it: the time of its operations at
the measured FMA rate, or that of its bytes at the bandwidth measured on data of that size,
whichever is longer. Its share is limit over time. Operations and bytes are those of
`treadle.ir.work`; data that an earlier kernel left in a cache can be faster than the limit says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Final, Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Loc
from treadle.ir.work import Work
from treadle.runtime.machine import Machine

_GIGA: Final = 1e9
_TELLING: Final = 1e-7  # seconds; two stamps take a fifth of it


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel: its plan in a line, the user's lines, its least time, its work. `parallel`:
    more than one thread can be of use, over its tiles or, where there is one, inside of it."""

    kernel: str
    plan: str
    lines: tuple[Loc, ...]
    seconds: float
    work: Work
    tiles: int
    parallel: bool = False

    @property
    def tiles_text(self) -> str:
        """The number of tiles; "shared" where threads share the work inside of a single one."""
        return "shared" if self.parallel and self.tiles == 1 else str(self.tiles)

    @property
    def flop_rate(self) -> float:
        """Operations a second."""
        return self.work.flops / self.seconds if self.seconds else 0.0

    @property
    def byte_rate(self) -> float:
        """Bytes a second, read and written."""
        return self.work.moved / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """A kernel, or one tile of it on the thread that ran it (0: the caller), in seconds from the
    start of the step."""

    name: str
    tile: int | None
    thread: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a compiled function goes.

    `seconds` is the least time of a whole step and each row has the least time of its kernel, out
    of `repeat` runs; `events` are those of the fastest run. `print(profile)` shows the table.
    """

    name: str
    target: str
    threads: int
    repeat: int
    seconds: float
    rows: tuple[KernelTime, ...]
    events: tuple[Event, ...]
    machine: Machine
    function: Function = field(repr=False)  # what was compiled

    def limit(self, row: KernelTime) -> tuple[float, Literal["FMA", "memory"]]:
        """The least time of a kernel on this machine and so many threads, and what sets it."""
        work = row.work
        compute = work.flops / self.machine.flop_rate(self.threads, work.itemsize)
        memory = self.machine.move_seconds(work.read, work.written, self.threads)
        return (compute, "FMA") if compute > memory else (memory, "memory")

    def share(self, row: KernelTime) -> float:
        """The limit over the time of a kernel: 1 where nothing can be gained."""
        return self.limit(row)[0] / row.seconds if row.seconds else 0.0

    def share_text(self, row: KernelTime) -> str:
        """The share in percent; nothing where the clock is too coarse to tell."""
        return f"{self.share(row):.0%}" if row.seconds >= _TELLING else ""

    @property
    def elsewhere(self) -> float:
        """Seconds of a step outside of all kernels: between them, and copies at its end."""
        return max(self.seconds - sum(r.seconds for r in self.rows), 0.0)

    def __str__(self) -> str:
        limit = sum(self.limit(r)[0] for r in self.rows)
        of_limit = f", {limit / self.seconds:.0%} of the limit" if self.seconds else ""
        head = (
            f"@{self.name}: {time_text(self.seconds)} a step, the least of {self.repeat}"
            f"{of_limit}; {_count(self.threads, 'thread')}, {self.target}"
        )
        table = _table([_HEADINGS, *self._cells()])
        return "\n".join([head, self.machine.describe(), "", *table])

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            yield (
                row.kernel,
                f"{row.seconds * 1e6:.1f}",
                self._percent(row.seconds),
                f"{row.flop_rate / _GIGA:.1f}",
                f"{row.byte_rate / _GIGA:.1f}",
                self.share_text(row),
                self.limit(row)[1],
                row.tiles_text,
                short_lines(row.lines),
            )
        yield ("(between)", f"{self.elsewhere * 1e6:.1f}", self._percent(self.elsewhere))

    def _percent(self, seconds: float) -> str:
        return f"{seconds / self.seconds:.0%}" if self.seconds else ""

    # --- files -------------------------------------------------------------------------------

    def to_chrome_trace(self, path: str | Path) -> None:
        """Write the fastest step as JSON for chrome://tracing and Perfetto: kernels as the caller
        sees them, below them the tiles of each thread."""
        Path(path).write_text(json.dumps(self._trace()), encoding="utf-8")

    def _trace(self) -> dict[str, Any]:
        rows = {r.kernel: r for r in self.rows}
        threads = sorted({e.thread for e in self.events if e.tile is not None})
        names = {0: "kernels", **{t + 1: f"tiles on thread {t}" for t in threads}}
        found: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": t, "args": {"name": name}}
            for t, name in names.items()
        ]
        found.append(
            {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": self.name}}
        )
        for event in self.events:
            row = rows.get(event.name)
            found.append(
                {
                    "name": event.name,
                    "cat": "kernel" if event.tile is None else "tile",
                    "ph": "X",
                    "ts": event.start * 1e6,
                    "dur": (event.end - event.start) * 1e6,
                    "pid": 1,
                    "tid": 0 if event.tile is None else event.thread + 1,
                    "args": self._details(row, event.tile) if row is not None else {},
                }
            )
        return {"traceEvents": found, "displayTimeUnit": "ns"}

    def _details(self, row: KernelTime, tile: int | None) -> dict[str, Any]:
        if tile is not None:
            return {"tile": tile, "of": row.tiles}
        return {
            "lines": ", ".join(map(str, row.lines)),
            "plan": row.plan,
            "flops": row.work.flops,
            "bytes": row.work.moved,
            "share of the limit": round(self.share(row), 3),
        }

    def roofline(self, path: str | Path) -> None:
        """Draw each kernel's rate over its operations per byte, below the machine's limits; the
        kind of picture is that of the file's suffix. Raises ImportError without matplotlib."""
        from treadle.runtime.roofline import draw  # matplotlib is needed for this alone

        draw(self, Path(path))


_HEADINGS: Final = ("kernel", "us", "time", "GFLOP/s", "GB/s", "of limit", "by", "tiles", "lines")
_LEFT: Final = frozenset({0, 6, 8})  # columns that begin at their left


def short_lines(lines: Sequence[Loc]) -> str:
    """The user's lines, files by their last name, each named once: `train.py:12, 14`."""
    by_file: dict[str, dict[int, None]] = {}
    for loc in lines:
        by_file.setdefault(Path(loc.file).name, {})[loc.line] = None
    return ", ".join(f"{f}:{', '.join(map(str, sorted(n)))}" for f, n in by_file.items())


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    full = [(*row, *[""] * (len(_HEADINGS) - len(row))) for row in rows]
    widths = [max(len(row[i]) for row in full) for i in range(len(_HEADINGS))]
    return [
        "  ".join(
            cell.ljust(w) if i in _LEFT else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in full
    ]


def time_text(seconds: float) -> str:
    """A time with its unit."""
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
