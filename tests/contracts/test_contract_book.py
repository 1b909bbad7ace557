"""What every `ContractBook` promises, held against the fake and the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from farmer.identity.signing import contract_digest
from farmer.model.contract import ContractStage, Offer
from farmer.model.ids import InviteSerial, NodeId
from farmer.node.ports import ContractBook
from farmer.storage.contracts import ContractDatabase
from farmer.storage.errors import (
    InviteExpiredError,
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
)
from tests.fakes import MemoryBook, TestSigner

ME, YOU = NodeId(b"m" * 32), NodeId(b"y" * 32)
DAY_MS = 86_400_000


class Bench(Protocol):
    """A book, its clock, and the owner's way to make invites."""

    book: ContractBook
    now_ms: int

    def mint(self, offer: Offer) -> InviteSerial: ...


class FakeBench:
    def __init__(self, _folder: Path) -> None:
        self.now_ms = 1_000
        self._minted = 0
        self.book = MemoryBook(TestSigner(), lambda: self.now_ms)

    def mint(self, offer: Offer) -> InviteSerial:
        self._minted += 1
        serial = InviteSerial(self._minted.to_bytes(16, "big"))
        self.book.mint(serial, offer)
        return serial

    def close(self) -> None:
        pass


class RealBench:
    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_000
        self.book = ContractDatabase(
            folder / "contracts.sqlite",
            farmer_key=TestSigner().public_key,
            now_ms=lambda: self.now_ms,
            digest=contract_digest,
        )

    def mint(self, offer: Offer) -> InviteSerial:
        return self.book.mint(offer, 1 << 50)

    def close(self) -> None:
        self.book.close()


@pytest.fixture(params=[FakeBench, RealBench], ids=["fake", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeBench | RealBench]:
    make: Callable[[Path], FakeBench | RealBench] = request.param
    made = make(tmp_path)
    yield made
    made.close()


def offer(space_bytes: int = 1 << 30, days: int = 90, expires_at_ms: int = DAY_MS) -> Offer:
    return Offer(
        space_bytes=space_bytes,
        duration_ms=days * DAY_MS,
        created_at_ms=0,
        expires_at_ms=expires_at_ms,
    )


def test_an_invite_makes_a_contract_from_now(bench: Bench) -> None:
    contract = bench.book.redeem(bench.mint(offer()), ME)

    assert (contract.renter, contract.revision, contract.space_bytes) == (ME, 1, 1 << 30)
    assert (contract.from_ms, contract.until_ms) == (1_000, 1_000 + 90 * DAY_MS)
    assert contract.farmer_key == TestSigner().public_key
    assert bench.book.find(ME) == (contract, ContractStage.ACTIVE)


def test_who_redeems_again_gets_the_same(bench: Bench) -> None:
    serial = bench.mint(offer())
    first = bench.book.redeem(serial, ME)
    bench.now_ms += 5

    assert bench.book.redeem(serial, ME) == first


def test_who_redeems_again_after_it_expired_gets_the_same(bench: Bench) -> None:
    serial = bench.mint(offer(expires_at_ms=2_000))
    first = bench.book.redeem(serial, ME)
    bench.now_ms = 3_000

    assert bench.book.redeem(serial, ME) == first


def test_an_invite_is_spent_once(bench: Bench) -> None:
    serial = bench.mint(offer())
    bench.book.redeem(serial, ME)

    with pytest.raises(InviteSpentError):
        bench.book.redeem(serial, YOU)
    with pytest.raises(NoContractError):
        bench.book.find(YOU)


def test_an_unknown_invite_is_none(bench: Bench) -> None:
    with pytest.raises(InviteUnknownError):
        bench.book.redeem(InviteSerial(b"?" * 16), ME)


def test_an_invite_expires_at_its_time(bench: Bench) -> None:
    serial = bench.mint(offer(expires_at_ms=2_000))
    bench.now_ms = 2_000

    with pytest.raises(InviteExpiredError) as caught:
        bench.book.redeem(serial, ME)

    assert caught.value.expired_at_ms == 2_000


def test_a_second_invite_renews_and_never_shrinks(bench: Bench) -> None:
    first = bench.book.redeem(bench.mint(offer()), ME)
    bench.now_ms += DAY_MS // 2

    second = bench.book.redeem(bench.mint(offer(space_bytes=5, days=1)), ME)

    assert (second.contract, second.revision) == (first.contract, 2)
    assert (second.space_bytes, second.until_ms) == (first.space_bytes, first.until_ms)
    assert bench.book.find(ME)[0] == second


def test_who_never_came_has_no_contract(bench: Bench) -> None:
    with pytest.raises(NoContractError):
        bench.book.find(ME)
