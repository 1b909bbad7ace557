"""A sync that fails once inside SQLite: the connection is dropped, the file opened and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.storage.errors import InviteSpentError, VolumeUnavailableError
from tests.nthcall.book_jobs import EVE, Held, Ledger
from tests.nthcall.sqlite_disk import SqlDisk, watched
from tests.nthcall.sqlite_memory import SqlMemory
from tests.storage_contracts.world import BERTA

LOG, MAIN = "contracts.sqlite-wal", "contracts.sqlite"


class FailingSync:
    """Lets the next sync of the log fail, and keeps what SQLite does."""

    def __init__(self, disk: SqlDisk) -> None:
        self.events: list[tuple[str, str]] = []
        self._is_to_come = True
        disk.fails = self._fails  # type: ignore[method-assign]  # instead of the Nth call
        disk._struck = "sync"

    def _fails(self, what: str, name: str) -> bool:
        event = (what, Path(name).name)
        self.events.append(event)
        if event != ("sync", LOG) or not self._is_to_come:
            return False
        self._is_to_come = False
        return True

    def since_it_failed(self) -> list[tuple[str, str]]:
        return self.events[self.events.index(("sync", LOG)) + 1 :]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SqlDisk]:
    (tmp_path / "book").mkdir()
    with watched(tmp_path / "book", SqlMemory()) as disk:
        yield disk


def test_a_failed_sync_of_a_redeem_is_not_repeated_on_what_the_cache_holds(
    disk: SqlDisk, tmp_path: Path
) -> None:
    """A second sync would say yes: the pages that failed count as clean from then on."""
    world = Ledger(disk.root)
    world.prepare()
    disk.begin()
    failing = FailingSync(disk)
    with pytest.raises(VolumeUnavailableError):
        world.book.redeem(world.serial, BERTA)
    contract = world.book.redeem(world.serial, BERTA)

    after = failing.since_it_failed()
    opened = after.index(("open", MAIN))
    assert ("write", LOG) not in after[:opened], "nothing more is written behind it"
    assert after[opened:].count(("read", MAIN)) > 4, "all of the database was read again"
    assert ("open", LOG) in after[opened:], "and its log begun anew"

    disk.after_a_power_cut(tmp_path / "cut")
    copy = Ledger(tmp_path / "cut")
    assert contract in Held.of(copy.book).contracts
    with pytest.raises(InviteSpentError):
        copy.book.redeem(world.serial, EVE)
    copy.book.close()
    with pytest.raises(InviteSpentError):
        world.book.redeem(world.serial, EVE)
    world.book.close()
