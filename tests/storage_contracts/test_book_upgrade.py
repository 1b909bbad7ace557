"""A contract database of version 1 becomes one of version 2, or stays what it was."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage.book_schema import APPLICATION_ID, SCHEMA, BookDamagedError
from farmer.storage.contracts import ContractDatabase
from farmer.storage.errors import InviteSpentError, StorageError, VolumeUnavailableError
from tests.nthcall.book_jobs import Held
from tests.nthcall.sqlite_disk import SqlDisk, SqlFailure, watched
from tests.nthcall.sqlite_memory import SqlMemory
from tests.storage_contracts.world import ANNA, BERTA, KEY, START_MS, World, digest

CALLS_MAX = 200


def opened(path: Path) -> ContractDatabase:
    return ContractDatabase(path, farmer_key=KEY, now_ms=lambda: START_MS, digest=digest)


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as rows:
        version: int = rows.execute("PRAGMA user_version").fetchone()[0]
        return version


class Old:
    """A database as the release before version 2 left it, with contracts and invites."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "contracts.sqlite"
        (folder / "new").mkdir()
        new = World(folder / "new")
        new.join(ANNA)
        self.spent, self.open_invite = new.mint(), new.mint()
        new.book.redeem(self.spent, BERTA)
        new.tick()
        self.held = Held.of(new.book)
        new.book.close()
        self._without_what_came_later(new.path)
        shutil.rmtree(folder / "new")

    def _without_what_came_later(self, new: Path) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as rows:
            rows.execute("PRAGMA journal_mode = WAL")
            rows.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            rows.execute("ATTACH ? AS new", (str(new),))
            for table in ("book", "contracts", "invites", "clock"):
                rows.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
            rows.execute("DETACH new")
            rows.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            rows.execute("PRAGMA user_version = 1")
        assert version_of(self.path) == 1

    def check(self, path: Path) -> None:
        """All that it said is still said, and what was spent stays spent."""
        book = opened(path)
        try:
            assert Held.of(book) == self.held
            with pytest.raises(InviteSpentError):
                book.redeem(self.spent, ANNA)
            before = book._book.generation
            book.redeem(self.open_invite, ANNA)
            assert (before.counter, book._book.generation.counter) == (0, 1)
        finally:
            book.close()
        assert version_of(path) == 2


@pytest.fixture
def old(tmp_path: Path) -> Old:
    return Old(tmp_path / "old")


def copied(old: Old, folder: Path) -> Path:
    shutil.copytree(old.path.parent, folder)
    return folder / old.path.name


def test_everything_is_kept_and_changes_are_counted_from_then_on(old: Old, tmp_path: Path) -> None:
    old.check(copied(old, tmp_path / "copy"))
    generations = []
    for _ in range(2):
        book = opened(old.path)
        generations.append(book._book.generation)
        book.close()
    assert generations[0] == generations[1], "it is brought up to date once"


def killed_at(number: int, path: Path) -> bool:
    """Open it in a child that is killed at its Nth call; say whether it got so far."""
    child = os.fork()
    if not child:
        try:
            with watched(path.parent, SqlMemory()) as disk:
                disk.fails = _killer(number)  # type: ignore[method-assign]  # nothing fails
                opened(path).close()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status)
    return os.WIFSIGNALED(status)


def _killer(number: int) -> Callable[[str, str], bool]:
    calls = iter(range(number, -1, -1))

    def fails(_what: str, _name: str) -> bool:
        if not next(calls, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return fails


def test_a_kill_at_any_call_leaves_the_one_or_the_other(old: Old, tmp_path: Path) -> None:
    """SIGKILL before each read, write, sync, truncation, opening and deletion that SQLite does."""
    versions = set()
    for number in range(CALLS_MAX):
        path = copied(old, tmp_path / f"killed{number}")
        if not killed_at(number, path):
            break
        with closing(sqlite3.connect(path)) as rows:
            versions.add(rows.execute("PRAGMA user_version").fetchone()[0])
        old.check(path)
    else:
        pytest.fail("it did not come to its end")
    assert versions == {1, 2}, "kills before and behind the commit"


def test_a_power_cut_at_any_call_leaves_the_one_or_the_other(old: Old, tmp_path: Path) -> None:
    """Nothing that was not synced is there."""
    cuts: list[Path] = []
    with watched(old.path.parent, SqlMemory()) as disk:
        disk.begin()

        def cut(_what: str, _name: str) -> bool:
            cuts.append(tmp_path / f"cut{len(cuts)}")
            disk.after_a_power_cut(cuts[-1])
            return False

        disk.fails = cut  # type: ignore[method-assign]  # nothing fails
        book = opened(old.path)
        cut("", "")
        book.close()
    assert len(cuts) > 20
    assert [version_of(cut / old.path.name) for cut in (cuts[0], cuts[-1])] == [1, 2]
    for each in cuts:
        old.check(each / old.path.name)


@pytest.mark.parametrize(
    "failure", [failure for failure in SqlFailure if failure is not SqlFailure.MEMORY]
)
def test_a_failing_call_is_told_and_leaves_the_one_or_the_other(
    old: Old, tmp_path: Path, failure: SqlFailure
) -> None:
    """Only what cannot be read is called damaged: that is set aside by `contract recover`."""
    for number in range(CALLS_MAX):
        path = copied(old, tmp_path / f"failed{number}")
        with watched(path.parent, SqlMemory()) as disk:
            disk.arm(number, failure)
            _try(path, disk)
            struck = disk.struck
            disk.disarm()
            old.check(path)
        if not struck:
            return
    pytest.fail("it did not come to its end")


def _try(path: Path, disk: SqlDisk) -> None:
    try:
        opened(path).close()
    except StorageError as error:
        is_unread = isinstance(error, BookDamagedError) and disk.struck.startswith("read ")
        assert is_unread or isinstance(error, VolumeUnavailableError), (disk.struck, error)
        assert str(path) in str(error)


def test_a_database_that_another_holds_is_not_called_damaged(old: Old, tmp_path: Path) -> None:
    ours, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        rows = sqlite3.connect(old.path, isolation_level=None)
        rows.execute("BEGIN EXCLUSIVE")
        os.write(ours[1], b"x")
        os.read(theirs[0], 1)
        os._exit(0)
    os.read(ours[0], 1)
    try:
        with pytest.raises(VolumeUnavailableError, match="locked"):
            opened(old.path)
    finally:
        os.write(theirs[1], b"x")
        os.waitpid(child, 0)
        for end in (*ours, *theirs):
            os.close(end)
    old.check(old.path)


def test_half_of_version_2_is_damage(old: Old) -> None:
    """No upgrade of ours leaves that."""
    with closing(sqlite3.connect(old.path, isolation_level=None)) as rows:
        rows.execute("PRAGMA user_version = 2")
    with pytest.raises(BookDamagedError):
        opened(old.path)
