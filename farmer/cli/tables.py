"""Plain columns for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

RIGHT: Final = frozenset(
    {
        *("QUOTA", "USED", "RESERVED", "TRASH", "FREE", "SHARDS", "DAMAGED", "SPACE", "SIZE"),
        *("DONE", "OF", "SPEED", "CHECKED", "MENDED"),
        *("AT ONCE", "PER S", "MB/S", "MEDIAN", "P99", "FARMER'S CPU"),
    }
)
"""Columns of numbers and sizes, whatever stands in them today."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the columns of `RIGHT` lean right."""
    widths = [max(_width(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            " " * (width - _width(cell)) + cell
            if name in RIGHT
            else cell + " " * (width - _width(cell))
            for cell, width, name in zip(row, widths, head, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Return how many places a terminal needs: two for the letters of East Asia."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def visible(text: str) -> str:
    """Return *text* with everything that could steer a terminal escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
