"""What `farmer invite`, `contract` and `clock` print, for people; the desk behind them is real."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farmer.cli import owner_rent
from farmer.cli.exits import OK
from farmer.cli.owner import main
from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest, parse_link
from farmer.model.contract import Contract, Price
from farmer.model.ids import NodeId
from farmer.model.shard import Usage
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.running.home import Home
from farmer.storage.contracts import ContractDatabase

DAY_MS = 86_400_000
GB = 10**9
RENTER = NodeId(b"r" * 32)
EURO = Price(currency="EUR", stored_micros=1_500_000, served_micros=5_000_000)
CONTRACT, SERIAL = "02" * 16, "03" * 16
"""Of a desk that has drawn three times."""


class Office:
    """A desk at a moment that stands still, and what is drawn there in a known order."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_700_000_000_000
        self.lost: list[Contract] = []
        """What a recovery makes again."""
        identity = Identity.of_key(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
        numbers = count(1)
        self.book = ContractDatabase(
            folder / "book",
            farmer_key=identity.public_key,
            now_ms=lambda: self.now_ms,
            digest=contract_digest,
            random_bytes=lambda size: bytes([next(numbers)]) * size,
        )
        terms = HouseTerms(
            price=EURO,
            addresses=lambda: ("farmer.example:4646",),
            capacity_bytes=lambda: 100 * GB,
            usable_bytes=lambda: 100 * GB,
        )
        self.desk = OwnerDesk(
            *(self.book, identity, lambda: self.now_ms, terms),
            usage=lambda _renter: Usage(live_bytes=5),
            recovery=lambda: self.lost,
        )

    def ask(self, _home: Home, verb: str, words: dict[str, Any]) -> dict[str, Any]:
        return self.desk.do(verb, words)

    def offer(self, space_gb: int, days: int) -> str:
        """Make an invite and return its line."""
        words = {"space_bytes": space_gb * GB, "duration_ms": days * DAY_MS}
        line: str = self.desk.do("invite", words | {"expires_ms": 7 * DAY_MS})["invite"]
        return line


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """A farmer without any renter."""
    office = Office(tmp_path)
    monkeypatch.setattr(owner_rent, "ask", office.ask)
    yield office
    office.book.close()


@pytest.fixture
def office(empty: Office) -> Office:
    """A farmer with a contract and an open invite."""
    empty.book.redeem(parse_link(empty.offer(10, 90)).invite.serial, RENTER)
    empty.offer(5, 30)
    return empty


def printed(capsys: pytest.CaptureFixture[str], words: str) -> str:
    """Run one command that succeeds; return all that it prints."""
    assert main(["--home", "/nowhere", *words.split()]) == OK
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


LISTED = """\
CONTRACT  RENTER            STAGE   SPACE  USED  UNTIL                 PRICE
02020202  7272727272727272  active  10 GB   5 B  2024-02-12 22:13 UTC  1.5 + 5 EUR
"""

SHOWN = f"""\
contract  {CONTRACT}
renter    {RENTER}
stage     active
space     10 GB
from      2023-11-14 22:13 UTC
until     2024-02-12 22:13 UTC
price     1.5 + 5 EUR
revision  1
"""

LONGER = f"""\
contract  {CONTRACT}
renter    {RENTER}
stage     active
space     20 GB
from      2023-11-14 22:13 UTC
until     2024-03-13 22:13 UTC
price     1.5 + 5 EUR
revision  2
"""

ENDED = f"""\
contract  {CONTRACT}
renter    {RENTER}
stage     grace
space     10 GB
from      2023-11-14 22:13 UTC
until     2023-11-14 22:13 UTC
price     1.5 + 5 EUR
revision  2

The contract has ended. The renter can store no more, and can read until 2023-11-28 22:13 UTC; \
then the shards are in the trash for 7 d, then gone.
To take it back until then: farmer contract extend 02020202 --for 30d
"""

INVITES = f"""\
SERIAL                            SPACE  FOR   EXPIRES               INVITE
{SERIAL}   5 GB  30 d  2023-11-21 22:13 UTC  LINE
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("invite list", INVITES),
        ("invite withdraw 03030303", f"withdrawn: {SERIAL}\n"),
        ("contract list", LISTED),
        ("contract show 02020202", SHOWN),
        (f"contract show {CONTRACT}", SHOWN),
        ("contract extend 02020202 --for 30d --space 20GB", LONGER),
        ("contract end 02020202", ENDED),
        ("contract recover", "no shard is without its contract\n"),
        ("clock confirm", "the clock is right: it is 2023-11-14 22:13 UTC\n"),
    ],
)
def test_what_an_owner_reads(
    office: Office, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    [invite] = office.desk.open_invites()
    assert printed(capsys, words) == told.replace("LINE", invite["invite"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("invite list", "no open invites\n"),
        ("contract list", "no contracts\n"),
        ("contract recover", "no shard is without its contract\n"),
    ],
)
def test_what_an_owner_without_renters_reads(
    empty: Office, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    assert printed(capsys, words) == told


def test_contracts_that_were_made_again_are_listed_with_what_they_lack(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    office.lost = [contract for contract, _ in office.book.contracts()]
    lacking = (
        "\nThese renters can retrieve what they stored. Prices are not known any more, and there"
        " is no room for more: for that make them new invites.\n"
    )
    assert printed(capsys, "contract recover") == LISTED + lacking

    def aside(*asked: Any) -> dict[str, Any]:
        return office.ask(*asked) | {"set_aside": "/home/book.damaged-1"}

    monkeypatch.setattr(owner_rent, "ask", aside)
    told = "the damaged contract database was set aside: /home/book.damaged-1\n"
    assert printed(capsys, "contract recover") == told + LISTED + lacking


def test_what_is_left_of_a_contract_that_had_ended(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capsys, "contract end 02020202")
    again = ENDED.replace("The contract has ended.", "This contract had ended already.")
    assert printed(capsys, "contract end 02020202") == again

    def in_the_trash(*asked: Any) -> dict[str, Any]:
        answer = office.ask(*asked)
        return answer | {"contract": answer["contract"] | {"stage": "trash"}}

    monkeypatch.setattr(owner_rent, "ask", in_the_trash)
    told = printed(capsys, "contract end 02020202").splitlines()[-1]
    gone_soon = "Its shards are in the trash: they cannot be read, and go soon."
    assert told == f"This contract had ended already. {gone_soon}"


def test_what_is_used_is_not_known_of_a_stopped_farmer(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.desk._usage = None
    assert printed(capsys, "contract list") == LISTED.replace("  5 B", "    -")


@pytest.mark.parametrize(
    ("words", "price"),
    [
        ("", EURO),
        ("--price 2", Price(currency="EUR", stored_micros=2_000_000, served_micros=5_000_000)),
        ("--price-served 0", Price(currency="EUR", stored_micros=1_500_000)),
        (
            "--price 0.07 --price-served 7.25 --currency CHF",
            Price(currency="CHF", stored_micros=70_000, served_micros=7_250_000),
        ),
    ],
)
def test_an_invite_asks_what_its_owner_says_or_else_the_settings(
    office: Office, capsys: pytest.CaptureFixture[str], words: str, price: Price
) -> None:
    """The line alone is printed: it is to be sent to somebody."""
    line = printed(capsys, f"invite --space 1GB --for 30d {words}")
    assert parse_link(line.removesuffix("\n")).invite.offer.price == price
    assert line.removesuffix("\n") == office.desk.open_invites()[-1]["invite"]


def test_a_clock_that_was_confirmed_is_doubted_no_more(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = office.book.clock
    clock.tick(office.now_ms, 0.0)
    office.now_ms -= 400 * DAY_MS
    clock.tick(office.now_ms, 60.0)
    assert clock.doubt
    assert printed(capsys, "clock confirm") == "the clock is right: it is 2022-10-10 22:13 UTC\n"
    assert not clock.doubt
