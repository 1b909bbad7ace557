"""The door to the contract database: what counts as a change, and what follows a failure."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from threading import Event, Lock, Thread
from typing import Any

import pytest

from farmer.storage import book as book_module
from farmer.storage.book import Book, has_past
from farmer.storage.book_schema import BookDamagedError, connected
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.generation import Generation
from tests.storage_contracts.world import KEY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "contracts.sqlite"


@pytest.fixture
def book(path: Path) -> Iterator[Book]:
    book = Book(path, KEY)
    yield book
    book.close()


def change(book: Book, at: int = 1) -> None:
    """Change something, whatever: when the clock was seen."""
    with book.changing() as rows:
        rows.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, 0)", (at, at))


def seen_at(book: Book) -> int:
    with book.reading() as rows:
        found = rows.execute("SELECT observed_ms FROM clock").fetchone()
    return int(found[0]) if found else 0


def fail(book: Book, code: int) -> None:
    """Let a statement fail as SQLite does."""
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    with pytest.raises(VolumeUnavailableError, match="it failed"), book.reading():
        raise error


def by_hand(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as rows:
        for statement, values in statements:
            rows.execute(statement, values)


def test_a_database_knows_whether_it_was_made_just_now(book: Book, path: Path) -> None:
    assert book.was_made
    book.close()
    with closing(Book(path, KEY)) as again:
        assert not again.was_made


def test_it_is_open_until_it_is_closed(book: Book) -> None:
    assert book.is_open
    book.close()
    assert not book.is_open
    with pytest.raises(VolumeUnavailableError, match="is closed"), book.reading():
        pass


def test_each_change_is_one_generation_more_with_a_stamp_of_its_own(book: Book) -> None:
    generations = [book.generation]
    for at in (1, 2, 3):
        change(book, at)
        generations.append(book.generation)
    assert [one.counter for one in generations] == [0, 1, 2, 3]
    assert len({one.stamp for one in generations}) == 4
    assert {one.book for one in generations} == {generations[0].book}


def test_what_changes_nothing_is_no_generation(book: Book) -> None:
    before = book.generation
    with book.changing() as rows:
        rows.execute("DELETE FROM clock")
    with book.writing() as rows:
        rows.execute("INSERT INTO clock VALUES (1, 7, 7, 0)")
    assert book.generation == before
    assert seen_at(book) == 7


def test_a_change_that_is_taken_back_is_no_generation(book: Book, path: Path) -> None:
    before = book.generation
    with pytest.raises(RuntimeError), book.changing() as rows:
        rows.execute("INSERT INTO clock VALUES (1, 7, 7, 0)")
        raise RuntimeError
    assert (book.generation, seen_at(book)) == (before, 0)
    change(book)
    book.close()
    with closing(Book(path, KEY)) as again:
        assert again.generation.counter == before.counter + 1


def test_a_generation_outlives_the_process(book: Book, path: Path) -> None:
    change(book)
    last = book.generation
    book.close()
    with closing(Book(path, KEY)) as again:
        assert again.generation == last


def test_the_past_is_known_as_far_as_it_is_kept(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "PAST_MAX", 3)
    known = [book.generation]
    for at in range(5):
        change(book, at)
        known.append(book.generation)
    with book.reading() as rows:
        (kept,) = rows.execute("SELECT count(*) FROM past").fetchone()
        assert kept == 3
        assert all(has_past(rows, one) for one in known), "of what is forgotten nobody can tell"
        for one in known:
            forged = Generation(one.book, one.counter, b"another!")
            assert has_past(rows, forged) is (one.counter < 3), one
        last = known[-1]
        assert not has_past(rows, Generation(last.book, last.counter + 1, last.stamp))
        assert not has_past(rows, Generation(b"o" * 16, 0, last.stamp))


def test_whoever_remembers_an_answer_sees_that_it_may_be_another(book: Book) -> None:
    """The number is one that was not there before."""
    before = book.changes
    with book.reading():
        pass
    assert book.changes == before
    numbers = [before]
    with pytest.raises(RuntimeError), book.changing() as rows:
        rows.execute("UPDATE generation SET counter = counter")
        raise RuntimeError
    numbers.append(book.changes)
    fail(book, sqlite3.SQLITE_IOERR)
    numbers.append(book.changes)
    change(book)
    numbers.append(book.changes)
    book.close()
    numbers.append(book.changes)
    assert len(set(numbers)) == len(numbers), numbers


def test_a_transaction_that_changed_nothing_makes_no_answer_another(book: Book) -> None:
    before = book.changes
    with book.changing():
        pass
    with pytest.raises(RuntimeError), book.changing():
        raise RuntimeError
    assert book.changes == before
    with pytest.raises(VolumeUnavailableError), book.changing() as rows:
        rows.execute("SELECT nothing")
    assert book.changes != before, "after an error nobody knows"


class Connections:
    """All connections that were made to the file, and whether they are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[sqlite3.Connection] = []
        monkeypatch.setattr(book_module, "connected", self._connect)

    def _connect(self, path: Path) -> sqlite3.Connection:
        self.made.append(connected(path))
        return self.made[-1]

    def open(self) -> list[sqlite3.Connection]:
        return [one for one in self.made if self._is_open(one)]

    def _is_open(self, rows: sqlite3.Connection) -> bool:
        try:
            rows.execute("SELECT 1")
        except sqlite3.ProgrammingError:
            return False
        return True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    return Connections(monkeypatch)


