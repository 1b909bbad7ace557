"""The file of the contract database: how it is made, and what an error at its opening means."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage import book_schema
from farmer.storage.book_schema import (
    APPLICATION_ID,
    VERSION,
    BookDamagedError,
    BookForeignError,
    connected,
    prepare,
    unreadable,
)
from farmer.storage.errors import FormatTooNewError, VolumeUnavailableError
from tests.storage.bench import open_files
from tests.storage_contracts.world import KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "contracts.sqlite"


@pytest.fixture
def rows(path: Path) -> Iterator[sqlite3.Connection]:
    rows = connected(path)
    assert prepare(rows, path, KEY)
    yield rows
    rows.close()


def asked(rows: sqlite3.Connection, query: str) -> object:
    (value,) = rows.execute(query).fetchone()
    return value


def test_a_new_file_is_whole_and_made_once(rows: sqlite3.Connection, path: Path) -> None:
    assert asked(rows, "PRAGMA user_version") == VERSION
    assert asked(rows, "PRAGMA application_id") == APPLICATION_ID == int.from_bytes(b"Farm", "big")
    assert not rows.in_transaction
    assert rows.execute("SELECT one, farmer_key FROM book").fetchall() == [(1, KEY)]
    (begun,) = rows.execute("SELECT one, counter, doubted_ms FROM generation").fetchall()
    assert begun == (1, 0, 0)
    assert rows.execute("SELECT counter, length(stamp) FROM past").fetchall() == [(0, 8)]
    with closing(connected(path)) as again:
        assert not prepare(again, path, KEY)
        assert asked(again, "SELECT book FROM generation") == asked(
            rows, "SELECT book FROM generation"
        )


def test_two_databases_are_told_apart(rows: sqlite3.Connection, tmp_path: Path) -> None:
    with closing(connected(tmp_path / "other.sqlite")) as other:
        prepare(other, tmp_path / "other.sqlite", KEY)
        for query in ("SELECT book FROM generation", "SELECT stamp FROM past"):
            assert asked(rows, query) != asked(other, query)


def test_each_opening_makes_commits_durable_and_references_hold(
    rows: sqlite3.Connection, path: Path
) -> None:
    with closing(connected(path)) as again:
        prepare(again, path, KEY)
        for each in (rows, again):
            assert asked(each, "PRAGMA journal_mode") == "wal"
            assert asked(each, "PRAGMA synchronous") == 2, "FULL"
            assert asked(each, "PRAGMA foreign_keys") == 1
            with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
                each.execute(
                    "INSERT INTO invites VALUES (?, 1, 1, 1, 1, 'EUR', 1, 1, 1, ?, ?)",
                    (bytes(16), bytes(32), bytes(16)),
                )


def test_the_file_is_its_owners_alone_whatever_it_was(path: Path) -> None:
    path.touch(0o666)
    path.chmod(0o666)
    connected(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_and_name_are_durable_before_anything_is_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[str]()
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    with closing(connected(path)):
        assert synced == [str(path), str(path.parent)]
    assert open_files(path.parent) == [], "nothing is left open"


def test_what_cannot_be_opened_leaves_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_fd: int) -> None:
        raise OSError("it failed")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(VolumeUnavailableError, match="cannot be opened: it failed"):
        connected(path)
    assert open_files(path.parent) == []


def test_it_is_read_only_as_what_it_is(rows: sqlite3.Connection, path: Path) -> None:
    with pytest.raises(BookForeignError, match="another farmer"):
        prepare(rows, path, b"x" * 32)
    rows.execute("PRAGMA application_id = 7")
    with pytest.raises(BookForeignError, match="not a contract database"):
        prepare(rows, path, KEY)
    rows.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    rows.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(FormatTooNewError, match=f"has version {VERSION + 1}"):
        prepare(rows, path, KEY)
    rows.execute(f"PRAGMA user_version = {VERSION}")
    assert not prepare(rows, path, KEY)


def test_a_check_that_finds_something_is_damage(
    rows: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(200):
        rows.execute("INSERT INTO met VALUES (randomblob(16), 1, randomblob(8))")
    rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    at = asked(rows, "SELECT rootpage FROM sqlite_schema WHERE name = 'met'")
    assert isinstance(at, int)
    with path.open("r+b") as file:
        file.seek((at - 1) * 4096 + 3)
        file.write(b"\xff\xff")
    with closing(connected(path)) as again, pytest.raises(BookDamagedError, match="is damaged"):
        prepare(again, path, KEY)


class FailingError(sqlite3.OperationalError):
    """What SQLite says, with this number."""

    def __init__(self, code: int) -> None:
        super().__init__("it failed")
        self.sqlite_errorcode = code


@pytest.mark.parametrize(
    ("code", "is_damage"),
    [
        (0, True),
        (sqlite3.SQLITE_ERROR, True),
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_IOERR, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_BUSY_RECOVERY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_NOMEM, False),
    ],
)
def test_only_what_cannot_be_read_is_called_damaged(
    path: Path, code: int, is_damage: bool
) -> None:
    """That is set aside by its owner, with all contracts in it."""
    told = unreadable(path, FailingError(code))
    assert type(told) is (BookDamagedError if is_damage else VolumeUnavailableError)
    assert "it failed" in str(told)
    assert str(path) in str(told)


def test_a_value_of_another_kind_is_damage(path: Path) -> None:
    assert type(unreadable(path, TypeError("a text"))) is BookDamagedError


def test_whom_another_holds_up_is_told_so(
    rows: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_schema, "LOCK_TIMEOUT_S", 0.01)
    with closing(connected(path)) as second:
        rows.execute("PRAGMA journal_mode = DELETE")
        rows.execute("BEGIN EXCLUSIVE")
        with pytest.raises(VolumeUnavailableError, match="locked"):
            prepare(second, path, KEY)
        rows.execute("ROLLBACK")
        assert not prepare(second, path, KEY)
