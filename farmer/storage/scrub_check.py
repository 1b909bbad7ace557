"""Asking SQLite whether one of its files is what it should be."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from threading import Event
from typing import Final

from farmer.storage.threads import begin_thread
from farmer.storage.watch import HUNG_S

CHECK_S_MAX: Final = HUNG_S / 2
"""
For SQLite's own check of a database: meanwhile its write-ahead log cannot be cut off.

Far below what a call may take: one that does not end then waits for a disk.
"""

_NOT_LOOKED_AT: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN}
)
"""What says nothing of the database: it is in use, or memory or descriptors are short."""

GivesWay = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""See `farmer.storage.index.Index.gives_way`."""


def check_database(
    path: Path, *, limit_s: float = CHECK_S_MAX, gives_way: GivesWay = lambda _end: nullcontext()
) -> str:
    """
    Return what SQLite finds wrong with a database, or nothing; blocking.

    A check of a large one is broken off, and so is one that others have to wait for: its rows
    were all read by then, which looks at every page that holds them.
    """
    broken_off = Event()
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=limit_s)
    except sqlite3.Error as error:
        return _verdict(error)

    def break_off() -> None:
        broken_off.set()
        with suppress(sqlite3.ProgrammingError):
            # It may have been closed just now.
            connection.interrupt()

    ended = Event()

    def limit() -> None:
        if not ended.wait(limit_s):
            break_off()

    try:
        # Not a progress handler: SQLite calls none in the middle of a tree, which takes longest.
        begin_thread(limit)
        with gives_way(break_off):
            rows = connection.execute("PRAGMA integrity_check(5)").fetchall()
    except OSError:
        # No thread can be begun now; the next pass looks.
        return ""
    except sqlite3.OperationalError as error:
        return "" if broken_off.is_set() else _verdict(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        ended.set()
        connection.close()
    said = "; ".join(str(row[0]) for row in rows)
    # What a check that was broken off has not seen, it may take for missing.
    return "" if said == "ok" or broken_off.is_set() else said


def _verdict(error: sqlite3.Error) -> str:
    """Return what an error says against the database: nothing, if it could not be looked at."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return "" if code in _NOT_LOOKED_AT else str(error)
