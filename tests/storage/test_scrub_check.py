"""SQLite's check of a database: what it finds is told, what it has not seen is not."""

from __future__ import annotations

import os
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from farmer.storage import scrub_check
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


class Interrupted(sqlite3.Connection):
    """One that notes that it was interrupted."""

    count = 0

    def interrupt(self) -> None:
        Interrupted.count += 1
        super().interrupt()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What would end checks, each in a thread of its own."""
    begun: list[Callable[[], None]] = []
    monkeypatch.setattr(scrub_check, "begin_thread", begun.append)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Interrupted))
    monkeypatch.setattr(Interrupted, "count", 0)
    return begun


def test_a_check_whose_time_is_over_is_ended_and_found_nothing(
    damaged: Path, limits: list[Callable[[], None]]
) -> None:
    """It is ended from outside, as SQLite asks nobody in the middle of a tree."""

    @contextmanager
    def time_passes(_end: Callable[[], None]) -> Iterator[None]:
        limits[0]()
        yield

    assert not check_database(damaged, limit_s=0, gives_way=time_passes)
    assert Interrupted.count == 1


def test_what_would_end_a_check_ends_with_it(
    damaged: Path, limits: list[Callable[[], None]]
) -> None:
    assert check_database(damaged, limit_s=60)
    began = time.monotonic()
    limits[0]()
    assert time.monotonic() - began < 30
    assert not Interrupted.count


def test_without_a_thread_that_would_end_it_nothing_is_looked_at(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_work: Callable[[], None]) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(scrub_check, "begin_thread", no_memory)
    assert not check_database(damaged)


def test_a_database_that_cannot_be_opened_now_is_not_called_damaged(
    tmp_path: Path,
) -> None:
    """No descriptor is left: what SQLite says then is the same as of a file that is gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = tmp_path / "some.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table one (a); insert into one values (1);")
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        assert not check_database(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])
