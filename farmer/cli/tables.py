"""Plain columns for people."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; columns that hold only numbers or sizes lean right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    right = [bool(rows) and all(row[i][:1].isdigit() for row in rows) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if leans else cell.ljust(width)
            for cell, width, leans in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def visible(text: str) -> str:
    """Return *text* with everything that could steer a terminal escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
