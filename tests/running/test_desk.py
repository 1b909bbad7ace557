from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest, invite_is_ours, parse_link
from farmer.model.contract import Price
from farmer.model.ids import NodeId
from farmer.model.shard import Usage
from farmer.running.addresses import NoAddressError
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.running.errors import OwnerError
from farmer.running.greeting import greeting
from farmer.settings.loader import load_text
from farmer.settings.schema import DEFAULTS
from farmer.storage.contracts import ContractDatabase

DAY_MS = 86_400_000
GB = 10**9
RENTER = NodeId(b"r" * 32)


class Wall:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.create(tmp_path / "identity")


@pytest.fixture
def book(tmp_path: Path, identity: Identity, wall: Wall) -> Iterator[ContractDatabase]:
    book = ContractDatabase(
        tmp_path / "book", farmer_key=identity.public_key, now_ms=wall, digest=contract_digest
    )
    yield book
    book.close()


def house(
    capacity_bytes: int = 100 * GB, usable_bytes: int = 100 * GB, **price: Any
) -> HouseTerms:
    return HouseTerms(
        price=Price(**price),
        addresses=lambda: ("farmer.example:4646",),
        capacity_bytes=lambda: capacity_bytes,
        usable_bytes=lambda: usable_bytes,
    )


@pytest.fixture
def desk(book: ContractDatabase, identity: Identity, wall: Wall) -> OwnerDesk:
    return OwnerDesk(book, identity, wall, house(), lambda _: Usage(live_bytes=5))


def invite(desk: OwnerDesk, **words: Any) -> dict[str, Any]:
    usual = {"space_bytes": 10 * GB, "duration_ms": 90 * DAY_MS, "expires_ms": 7 * DAY_MS}
    return desk.do("invite", usual | words)


def redeem(desk: OwnerDesk, book: ContractDatabase) -> str:
    book.redeem(parse_link(invite(desk)["invite"]).invite.serial, RENTER)
    contract: str = desk.do("contracts", {})["contracts"][0]["contract"]
    return contract


def test_an_invite_is_a_signed_line(desk: OwnerDesk, identity: Identity) -> None:
    answer = invite(desk)
    link = parse_link(answer["invite"])
    assert link.farmer == identity.node_id
    assert link.addresses == ("farmer.example:4646",)
    assert invite_is_ours(identity, link.invite)
    assert answer["schema"] == 1


def test_an_open_invite_is_shown_as_the_same_line(desk: OwnerDesk) -> None:
    """Signatures are deterministic: nothing but terms and serial has to be kept."""
    line = invite(desk)["invite"]
    assert [row["invite"] for row in desk.do("invites", {})["invites"]] == [line]


def test_a_withdrawn_invite_is_gone(desk: OwnerDesk) -> None:
    serial = invite(desk)["serial"]
    assert desk.do("invite-withdraw", {"serial": serial[:8]})["serial"] == serial
    assert desk.do("invites", {})["invites"] == []
    with pytest.raises(OwnerError, match="there is no open invite"):
        desk.do("invite-withdraw", {"serial": serial})


def test_no_more_is_promised_than_there_is(desk: OwnerDesk) -> None:
    with pytest.raises(OwnerError, match="withdraw an invite, or give a volume more quota"):
        invite(desk, space_bytes=101 * GB)


def test_without_an_address_no_invite_is_opened(desk: OwnerDesk) -> None:
    def nowhere() -> tuple[str, ...]:
        raise NoAddressError("set announce:")

    addressed, desk.terms = (
        desk.terms,
        replace(desk.terms, addresses=nowhere),
    )
    with pytest.raises(OwnerError, match="set announce:"):
        invite(desk, space_bytes=1)
    desk.terms = addressed
    assert desk.do("invites", {})["invites"] == []


def test_prices_come_from_the_settings_or_the_command(desk: OwnerDesk) -> None:
    desk.terms = house(currency="EUR", stored_micros=5)
    assert invite(desk)["price"] == {"currency": "EUR", "stored_micros": 5, "served_micros": 0}
    other = invite(desk, stored_micros=7, served_micros=8, currency="CHF")["price"]
    assert other == {"currency": "CHF", "stored_micros": 7, "served_micros": 8}
    desk.terms = house()
    with pytest.raises(OwnerError, match="--currency EUR"):
        invite(desk, stored_micros=7)


def test_a_contract_is_shown_extended_and_ended(
    desk: OwnerDesk, book: ContractDatabase, wall: Wall
) -> None:
    contract = redeem(desk, book)
    [row] = desk.do("contracts", {})["contracts"]
    assert (row["renter"], row["stage"], row["used_bytes"]) == (str(RENTER), "active", 5)
    words = {"contract": contract[:8], "for_ms": DAY_MS, "space_bytes": 20 * GB}
    longer = desk.do("contract-extend", words)["contract"]
    assert longer["until_ms"] == row["until_ms"] + DAY_MS
    assert longer["space_bytes"] == 20 * GB
    ended = desk.do("contract-end", {"contract": contract})["contract"]
    assert (ended["until_ms"], ended["stage"]) == (wall.ms, "grace")
    assert desk.do("contract", {"contract": contract})["contract"] == ended


def test_no_contract_grows_beyond_what_there_is(desk: OwnerDesk, book: ContractDatabase) -> None:
    contract = redeem(desk, book)
    words = {"contract": contract, "for_ms": DAY_MS, "space_bytes": 101 * GB}
    with pytest.raises(OwnerError, match="not yet promised"):
        desk.do("contract-extend", words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"contract": "abc"}, "too short"),
        ({"contract": "0" * 32}, "there is no contract"),
        ({}, "not understood"),
        ({"contract": 5}, "too short"),
    ],
)
def test_contracts_that_are_none(
    desk: OwnerDesk, book: ContractDatabase, words: dict[str, Any], told: str
) -> None:
    redeem(desk, book)
    with pytest.raises(OwnerError, match=told):
        desk.do("contract", words)


def test_a_first_farmer_greets_with_the_same_invite_again(
    desk: OwnerDesk, book: ContractDatabase, wall: Wall
) -> None:
    """Until it is spent; and nobody is invited once there is a contract."""
    first = greeting(DEFAULTS, desk, wall.ms)
    assert first[1].startswith("farmer://")
    wall.ms += DAY_MS
    assert greeting(DEFAULTS, desk, wall.ms) == first
    wall.ms += 365 * DAY_MS
    later = greeting(DEFAULTS, desk, wall.ms)
    assert later[1] != first[1]
    book.redeem(parse_link(later[1]).invite.serial, RENTER)
    assert greeting(DEFAULTS, desk, wall.ms) == []


def test_a_farmer_with_volumes_of_its_own_invites_nobody(desk: OwnerDesk, wall: Wall) -> None:
    text = "version: 1\nvolumes: [{path: /a, quota: 1GB}]\n"
    assert greeting(load_text(text, "f", {}).settings, desk, wall.ms) == []
    assert desk.do("invites", {})["invites"] == []


def test_the_owner_confirms_the_clock(desk: OwnerDesk, book: ContractDatabase, wall: Wall) -> None:
    book.clock.tick(wall.ms, 0.0)
    wall.ms -= 400 * DAY_MS
    book.clock.tick(wall.ms, 60.0)
    assert book.clock.doubt
    assert desk.do("clock-confirm", {}) == {"schema": 1, "now_ms": wall.ms}
    assert not book.clock.doubt
