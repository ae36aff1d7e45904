"""A command line that asks for what there is not: one line, with the nearest name, exit code 2."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches

EXIT_CODE = 2


class Mistake(Exception):
    """The message is what the user reads, behind the command's name."""


def unknown(what: str, name: str, known: Iterable[str], where: str = "") -> Mistake:
    """There is no `what` called `name`; names the nearest of `known`, or all of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
    return Mistake(f"there is no {what} {name!r}{where}; {hint}")


def positive_int(text: str) -> int:
    """An argparse type: an int of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def positive_seconds(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return seconds
