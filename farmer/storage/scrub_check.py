"""Asking SQLite whether one of its files is what it should be."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

CHECK_S_MAX: Final = 5.0
"""For SQLite's own check of a database: meanwhile its write-ahead log cannot be cut off."""


def check_database(path: Path, clock_s: Callable[[], float] = monotonic) -> str:
    """
    Return what SQLite finds wrong with a database, or nothing; blocking.

    A check of a large one is broken off: its rows were all read by then, which looks at every
    page that holds them.
    """
    end_s = clock_s() + CHECK_S_MAX
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
    except sqlite3.Error as error:
        return str(error)
    try:
        connection.set_progress_handler(lambda: clock_s() > end_s, 10_000)
        rows = connection.execute("PRAGMA integrity_check(5)").fetchall()
    except sqlite3.OperationalError as error:
        return "" if "interrupted" in str(error) or "locked" in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
    said = "; ".join(str(row[0]) for row in rows)
    return "" if said == "ok" else said
