"""The rows of the contract database: each comes back as it was put, and each query by its rule."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.contract import Contract, ContractStage, Offer, Price
from farmer.model.ids import ContractId, InviteSerial, NodeId
from farmer.storage import book_rows
from farmer.storage.book import Book
from farmer.storage.book_rows import InviteState, KnownInvite
from farmer.storage.lifetime import HeldContract
from tests.storage_contracts.world import ANNA, BERTA, KEY

PRICE = Price(currency="EUR", stored_micros=2, served_micros=3)


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    book = Book(tmp_path / "contracts.sqlite", KEY)
    with book.writing() as rows:
        yield rows
    book.close()


def serial(number: int) -> InviteSerial:
    return InviteSerial(bytes([number]) * 16)


def offer(number: int = 1) -> Offer:
    return Offer(
        space_bytes=1000 + number,
        duration_ms=2000 + number,
        created_at_ms=3000 - number,
        expires_at_ms=4000 + number,
        price=PRICE,
    )


def contract(number: int = 1, renter: NodeId = ANNA) -> Contract:
    return Contract(
        contract=ContractId(bytes([number]) * 16),
        farmer_key=KEY,
        renter=renter,
        revision=number,
        space_bytes=100 * number,
        from_ms=50 - number,
        until_ms=60 + number,
        issued_at_ms=70 + number,
        previous=bytes([number]) * 32,
        price=PRICE,
    )


def held(
    number: int = 1, renter: NodeId = ANNA, stage: ContractStage = ContractStage.ACTIVE
) -> HeldContract:
    return HeldContract(contract(number, renter), stage, 80 + number)


def test_a_contract_comes_back_as_it_was_put(rows: sqlite3.Connection) -> None:
    one, other = held(1), held(2, BERTA, ContractStage.GRACE)
    for each in (one, other):
        book_rows.put_contract(rows, each)
    assert book_rows.find_contract(rows, KEY, one.contract.contract) == one
    assert book_rows.find_contract_of(rows, KEY, BERTA) == other
    assert book_rows.find_contract(rows, KEY, ContractId(bytes(16))) is None
    assert list(book_rows.live_contracts(rows, KEY)) == [other, one], "the oldest first"


def test_a_revision_takes_the_place_of_the_one_before(rows: sqlite3.Connection) -> None:
    book_rows.put_contract(rows, held(1))
    revised = replace(held(2), contract=replace(contract(2), contract=contract(1).contract))
    book_rows.put_contract(rows, revised)
    assert list(book_rows.live_contracts(rows, KEY)) == [revised]


def test_a_contract_that_moves_keeps_all_but_its_stage(rows: sqlite3.Connection) -> None:
    book_rows.put_contract(rows, held(1))
    book_rows.put_contract(rows, held(2, BERTA))
    book_rows.move_contract(rows, contract(1).contract, ContractStage.TRASH, 99)
    moved = HeldContract(contract(1), ContractStage.TRASH, 99)
    assert book_rows.find_contract_of(rows, KEY, ANNA) == moved
    assert book_rows.find_contract_of(rows, KEY, BERTA) == held(2, BERTA)


def test_a_contract_that_is_gone_is_known_until_its_shards_are(rows: sqlite3.Connection) -> None:
    book_rows.put_contract(rows, held(1))
    book_rows.put_contract(rows, held(2, BERTA))
    book_rows.mark_purged(rows, contract(1).contract)
    assert not book_rows.is_being_purged(rows, ANNA)
    book_rows.move_contract(rows, contract(1).contract, ContractStage.GONE, 99)
    gone = HeldContract(contract(1), ContractStage.GONE, 99)
    assert book_rows.contracts_to_purge(rows, KEY) == [gone]
    assert book_rows.is_being_purged(rows, ANNA)
    assert not book_rows.is_being_purged(rows, BERTA)
    assert book_rows.find_contract_of(rows, KEY, ANNA) is None
    assert book_rows.find_contract(rows, KEY, contract(1).contract) is None
    assert book_rows.known_renters(rows) == {ANNA.raw, BERTA.raw}
    assert book_rows.promised_bytes(rows, 0) == 300
    book_rows.mark_purged(rows, contract(1).contract)
    assert book_rows.contracts_to_purge(rows, KEY) == []
    assert not book_rows.is_being_purged(rows, ANNA)
    assert book_rows.known_renters(rows) == {BERTA.raw}
    assert book_rows.promised_bytes(rows, 0) == 200


def test_an_invite_comes_back_as_it_was_put(rows: sqlite3.Connection) -> None:
    for number in (1, 2, 3):
        book_rows.add_invite(rows, serial(number), offer(number))
    known = KnownInvite(serial(1), offer(1), InviteState.OPEN, None, None)
    assert book_rows.find_invite(rows, serial(1)) == known
    assert book_rows.find_invite(rows, serial(9)) is None
    order = [one.serial for one in book_rows.open_invites(rows, 0)]
    assert order == [serial(number) for number in (3, 2, 1)], "the oldest first"
    left = [one.serial for one in book_rows.open_invites(rows, 4001)]
    assert left == [serial(3), serial(2)], "what has expired cannot be redeemed"
    assert book_rows.promised_bytes(rows, 4001) == 1002 + 1003


def test_an_invite_is_spent_or_withdrawn_alone(rows: sqlite3.Connection) -> None:
    for number in (1, 2, 3, 4):
        book_rows.add_invite(rows, serial(number), offer(number))
    book_rows.put_contract(rows, held(1))
    book_rows.spend_invite(rows, serial(1), ANNA, contract(1).contract)
    book_rows.withdraw_invite(rows, serial(2))
    spent = KnownInvite(serial(1), offer(1), InviteState.SPENT, ANNA, contract(1).contract)
    assert book_rows.find_invite(rows, serial(1)) == spent
    withdrawn = KnownInvite(serial(2), offer(2), InviteState.WITHDRAWN, None, None)
    assert book_rows.find_invite(rows, serial(2)) == withdrawn
    assert [one.serial for one in book_rows.open_invites(rows, 0)] == [serial(4), serial(3)]
    book_rows.withdraw_open_invites(rows)
    assert book_rows.open_invites(rows, 0) == []
    assert book_rows.find_invite(rows, serial(1)) == spent
    assert book_rows.promised_bytes(rows, 0) == 100


def test_what_stands_on_the_disk_is_read_by_later_releases(rows: sqlite3.Connection) -> None:
    """The numbers of states and stages, as the format has them."""
    for number in (1, 2, 3):
        book_rows.add_invite(rows, serial(number), offer(number))
    book_rows.put_contract(rows, held(1, stage=ContractStage.TRASH))
    book_rows.spend_invite(rows, serial(2), ANNA, contract(1).contract)
    book_rows.withdraw_invite(rows, serial(3))
    states = rows.execute("SELECT state FROM invites ORDER BY serial").fetchall()
    assert states == [(0,), (1,), (2,)]
    assert rows.execute("SELECT stage FROM contracts").fetchone() == (2,)
