"""SQLite's check of a database: what it finds is told, what it has not seen is not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from farmer.storage.scrub_check import check_database


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A database with pages that nothing leads to, as a walk that is broken off sees them."""
    path = tmp_path / "some.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE some (a, b)")
        connection.execute("CREATE INDEX lost ON some (a)")
        connection.execute("INSERT INTO some VALUES (1, 2)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'lost'")
    return path


def test_what_is_damaged_is_told(damaged: Path) -> None:
    assert "never used" in check_database(damaged)


def test_a_check_that_had_to_give_way_found_nothing(damaged: Path) -> None:
    """What others wait for is broken off from their thread, and is then no proof of damage."""

    @contextmanager
    def waited_for(end: Callable[[], None]) -> Iterator[None]:
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        yield

    assert not check_database(damaged, gives_way=waited_for)


def test_a_check_whose_time_is_over_found_nothing(damaged: Path) -> None:
    """It is ended from outside, as SQLite asks nobody in the middle of a tree."""

    @contextmanager
    def time_passes(_end: Callable[[], None]) -> Iterator[None]:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer) and thread.interval == 0:
                thread.join()
        yield

    assert not check_database(damaged, limit_s=0, gives_way=time_passes)
