"""A contract is asked of the book once, until anything changes there."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from farmer.model.contract import ContractStage
from farmer.model.ids import InviteSerial
from farmer.storage.errors import NoContractError, StorageError, VolumeUnavailableError
from farmer.storage.lifetime import HeldContract
from farmer.storage.remembered import RememberedContracts
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, World


@contextmanager
def queries(world: World) -> Iterator[list[str]]:
    asked: list[str] = []
    rows = world.book._book._rows
    rows.set_trace_callback(asked.append)
    try:
        yield asked
    finally:
        rows.set_trace_callback(None)


def test_the_second_time_nothing_is_asked(world: World) -> None:
    contract = world.join(ANNA)
    world.book.find(ANNA)
    with queries(world) as asked:
        assert world.book.find(ANNA) == (contract, ContractStage.ACTIVE)
    assert asked == []


def test_what_others_do_is_seen(world: World) -> None:
    contract = world.join(ANNA)
    with pytest.raises(NoContractError):
        world.book.find(BERTA)
    world.book.find(ANNA)
    world.join(BERTA)
    assert world.book.find(BERTA)[1] is ContractStage.ACTIVE
    extended = world.book.extend(contract.contract, DAY_MS)
    assert world.book.find(ANNA)[0] == extended
    ended = world.book.end(contract.contract)
    assert world.book.find(ANNA) == (ended, ContractStage.GRACE)


def test_an_invite_that_is_refused_costs_no_other_renter_a_look(world: World) -> None:
    serial = world.mint()
    world.book.redeem(serial, BERTA)
    world.join(ANNA)
    world.book.find(ANNA)
    for refused in (serial, InviteSerial(b"u" * 16)):
        with pytest.raises(StorageError):
            world.book.redeem(refused, ANNA)
    with queries(world) as asked:
        world.book.find(ANNA)
    assert asked == []


def test_time_is_seen(world: World) -> None:
    world.join(ANNA, days=1)
    assert world.book.find(ANNA)[1] is ContractStage.ACTIVE
    world.sleep(2 * DAY_MS)
    assert world.book.find(ANNA)[1] is ContractStage.GRACE


def test_a_closed_book_remembers_nothing(world: World) -> None:
    world.join(ANNA)
    world.book.find(ANNA)
    world.book.close()
    with pytest.raises(VolumeUnavailableError):
        world.book.find(ANNA)


def test_what_was_read_before_a_change_is_not_taken_for_what_came_after(world: World) -> None:
    held = HeldContract(world.join(ANNA), ContractStage.ACTIVE, 0)
    remembered = RememberedContracts()
    remembered.keep(ANNA, held, 5)
    assert remembered.find(ANNA, 5) == held
    assert remembered.find(ANNA, 6) is None
    assert remembered.find(BERTA, 5) is None


def test_memory_is_bounded(world: World) -> None:
    held = HeldContract(world.join(ANNA), ContractStage.ACTIVE, 0)
    remembered = RememberedContracts(contracts_max=1)
    remembered.keep(ANNA, held, 0)
    remembered.keep(BERTA, held, 0)
    assert remembered.find(ANNA, 0) is None
    assert remembered.find(BERTA, 0) == held
