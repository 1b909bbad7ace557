"""The file of the contract database: whose it is, how it fails, what it refuses."""

import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmer.model.ids import NodeId
from farmer.storage.book_schema import BookDamagedError, BookForeignError
from farmer.storage.contracts import ContractDatabase
from farmer.storage.errors import FormatTooNewError, InviteSpentError, VolumeUnavailableError
from tests.storage_contracts.world import ANNA, KEY, World, digest


def opened(path: Path, key: bytes = KEY) -> ContractDatabase:
    return ContractDatabase(path, farmer_key=key, now_ms=lambda: 1, digest=digest)


def closed_file(world: World) -> Path:
    world.join(ANNA)
    world.book.close()
    return world.path


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    book = opened(tmp_path / "contracts.sqlite")
    rows = book._book._rows
    assert rows.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert rows.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    book.close()


def test_only_its_owner_can_read_the_files(world: World) -> None:
    world.join(ANNA)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.folder.iterdir()}
    # And no file that SQLite would map: where that has no room, the process ends by SIGBUS.
    assert set(modes) == {f"contracts.sqlite{end}" for end in ("", "-wal")}
    assert set(modes.values()) == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(world: World) -> None:
    path = closed_file(world)
    path.chmod(0o644)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_newer_format_is_refused_and_left_alone(world: World) -> None:
    path = closed_file(world)
    rows = sqlite3.connect(path)
    rows.execute("PRAGMA user_version = 3")
    rows.close()
    before = path.read_bytes()
    with pytest.raises(FormatTooNewError, match="version 3, this release reads up to 2"):
        opened(path)
    assert path.read_bytes() == before


def test_another_farmers_database_is_refused(world: World) -> None:
    path = closed_file(world)
    with pytest.raises(BookForeignError, match="another identity"):
        opened(path, b"x" * 32)
    opened(path).close()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "contracts.sqlite"
    rows = sqlite3.connect(path)
    rows.execute("CREATE TABLE photos (name TEXT)")
    rows.close()
    before = path.read_bytes()
    with pytest.raises(BookForeignError, match="not a contract database"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "contracts.sqlite"
    path.write_bytes(b"this was a database before the disk had other ideas" * 100)
    with pytest.raises(BookDamagedError, match="restore the file from a backup"):
        opened(path)


def test_damaged_pages_are_found_at_the_start(world: World) -> None:
    for _ in range(200):
        world.mint()
    path = closed_file(world)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(os.urandom(size - 4096 * 2))
    with pytest.raises(BookDamagedError, match="damaged"):
        opened(path)


def test_a_database_without_its_owner_is_damaged(world: World) -> None:
    path = closed_file(world)
    rows = sqlite3.connect(path)
    rows.execute("DELETE FROM book")
    rows.commit()
    rows.close()
    with pytest.raises(BookDamagedError):
        opened(path)


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(VolumeUnavailableError, match="cannot be opened"):
        opened(tmp_path / "nowhere" / "contracts.sqlite")


def test_a_link_is_not_followed(world: World, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(closed_file(world))
    with pytest.raises(VolumeUnavailableError, match="cannot be opened"):
        opened(link)


def test_an_empty_file_left_by_a_crash_at_the_first_start_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "contracts.sqlite"
    path.touch()
    opened(path).close()
    opened(path).close()


def test_a_closed_book_says_so(world: World) -> None:
    world.book.close()
    world.book.close()
    with pytest.raises(VolumeUnavailableError, match="is closed"):
        world.book.find(ANNA)


def test_a_full_disk_is_told_and_leaves_no_half_transaction(world: World) -> None:
    serial = world.mint()
    rows = world.book._book._rows
    (pages,) = rows.execute("PRAGMA page_count").fetchone()
    rows.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(VolumeUnavailableError, match="full"):
        for _ in range(500):
            world.mint()
    minted = len(world.book.open_invites())
    rows.execute("PRAGMA max_page_count = 100000")
    world.mint()
    assert len(world.book.open_invites()) == minted + 1
    assert world.book.redeem(serial, ANNA).renter == ANNA


def test_what_fails_inside_a_transaction_is_taken_back(world: World) -> None:
    with pytest.raises(RuntimeError), world.book._book.writing() as rows:
        rows.execute("DELETE FROM book")
        raise RuntimeError
    assert world.restart() is not None


def test_our_own_mistakes_are_not_taken_for_a_bad_disk(world: World) -> None:
    with pytest.raises(sqlite3.IntegrityError), world.book._book.writing() as rows:
        rows.execute("INSERT INTO book VALUES (2, x'00')")


def test_many_threads_spend_an_invite_once(world: World) -> None:
    serial = world.mint()

    def spend(number: int) -> bool:
        try:
            world.book.redeem(serial, NodeId(bytes([number]) * 32))
        except InviteSpentError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(spend, range(1, 33))) == 1
    assert len(world.book.contracts()) == 1
