"""The stages of a contract: each lasts, on the wall and as observed; a wrong clock takes none."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from farmer.model.contract import Contract, ContractStage
from farmer.model.ids import ContractId
from farmer.storage.contracts import OvercommitError
from farmer.storage.lifetime import HeldContract, Transition, plan_transitions, stage_at
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, KEY, World

ACTIVE, GRACE, TRASH, GONE = ContractStage
UNTIL = 1000 * DAY_MS


def held(stage: ContractStage, since_day: int = 0) -> HeldContract:
    contract = Contract(
        contract=ContractId(bytes(16)),
        farmer_key=KEY,
        renter=ANNA,
        revision=1,
        space_bytes=1,
        from_ms=0,
        until_ms=UNTIL,
        issued_at_ms=0,
    )
    return HeldContract(contract, stage, since_day * DAY_MS)


def step(stage: ContractStage, days_after_end: float, days_observed: float) -> ContractStage:
    now_ms, observed_ms = UNTIL + int(days_after_end * DAY_MS), int(days_observed * DAY_MS)
    planned = list(plan_transitions([held(stage)], now_ms, observed_ms))
    to = planned[0].to if planned else stage
    assert planned == ([Transition(ContractId(bytes(16)), to)] if to is not stage else [])
    return to


def test_a_contract_is_active_until_its_end() -> None:
    assert step(ACTIVE, -0.001, 999) is ACTIVE
    assert step(ACTIVE, 0, 0) is GRACE


def test_one_sweep_goes_one_stage() -> None:
    assert step(ACTIVE, 500, 500) is GRACE


def test_grace_lasts_14_days_on_the_wall_and_as_observed() -> None:
    assert step(GRACE, 13.999, 14) is GRACE
    assert step(GRACE, 14, 13.999) is GRACE
    assert step(GRACE, 14, 14) is TRASH


def test_trash_lasts_7_days_on_the_wall_and_as_observed() -> None:
    assert step(TRASH, 20.999, 7) is TRASH
    assert step(TRASH, 21, 6.999) is TRASH
    assert step(TRASH, 21, 7) is GONE


def test_a_contract_whose_end_lies_ahead_comes_back() -> None:
    assert step(GRACE, -1, 99) is ACTIVE
    assert step(TRASH, -1, 99) is ACTIVE
    assert step(GONE, -1, 99) is GONE


def test_between_sweeps_a_contract_ends_but_goes_no_further() -> None:
    assert stage_at(held(ACTIVE), UNTIL - 1) is ACTIVE
    assert stage_at(held(ACTIVE), UNTIL + 99 * DAY_MS) is GRACE
    assert stage_at(held(GRACE), UNTIL + 99 * DAY_MS) is GRACE
    assert stage_at(held(TRASH), UNTIL) is TRASH
    assert stage_at(held(TRASH), UNTIL - 1) is ACTIVE
    assert stage_at(held(GONE), UNTIL - 1) is GONE


@given(st.lists(st.tuples(st.integers(-400, 400), st.integers(0, 3)), min_size=1, max_size=60))
def test_nothing_is_gone_before_it_was_observed_for_21_days(moves: list[tuple[int, int]]) -> None:
    """Whatever the wall clock does, forwards or backwards."""
    now_ms, observed_ms, one = UNTIL, 0, held(ACTIVE)
    for wall_days, observed_days in moves:
        now_ms += wall_days * DAY_MS
        observed_ms += observed_days * DAY_MS
        for due in plan_transitions([one], now_ms, observed_ms):
            one = HeldContract(one.contract, due.to, observed_ms)
        if one.stage is GONE:
            assert observed_ms >= 21 * DAY_MS
            break


def test_a_contract_lives_grace_trash_and_is_gone(world: World) -> None:
    contract = world.join(ANNA, days=10)
    stages = {}
    for day in range(1, 40):
        world.live(1)
        stages[day] = world.book.contracts()[0][1] if world.book.contracts() else GONE
    assert stages[9] is ACTIVE
    assert stages[10] is GRACE
    assert stages[23] is GRACE
    assert stages[24] is TRASH
    assert stages[30] is TRASH
    assert stages[31] is GONE
    assert world.book.to_purge() == [contract]


def test_a_purge_that_was_cut_off_is_resumed(world: World, tmp_path: Path) -> None:
    anna, berta = world.join(ANNA, days=1), world.join(BERTA, days=1)
    world.live(30)
    assert {one.contract for one in world.advance()} == {anna.contract, berta.contract}
    world.book.purged(anna.contract)
    copy = world.crashed_copy(tmp_path / "cut")
    assert copy.advance() == [berta]
    copy.book.purged(berta.contract)
    assert copy.advance() == []
    assert copy.restart().to_purge() == []


def test_a_live_contract_cannot_be_marked_as_purged(world: World) -> None:
    contract = world.join(ANNA, days=1)
    world.book.purged(contract.contract)
    world.live(30)
    assert world.advance() == [contract]


def test_the_space_of_a_contract_is_promised_until_its_shards_are_removed(world: World) -> None:
    contract = world.join(ANNA, 1000, days=1)
    world.live(30)
    assert world.book.contracts() == []
    assert refuses(world, 1000)
    world.book.purged(contract.contract)
    assert not refuses(world, 1000)


def refuses(world: World, space_bytes: int) -> bool:
    try:
        world.book.mint(world.offer(space_bytes), 1000)
    except OvercommitError:
        return True
    return False


def test_days_that_the_machine_was_off_are_not_taken_from_the_renter(world: World) -> None:
    world.join(ANNA, days=10)
    world.live(5)
    world.restart(off_ms=40 * DAY_MS)
    world.advance()
    assert world.book.find(ANNA)[1] is GRACE
    world.live(13)
    assert world.book.find(ANNA)[1] is GRACE
    world.live(1)
    assert world.book.find(ANNA)[1] is TRASH
    world.live(6)
    assert world.book.find(ANNA)[1] is TRASH
    world.live(1)
    assert [one.renter for one in world.book.to_purge()] == [ANNA]


def test_a_renewal_in_the_trash_brings_the_contract_back(world: World) -> None:
    old = world.join(ANNA, days=1)
    world.live(20)
    assert world.book.find(ANNA)[1] is TRASH
    new = world.join(ANNA, days=10)
    assert new.contract == old.contract
    assert world.book.find(ANNA) == (new, ACTIVE)
    world.live(1)
    assert world.book.find(ANNA) == (new, ACTIVE)
