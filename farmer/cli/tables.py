"""Plain columns for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

RIGHT: Final = frozenset(
    {"QUOTA", "USED", "RESERVED", "TRASH", "FREE", "SHARDS", "DAMAGED", "SPACE", "SIZE"}
)
"""Columns of numbers and sizes, whatever stands in them today."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the columns of `RIGHT` lean right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def visible(text: str) -> str:
    """Return *text* with everything that could steer a terminal escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
