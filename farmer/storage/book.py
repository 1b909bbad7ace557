"""The one door to the contract database: transactions, and what follows when one fails."""

from __future__ import annotations

import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from farmer.storage.book_schema import connected, damaged, make_durable, prepare, unreadable
from farmer.storage.errors import StorageError, VolumeUnavailableError
from farmer.storage.generation import STAMP_BYTES, Generation
from farmer.storage.watch import HUNG_S

_PASSING: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
"""Of these SQLite's own ROLLBACK leaves nothing behind; after all others the file is read anew."""

PAST_MAX: Final = 65_536
"""Changes whose stamps are kept, 1 MiB: a volume may have been away for as many."""


class Book:
    """
    The open file: one connection, one user at a time.

    After an error of the disk the connection is dropped: what SQLite holds of the file may
    not be what the file holds.  The next use opens and checks it again, so a transaction
    whose commit failed is then either there, wholly and durably, or not at all.

    A disk that hangs has whoever met that; those who come later are turned away, or the threads
    that serve renters would be lost one after the other.

    Raises everywhere:
        VolumeUnavailableError: the disk failed us or does not answer, or the book is closed.

    """

    def __init__(self, path: Path, farmer_key: bytes) -> None:
        """
        Open the file, or make it.

        Raises:
            FormatTooNewError, BookDamagedError, BookForeignError: it was not touched.

        """
        self._path = path
        self._farmer_key = farmer_key
        self._lock = threading.Lock()
        self._since_s = math.inf
        """When whoever uses the connection began; infinite while nobody does."""
        self.changes = 0
        """Another number whenever a query may find something else than before: compare it with
        what it was in `reading`."""
        self.failure = ""
        """Why the file could not be used, for a person; empty again when it took a change since.
        A use that only reads, or a change of nothing, does not show that it can be written."""
        self._rows = connected(path)
        self._is_sound = True
        try:
            self.was_made = prepare(self._rows, path, farmer_key)
            make_durable(self._rows, path)
            self._file = _identity_of(path)
            self._last = _generation(self._rows)
        except BaseException as error:
            self._rows.close()
            if isinstance(error, sqlite3.Error | TypeError | OSError):
                raise unreadable(path, error) from error
            raise
        self._open = True

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Return the connection in a transaction: durable when the block is left in peace."""
        with self._used() as rows, self._transaction(rows):
            yield rows

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Do as `writing`; what changes anything counts as one more generation."""
        with self._used() as rows:
            with self._transaction(rows):
                before = rows.total_changes
                yield rows
                changed = rows.total_changes != before
                if changed:
                    _count(rows)
                here = _generation(rows)
            # Nobody is let in before: an older one must not be noted over a newer one.
            self._last = here

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Return the connection, for queries."""
        with self._used() as rows:
            yield rows

    @property
    def generation(self) -> Generation:
        """How many changes were made durable, as far as this process knows."""
        return self._last

    def close(self) -> None:
        """Close the file, unless its disk hangs; safe twice."""
        self._open = False
        with suppress(VolumeUnavailableError), self._alone():
            self._close_rows()

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._open

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody else use the connection; wait for who does no longer than a disk may take."""
        in_use_s = time.monotonic() - self._since_s
        if not self._lock.acquire(timeout=min(HUNG_S, max(0.0, HUNG_S - in_use_s))):
            self.failure = f"{self._path}: the disk does not answer"
            raise VolumeUnavailableError(self.failure)
        try:
            self._since_s = time.monotonic()
            yield
        finally:
            self._since_s = math.inf
            self._lock.release()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        with self._alone():
            if not self._open:
                raise VolumeUnavailableError("the contract database is closed")
            try:
                if not self._is_sound:
                    self._open_again()
                yield self._rows
            except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
                raise
            except sqlite3.DatabaseError as error:
                self._drop(error)
                self.failure = f"{self._path}: {error}"
                raise VolumeUnavailableError(self.failure) from error
            except VolumeUnavailableError as error:
                self.failure = str(error)
                raise

    @contextmanager
    def _transaction(self, rows: sqlite3.Connection) -> Iterator[None]:
        self._check_place()
        before = rows.total_changes
        rows.execute("BEGIN IMMEDIATE")
        try:
            yield
            rows.execute("COMMIT")
            if rows.total_changes != before:
                self.failure = ""
        except sqlite3.Error:
            # Who knows what became of it.
            self.changes += 1
            raise
        finally:
            # Also if it was rolled back: that does not count backwards.
            self.changes += rows.total_changes != before
            # SQLite may have rolled back by itself, say on a full disk.
            if rows.in_transaction:
                rows.execute("ROLLBACK")

    def _drop(self, error: sqlite3.DatabaseError) -> None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            return
        self._is_sound = False
        with suppress(sqlite3.Error):
            self._close_rows()

    def _close_rows(self) -> None:
        self.changes += 1
        self._rows.close()

    def _open_again(self) -> None:
        """Open the file anew, look at all of it, and make what it holds durable by other means."""
        if _identity_of(self._path) != self._file:
            raise VolumeUnavailableError(
                f"{self._path} was removed or replaced while the farmer ran: restart it"
            )
        rows = connected(self._path)
        try:
            prepare(rows, self._path, self._farmer_key)
            found = _generation(rows)
            if not has_past(rows, self._last):
                raise damaged(self._path, "changes that were made durable are missing")
            # A commit whose sync failed may stand in the write-ahead log as the page cache
            # has it, and nowhere else: this writes it to the database itself, and syncs that.
            busy, *_ = rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise VolumeUnavailableError(f"{self._path} is in use elsewhere")
        except StorageError as error:
            rows.close()
            raise VolumeUnavailableError(str(error)) from error
        except sqlite3.Error:
            rows.close()
            raise
        self._rows, self._last, self._is_sound = rows, found, True

    def _check_place(self) -> None:
        """Refuse to commit to a file that nobody will find again."""
        if _identity_of(self._path) != self._file:
            self._is_sound = False
            with suppress(sqlite3.Error):
                self._close_rows()
            raise VolumeUnavailableError(
                f"{self._path} was removed or replaced while the farmer ran: restart it"
            )


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells this very file from one of the same name, or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _generation(rows: sqlite3.Connection) -> Generation:
    query = "SELECT book, counter, stamp FROM generation JOIN past USING (counter)"
    return Generation(*rows.execute(query).fetchone())


def _count(rows: sqlite3.Connection) -> None:
    """Enter one more change."""
    rows.execute("UPDATE generation SET counter = counter + 1")
    stamp = secrets.token_bytes(STAMP_BYTES)
    rows.execute("INSERT INTO past SELECT counter, ? FROM generation", (stamp,))
    rows.execute(
        "DELETE FROM past WHERE counter <= (SELECT counter FROM generation) - ?", (PAST_MAX,)
    )


def has_past(rows: sqlite3.Connection, seen: Generation) -> bool:
    """Say whether a database was once at this generation, as far as it knows its past."""
    book, oldest = rows.execute(
        "SELECT book, (SELECT min(counter) FROM past) FROM generation"
    ).fetchone()
    found = rows.execute("SELECT stamp FROM past WHERE counter = ?", (seen.counter,)).fetchone()
    if seen.book != book:
        return False
    return bool(seen.counter < oldest or found == (seen.stamp,))
