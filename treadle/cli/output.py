"""Programs in and out of the commands: IR text files, and the formats that they print."""

from __future__ import annotations

import sys
from pathlib import Path

from treadle.cli.mistake import Mistake
from treadle.ir.errors import ParseError
from treadle.ir.graph import Function
from treadle.ir.parser import parse_functions
from treadle.ir.picture import to_dot, to_svg
from treadle.ir.printer import print_function

FORMATS = ("text", "dot", "svg")


def render(fn: Function, form: str) -> str:
    """`fn` as `form`, one of FORMATS."""
    if form == "text":
        return print_function(fn)
    return to_dot(fn) if form == "dot" else to_svg(fn)


def read_functions(file: str) -> list[Function]:
    """The functions of an IR text file, `-` for standard input; at least one.

    Raises Mistake where the file cannot be read, ParseError naming line and column.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {file}: {error}") from None
    functions = parse_functions(text, file)
    if not functions:
        raise ParseError(f"{file}: expected a function, found none")
    return functions
