"""The resident memory of this process: now, and at its highest."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")


def resident_kib() -> int | None:
    """The resident size now, in KiB; None where the system does not tell (outside of Linux)."""
    return _status("VmRSS")


def peak_kib() -> int:
    """The largest resident size of this process so far, in KiB.

    On Linux not `ru_maxrss`: a process inherits that from the one that started it, whose arrays
    are larger than a small step's whole memory.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def forget_peak() -> int:
    """The resident size now, from which the peak is counted anew where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_kib()
    return resident_kib() or peak_kib()


def _status(field: str) -> int | None:
    """A field of /proc/self/status in KiB; None where there is none."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
