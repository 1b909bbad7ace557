"""The contract database while SQLite's calls fail: what is answered is durable, spent once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from farmer.model.contract import Contract
from farmer.model.ids import NodeId
from farmer.storage.contracts import ContractDatabase
from farmer.storage.errors import InviteSpentError, StorageError
from tests.nthcall.sqlite_disk import SqlDisk, SqlFailure, memory_for, watched
from tests.nthcall.sqlite_memory import SqlMemory
from tests.nthcall.sweep import POINTS_MAX, Tally, ViolationError, stride
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, KEY, START_MS, World, digest

R = TypeVar("R")

EVE = NodeId(b"e" * 32)
TRIES = 6

Act = Callable[["Ledger"], None]


class Ledger(World):
    """The world of the contract tests, with its database as it really is."""

    def open(self, *, ticked: bool = True) -> ContractDatabase:
        self.book = ContractDatabase(
            self.path,
            farmer_key=KEY,
            now_ms=lambda: self.wall_ms,
            digest=digest,
            random_bytes=self._random,
        )
        if ticked:
            self.tick()
        return self.book

    def prepare(self) -> None:
        self.anna = self.join(ANNA)
        self.serial = self.mint()
        self.other = self.mint()


def _redeem(world: Ledger) -> None:
    world.book.redeem(world.serial, BERTA)


def _mint(world: Ledger) -> None:
    world.mint()


def _withdraw(world: Ledger) -> None:
    world.book.withdraw(world.other)


def _extend(world: Ledger) -> None:
    world.book.extend(world.anna.contract, DAY_MS)


def _end(world: Ledger) -> None:
    world.book.end(world.anna.contract)


def _confirm(world: Ledger) -> None:
    world.book.clock.confirm(world.wall_ms + 5 * DAY_MS)


def _reopen(world: Ledger) -> None:
    world.book.close()
    world.open()


BOOK_JOBS: dict[str, Act] = {
    "redeem": _redeem,
    "mint": _mint,
    "withdraw": _withdraw,
    "extend": _extend,
    "end": _end,
    "clock": _confirm,
    "book opened": _reopen,
}


@dataclass(frozen=True)
class Held:
    """Everything that the database says of people."""

    contracts: tuple[Contract, ...]
    open_invites: frozenset[str]

    @classmethod
    def of(cls, book: ContractDatabase) -> Held:
        contracts = sorted((one for one, _ in book.contracts()), key=lambda one: one.renter.raw)
        return cls(tuple(contracts), frozenset(str(serial) for serial, _ in book.open_invites()))


def sweep_book(name: str, failure: SqlFailure, folder: Path, every: int = 1) -> Tally:
    """Let each of SQLite's calls fail in one way."""
    with memory_for(failure) as memory:
        return _sweep_book(name, failure, folder, every * stride(failure), memory)


def _sweep_book(
    name: str, failure: SqlFailure, folder: Path, every: int, memory: SqlMemory
) -> Tally:
    tally = Tally()
    for number in range(0, POINTS_MAX * every, every):
        place = folder / f"{name}-{failure.name}-{number}".replace(" ", "-")
        place.mkdir()
        with watched(place, memory) as disk:
            world = Ledger(place)
            world.prepare()
            try:
                struck = _fail_once(name, world, disk, number, failure)
            except Exception as error:
                struck = disk.struck or "?"
                tally.violations.append(
                    f"{name}, {failure.value} at call {number} ({disk.struck}): {error!r}"
                )
            finally:
                world.book.close()
        shutil.rmtree(place)
        if not struck:
            return tally
        tally.points[name, failure.value] += 1
    raise ViolationError(f"{name} did not come to its end")


def _fail_once(name: str, world: Ledger, disk: SqlDisk, number: int, failure: SqlFailure) -> str:
    disk.begin()
    before = Held.of(world.book)
    disk.arm(number, failure)
    try:
        BOOK_JOBS[name](world)
    except (StorageError, MemoryError):
        answered = False
    else:
        answered = True
    struck = disk.struck
    if failure not in {SqlFailure.DEAD, SqlFailure.MEMORY}:
        _check_dead_or_alive(world, disk)
    disk.disarm()
    if not world.book._book.is_open or name == "book opened":
        world.book.close()
        world.open()
    after = _patiently(lambda: Held.of(world.book))
    _check_one_step(name, before, after, answered=answered)
    if answered:
        _check_durable(world, disk, after)
    # Tried again, or for the first time by somebody else: spent once, and durable.
    if name == "redeem":
        _check_spent_once(world)
    _patiently(world.mint)
    _check_durable(world, disk, Held.of(world.book))
    return struck


def _check_dead_or_alive(world: Ledger, disk: SqlDisk) -> None:
    """Whatever else is answered meanwhile is true and durable."""
    try:
        held = Held.of(world.book)
        world.mint()
    except StorageError:
        return
    del held
    _check_durable(world, disk, Held.of(world.book))


def _patiently(work: Callable[[], R]) -> R:
    """It may have to find out first that its connection is no good any more."""
    for left in reversed(range(TRIES)):
        try:
            return work()
        except StorageError:
            if not left:
                raise
    raise AssertionError


def _check_one_step(name: str, before: Held, after: Held, *, answered: bool) -> None:
    contracts = {one.renter for one in after.contracts}
    if not {one.renter for one in before.contracts} <= contracts:
        raise ViolationError("a contract is missing")
    if answered and name == "redeem" and BERTA not in contracts:
        raise ViolationError("the redeem that was answered is missing")
    if answered and name == "withdraw" and before.open_invites <= after.open_invites:
        raise ViolationError("the withdrawal that was answered is missing")


def _check_spent_once(world: Ledger) -> None:
    winners = []
    for renter in (EVE, BERTA):
        try:
            _patiently(lambda renter=renter: world.book.redeem(world.serial, renter))
        except InviteSpentError:
            continue
        winners.append(renter)
    if len(winners) != 1:
        raise ViolationError(f"one invite, {len(winners)} contracts")


def _check_durable(world: Ledger, disk: SqlDisk, held: Held) -> None:
    """After a power cut now, all that was answered would be there."""
    target = world.folder.with_name(f"{world.folder.name}-cut")
    disk.after_a_power_cut(target)
    try:
        book = ContractDatabase(
            target / world.path.name, farmer_key=KEY, now_ms=lambda: START_MS, digest=digest
        )
        try:
            found = Held.of(book)
        finally:
            book.close()
    finally:
        shutil.rmtree(target)
    if found.contracts != held.contracts:
        raise ViolationError("what was answered is not durable")
