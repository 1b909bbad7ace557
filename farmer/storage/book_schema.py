"""
The contract database's file: its tables, its version, and the one door to it.

SQLite in WAL mode with synchronous=FULL, since none of this can be rebuilt: a transaction
that was answered is on the disk.  Times are Unix ms, ids and keys raw bytes, numbers below
2^63.  Version 1 of the format:

    book       whose it is: the farmer's Ed25519 key
    invites    every invite ever minted; state 0 open, 1 spent, 2 withdrawn
    contracts  every contract ever made, in its last revision; at most one per renter is not
               GONE (stage 3); purged 1 when the shards of a GONE one are gone as well
    clock      farmer.storage.clock
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from farmer.storage.errors import FormatTooNewError, StorageError, VolumeUnavailableError

VERSION: Final = 1
APPLICATION_ID: Final = 0x4661726D
"""`Farm`, in the file's header, so that no other SQLite file is taken for this one."""

LOCK_TIMEOUT_S: Final = 5.0
"""Only a backup tool or a person with a shell ever holds the file beside us."""

_OFFER: Final = """
    space_bytes INTEGER NOT NULL CHECK (space_bytes > 0),
    currency TEXT NOT NULL,
    stored_micros INTEGER NOT NULL,
    served_micros INTEGER NOT NULL"""

SCHEMA: Final = f"""
CREATE TABLE book (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    farmer_key BLOB NOT NULL CHECK (length(farmer_key) = 32)
);
CREATE TABLE invites (
    serial BLOB PRIMARY KEY CHECK (length(serial) = 16),
    duration_ms INTEGER NOT NULL CHECK (duration_ms > 0),
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,{_OFFER},
    state INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
    renter BLOB CHECK (length(renter) = 32),
    contract BLOB REFERENCES contracts,
    CHECK ((state = 1) = (renter IS NOT NULL AND contract IS NOT NULL))
) WITHOUT ROWID;
CREATE INDEX open_invites ON invites (expires_at_ms) WHERE state = 0;
CREATE TABLE contracts (
    contract BLOB PRIMARY KEY CHECK (length(contract) = 16),
    renter BLOB NOT NULL CHECK (length(renter) = 32),
    revision INTEGER NOT NULL CHECK (revision > 0),
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    previous BLOB NOT NULL CHECK (length(previous) = 32),{_OFFER},
    stage INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 3),
    since_observed_ms INTEGER NOT NULL,
    purged INTEGER NOT NULL DEFAULT 0 CHECK (purged IN (0, 1))
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_contract_per_renter ON contracts (renter) WHERE stage < 3;
CREATE INDEX to_purge ON contracts (renter) WHERE stage = 3 AND purged = 0;
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    observed_ms INTEGER NOT NULL CHECK (observed_ms >= 0),
    believed_ms INTEGER NOT NULL,
    doubted_ms INTEGER NOT NULL
);
"""


class BookDamagedError(StorageError):
    """The contract database cannot be read; nothing was changed."""


class BookForeignError(StorageError):
    """The file is not a contract database, or another farmer's."""


class Book:
    """
    The open file: one connection, one user at a time.

    Raises everywhere:
        VolumeUnavailableError: the disk failed us, or the book is closed.

    """

    def __init__(self, path: Path, farmer_key: bytes) -> None:
        """
        Open the file, or make it.

        Raises:
            FormatTooNewError, BookDamagedError, BookForeignError: it was not touched.

        """
        self._path = path
        self._lock = threading.Lock()
        self._rows = _connected(path)
        try:
            _prepare(self._rows, path, farmer_key)
        except BaseException:
            self._rows.close()
            raise
        self._open = True

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Return the connection in a transaction: durable when the block is left in peace."""
        with self._used() as rows:
            rows.execute("BEGIN IMMEDIATE")
            try:
                yield rows
                rows.execute("COMMIT")
            finally:
                # SQLite may have rolled back by itself, say on a full disk.
                if rows.in_transaction:
                    rows.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Return the connection, for queries."""
        with self._used() as rows:
            yield rows

    def close(self) -> None:
        """Close the file; safe twice."""
        with self._lock:
            self._open = False
            self._rows.close()

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._open

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if not self._open:
                raise VolumeUnavailableError("the contract database is closed")
            try:
                yield self._rows
            except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
                raise
            except sqlite3.DatabaseError as error:
                raise VolumeUnavailableError(f"{self._path}: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, made if need be, for its owner's eyes only."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_directory(path.parent)
        return sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise VolumeUnavailableError(f"{path} cannot be opened: {error}") from error


def _prepare(rows: sqlite3.Connection, path: Path, farmer_key: bytes) -> None:
    try:
        version = _number(rows, "PRAGMA user_version")
        if version > VERSION:
            raise FormatTooNewError(
                f"{path} has version {version}, this release reads up to {VERSION}: "
                "use the release that wrote it; nothing was changed"
            )
        fresh = not _number(rows, "SELECT count(*) FROM sqlite_schema")
        if not fresh:
            _check_whole(rows, path)
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("PRAGMA synchronous = FULL")
        rows.execute("PRAGMA foreign_keys = ON")
        if fresh:
            _create(rows, farmer_key)
        (owner,) = rows.execute("SELECT farmer_key FROM book").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if owner != farmer_key:
        raise BookForeignError(
            f"{path} belongs to another farmer: it was made with another identity; "
            "restore that identity, or move the file away to begin with no contracts"
        )


def _check_whole(rows: sqlite3.Connection, path: Path) -> None:
    if _number(rows, "PRAGMA application_id") != APPLICATION_ID:
        raise BookForeignError(f"{path} is not a contract database; nothing was changed")
    (verdict,) = rows.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict)


def _create(rows: sqlite3.Connection, farmer_key: bytes) -> None:
    """Make all tables in one transaction: a crash leaves an empty file or a whole one."""
    rows.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
    rows.execute("INSERT INTO book VALUES (1, ?)", (farmer_key,))
    rows.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    rows.execute(f"PRAGMA user_version = {VERSION}")
    rows.execute("COMMIT")


def _damaged(path: Path, reason: str) -> BookDamagedError:
    return BookDamagedError(
        f"{path} is damaged ({reason}): the farmer does not start without its contracts; "
        "restore the file from a backup - shards on the volumes are kept"
    )


def _number(rows: sqlite3.Connection, query: str) -> int:
    (value,) = rows.execute(query).fetchone()
    return int(value)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
