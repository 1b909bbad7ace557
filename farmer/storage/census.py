"""
How many contracts and invites there are, counted again only when that can have changed.

It is asked every few seconds; to go over all contracts each time would cost the more the more
there are, whether or not anything happens.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from farmer.model.contract import ContractStage
from farmer.storage import book_rows
from farmer.storage.book import Book
from farmer.storage.generation import Generation


@dataclass(frozen=True, slots=True)
class Census:
    """What the contract database holds."""

    contracts: tuple[tuple[ContractStage, int], ...]
    """Those that are not gone, at every stage as it counts now."""
    open_invites: int
    promised_bytes: int
    """Space of open invites, and of contracts whose shards are not all removed."""


@dataclass(frozen=True, slots=True)
class _Counted:
    census: Census
    generation: Generation
    trusted: bool
    from_ms: int
    until_ms: int | None
    """When the next contract or invite ends by itself; None for never."""

    def is_right(self, generation: Generation, now_ms: int, *, trusted: bool) -> bool:
        """Say whether a count now would find the same."""
        same = (generation, trusted) == (self.generation, self.trusted)
        return (
            same and self.from_ms <= now_ms and (self.until_ms is None or now_ms < self.until_ms)
        )


class Counting:
    """Counts one contract database.  Blocking; any thread."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._last: _Counted | None = None

    def census(self, now_ms: int, *, trusted: bool) -> Census:
        """Return the counts now; *trusted* says whether the clock ends contracts by itself."""
        # Before the counting: a change in between only makes the next one count again.
        generation = self._book.generation
        last = self._last
        if last is not None and last.is_right(generation, now_ms, trusted=trusted):
            return last.census
        with self._book.reading() as rows:
            census, until_ms = _count(rows, now_ms, trusted=trusted)
        self._last = _Counted(census, generation, trusted, now_ms, until_ms)
        return census


_STAGES: Final = """
    SELECT CASE WHEN NOT ?2 THEN stage WHEN until_ms > ?1 THEN 0 ELSE max(stage, 1) END AS now,
           count(*), min(CASE WHEN ?2 AND until_ms > ?1 THEN until_ms END)
    FROM contracts WHERE stage < 3 GROUP BY now"""
"""As `farmer.storage.lifetime.stage_at` says it."""

_INVITES: Final = """
    SELECT count(*), min(expires_at_ms) FROM invites WHERE state = 0 AND expires_at_ms > ?"""


def _count(rows: sqlite3.Connection, now_ms: int, *, trusted: bool) -> tuple[Census, int | None]:
    """Return the counts, and when they will be others by themselves."""
    counts, ends_ms = dict.fromkeys(ContractStage, 0), []
    for stage, number, end_ms in rows.execute(_STAGES, (now_ms, trusted)):
        counts[ContractStage(stage)] = number
        ends_ms.append(end_ms)
    open_invites, expires_ms = rows.execute(_INVITES, (now_ms,)).fetchone()
    promised_bytes = book_rows.promised_bytes(rows, now_ms)
    known_ms = [end_ms for end_ms in (*ends_ms, expires_ms) if end_ms is not None]
    census = Census(tuple(counts.items()), open_invites, promised_bytes)
    return census, min(known_ms, default=None)
