"""A Function in the formats that the commands print."""

from __future__ import annotations

from treadle.ir.graph import Function
from treadle.ir.picture import to_dot, to_svg
from treadle.ir.printer import print_function

FORMATS = ("text", "dot", "svg")


def render(fn: Function, form: str) -> str:
    """`fn` as `form`, one of FORMATS."""
    if form == "text":
        return print_function(fn)
    return to_dot(fn) if form == "dot" else to_svg(fn)
