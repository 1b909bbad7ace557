"""Figures out of the cells of a run: medians with least and most, ratios round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Cell = Mapping[str, Any]
"""A cell of `peers.json`: which peer, round and work, and its `Outcome`."""

OURS: Final = "farmer"


@dataclass(frozen=True, slots=True, order=True)
class Work:
    """A row: one kind of work, at one size, so many at once."""

    what: str
    size_bytes: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and how far the rounds are apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return that of some values, one a round."""
        return cls(statistics.median(values), min(values), max(values))


def per_s(cell: Cell) -> float:
    """Return operations per second."""
    return float(cell["count"] / cell["seconds"])


def mb_per_s(cell: Cell) -> float:
    """Return megabytes per second."""
    return per_s(cell) * float(cell["size_bytes"]) / 1e6


def server_us(cell: Cell) -> float:
    """Return the server's processor time for an operation."""
    return float(cell["server_s"] / cell["count"]) * 1e6


def server_s_per_gb(cell: Cell) -> float:
    """Return the server's processor time for a gigabyte."""
    return float(cell["server_s"] / (cell["count"] * cell["size_bytes"])) * 1e9


def client_busy(cell: Cell) -> float:
    """Return how much of one core the client had: about 1, and it is the limit."""
    return float(cell["client_s"] / cell["seconds"])


def pss_mb(cell: Cell) -> float:
    """Return the server's memory."""
    return float(cell["pss_bytes"]) / 1e6


def works(cells: Sequence[Cell]) -> list[Work]:
    """Return all rows: stores first, small ones first."""
    return sorted({_work(cell) for cell in cells}, key=lambda one: (one.what != "store", one))


def spread(
    cells: Sequence[Cell], peer: str, work: Work, figure: Callable[[Cell], float]
) -> Spread | None:
    """Return a figure of a peer over the rounds, or None if it never came to that work."""
    values = _by_round(cells, peer, work, figure)
    return Spread.of(list(values.values())) if values else None


def ratio(
    cells: Sequence[Cell], peer: str, work: Work, figure: Callable[[Cell], float]
) -> Spread | None:
    """
    Return ours / the peer's, taken round by round.

    A round that one of the two did not finish says nothing.  Neither does one in which the peer's
    figure is 0: processor time comes in steps of 10 ms.
    """
    ours, theirs = (_by_round(cells, name, work, figure) for name in (OURS, peer))
    values = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    return Spread.of(values) if values else None


def _by_round(
    cells: Sequence[Cell], peer: str, work: Work, figure: Callable[[Cell], float]
) -> dict[int, float]:
    return {
        cell["round"]: figure(cell)
        for cell in cells
        if cell["peer"] == peer and _work(cell) == work
    }


def _work(cell: Cell) -> Work:
    return Work(cell["what"], cell["size_bytes"], cell["at_once"])
