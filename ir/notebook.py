"""Pieces of HTML that notebooks show: small, without scripts and files, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from treadle.ir.graph import Function

_LINES: Final = 200  # of a program
_DRAWN: Final = 60  # instructions; a picture of more is slow to lay out and hard to read


def fold(summary: str, inside: str, is_open: bool = False) -> str:
    """`inside`, HTML, behind a line of text that opens it."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{inside}</details>"


def pre(lines: Sequence[str], most: int = _LINES) -> str:
    """Lines of text as they are; of more than `most`, the first ones and how many are left out."""
    shown = list(lines[:most])
    if len(lines) > most:
        shown.append(f"... {len(lines) - most} more lines; print() shows all")
    return f"<pre>{escape(chr(10).join(shown))}</pre>"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Cells of text, right-aligned."""
    cells = ("".join(f"<td>{escape(c)}</td>" for c in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<table style="font-family:monospace;text-align:right">{body}</table>'


def function_html(fn: Function) -> str:
    """A program: its text, and a picture behind a fold where it is small."""
    from treadle.ir.picture import to_svg
    from treadle.ir.printer import print_function

    head = (
        f"@{fn.name}: {len(fn.instrs)} instructions, {len(fn.params)} parameters, "
        f"{len(fn.results)} results"
    )
    parts = [fold(head, pre(print_function(fn).splitlines()), is_open=True)]
    if fn.instrs and len(fn.instrs) <= _DRAWN:
        parts.append(fold("picture", to_svg(fn)))
    return f"<div>{''.join(parts)}</div>"
