"""Invites and contracts: what renters and owner can do, and what survives a crash."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farmer.client.terms import TakenBack, less_than_offered, taken_back
from farmer.model.contract import NO_PREVIOUS, ContractStage, Price, renewed
from farmer.model.ids import ContractId, InviteSerial
from farmer.storage.contracts import DURATION_MS_MAX, SPACE_BYTES_MAX, OvercommitError
from farmer.storage.errors import (
    BusyError,
    InviteExpiredError,
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
)
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, KEY, START_MS, World, digest

ACTIVE, GRACE = ContractStage.ACTIVE, ContractStage.GRACE


def test_an_invite_becomes_a_contract(world: World) -> None:
    price = Price(currency="EUR", stored_micros=2_000_000, served_micros=5)
    serial = world.book.mint(world.offer(5000, 30, price), 5000)
    contract = world.book.redeem(serial, ANNA)
    assert contract.renter == ANNA
    assert contract.farmer_key == KEY
    assert (contract.revision, contract.previous) == (1, NO_PREVIOUS)
    assert (contract.space_bytes, contract.price) == (5000, price)
    assert (contract.from_ms, contract.until_ms) == (START_MS, START_MS + 30 * DAY_MS)
    assert world.book.find(ANNA) == (contract, ACTIVE)
    assert world.book.contracts() == [(contract, ACTIVE)]


def test_a_renter_without_a_contract_is_not_found(world: World) -> None:
    world.join(ANNA)
    with pytest.raises(NoContractError):
        world.book.find(BERTA)


def test_an_unknown_invite_is_refused(world: World) -> None:
    with pytest.raises(InviteUnknownError):
        world.book.redeem(InviteSerial(bytes(16)), ANNA)


def test_an_expired_invite_is_refused_with_its_time(world: World) -> None:
    serial = world.mint()
    world.wall_ms += 7 * DAY_MS - 1
    assert [known for known, _ in world.book.open_invites()] == [serial]
    world.wall_ms += 1
    with pytest.raises(InviteExpiredError) as caught:
        world.book.redeem(serial, ANNA)
    assert caught.value.expired_at_ms == START_MS + 7 * DAY_MS
    assert world.book.open_invites() == []


def test_a_withdrawn_invite_is_unknown(world: World) -> None:
    serial = world.mint()
    world.book.withdraw(serial)
    assert world.book.open_invites() == []
    with pytest.raises(InviteUnknownError):
        world.book.redeem(serial, ANNA)
    with pytest.raises(InviteUnknownError):
        world.book.withdraw(serial)


def test_a_spent_invite_cannot_be_withdrawn(world: World) -> None:
    serial = world.mint()
    world.book.redeem(serial, ANNA)
    with pytest.raises(InviteSpentError):
        world.book.withdraw(serial)
    assert world.book.find(ANNA)[1] is ACTIVE


def test_the_same_renter_gets_the_same_contract_again_also_after_the_invite_expired(
    world: World,
) -> None:
    serial = world.mint()
    contract = world.book.redeem(serial, ANNA)
    world.sleep(8 * DAY_MS)
    assert world.book.redeem(serial, ANNA) == contract
    assert world.book.contracts() == [(contract, ACTIVE)]


def test_another_renter_finds_the_invite_spent(world: World) -> None:
    serial = world.mint()
    world.book.redeem(serial, ANNA)
    for _ in range(2):
        with pytest.raises(InviteSpentError):
            world.book.redeem(serial, BERTA)
    with pytest.raises(NoContractError):
        world.book.find(BERTA)


def test_a_holder_of_another_contract_finds_the_invite_spent_too(world: World) -> None:
    serial = world.mint()
    world.book.redeem(serial, ANNA)
    world.join(BERTA)
    with pytest.raises(InviteSpentError):
        world.book.redeem(serial, BERTA)


def test_another_invite_renews_the_one_contract(world: World) -> None:
    first = world.join(ANNA, 1000, 90)
    world.sleep(DAY_MS)
    second = world.join(ANNA, 500, 100)
    assert second.contract == first.contract
    assert (second.revision, second.previous) == (2, digest(first))
    assert (second.space_bytes, second.until_ms) == (1000, START_MS + 101 * DAY_MS)
    assert world.book.contracts() == [(second, ACTIVE)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 400), st.integers(0, 30))))
def test_renewals_never_shorten_and_never_shrink(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[int, int, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("renewals"))
    contract = world.join(ANNA)
    for space_bytes, days, days_later in offers:
        world.wall_ms += days_later * DAY_MS
        offer = world.offer(space_bytes, days)
        after = world.book.redeem(world.book.mint(offer, 1 << 40), ANNA)
        assert after == renewed(contract, offer, world.wall_ms, digest(contract))
        assert after.until_ms >= max(contract.until_ms, world.wall_ms + days * DAY_MS)
        assert after.space_bytes >= max(contract.space_bytes, space_bytes)
        contract = after
    assert world.book.find(ANNA) == (contract, ACTIVE)
    world.book.close()


def test_a_contract_that_is_over_is_renewed_not_replaced(world: World) -> None:
    first = world.join(ANNA, days=10)
    world.live(15)
    assert world.book.find(ANNA)[1] is GRACE
    second = world.join(ANNA, days=10)
    assert second.contract == first.contract
    assert world.book.find(ANNA) == (second, ACTIVE)


def test_invites_and_contracts_never_promise_more_than_there_is(world: World) -> None:
    world.join(ANNA, 400)
    world.book.mint(world.offer(500), 1000)
    with pytest.raises(OvercommitError) as caught:
        world.book.mint(world.offer(101), 1000)
    assert (caught.value.wanted_bytes, caught.value.available_bytes) == (101, 100)
    world.book.mint(world.offer(100), 1000)
    with pytest.raises(OvercommitError) as caught:
        world.book.mint(world.offer(1), 500)
    assert caught.value.available_bytes == 0


def test_withdrawn_and_expired_invites_promise_nothing(world: World) -> None:
    world.book.withdraw(world.book.mint(world.offer(1000), 1000))
    world.book.mint(world.offer(1000), 1000)
    world.wall_ms += 7 * DAY_MS
    world.book.mint(world.offer(1000), 1000)


def test_an_offer_beyond_all_measure_is_a_value_error(world: World) -> None:
    for wrong in (
        replace(world.offer(), duration_ms=DURATION_MS_MAX + 1),
        replace(world.offer(), space_bytes=SPACE_BYTES_MAX + 1),
    ):
        with pytest.raises(ValueError, match="at most"):
            world.book.mint(wrong, 1 << 62)


def test_open_invites_come_with_their_offer_the_oldest_first(world: World) -> None:
    made = []
    for space_bytes in (3, 1, 2):
        offer = world.offer(space_bytes)
        made.append((world.book.mint(offer, 1 << 40), offer))
        world.wall_ms += 1
    assert world.book.open_invites() == made
    assert world.restart().open_invites() == made


def test_the_owner_extends_from_the_end(world: World) -> None:
    old = world.join(ANNA, 1000, 90)
    new = world.book.extend(old.contract, 10 * DAY_MS)
    assert (new.revision, new.previous) == (2, digest(old))
    assert (new.space_bytes, new.until_ms) == (1000, old.until_ms + 10 * DAY_MS)
    assert world.book.find(ANNA) == (new, ACTIVE)


def test_the_owner_extends_what_is_over_from_now(world: World) -> None:
    old = world.join(ANNA, days=10)
    world.live(13)
    new = world.book.extend(old.contract, 10 * DAY_MS)
    assert new.until_ms == world.wall_ms + 10 * DAY_MS
    assert world.book.find(ANNA)[1] is ACTIVE


def test_the_owner_gives_more_space_within_what_there_is(world: World) -> None:
    old = world.join(ANNA, 1000)
    with pytest.raises(OvercommitError):
        world.book.extend(old.contract, DAY_MS, 1501, capacity_bytes=1500)
    assert world.book.find(ANNA)[0] == old
    assert world.book.extend(old.contract, DAY_MS, 1500, capacity_bytes=1500).space_bytes == 1500
    assert world.book.extend(old.contract, DAY_MS, 1500, capacity_bytes=0).space_bytes == 1500
    assert world.book.extend(old.contract, DAY_MS, 9999).space_bytes == 9999


@pytest.mark.parametrize(
    ("for_ms", "space_bytes"), [(0, None), (-1, None), (1, 999), (1, 1 << 51), (1 << 60, None)]
)
def test_an_extension_takes_nothing_away(
    world: World, for_ms: int, space_bytes: int | None
) -> None:
    contract = world.join(ANNA, 1000)
    with pytest.raises(ValueError, match="takes no space away"):
        world.book.extend(contract.contract, for_ms, space_bytes)
    assert world.book.find(ANNA)[0] == contract


def test_the_owner_ends_a_contract_and_grace_begins(world: World) -> None:
    old = world.join(ANNA)
    world.sleep(DAY_MS)
    ended = world.book.end(old.contract)
    assert (ended.until_ms, ended.revision, ended.previous) == (world.wall_ms, 2, digest(old))
    assert world.book.find(ANNA) == (ended, GRACE)
    assert world.book.end(old.contract) == ended


def test_nothing_that_is_done_to_a_contract_here_looks_rewritten_to_its_renter(
    world: World,
) -> None:
    """Who refuses contracts that were rewritten refuses none of an honest farmer."""
    dear = world.offer(1000, 90, Price(currency="EUR", stored_micros=5))
    first = world.join(ANNA, 1000, 90)
    world.sleep(DAY_MS)
    renewed_dear = world.book.redeem(world.book.mint(dear, 1 << 40), ANNA)
    extended = world.book.extend(first.contract, DAY_MS, 2000)
    ended = world.book.end(first.contract)
    again = world.join(ANNA, 3000, 200)
    assert not less_than_offered(renewed_dear, dear)
    assert taken_back(first, renewed_dear, world.wall_ms, dear) == TakenBack()
    assert taken_back(renewed_dear, extended, world.wall_ms) == TakenBack()
    assert taken_back(extended, ended, world.wall_ms).shortened
    assert not taken_back(extended, ended, world.wall_ms).rewritten
    assert taken_back(ended, again, world.wall_ms) == TakenBack()
    assert again.revision == 5


def test_what_the_owner_ended_is_over_also_while_the_clock_is_in_doubt(world: World) -> None:
    contract = world.join(ANNA)
    world.sleep(2 * DAY_MS)
    world.jump(-DAY_MS)
    ended = world.book.end(contract.contract)
    assert world.book.find(ANNA) == (ended, GRACE)


def test_verbs_on_an_unknown_contract_say_so(world: World) -> None:
    for verb in (lambda one: world.book.extend(one, DAY_MS), world.book.end):
        with pytest.raises(NoContractError, match="there is no contract 0000"):
            verb(ContractId(bytes(16)))


def test_everything_survives_a_crash_right_after_the_answer(world: World, tmp_path: Path) -> None:
    """The files as the power cut leaves them, after each answer; nothing was closed."""
    serial = world.mint()
    copy = world.crashed_copy(tmp_path / "minted")
    assert [known for known, _ in copy.book.open_invites()] == [serial]
    contract = copy.book.redeem(serial, BERTA)
    assert contract.renter == BERTA

    contract = world.book.redeem(serial, ANNA)
    copy = world.crashed_copy(tmp_path / "redeemed")
    assert copy.book.redeem(serial, ANNA) == contract
    with pytest.raises(InviteSpentError):
        copy.book.redeem(serial, BERTA)

    extended = world.book.extend(contract.contract, DAY_MS)
    copy = world.crashed_copy(tmp_path / "extended")
    assert copy.book.find(ANNA) == (extended, ACTIVE)

    ended = world.book.end(contract.contract)
    copy = world.crashed_copy(tmp_path / "ended")
    assert copy.book.find(ANNA) == (ended, GRACE)


def test_a_crash_inside_a_redeem_leaves_the_invite_open(world: World, tmp_path: Path) -> None:
    """The power goes when the contract is made and the invite not yet spent."""
    serial = world.mint()
    statements: list[str] = []

    def cut(statement: str) -> None:
        statements.append(statement)
        if statement.startswith("UPDATE invites"):
            copies.append(world.crashed_copy(tmp_path / "cut"))

    copies: list[World] = []
    world.book._book._rows.set_trace_callback(cut)
    world.book.redeem(serial, ANNA)
    world.book._book._rows.set_trace_callback(None)
    (copy,) = copies
    assert any(statement.startswith("INSERT INTO contracts") for statement in statements)
    assert copy.book.contracts() == []
    assert copy.book.redeem(serial, BERTA).renter == BERTA


def test_a_renter_waits_until_the_last_contract_is_purged(world: World) -> None:
    """Else a shard stored again would be found, acknowledged, and removed with the old ones."""
    old = world.join(ANNA, days=1)
    world.live(30)
    assert world.advance() == [old]
    serial = world.mint()
    with pytest.raises(BusyError):
        world.book.redeem(serial, ANNA)
    world.book.purged(old.contract)
    new = world.book.redeem(serial, ANNA)
    assert new.contract != old.contract
    assert new.revision == 1


def test_the_invite_of_a_contract_that_is_gone_is_spent(world: World) -> None:
    serial = world.mint(days=1)
    world.book.redeem(serial, ANNA)
    world.live(30)
    with pytest.raises(InviteSpentError):
        world.book.redeem(serial, ANNA)


def test_how_far_the_database_is_is_noted_before_the_next_change_is_let_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the slower of two changes could note its own state over the newer one."""
    book = world.book._book
    was_locked = []

    class Noting(type(book)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_last":
                was_locked.append(self._lock.locked())
            super().__setattr__(name, value)

    monkeypatch.setattr(book, "__class__", Noting)
    world.mint()
    assert was_locked and all(was_locked)
