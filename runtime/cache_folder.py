"""Where the disk cache is, and whether it can be trusted.

Whoever writes an entry decides what code runs here. So the folder must belong to this user (or to
root), and nobody else may write to it; the same is asked of each file when it is opened, so that a
folder that is exchanged in between gains nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from treadle.runtime import knobs

PRIVATE = 0o700


class Unusable(Exception):
    """There is no disk cache; the message says why, for the one notice that users get."""


def folder() -> Path:
    """The folder that is configured. Raises Unusable where there is no home to put it in."""
    try:
        return knobs.cache_folder()
    except RuntimeError as error:
        raise Unusable(f"there is no home directory ({error})") from None


def opened(create: bool) -> Path:
    """The folder, there and trusted; `create`: made where it is missing.

    Raises Unusable, FileNotFoundError where it is missing and shall not be made.
    """
    path = folder()
    try:
        status = path.stat()
    except FileNotFoundError:
        if not create:
            raise
        status = _made(path)
    except OSError as error:
        raise Unusable(f"{path} cannot be opened: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise Unusable(f"{path} is not a directory")
    why = distrust(status)
    if why:
        raise Unusable(f"{path} {why}")
    return path


def _made(path: Path) -> os.stat_result:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(PRIVATE, exist_ok=True)
        return path.stat()
    except OSError as error:
        raise Unusable(f"{path} cannot be made: {error.strerror}") from None


def distrust(status: os.stat_result) -> str:
    """Why a file or folder of that status is not trusted; "" where it is."""
    if not hasattr(os, "geteuid"):  # Windows keeps other users out of a profile by itself
        return ""
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users"
    return ""
