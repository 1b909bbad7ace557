"""
Whether this is the contract database that the volumes remember, or an older one, or another.

An older one, put back from a backup or a snapshot, or left by a lost write-ahead log, holds
invites as open that were spent since.  So all that are open are withdrawn at once, durably:
none of them revives.  Contracts that are known stay in force, shards are kept; an alert
stands until the owner has had the missing contracts made again from the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from farmer.model.ids import NodeId
from farmer.storage import book_rows
from farmer.storage.book import Book, has_past
from farmer.storage.generation import Generation

COMMAND: Final = "farmer contract recover"


class BookHistory:
    """The generations of one contract database, against what others saw.  Blocking."""

    def __init__(self, book: Book, now_ms: Callable[[], int]) -> None:
        self._book = book
        self._now_ms = now_ms
        with book.reading() as rows:
            (self._doubted_ms,) = rows.execute("SELECT doubted_ms FROM generation").fetchone()
            known = rows.execute("SELECT book, counter, stamp FROM met")
            self._met = {Generation(*columns) for columns in known}
        self._asked: tuple[Generation, tuple[NodeId, ...]] | None = None
        self._strangers: list[NodeId] = []
        """Of the renters that were asked for last."""

    @property
    def generation(self) -> Generation:
        """How far this database has come."""
        return self._book.generation

    @property
    def doubted_ms(self) -> int:
        """Since when contracts may be missing here, Unix ms; 0 if nothing says so."""
        return int(self._doubted_ms)

    @property
    def doubt(self) -> str:
        """What is wrong, for a person; empty if nothing is."""
        if not self._doubted_ms:
            return ""
        return (
            "the contract database is older than what the volumes remember: it was lost, or put"
            " back from a backup. All invites that were open in it are withdrawn, since some may"
            " have been redeemed; renters whose contracts are missing are refused, their shards"
            " are kept. This stands until those contracts are made again from the shards"
        )

    def meet(self, seen: Iterable[Generation]) -> bool:
        """
        Compare with what volumes remember; say whether anything new was found to be wrong.

        Then all open invites are withdrawn and the doubt stands, durably, before this returns.
        """
        others = {one for one in seen if one not in self._met and one != self.generation}
        if not others:
            return False
        with self._book.reading() as rows:
            unknown = [one for one in others if not has_past(rows, one)]
        if not unknown:
            return False
        now_ms = max(1, self._now_ms())
        with self._book.changing() as rows:
            book_rows.withdraw_open_invites(rows)
            for one in unknown:
                fields = (one.book, one.counter, one.stamp)
                rows.execute("INSERT OR IGNORE INTO met VALUES (?, ?, ?)", fields)
            rows.execute("UPDATE generation SET doubted_ms = ? WHERE doubted_ms = 0", (now_ms,))
        self._doubted_ms = self._doubted_ms or now_ms
        self._met.update(unknown)
        return True

    def strangers(self, renters: Iterable[NodeId]) -> list[NodeId]:
        """Return those who have no contract here, and none whose shards are being removed."""
        # Every few seconds the same is asked, and to read all contracts takes the longer the
        # more there are.  The generation comes first: a change in between is seen the next time.
        asked = self._book.generation, tuple(renters)
        if asked != self._asked:
            with self._book.reading() as rows:
                known = book_rows.known_renters(rows)
            self._strangers = [renter for renter in asked[1] if renter.raw not in known]
            self._asked = asked
        return list(self._strangers)

    def settle(self) -> None:
        """End the doubt, durably: what can be made again was."""
        with self._book.changing() as rows:
            rows.execute("UPDATE generation SET doubted_ms = 0 WHERE doubted_ms != 0")
        self._doubted_ms = 0
