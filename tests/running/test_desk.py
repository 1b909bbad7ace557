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
from farmer.running.greeting import greeting, places
from farmer.running.home import Home
from farmer.settings.loader import load_text
from farmer.settings.schema import DEFAULTS
from farmer.storage.contracts import ContractDatabase
from tests.running.well import WELL

DAY_MS = 86_400_000
GB = 10**9
RENTER = NodeId(b"r" * 32)
OWN_VOLUMES = load_text("version: 1\nvolumes: [{path: /a, quota: 1GB}]\n", "f", {}).settings


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
    with pytest.raises(OwnerError, match="101 GB wanted, but only 100 GB are not yet promised"):
        invite(desk, space_bytes=101 * GB)


@pytest.mark.parametrize("nothing", ["space_bytes", "duration_ms", "expires_ms"])
def test_an_invite_for_nothing_is_refused(desk: OwnerDesk, nothing: str) -> None:
    with pytest.raises(OwnerError, match="needs some space"):
        invite(desk, **{nothing: 0})
    assert desk.do("invites", {})["invites"] == []


def test_promising_more_than_the_disks_can_hold_now_is_told(
    desk: OwnerDesk, book: ContractDatabase
) -> None:
    """The quotas are the rule; what is free on the disks is a warning."""
    desk.terms = house(usable_bytes=25 * GB)
    assert "warning" not in invite(desk)
    assert "warning" not in invite(desk)
    warning = invite(desk)["warning"]
    assert warning.startswith("30 GB are promised now")
    assert "can hold 25 GB of shards" in warning
    contract = redeem(desk, book)
    longer = desk.do("contract-extend", {"contract": contract, "for_ms": DAY_MS})
    assert "40 GB" in longer["warning"]


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


def test_without_an_address_open_invites_are_listed_and_withdrawn(desk: OwnerDesk) -> None:
    """Only their lines are not there."""

    def nowhere() -> tuple[str, ...]:
        raise NoAddressError("set announce:")

    made = invite(desk, space_bytes=1)
    desk.terms = replace(desk.terms, addresses=nowhere)
    [row] = desk.do("invites", {})["invites"]
    assert {"schema": 1} | row == made | {"invite": ""}
    desk.do("invite-withdraw", {"serial": row["serial"]})
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
    assert desk.do("contract-end", {"contract": contract})["had_ended"]
    assert desk.do("contract", {"contract": contract})["contract"] == ended


def test_no_contract_grows_beyond_what_there_is(desk: OwnerDesk, book: ContractDatabase) -> None:
    contract = redeem(desk, book)
    words = {"contract": contract, "for_ms": DAY_MS, "space_bytes": 101 * GB}
    with pytest.raises(OwnerError, match="not yet promised"):
        desk.do("contract-extend", words)
    with pytest.raises(OwnerError, match="has 10 GB already; it may get more, not less"):
        desk.do("contract-extend", words | {"space_bytes": GB})


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
    """Until it is spent; nobody is invited once there is a contract, but it says how to."""
    first = greeting(DEFAULTS, desk, wall.ms)
    assert first[1].startswith("farmer://")
    wall.ms += DAY_MS
    assert greeting(DEFAULTS, desk, wall.ms) == first
    wall.ms += 365 * DAY_MS
    later = greeting(DEFAULTS, desk, wall.ms)
    assert later[1] != first[1]
    book.redeem(parse_link(later[1]).invite.serial, RENTER)
    [line] = greeting(DEFAULTS, desk, wall.ms, naming=lambda words: f"{words}, here")
    assert line == "no invite is open; make one with: farmer invite --space 1GB --for 90d, here"


def test_a_first_farmer_without_an_address_says_what_to_do(desk: OwnerDesk, wall: Wall) -> None:
    """It starts all the same, and no invite is open that nobody could be shown."""

    def nowhere() -> tuple[str, ...]:
        raise NoAddressError("set announce:")

    known, desk.terms = desk.terms, replace(desk.terms, addresses=nowhere)
    [line] = greeting(DEFAULTS, desk, wall.ms)
    assert line.startswith("no invite is shown: set announce:; then make one with: farmer invite")
    desk.terms = known
    assert desk.do("invites", {})["invites"] == []


def test_an_invite_is_not_for_the_journal(desk: OwnerDesk, wall: Wall) -> None:
    """Others read that too: it says how to have the line printed."""
    [line] = greeting(DEFAULTS, desk, wall.ms, to_journal=True)
    assert "farmer://" not in line
    assert "farmer invite list" in line
    assert len(desk.do("invites", {})["invites"]) == 1


