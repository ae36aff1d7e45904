"""`treadle cache`: what compiled code is kept on disk, whether it is whole, and its removal."""

from __future__ import annotations

import argparse
import time

from treadle.cli.mistake import Mistake
from treadle.runtime import cache, knobs
from treadle.runtime.cache_folder import Unusable, folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("info", "clear", "verify"),
        help="info: place, size, age; clear: remove all entries; verify: check each entry's "
        "checksum and remove the damaged ones",
    )


def run(args: argparse.Namespace) -> int:
    try:
        knobs.cache_bytes()
    except ValueError as error:
        raise Mistake(str(error)) from None
    try:
        return {"info": _info, "clear": _clear, "verify": _verify}[args.action]()
    except Unusable as why:
        raise Mistake(f"{why}; compiled code is kept in memory only") from None


def _info() -> int:
    found = cache.entries()
    total = sum(e.size for e in found)
    print(f"directory   {folder()}")
    print(f"in use      {'yes' if cache.is_on() else 'no (TREADLE_CACHE=0)'}")
    print(f"entries     {len(found)}")
    print(f"size        {total / 1e6:.2f} of {knobs.cache_bytes() / 1e6:.0f} MB")
    if found:
        print(f"oldest use  {_age(found[0])}")
        print(f"newest use  {_age(found[-1])}")
    return 0


def _age(entry: cache.Kept) -> str:
    seconds = max(time.time() - entry.used, 0.0)
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"


def _clear() -> int:
    print(f"removed {cache.clear()} entries from {folder()}")
    return 0


def _verify() -> int:
    """Exit code 1 where an entry was damaged."""
    found = cache.entries()
    damaged = [(e, why) for e in found if (why := cache.damage(e))]
    for entry, why in damaged:
        cache.remove(entry)
        print(f"removed {entry.path.name}: {why}")
    print(f"{len(found) - len(damaged)} of {len(found)} entries are whole")
    return 1 if damaged else 0