def test_one_connection_is_kept_until_it_fails_or_the_book_is_closed(
    connections: Connections, path: Path
) -> None:
    with closing(Book(path, KEY)) as book:
        for at in (1, 2):
            change(book, at)
            assert seen_at(book) == at
        assert len(connections.made) == 1
        fail(book, sqlite3.SQLITE_IOERR)
        assert connections.open() == []
        for at in (3, 4):
            change(book, at)
            assert seen_at(book) == at
        assert len(connections.made) == 2
    assert connections.open() == []


def test_a_connection_that_is_opened_again_makes_commits_durable_too(book: Book) -> None:
    fail(book, sqlite3.SQLITE_IOERR)
    with book.reading() as rows:
        assert rows.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
        assert rows.execute("PRAGMA foreign_keys").fetchone() == (1,)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("PRAGMA application_id = 7", "not a contract database"),
        ("DROP TABLE past", "no such table"),
    ],
)
def test_a_file_that_cannot_be_opened_again_leaves_no_connection(
    connections: Connections, path: Path, harm: str, says: str
) -> None:
    with closing(Book(path, KEY)) as book:
        fail(book, sqlite3.SQLITE_IOERR)
        by_hand(path, (harm, ()))
        for _ in range(2):
            with pytest.raises(VolumeUnavailableError, match=says):
                seen_at(book)
            assert connections.open() == []


def test_a_file_that_is_gone_is_let_go(connections: Connections, path: Path) -> None:
    with closing(Book(path, KEY)) as book:
        path.unlink()
        with pytest.raises(VolumeUnavailableError, match="removed or replaced"):
            change(book)
        assert connections.open() == []


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_LOCKED, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_CORRUPT, False),
        (0, False),
    ],
)
def test_only_of_what_passes_the_connection_is_kept(book: Book, code: int, passes: bool) -> None:
    change(book, 5)
    with book.reading() as rows:
        before = rows
    fail(book, code)
    assert seen_at(book) == 5
    with book.reading() as rows:
        assert (rows is before) is passes
    change(book, 6)
    assert (seen_at(book), book.generation.counter) == (6, 2)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_why_it_failed_is_told_until_it_takes_a_change(book: Book, code: int) -> None:
    """A full disk can be read, and one that fails opened again, and both still refuse writes."""
    assert not book.failure
    fail(book, code)
    seen_at(book)
    with book.changing():
        pass
    assert book.failure.endswith("contracts.sqlite: it failed")
    change(book)
    assert not book.failure


def test_a_file_that_is_away_is_told_until_it_is_back_and_takes_a_change(
    book: Book, path: Path
) -> None:
    away = path.rename(path.with_name("away"))
    with pytest.raises(VolumeUnavailableError):
        change(book)
    with pytest.raises(VolumeUnavailableError):
        seen_at(book)
    assert "removed or replaced" in book.failure
    away.rename(path)
    change(book)
    assert not book.failure


class NotingLock:
    """A lock that notes for how long it was waited for at most."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.waits_s: list[float] = []

    def acquire(self, timeout: float) -> bool:
        self.waits_s.append(timeout)
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def test_who_comes_while_the_disk_hangs_is_turned_away_and_who_met_it_is_not(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one thread is lost by it, which goes on when the disk does; nor does the end wait."""
    monkeypatch.setattr(book_module, "HUNG_S", 0.2)
    hangs, answers = Event(), Event()

    def use() -> None:
        with book.changing() as rows:
            rows.execute("INSERT OR REPLACE INTO clock VALUES (1, 7, 7, 0)")
            hangs.set()
            assert answers.wait(20)

    user = Thread(target=use)
    user.start()
    assert hangs.wait(20)
    for _ in range(3):
        with pytest.raises(VolumeUnavailableError, match="does not answer"):
            seen_at(book)
    assert "does not answer" in book.failure
    book._lock = lock = NotingLock(book._lock)
    with pytest.raises(VolumeUnavailableError):
        change(book)
    assert lock.waits_s == [0.0], "how long it hangs is known"
    answers.set()
    user.join(20)
    assert (seen_at(book), book.failure) == (7, "")


def test_the_end_does_not_wait_for_a_disk_that_hangs(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "HUNG_S", 0.1)
    with book.reading():
        book.close()
    with pytest.raises(VolumeUnavailableError, match="closed"):
        seen_at(book)


def test_a_mistake_of_ours_is_no_failure_of_the_file(book: Book) -> None:
    with pytest.raises(sqlite3.ProgrammingError), book.reading() as rows:
        rows.execute("SELECT ?", ())
    assert not book.failure