def test_a_first_farmer_says_where_things_are(tmp_path: Path) -> None:
    """Until somebody names volumes in its settings."""
    home = Home.at(tmp_path)
    sizes = {"quota_bytes": 5 * GB, "allowance_bytes": GB, "free_bytes": 4 * GB}
    volume = replace(WELL, path="/x/volume", **sizes)
    assert places(home, DEFAULTS, [volume]) == [
        f"home      {tmp_path}",
        "volume    /x/volume (5 GB)",
        f"settings  {tmp_path}/farmer.yaml (none yet; they would go there)",
    ]
    small = places(home, DEFAULTS, [replace(volume, free_bytes=2 * GB)])
    assert small[1] == "volume    /x/volume (5 GB, but its disk has room for 2 GB of it now)"
    (tmp_path / "farmer.yaml").touch()
    assert places(home, DEFAULTS, [volume])[2] == f"settings  {tmp_path}/farmer.yaml"
    assert places(home, OWN_VOLUMES, [volume]) == []
    assert places(home, OWN_VOLUMES, [volume], is_first=True) == places(home, DEFAULTS, [volume])


def test_a_first_farmer_invites_to_half_of_the_space_for_90_days(
    desk: OwnerDesk, wall: Wall
) -> None:
    """As the README says; for the other half its owner can make an invite of his own."""
    _, line = greeting(DEFAULTS, desk, wall.ms)
    offer = parse_link(line).invite.offer
    assert (offer.space_bytes, offer.duration_ms) == (50 * GB, 90 * DAY_MS)


def test_a_farmer_with_volumes_of_its_own_invites_nobody(desk: OwnerDesk, wall: Wall) -> None:
    assert greeting(OWN_VOLUMES, desk, wall.ms) == []
    assert desk.do("invites", {})["invites"] == []


@pytest.mark.parametrize(
    ("capacity_mb", "usable_mb", "size"),
    [
        (5000, 5000, "1GB"),
        (999, 5000, "500MB"),
        (5000, 60, "50MB"),
        (1, 1, "1MB"),
        (0.5, 1, "SIZE"),
    ],
)
def test_the_invite_that_is_suggested_is_for_a_space_that_there_is(
    desk: OwnerDesk, wall: Wall, capacity_mb: float, usable_mb: float, size: str
) -> None:
    def terms(capacity_mb: float) -> HouseTerms:
        return replace(
            desk.terms,
            capacity_bytes=lambda: int(capacity_mb * 1_000_000),
            usable_bytes=lambda: int(usable_mb * 1_000_000),
        )

    desk.terms = terms(capacity_mb)
    line = greeting(OWN_VOLUMES, desk, wall.ms, is_first=True)[-1]
    assert line == f"invite a renter with: farmer invite --space {size} --for 90d"


def test_what_is_promised_is_not_suggested_again(desk: OwnerDesk, wall: Wall) -> None:
    capacity_bytes = desk.terms.capacity_bytes()
    desk.do(
        "invite",
        {"space_bytes": capacity_bytes - GB // 2, "duration_ms": DAY_MS, "expires_ms": DAY_MS},
    )
    line = greeting(OWN_VOLUMES, desk, wall.ms, is_first=True)[-1]
    assert line.endswith("farmer invite --space 500MB --for 90d")


def test_a_farmer_with_volumes_of_its_own_says_once_how_to_invite(
    desk: OwnerDesk, wall: Wall
) -> None:
    """With the address that renters will call, or what is wanting for one."""
    lines = greeting(OWN_VOLUMES, desk, wall.ms, is_first=True, naming=lambda words: f"{words}!")
    [address] = desk.terms.addresses()
    assert lines == [
        f"address   {address} (as invites name it)",
        "invite a renter with: farmer invite --space 1GB --for 90d!",
    ]
    assert desk.do("invites", {})["invites"] == []

    def nowhere() -> tuple[str, ...]:
        raise NoAddressError("set announce:")

    desk.terms = replace(desk.terms, addresses=nowhere)
    [line] = greeting(OWN_VOLUMES, desk, wall.ms, is_first=True)
    assert line.startswith("no invite is shown: set announce:; then make one with: farmer invite")


def test_the_owner_confirms_the_clock(desk: OwnerDesk, book: ContractDatabase, wall: Wall) -> None:
    book.clock.tick(wall.ms, 0.0)
    wall.ms -= 400 * DAY_MS
    book.clock.tick(wall.ms, 60.0)
    assert book.clock.doubt
    assert desk.do("clock-confirm", {}) == {"schema": 1, "now_ms": wall.ms}
    assert not book.clock.doubt
