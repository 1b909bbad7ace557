"""The file of an index, as SQLite has it: its names, and how it is opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farmer.storage.alone import open_alone
from farmer.storage.index_errors import IndexDamagedError, is_for_room

INDEX_NAME: Final = "index.sqlite"
INDEX_FILES: Final = (INDEX_NAME, f"{INDEX_NAME}-wal", f"{INDEX_NAME}-shm")

PAGE_BYTES: Final = 4096

LOCK_TIMEOUT_S: Final = 30.0
"""Only who looks from outside, or a person with a shell, ever holds the file beside us."""

Connect = Callable[[Path], sqlite3.Connection]
"""Opens a database in autocommit, for use by any thread: `connect`, or one that watches it."""


def connect(path: Path) -> sqlite3.Connection:
    """Open a database; it is made if it is not there."""
    return open_alone(path, LOCK_TIMEOUT_S)


def prepared(connection: sqlite3.Connection, cache_kib: int) -> sqlite3.Connection:
    """Journalled, for an index that is complete; raises `IndexDamagedError`, and closes it."""
    return _set_up(connection, cache_kib, "journal_mode=WAL", "synchronous=NORMAL")


def building(connection: sqlite3.Connection, cache_kib: int) -> sqlite3.Connection:
    """Without journal or sync: what a crash leaves of an unfinished index is thrown away."""
    return _set_up(connection, cache_kib, "journal_mode=OFF", "synchronous=OFF")


def _set_up(
    connection: sqlite3.Connection, cache_kib: int, journal: str, synchronous: str
) -> sqlite3.Connection:
    try:
        for pragma in (
            f"page_size={PAGE_BYTES}",
            journal,
            synchronous,
            "wal_autocheckpoint=0",
            "mmap_size=0",
            "temp_store=MEMORY",
            f"cache_size=-{cache_kib}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_for_room(error):
            raise
        raise IndexDamagedError(f"not readable: {error}") from error
    return connection
