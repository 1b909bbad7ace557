"""A clock that is wrong at boot, jumps or sleeps costs no renter a shard: engine and book."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.contract import ContractStage, Offer
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState
from farmer.running.home import Home
from farmer.running.stores import open_stores
from farmer.settings.loader import load_text
from tests.storage.bench import noise, shard_of

RENTER = NodeId(b"r" * 32)
DAY_MS = 86_400_000
START_MS = 1_800_000_000_000
STEP_MS = 600_000
YEAR_1970_MS, YEAR_2099_MS = 1000, 4_070_908_800_000
KEPT, TRASHED = noise(5000, "kept"), noise(5000, "trashed")


class Machine:
    """A farmer's stores, its clocks, and the chores that go by them."""

    def __init__(self, root: Path) -> None:
        self.wall_ms, self.up_ms = START_MS, 0
        self.home = Home.find(str(root / "home"), None, {}, 1000)
        self.home.make()
        text = f"version: 1\nvolumes: [{{path: {root / 'disk'}, quota: 100MB}}]\n"
        self.settings = load_text(text, "f", {}).settings
        self.boot()

    def boot(self) -> None:
        self.up_ms = 0
        self.stores = open_stores(self.home, self.settings, lambda: self.wall_ms, print)
        # Weeks pass here; what a power cut leaves is not asked.
        self.stores.book._book._rows.execute("PRAGMA synchronous = OFF")
        self.look()

    def reboot(self, wall_ms: int) -> None:
        self.stores.close()
        self.wall_ms = wall_ms
        self.boot()

    def look(self) -> None:
        self.stores.book.clock.tick(self.wall_ms, self.up_ms / 1000)

    def live(self, days: float) -> None:
        """Run, with a look each ten minutes and the sweep twice a day."""
        for step in range(int(days * DAY_MS / STEP_MS)):
            self.wall_ms += STEP_MS
            self.up_ms += STEP_MS
            self.look()
            if step % 72 == 0:
                self.sweep()
        self.sweep()

    def sweep(self) -> None:
        book, engine = self.stores.book, self.stores.engine
        if not book.clock.trusted:
            return
        for contract in book.advance(self.wall_ms):
            engine.purge(contract.renter, contract.contract)
            book.purged(contract.contract)
        engine.sweep(self.wall_ms, book.clock.observed_ms)

    def states(self) -> dict[ShardId, ShardState]:
        page = self.stores.engine.page(RENTER, ShardId(bytes(32)), 9)
        return {row.shard: row.state for row in page}


@pytest.fixture
def machine(tmp_path: Path):  # type: ignore[no-untyped-def]  # a fixture
    machine = Machine(tmp_path)
    machine.live(1.5)
    book, engine = machine.stores.book, machine.stores.engine
    offer = Offer(
        space_bytes=1 << 20,
        duration_ms=90 * DAY_MS,
        created_at_ms=machine.wall_ms,
        expires_at_ms=machine.wall_ms + DAY_MS,
    )
    contract = book.redeem(book.mint(offer, 1 << 40), RENTER)
    for data in (KEPT, TRASHED):
        upload = engine.begin(contract, shard_of(data), len(data))
        upload.write(data)  # type: ignore[union-attr]  # a new shard
        upload.commit().result(20)  # type: ignore[union-attr]  # as above
    engine.delete(RENTER, shard_of(TRASHED), erase=False).result(20)
    yield machine
    machine.stores.close()


def in_1970(machine: Machine) -> None:
    machine.reboot(YEAR_1970_MS)


def in_2099(machine: Machine) -> None:
    machine.reboot(YEAR_2099_MS)


def a_year_ahead(machine: Machine) -> None:
    machine.wall_ms += 365 * DAY_MS
    machine.look()


def ten_years_back(machine: Machine) -> None:
    machine.wall_ms -= 3650 * DAY_MS
    machine.look()


@pytest.mark.parametrize("wrong", [in_1970, in_2099, a_year_ahead, ten_years_back])
def test_nothing_expires_by_a_clock_that_is_wrong(
    machine: Machine, wrong: Callable[[Machine], None]
) -> None:
    """Not in the weeks that it is wrong, not by a restart; and right again all goes on."""
    right_ms = machine.wall_ms
    wrong(machine)
    machine.live(23)
    assert machine.stores.book.clock.doubt
    both = {shard_of(KEPT): ShardState.LIVE, shard_of(TRASHED): ShardState.TRASH}
    assert machine.states() == both
    machine.reboot(machine.wall_ms + STEP_MS)
    machine.live(1)
    assert machine.states() == both
    machine.reboot(right_ms + 25 * DAY_MS)
    assert not machine.stores.book.clock.doubt
    assert machine.stores.book.find(RENTER)[1] is ContractStage.ACTIVE
    assert machine.states() == both
    machine.live(1)
    assert machine.states() == {shard_of(KEPT): ShardState.LIVE}, "its week was over long ago"


def test_a_machine_that_sleeps_takes_no_day_of_the_trash_away(machine: Machine) -> None:
    """CLOCK_BOOTTIME goes on with the wall clock: no doubt, and no running time either."""
    for _ in range(3):
        machine.wall_ms += 20 * DAY_MS
        machine.up_ms += 20 * DAY_MS
        machine.look()
        assert not machine.stores.book.clock.doubt
        machine.sweep()
    assert machine.states()[shard_of(TRASHED)] is ShardState.TRASH
    machine.live(7.1)
    assert shard_of(TRASHED) not in machine.states()
