"""What can be wrong with an index, and what an error of SQLite says about that."""

from __future__ import annotations

import sqlite3
from typing import Final

_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""The second is what SQLite says where it cannot grow the file of its shared memory."""


class IndexDamagedError(Exception):
    """The index is missing, unfinished, of another volume, or makes no sense: rebuild it."""


class IndexOutdatedError(IndexDamagedError):
    """An older release made it, for itself: nothing is wrong with it, it is made anew."""


class LogCutError(IndexDamagedError):
    """The log is shorter than the index knows it: what stood there is lost."""


class InUseError(sqlite3.OperationalError):
    """Somebody reads the file, so its write-ahead log could not be cut off; nothing is lost."""


class CommitInDoubtError(sqlite3.OperationalError):
    """Nobody knows whether the index was changed: only opening it again can tell."""


def is_for_room(error: sqlite3.Error) -> bool:
    """Say whether SQLite failed only because the filesystem is full, as far as it can tell."""
    return getattr(error, "sqlite_errorcode", 0) in _NO_ROOM


def is_for_rot(error: sqlite3.Error) -> bool:
    """Say whether what stands in the database makes no sense, rather than that a call failed."""
    return type(error) is sqlite3.DatabaseError


def is_for_memory(error: sqlite3.Error) -> bool:
    """Say whether SQLite failed only because there was no memory."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOMEM
