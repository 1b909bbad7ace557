"""Who is asked and told when the contract database changes, and what a contract may become."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from farmer.model.contract import ContractStage
from farmer.model.ids import ContractId, InviteSerial, NodeId
from farmer.storage import book
from farmer.storage.clock import START_COUNTS_MS
from farmer.storage.contracts import DURATION_MS_MAX, SPACE_BYTES_MAX, OvercommitError
from farmer.storage.errors import (
    BusyError,
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
    VolumeUnavailableError,
)
from farmer.storage.generation import Generation
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, HOUR_MS, KEY, World, digest

ACTIVE, GRACE = ContractStage.ACTIVE, ContractStage.GRACE


class Volumes:
    """What keeps generations: it is asked before a change and told after it, or fails."""

    def __init__(self, world: World) -> None:
        self.events: list[str] = []
        self.fails: set[str] = set()
        self._world = world
        world.book.consult = self._consult
        world.book.witness = self._witness

    def _consult(self) -> None:
        self._note("asked", self._world.book.history.generation)

    def _witness(self, generation: Generation) -> None:
        assert generation == self._world.book.history.generation
        self._note("told", generation)

    def _note(self, what: str, generation: Generation) -> None:
        self.events.append(f"{what} {generation.counter}")
        if what in self.fails:
            raise VolumeUnavailableError(what)


def test_every_change_is_asked_for_before_and_told_after(world: World) -> None:
    volumes = Volumes(world)
    at = world.book.history.generation.counter
    contract = world.join()
    verbs = (
        lambda: world.book.extend(contract.contract, DAY_MS),
        lambda: world.book.end(contract.contract),
        lambda: world.book.withdraw(world.mint()),
    )
    for verb in verbs:
        verb()
    asked = volumes.events[::2]
    told = volumes.events[1::2]
    assert asked == [f"asked {at + n}" for n in range(len(asked))]
    assert told == [f"told {at + n + 1}" for n in range(len(told))]
    assert len(told) == 6


def test_only_a_redeem_needs_a_witness(world: World) -> None:
    volumes = Volumes(world)
    volumes.fails = {"asked", "told"}
    serial = world.mint()
    world.book.withdraw(world.mint())
    with pytest.raises(VolumeUnavailableError, match="asked"):
        world.book.redeem(serial, ANNA)
    assert world.book.contracts() == [], "without who could say no nothing is done"
    volumes.fails = {"told"}
    with pytest.raises(VolumeUnavailableError, match="told"):
        world.book.redeem(serial, ANNA)
    volumes.fails = set()
    made = world.book.redeem(serial, ANNA)
    assert world.book.contracts() == [(made, ACTIVE)]
    volumes.fails = {"asked", "told"}
    world.book.extend(made.contract, DAY_MS)
    world.book.end(made.contract)


def test_a_change_that_is_refused_is_not_told(world: World) -> None:
    volumes = Volumes(world)
    with pytest.raises(InviteUnknownError):
        world.book.redeem(InviteSerial(bytes(16)), ANNA)
    assert [event.split()[0] for event in volumes.events] == ["asked"]


def test_the_largest_offer_is_minted(world: World) -> None:
    largest = replace(world.offer(), duration_ms=DURATION_MS_MAX, space_bytes=SPACE_BYTES_MAX)
    world.book.mint(largest, SPACE_BYTES_MAX)
    with pytest.raises(OvercommitError):
        world.book.mint(world.offer(1), SPACE_BYTES_MAX)
    made = world.book.redeem(world.book.open_invites()[0][0], ANNA)
    assert world.book.promised_bytes() == made.space_bytes == SPACE_BYTES_MAX


def test_the_largest_extension_is_given(world: World) -> None:
    contract = world.join(ANNA, 1000)
    with pytest.raises(ValueError, match="up to a hundred years"):
        world.book.extend(contract.contract, DURATION_MS_MAX + 1)
    with pytest.raises(ValueError, match="takes no space away"):
        world.book.extend(contract.contract, 1, SPACE_BYTES_MAX + 1)
    longest = world.book.extend(contract.contract, DURATION_MS_MAX, SPACE_BYTES_MAX)
    assert longest.until_ms == contract.until_ms + DURATION_MS_MAX
    assert longest.space_bytes == SPACE_BYTES_MAX


def test_an_extension_is_issued_now_and_needs_room_only_for_what_is_more(world: World) -> None:
    contract = world.join(ANNA, 1000)
    world.sleep(DAY_MS)
    same = world.book.extend(contract.contract, 1, 1000, capacity_bytes=0)
    assert (same.issued_at_ms, same.revision) == (world.wall_ms, 2)
    assert same.previous == digest(contract)
    with pytest.raises(OvercommitError) as caught:
        world.book.extend(contract.contract, 1, 1010, capacity_bytes=1009)
    assert (caught.value.wanted_bytes, caught.value.available_bytes) == (10, 9)
    assert "10 bytes wanted, but only 9" in str(caught.value)


def test_a_contract_that_ends_this_moment_is_left_as_it_is(world: World) -> None:
    contract = world.join(ANNA, days=1)
    world.sleep(DAY_MS)
    assert world.wall_ms == contract.until_ms
    assert world.book.end(contract.contract) == contract
    assert world.book.find(ANNA) == (contract, GRACE)


def test_an_end_frees_no_promise_until_the_shards_are_removed(world: World) -> None:
    contract = world.join(ANNA, 1000, days=1)
    world.book.end(contract.contract)
    assert world.book.promised_bytes() == 1000
    world.live(30)
    assert world.book.to_purge() == world.advance()
    (gone,) = world.book.to_purge()
    assert gone.contract == contract.contract
    world.book.purged(contract.contract)
    assert (world.book.to_purge(), world.book.promised_bytes()) == ([], 0)


def test_a_doubtful_clock_moves_nothing(world: World) -> None:
    contract = world.join(ANNA, days=1)
    world.live(30)
    assert world.book.to_purge() == [contract]
    other = world.join(BERTA, days=1)
    world.sleep(2 * DAY_MS)
    world.jump(-10 * DAY_MS)
    assert not world.book.clock.trusted
    assert world.advance() == []
    stages = {one.contract: stage for one, stage in world.book.contracts()}
    assert stages == {other.contract: ACTIVE}, "it counts by what was entered"


def test_contracts_made_again_are_entered_where_there_is_none(world: World) -> None:
    mine = world.join(ANNA)
    theirs = replace(mine, contract=ContractId(b"t" * 16), renter=BERTA)
    again = replace(mine, contract=ContractId(b"m" * 16))
    assert world.book.adopt([again, theirs]) == [theirs]
    assert world.book.find(ANNA) == (mine, ACTIVE)
    assert world.book.find(BERTA) == (theirs, ACTIVE)
    assert world.book.adopt([theirs]) == []


def test_a_contract_made_again_after_its_shards_were_gone_may_have_shards_again(
    world: World,
) -> None:
    mine = world.join(ANNA, days=1)
    world.live(30)
    world.book.purged(mine.contract)
    again = replace(mine, until_ms=world.wall_ms + DAY_MS)
    assert world.book.adopt([again]) == [again]
    assert world.book.promised_bytes() == mine.space_bytes
    world.live(30)
    assert world.book.to_purge() == [again]


def test_of_two_contracts_of_a_renter_that_are_made_again_one_is_an_error_of_ours(
    world: World,
) -> None:
    """Nothing of the call is entered then."""
    first = replace(world.join(ANNA), renter=BERTA, contract=ContractId(b"1" * 16))
    second = replace(first, contract=ContractId(b"2" * 16))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        world.book.adopt([first, second])
    with pytest.raises(NoContractError):
        world.book.find(BERTA)


def test_an_invite_of_an_earlier_contract_gives_nothing_of_the_present_one(world: World) -> None:
    serial = world.mint(days=1)
    old = world.book.redeem(serial, ANNA)
    world.live(30)
    with pytest.raises(BusyError):
        world.join(ANNA)
    world.book.purged(old.contract)
    new = world.join(ANNA)
    with pytest.raises(InviteSpentError):
        world.book.redeem(serial, ANNA)
    assert world.book.find(ANNA) == (new, ACTIVE)


def test_a_contract_is_looked_up_once_until_something_changes(world: World) -> None:
    contract = world.join(ANNA)
    asked = list[str]()
    assert world.book.find(ANNA) == (contract, ACTIVE)
    world.book._book._rows.set_trace_callback(asked.append)
    assert world.book.find(ANNA) == (contract, ACTIVE)
    assert asked == []
    extended = world.book.extend(contract.contract, DAY_MS)
    asked.clear()
    assert world.book.find(ANNA) == (extended, ACTIVE)
    assert asked
    world.book._book._rows.set_trace_callback(None)


def test_ids_and_serials_are_drawn_each_time(world: World) -> None:
    serials = {world.mint() for _ in range(3)}
    contracts = {
        world.book.redeem(serial, NodeId(bytes([number]) * 32)).contract
        for number, serial in enumerate(serials, 1)
    }
    assert (len(serials), len(contracts)) == (3, 3)


def test_a_closed_book_has_kept_what_the_clock_saw(world: World) -> None:
    world.sleep(DAY_MS)
    world.sleep(5_000)
    observed_ms = world.book.clock.observed_ms
    world.book.close()
    world.book.close()
    world.open(ticked=False)
    seen_ms = world.book.clock.observed_ms - START_COUNTS_MS
    assert seen_ms == observed_ms > DAY_MS - HOUR_MS
    assert world.book.farmer_key == KEY


class Full:
    """A connection whose disk takes nothing more."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def execute(self, line: str, *words: Any) -> sqlite3.Cursor:
        if line.startswith("INSERT"):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._rows.execute(line, *words)


def test_a_disk_that_takes_nothing_keeps_nobody_from_ending(world: World) -> None:
    """Minutes of what the clock saw are lost, as by a crash, and it is told why."""
    world.sleep(5_000)
    world.book._book._rows = Full(world.book._book._rows)  # type: ignore[assignment]
    world.book.close()
    assert "disk is full" in world.book.failure
    assert not world.book._book.is_open


def test_whoever_waits_for_the_disk_keeps_nobody_from_ending(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "HUNG_S", 0.1)
    world.sleep(5_000)
    with world.book._book.reading():
        world.book.close()
    assert "does not answer" in world.book.failure
