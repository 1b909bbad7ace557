"""What a contract takes back of the one before: told whatever else it says."""

from dataclasses import replace

import pytest

from farmer.client.terms import TakenBack, more_than_agreed, taken_back
from farmer.model.contract import Contract, Offer, Price
from farmer.model.ids import ContractId, NodeId
from farmer.running.remembering import RECOVERED_REVISION

NOW_MS = 10**12
PRICE = Price(currency="EUR", stored_micros=5, served_micros=5)
BEFORE = Contract(
    contract=ContractId(bytes(16)),
    farmer_key=bytes(32),
    renter=NodeId(bytes(32)),
    revision=5,
    space_bytes=10**9,
    from_ms=1,
    until_ms=2 * NOW_MS,
    price=PRICE,
    issued_at_ms=1,
)
OTHER = ContractId(b"7" * 16)


def back(now_ms: int = NOW_MS, offer: Offer | None = None, **changes: object) -> TakenBack:
    return taken_back(BEFORE, replace(BEFORE, **changes), now_ms, offer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"revision": 6},
        {"revision": 6, "space_bytes": 10**10, "until_ms": 3 * NOW_MS},
        {"revision": 6, "price": replace(PRICE, stored_micros=4)},
        {"revision": 6, "price": Price()},
        {"revision": RECOVERED_REVISION, "from_ms": NOW_MS},
    ],
)
def test_a_later_contract_with_the_same_or_better_terms_takes_nothing_back(changes) -> None:
    assert back(**changes) == TakenBack()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"revision": 4}, "revision 4 after 5"),
        ({"until_ms": 3 * NOW_MS}, "revision 5 after 5"),
        (
            {"revision": 6, "price": replace(PRICE, served_micros=6)},
            "a price of 0.000005 EUR stored and 0.000006 EUR retrieved in place of 0.000005 EUR",
        ),
        ({"revision": 6, "price": replace(PRICE, currency="ZWL")}, "ZWL retrieved in place of"),
        ({"revision": 6, "from_ms": NOW_MS + 1}, "a beginning that is to come, 2001-09-09 01:46"),
        ({"contract": OTHER, "revision": 1}, "another contract in place of 00"),
        ({"contract": OTHER, "revision": 9}, "another contract in place of 00"),
    ],
)
def test_what_no_farmer_does_to_a_contract_is_told_as_rewritten(changes, told) -> None:
    assert told in back(**changes).rewritten
    assert not back(**changes).shortened


@pytest.mark.parametrize("revision", [6, RECOVERED_REVISION, 2**32 - 1])
def test_an_end_or_a_space_that_became_less_is_told_with_any_later_revision(revision) -> None:
    """A contract that was made again has such a number, and may know less, but says so."""
    less = back(revision=revision, until_ms=NOW_MS, space_bytes=10**9 - 1, price=Price())
    assert not less.rewritten
    assert "999999999B in place of 1GB" in less.shortened
    assert "an earlier end, 2001-09-09 01:46 UTC in place of" in less.shortened


def test_all_that_is_taken_back_is_told() -> None:
    told = str(back(revision=1, until_ms=NOW_MS, space_bytes=5))
    assert told.startswith("revision 1 after 5, 5B in place of 1GB, an earlier end")


def test_a_contract_that_is_over_binds_no_other() -> None:
    over_ms = BEFORE.until_ms
    assert back(over_ms, contract=OTHER, revision=1, space_bytes=1) == TakenBack()
    assert back(over_ms - 1, contract=OTHER, revision=1, space_bytes=1).rewritten
    assert back(over_ms, revision=1).rewritten


def test_the_price_of_the_invite_that_was_redeemed_is_none_that_was_taken_back() -> None:
    dear = replace(PRICE, stored_micros=9)
    offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=1, expires_at_ms=2, price=dear)
    assert back(offer=offer, revision=6, price=dear) == TakenBack()
    dearer = replace(dear, stored_micros=10)
    assert "a price of 0.00001 EUR stored" in back(offer=offer, revision=6, price=dearer).rewritten
    assert back(offer=offer, revision=6, price=dear, until_ms=NOW_MS).shortened


def test_no_invite_is_cheaper_than_free() -> None:
    """In whatever currency."""
    offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=1, expires_at_ms=2, price=PRICE)
    assert more_than_agreed(replace(BEFORE, price=Price(currency="ZWL")), offer, NOW_MS) is False
    assert more_than_agreed(replace(BEFORE, price=replace(PRICE, currency="ZWL")), offer, NOW_MS)
