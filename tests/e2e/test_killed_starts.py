"""A daemon killed while it starts: in the middle of an upgrade, a rebuild, a recovery."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter

LATER_TABLES = ("generation", "past", "met")


class House:
    """A daemon that was killed with a renter's shards and an open invite in its books."""

    def __init__(self, root: Path) -> None:
        self.daemon = Daemon(root / "home", root / "volume")
        self.daemon.start()
        self.renter = Renter(root / "renter")
        self.spent = self.daemon.invite()
        self.renter.join(self.spent)
        self.open_invite = self.daemon.invite("1MB")
        files = [root / "small", root / "large"]
        for path, size in zip(files, (3000, 2_500_000), strict=True):
            path.write_bytes(os.urandom(size))
        assert all(row["stored"] for row in self.renter.store(*files))
        self.daemon.kill()
        self.book = self.daemon.home / "contracts.sqlite"
        self.index = self.daemon.volume / "index.sqlite"

    def killed_start(self, path: Path, call: str, number: int) -> None:
        """Start it, and kill it at its Nth call of one kind on one file."""
        inject = f"inject={call}:signal=KILL:when={number}"
        words = ("-P", str(path), "-e", f"trace={call}", "-e", inject)
        with pytest.raises(AssertionError, match="no ready line"):
            self.daemon.start("strace", "-f", "-qq", "-o", "/dev/null", *words)
        assert self.daemon.process is not None
        assert self.daemon.process.wait(20) in {-9, 137}, "it ended otherwise"
        self.daemon.kill()

    def check(self, tmp_path: Path) -> None:
        """It starts, and all that it had said is true."""
        self.daemon.start()
        told = self.renter.ask("audit", "--all")
        assert (told["passed"], told["failed"]) == (2, 0)
        other = Renter(tmp_path / "other")
        assert other.call("join", self.spent).returncode, "spent is spent"
        other.join(self.open_invite)
        status = self.daemon.status()
        assert [volume["state"] for volume in status["volumes"]] == ["healthy"]
        assert not [one for one in status["alerts"] if one["name"] != "IndexRebuilt"]
        assert self.daemon.stop() == 0


@pytest.fixture
def house(tmp_path: Path):  # type: ignore[no-untyped-def]
    house = House(tmp_path)
    with house.daemon:
        yield house


def made_old(house: House) -> None:
    """Let the contract database be one of version 1, of which volumes remember nothing."""
    with closing(sqlite3.connect(house.book, isolation_level=None)) as rows:
        for table in LATER_TABLES:
            rows.execute(f"DROP TABLE {table}")
        rows.execute("PRAGMA user_version = 1")
    (house.daemon.volume / "book").unlink()


@pytest.mark.slow
@pytest.mark.tool("strace")
def test_kills_in_an_upgrade_of_the_contract_database(house: House, tmp_path: Path) -> None:
    made_old(house)
    log = house.book.with_name("contracts.sqlite-wal")
    for call, number in (("pwrite64", 1), ("pwrite64", 4), ("fdatasync", 1), ("pwrite64", 9)):
        house.killed_start(log, call, number)
    house.check(tmp_path)


@pytest.mark.slow
@pytest.mark.tool("strace")
def test_kills_while_a_lost_index_is_made_again(house: House, tmp_path: Path) -> None:
    for path in house.index.parent.glob("index.sqlite*"):
        path.unlink()
    for call, number in (("pwrite64", 2), ("pwrite64", 12), ("fdatasync", 1)):
        house.killed_start(house.index, call, number)
    house.check(tmp_path)


@pytest.mark.slow
@pytest.mark.tool("strace")
def test_kills_while_the_log_is_replayed(house: House, tmp_path: Path) -> None:
    """What the last index knew is gone: all that was stored has to be found again."""
    house.index.with_name("index.sqlite-wal").unlink()
    log = house.index.with_name("index.sqlite-wal")
    for call, number in (("pwrite64", 1), ("pwrite64", 5)):
        house.killed_start(log, call, number)
    shutil.copy(house.index, tmp_path / "seen")
    house.check(tmp_path)


def test_drafts_of_small_files_go_at_the_next_start(tmp_path: Path) -> None:
    """A kill between the making of one and its renaming leaves it."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        draft = daemon.home / f".run.json.{1 << 22}"
        draft.touch()
        daemon.start()
        assert not draft.exists()
        assert daemon.stop() == 0


def test_books_of_a_newer_release_are_refused_in_words_and_left_alone(tmp_path: Path) -> None:
    """Also by the command that makes contracts again: nothing is set aside."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start().stop()
        book = daemon.home / "contracts.sqlite"
        with closing(sqlite3.connect(book, isolation_level=None)) as rows:
            rows.execute("PRAGMA user_version = 3")
        before = book.read_bytes()
        for verb in (["run"], ["contract", "recover"], ["invite", "list"]):
            refused = daemon.call(*verb)
            assert refused.returncode == 1, verb
            assert "has version 3, this release reads up to 2" in refused.stderr
            assert "use the release that wrote it; nothing was changed" in refused.stderr
        assert book.read_bytes() == before
        assert not list(daemon.home.glob("*damaged*"))
