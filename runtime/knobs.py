"""The switches of the run time: the only place that reads environment variables.

Each is read when it is first asked for, and may be set from Python, which wins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from treadle.ir.dataclass import dataclass

VerifyMode = Literal["levels", "all"]


@dataclass(frozen=True, slots=True)
class Knob:
    """A switch: its environment variable, what it does, and the value when nothing is said."""

    variable: str
    effect: str
    default: str


KNOBS: tuple[Knob, ...] = (
    Knob("TREADLE_TARGET", "host, sse2, avx2, avx512 or neon: the code's target", "host"),
    Knob("TREADLE_VERIFY", "levels: verify at changes of level; all: after every pass", "levels"),
    Knob("TREADLE_NUM_THREADS", "threads of compiled functions; empty: the usable cores", ""),
    Knob("TREADLE_TRACEBACK", "full: tracebacks show Treadle's own frames; user: not", "user"),
    Knob("TREADLE_CALL_PATH", "native: calls are checked in native code; python: not", "native"),
    Knob("TREADLE_EXPLAIN", "1: a line on stderr for each recompilation; 0: none", "1"),
    Knob("TREADLE_CACHE", "1: compiled code is kept on disk; 0, off: in memory only", "1"),
    Knob("TREADLE_CACHE_DIR", "the disk cache; empty: treadle in the user's cache directory", ""),
    Knob("TREADLE_CACHE_MB", "the room of the disk cache in MB", "512"),
    Knob("TREADLE_PROGRESS", "1: a line on stderr for each slow compilation; 0: none", "1"),
)
_BY_NAME = {k.variable: k for k in KNOBS}
_set: dict[str, str] = {}


def read(variable: str) -> str:
    """The value of a knob: set from Python, else the environment's, else its default."""
    knob = _BY_NAME[variable]
    return _set.get(variable) or os.environ.get(variable) or knob.default


def write(variable: str, value: str | None) -> None:
    """Set a knob from Python; None takes that back."""
    _BY_NAME[variable]  # an unknown name is a KeyError here and not silence later
    if value is None:
        _set.pop(variable, None)
    else:
        _set[variable] = value


def verify_mode() -> VerifyMode:
    """What the pass manager verifies. Raises ValueError for an unknown mode."""
    mode = read("TREADLE_VERIFY")
    if mode == "all":
        return "all"
    if mode == "levels":
        return "levels"
    raise ValueError(f"TREADLE_VERIFY must be levels or all, found {mode!r}")


def target_name() -> str:
    return read("TREADLE_TARGET")


def full_tracebacks() -> bool:
    """Whether tracebacks show Treadle's own frames."""
    return read("TREADLE_TRACEBACK") == "full"


def explains() -> bool:
    """Whether recompilations are explained on stderr."""
    return read("TREADLE_EXPLAIN") != "0"


def call_path() -> Literal["native", "python"]:
    """How calls reach compiled code. Raises ValueError for another word."""
    found = read("TREADLE_CALL_PATH")
    if found == "native":
        return "native"
    if found == "python":
        return "python"
    raise ValueError(f"TREADLE_CALL_PATH must be native or python, found {found!r}")


def num_threads() -> int | None:
    """The number of threads asked for, None where none is. Raises ValueError for another text."""
    text = read("TREADLE_NUM_THREADS").strip()
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ValueError(f"TREADLE_NUM_THREADS must be a number from 1 to 256, found {text!r}")
    return int(text)


def uses_cache() -> bool:
    """Whether compiled code is kept on disk."""
    return read("TREADLE_CACHE").strip().lower() not in ("0", "off", "no", "false")


def cache_folder() -> Path:
    """The disk cache's directory. Raises RuntimeError where the user has no home directory."""
    named = read("TREADLE_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # a relative one is to be ignored, says the XDG Base Directory Specification
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "treadle"


def cache_bytes() -> int:
    """The room of the disk cache. Raises ValueError for something else than a number."""
    text = read("TREADLE_CACHE_MB").strip()
    if not text.isdecimal():
        raise ValueError(f"TREADLE_CACHE_MB must be a whole number, found {text!r}")
    return int(text) * 1_000_000


def shows_progress() -> bool:
    """Whether slow compilations are told on stderr."""
    return read("TREADLE_PROGRESS") != "0"
