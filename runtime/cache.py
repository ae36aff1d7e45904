"""Compiled code on disk, so that the next process need not compile it again.

One file an entry, named by its key (`cache_key.py`), in the format of `cache_entry.py`. A file is
written under another name and put into place by one rename, so that readers in other processes see
whole entries only, and the last of several writers wins with the same content. Whatever is amiss
with an entry, it counts as missing: the program is compiled and the entry replaced. Whatever is
amiss with the folder, code is kept in memory alone, and one line on stderr says why.

Entries that are used get a new time; where all of them take more than `TREADLE_CACHE_MB`, those not
used for the longest time go first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import field
from itertools import count
from pathlib import Path
from typing import Final

from treadle.ir.dataclass import dataclass
from treadle.ir.forking import in_child
from treadle.runtime import knobs
from treadle.runtime.cache_entry import Damaged, check, decode, encode
from treadle.runtime.cache_folder import Unusable, distrust, folder, opened
from treadle.runtime.interface import Interface

SUFFIX: Final = ".treadle"
_UNFINISHED: Final = ".unfinished"
_STALE: Final = 3600.0  # seconds after which a writer that left an unfinished file is dead
_SCAN_EVERY: Final = 32  # entries written between two looks at what other processes have added
_LARGEST_SHARE: Final = 4  # an entry takes at most this fraction of the room

_numbers: Final = count()


@dataclass(slots=True)
class _State:
    """What this process knows: whether the notice was given, and how much is in the folder."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    told: bool = False
    written: int = 0
    total: int | None = None


_state: Final = _State()


def _renew_lock() -> None:
    _state.lock = threading.Lock()


in_child(_renew_lock)


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry's file: its key, size in bytes, and the time of its last use."""

    key: str
    path: Path
    size: int
    used: float


def is_on() -> bool:
    """Whether compiled code is to be kept on disk."""
    return knobs.uses_cache()


def fetch(key: str) -> tuple[bytes, Interface | None] | None:
    """(object code, interface) of an entry; None where there is none that can be trusted."""
    try:
        path = _path(opened(create=False), key)
        data = _read(path)
        found = decode(key, data)
    except FileNotFoundError:
        return None
    except (Damaged, OSError):
        return None  # the program is compiled, and the entry replaced if that is possible
    except Unusable as why:
        _tell(str(why))
        return None
    with contextlib.suppress(OSError):  # a read-only cache has no order of use
        os.utime(path)
    return found


def keep(key: str, code: bytes, interface: Interface | None) -> None:
    """Write an entry; where that is impossible, say so once and go on."""
    data = encode(key, code, interface)
    if len(data) * _LARGEST_SHARE > knobs.cache_bytes():
        return
    try:
        _write(opened(create=True), key, data)
    except Unusable as why:
        _tell(str(why))
    except OSError as error:
        _tell(f"{error.filename or 'the folder'} cannot be written: {error.strerror}")


def entries() -> list[Kept]:
    """The files of the cache, least recently used first. Raises Unusable."""
    try:
        found = list(_scan(opened(create=False)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unusable(f"{folder()} cannot be read: {error.strerror}") from None
    return sorted(found, key=lambda e: (e.used, e.key))


def clear() -> int:
    """Remove all entries; returns how many there were. Raises Unusable."""
    found = entries()
    for entry in found:
        remove(entry)
    with contextlib.suppress(FileNotFoundError):
        _sweep_unfinished(folder(), older_than=0.0)
    _state.total = None
    return len(found)


def remove(entry: Kept) -> None:
    """Remove an entry, if it is still there. Raises Unusable."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise Unusable(f"{entry.path} cannot be removed: {error.strerror}") from None


def damage(entry: Kept) -> str:
    """What is wrong with an entry; "" for nothing."""
    try:
        check(entry.key, _read(entry.path))
    except Damaged as why:
        return str(why)
    except FileNotFoundError:  # another process has removed it
        return ""
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""


# --- files -----------------------------------------------------------------------------------


def _path(where: Path, key: str) -> Path:
    return where / f"{key}{SUFFIX}"


def _read(path: Path) -> bytes:
    """A file's content, if nobody else can have written it. Raises Damaged, OSError."""
    # no link that leads elsewhere, and no pipe that never ends
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        why = distrust(status)
        if why:
            raise Damaged(f"it {why}")
        if status.st_size > knobs.cache_bytes():  # nobody else's gigabytes are read into memory
            raise Damaged("it is larger than the cache")
        return file.read()


def _write(where: Path, key: str, data: bytes) -> None:
    path = _path(where, key)
    name = f".{key[:16]}.{os.getpid()}.{next(_numbers)}{_UNFINISHED}"
    unfinished = where / name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(unfinished, flags, 0o600), "wb") as file:  # noqa: PTH123
            file.write(data)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    _make_room(where, path, len(data))


def _scan(where: Path) -> Iterator[Kept]:
    with os.scandir(where) as files:
        for file in files:
            if not file.name.endswith(SUFFIX):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                status = file.stat(follow_symlinks=False)
                key = file.name.removesuffix(SUFFIX)
                yield Kept(key, Path(file.path), status.st_size, status.st_mtime)


def _make_room(where: Path, newest: Path, size: int) -> None:
    """Remove what was not used for the longest time, where all entries exceed their room."""
    with _state.lock:
        _state.written += 1
        if _state.total is not None:
            _state.total += size
            if _state.total <= knobs.cache_bytes() and _state.written % _SCAN_EVERY:
                return
        found = sorted(_scan(where), key=lambda e: e.used)
        total = sum(e.size for e in found)
        for entry in found:
            if total <= knobs.cache_bytes():
                break
            if entry.path != newest:
                entry.path.unlink(missing_ok=True)
                total -= entry.size
        _state.total = total
        _sweep_unfinished(where, _STALE)


def _sweep_unfinished(where: Path, older_than: float) -> None:
    """Remove what writers that were killed have left."""
    now = time.time()
    for path in where.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_mtime >= older_than:
                path.unlink()


def _tell(why: str) -> None:
    """The one notice of a process."""
    with _state.lock:
        told, _state.told = _state.told, True
    if not told:
        print(
            f"treadle: compiled code is kept in memory only: {why} "
            "(TREADLE_CACHE_DIR names another directory, TREADLE_CACHE=0 turns the cache off)",
            file=sys.stderr,
        )