def test_what_is_opened_again_is_checked_and_written_back(book: Book, path: Path) -> None:
    change(book)
    fail(book, sqlite3.SQLITE_IOERR_FSYNC)
    assert seen_at(book) == 1
    assert path.with_name("contracts.sqlite-wal").stat().st_size == 0


def test_a_file_that_has_gone_back_in_time_is_not_gone_on_with(book: Book, path: Path) -> None:
    change(book)
    fail(book, sqlite3.SQLITE_IOERR)
    by_hand(
        path,
        ("UPDATE generation SET counter = 0", ()),
        ("DELETE FROM past WHERE counter = 1", ()),
    )
    for _ in range(2):
        with pytest.raises(VolumeUnavailableError, match="made durable are missing"):
            seen_at(book)
    by_hand(
        path,
        ("UPDATE generation SET counter = 1", ()),
        ("INSERT INTO past VALUES (1, ?)", (book.generation.stamp,)),
    )
    assert seen_at(book) == 1


def test_a_generation_that_was_changed_elsewhere_is_learned_at_the_next_opening(
    book: Book, path: Path
) -> None:
    with closing(Book(path, KEY)) as other:
        change(other)
        fail(book, sqlite3.SQLITE_IOERR)
    assert seen_at(book) == 1
    assert book.generation == other.generation


def test_a_file_that_is_in_use_elsewhere_is_waited_for_by_the_next_use(
    book: Book, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farmer.storage.book_schema.LOCK_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        change(book)
        other.execute("BEGIN")
        other.execute("SELECT * FROM clock").fetchall()
        change(book, 2)
        fail(book, sqlite3.SQLITE_IOERR)
        with pytest.raises(VolumeUnavailableError, match="in use elsewhere"):
            seen_at(book)
    assert seen_at(book) == 2


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_nothing_is_written_to_a_file_that_nobody_will_find(
    book: Book, path: Path, how: str
) -> None:
    change(book)
    before = book.generation
    aside = path.with_name("aside")
    path.rename(aside)
    if how == "replaced":
        path.write_bytes(aside.read_bytes())
    for _ in range(2):
        with pytest.raises(VolumeUnavailableError, match="removed or replaced"):
            change(book, 2)
    with pytest.raises(VolumeUnavailableError, match="removed or replaced"):
        seen_at(book)
    assert book.generation == before
    aside.rename(path)
    assert seen_at(book) == 1
    change(book, 3)
    assert seen_at(book) == 3


def test_a_failed_opening_leaves_no_connection(connections: Connections, path: Path) -> None:
    Book(path, KEY).close()
    by_hand(path, ("DELETE FROM past", ()))
    with pytest.raises(BookDamagedError):
        Book(path, KEY)
    assert (len(connections.made), connections.open()) == (2, [])


def test_a_mistake_of_ours_is_taken_back_and_costs_no_connection(book: Book) -> None:
    with book.reading() as rows:
        before = rows
    with pytest.raises(sqlite3.IntegrityError), book.changing() as rows:
        rows.execute("INSERT INTO clock VALUES (1, 7, 7, 0)")
        rows.execute("INSERT INTO clock VALUES (2, 7, 7, 0)")
    with book.reading() as rows:
        assert rows is before
        assert not rows.in_transaction
    assert seen_at(book) == 0


def killed(path: Path) -> Path:
    """Return what a kill left: what was committed last stands in the write-ahead log alone."""
    (left := path.with_name("left")).mkdir()
    with closing(Book(path, KEY)) as book:
        change(book)
        for name in (path.name, f"{path.name}-wal"):
            copyfile(path.with_name(name), left / name)
    assert (left / f"{path.name}-wal").stat().st_size
    return left / path.name


def test_what_a_kill_left_is_made_durable_before_it_is_believed(path: Path) -> None:
    """It may be in the page cache alone, and this writes and syncs the database itself."""
    path = killed(path)
    with closing(Book(path, KEY)) as book:
        assert path.with_name(f"{path.name}-wal").stat().st_size == 0
        assert seen_at(book) == 1


class Full(sqlite3.Connection):
    """One that finds no room to write the log back to the database."""

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if "checkpoint" in statement:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(statement, *values)


def full(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, factory=Full)


@pytest.mark.parametrize("why", ["it is read", "the disk is full"])
def test_where_the_database_cannot_be_written_its_log_is_synced(
    path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    path = killed(path)
    log = path.with_name(f"{path.name}-wal")
    monkeypatch.setattr("farmer.storage.book_schema.LOCK_TIMEOUT_S", 0.01)
    if why == "the disk is full":
        monkeypatch.setattr(book_module, "connected", full)
    synced: list[Path] = []
    sync = os.fsync

    def noted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        sync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if why == "it is read":
            other.execute("BEGIN")
            other.execute("SELECT * FROM clock").fetchall()
        with closing(Book(path, KEY)) as book:
            assert synced[-2:] == [log, path.parent]
            assert seen_at(book) == 1
