"""Tables of text, as reports print them."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None
) -> str:
    """Columns as wide as their widest cell, two spaces apart; those that hold numbers, by their
    last row, to the right. `total` stands under a rule of its own."""
    every = [titles, *rows, *([total] if total is not None else [])]
    widths = [max(len(row[n]) for row in every) for n in range(len(titles))]
    last = every[-1]
    right = [cell[:1].isdigit() or (cell[:1] == "-" and cell[1:2].isdigit()) for cell in last]
    shown = [
        "  ".join(
            f"{cell:>{width}}" if to_right else f"{cell:<{width}}"
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in every
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    if total is None:
        return "\n".join([shown[0], rule, *shown[1:]])
    return "\n".join([shown[0], rule, *shown[1:-1], rule, shown[-1]])
