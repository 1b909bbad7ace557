"""
SQLite's files, opened for this process alone.

Its VFS `unix-excl` keeps other processes out while a database is open, and the index of the
write-ahead log in our own memory.  Otherwise SQLite maps that from a file: where a filesystem
that never overwrites (btrfs) has no room left for a page of it, or the disk behind it fails,
the kernel ends the process with SIGBUS, and a full disk stops the farmer.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path


def open_alone(
    path: Path, timeout_s: float, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """
    Return a connection in autocommit, for use by any thread; the file is made if need be.

    Others of this process may open the same file, also in other ways.  Raises `sqlite3.Error`.
    """
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?vfs=unix-excl",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
