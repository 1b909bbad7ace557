"""
The contract database's file: its tables, its version, and whether it is whole.

SQLite in WAL mode with synchronous=FULL, since none of this can be rebuilt: a transaction
that was answered is on the disk.  Times are Unix ms, ids and keys raw bytes, numbers below
2^63.  Version 2 of the format:

    book       whose it is: the farmer's Ed25519 key
    invites    every invite ever minted; state 0 open, 1 spent, 2 withdrawn
    contracts  every contract ever made, in its last revision; at most one per renter is not
               GONE (stage 3); purged 1 when the shards of a GONE one are gone as well
    clock      farmer.storage.clock
    generation since version 2: the database's random id, how many changes it has seen, and
               since when it is in doubt (Unix ms, or 0); farmer.storage.generation
    past       since version 2: the random stamp of each of the latest changes
    met        since version 2: what volumes remembered that is not of this past, and that
               was told of and acted on
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from farmer.storage.alone import open_alone
from farmer.storage.errors import FormatTooNewError, StorageError, VolumeUnavailableError
from farmer.storage.generation import BOOK_ID_BYTES, STAMP_BYTES

VERSION: Final = 2
APPLICATION_ID: Final = 0x4661726D
"""`Farm`, in the file's header, so that no other SQLite file is taken for this one."""

LOCK_TIMEOUT_S: Final = 5.0
"""Only a backup tool or a person with a shell ever holds the file beside us."""

_DAMAGE: Final = frozenset(
    {0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
     sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}
)  # fmt: skip
"""What SQLite says of a file that is not what it should be; a missing table is an ERROR."""

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

SINCE_2: Final = """
CREATE TABLE generation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    book BLOB NOT NULL CHECK (length(book) = 16),
    counter INTEGER NOT NULL CHECK (counter >= 0),
    doubted_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE past (
    counter INTEGER PRIMARY KEY,
    stamp BLOB NOT NULL CHECK (length(stamp) = 8)
);
CREATE TABLE met (
    book BLOB NOT NULL CHECK (length(book) = 16),
    counter INTEGER NOT NULL,
    stamp BLOB NOT NULL CHECK (length(stamp) = 8),
    PRIMARY KEY (book, counter, stamp)
) WITHOUT ROWID;
"""


class BookDamagedError(StorageError):
    """The contract database cannot be read; nothing was changed."""


class BookForeignError(StorageError):
    """The file is not a contract database, or another farmer's."""


def connected(path: Path) -> sqlite3.Connection:
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
        return open_alone(path, LOCK_TIMEOUT_S)
    except (OSError, sqlite3.Error) as error:
        raise VolumeUnavailableError(f"{path} cannot be opened: {error}") from error


def prepare(rows: sqlite3.Connection, path: Path, farmer_key: bytes) -> bool:
    """Check a file, or make its tables; say whether they were made."""
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
        elif version < VERSION:
            _upgrade(rows)
        (owner,) = rows.execute("SELECT farmer_key FROM book").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise unreadable(path, error) from error
    if owner != farmer_key:
        raise BookForeignError(
            f"{path} belongs to another farmer: it was made with another identity; "
            "restore that identity, or move the file away to begin with no contracts"
        )
    return fresh


def make_durable(rows: sqlite3.Connection, path: Path) -> None:
    """
    Make durable what a start is about to believe; raises `OSError`, `sqlite3.Error`.

    The page cache outlives a process that was killed before its last sync: what is read from it,
    and from then on answered, would be lost in a power cut.
    """
    try:
        busy, *_ = rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise
        busy = 1
    log = path.with_name(f"{path.name}-wal")
    if busy and log.exists():
        # Somebody reads the file, or the disk is full: no reason not to serve those who read.
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_directory(path.parent)


def _check_whole(rows: sqlite3.Connection, path: Path) -> None:
    if _number(rows, "PRAGMA application_id") != APPLICATION_ID:
        raise BookForeignError(f"{path} is not a contract database; nothing was changed")
    (verdict,) = rows.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict)


def _create(rows: sqlite3.Connection, farmer_key: bytes) -> None:
    """Make all tables in one transaction: a crash leaves an empty file or a whole one."""
    rows.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
    rows.execute("INSERT INTO book VALUES (1, ?)", (farmer_key,))
    rows.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    _add_generation(rows)


def _upgrade(rows: sqlite3.Connection) -> None:
    """Bring version 1 up to date in one transaction: a crash leaves the one or the other."""
    rows.execute("BEGIN IMMEDIATE")
    _add_generation(rows)


def _add_generation(rows: sqlite3.Connection) -> None:
    """Add what version 2 brought, and commit."""
    for statement in SINCE_2.split(";")[:-1]:
        rows.execute(statement)
    book = secrets.token_bytes(BOOK_ID_BYTES)
    rows.execute("INSERT INTO generation (one, book, counter) VALUES (1, ?, 0)", (book,))
    rows.execute("INSERT INTO past VALUES (0, ?)", (secrets.token_bytes(STAMP_BYTES),))
    rows.execute(f"PRAGMA user_version = {VERSION}")
    rows.execute("COMMIT")


def unreadable(path: Path, error: Exception) -> StorageError:
    """
    Return what an error means at the opening: damage, or a disk that passes or is put right.

    A database that is called damaged is set aside by `farmer contract recover`.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    if not _DAMAGE & {code, code & 0xFF}:
        return VolumeUnavailableError(
            f"{path} cannot be opened ({error}); its contracts are in it, nothing was changed: "
            "see that the disk has room and can be written, and start again"
        )
    return damaged(path, str(error))


def damaged(path: Path, reason: str) -> BookDamagedError:
    """Return the error that says so."""
    return BookDamagedError(
        f"{path} is damaged ({reason}): the farmer does not start without its contracts; "
        "restore the file from a backup, or make contracts again from what the volumes hold: "
        "farmer contract recover - shards on the volumes are kept"
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
