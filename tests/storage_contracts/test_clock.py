"""The clock that is not believed: what it sees, what ends the doubt, and what waits for it."""

from pathlib import Path

import pytest

from farmer.model.contract import ContractStage
from farmer.storage.clock import RUNNING, START_COUNTS_MS, ClockState, judged
from tests.storage_contracts.world import ANNA, DAY_MS, HOUR_MS, START_MS, World

ACTIVE, GRACE, TRASH, GONE = ContractStage
MINUTE_MS = 60_000
YEAR_MS = 365 * DAY_MS


def test_time_that_goes_on_is_believed_and_counted(world: World) -> None:
    world.sleep(3 * DAY_MS)
    assert world.book.clock.trusted
    assert world.book.clock.doubt == ""
    assert world.book.clock.observed_ms == 3 * DAY_MS


def test_before_the_first_look_nothing_is_done(world: World) -> None:
    world.join(ANNA, days=1)
    world.sleep(2 * DAY_MS)
    world.book.close()
    book = world.open(ticked=False)
    assert not book.clock.trusted
    assert book.advance(world.wall_ms) == []
    assert book.find(ANNA)[1] is ACTIVE
    world.tick()
    assert book.find(ANNA)[1] is GRACE


def test_observed_time_goes_on_over_restarts_and_not_while_off(world: World) -> None:
    world.sleep(3 * DAY_MS)
    world.restart(off_ms=10 * DAY_MS)
    assert world.book.clock.doubt == ""
    world.sleep(DAY_MS)
    assert world.book.clock.observed_ms == 4 * DAY_MS + START_COUNTS_MS


def test_a_crash_forgets_ten_minutes_at_most(world: World, tmp_path: Path) -> None:
    world.sleep(DAY_MS, step_ms=MINUTE_MS)
    copy = world.crashed_copy(tmp_path / "copy")
    seen_ms = copy.book.clock.observed_ms - START_COUNTS_MS
    assert DAY_MS - 10 * MINUTE_MS <= seen_ms <= DAY_MS


def test_an_orderly_stop_forgets_nothing(world: World) -> None:
    world.sleep(DAY_MS + 9 * MINUTE_MS, step_ms=MINUTE_MS)
    seen_ms = world.restart().clock.observed_ms - START_COUNTS_MS
    assert seen_ms == DAY_MS + 9 * MINUTE_MS


def test_a_machine_that_sleeps_is_not_observed_and_not_doubted(world: World) -> None:
    world.sleep(2 * DAY_MS)
    before_ms = world.book.clock.observed_ms
    world.wall_ms += 8 * HOUR_MS
    world.up_ms += 8 * HOUR_MS
    world.tick()
    assert world.book.clock.doubt == ""
    assert world.book.clock.observed_ms == before_ms + 10 * MINUTE_MS


@pytest.mark.parametrize("jump_ms", [YEAR_MS, 2 * HOUR_MS, -2 * HOUR_MS, -YEAR_MS])
def test_a_jump_while_running_is_doubted_until_the_clock_is_back_in_line(
    world: World, jump_ms: int
) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(jump_ms)
    assert not world.book.clock.trusted
    assert ("ahead of" if jump_ms > 0 else "behind") in world.book.clock.doubt
    world.sleep(5 * DAY_MS)
    assert not world.book.clock.trusted
    world.jump(-jump_ms)
    assert world.book.clock.trusted
    assert world.book.clock.observed_ms == 7 * DAY_MS


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_an_hour_is_let_pass(world: World, jump_ms: int) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(jump_ms)
    assert world.book.clock.trusted


def test_the_owner_ends_the_doubt(world: World) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(YEAR_MS)
    world.book.clock.confirm(world.wall_ms)
    assert world.book.clock.trusted
    world.sleep(DAY_MS)
    assert world.book.clock.trusted
    world.restart()
    assert world.book.clock.trusted


def test_the_owner_can_confirm_without_a_running_farmer(world: World) -> None:
    world.sleep(2 * DAY_MS)
    world.book.close()
    world.wall_ms += YEAR_MS
    world.open(ticked=False).clock.confirm(world.wall_ms)
    world.restart()
    assert world.book.clock.trusted


@pytest.mark.parametrize(
    ("off_ms", "trusted"),
    [
        (-5 * MINUTE_MS, True),
        (-6 * MINUTE_MS, False),
        (-YEAR_MS, False),
        (0, True),
        (60 * DAY_MS, True),
        (61 * DAY_MS, False),
        (YEAR_MS, False),
    ],
)
def test_at_the_start_the_clock_is_held_against_when_we_last_ran(
    world: World, off_ms: int, trusted: bool
) -> None:
    world.sleep(2 * DAY_MS)
    world.restart(off_ms=off_ms)
    assert world.book.clock.trusted is trusted
    assert bool(world.book.clock.doubt) is not trusted


@pytest.mark.parametrize("off_ms", [YEAR_MS, -YEAR_MS])
def test_a_year_wrong_at_the_start_and_set_right_later(world: World, off_ms: int) -> None:
    contract = world.join(ANNA, days=10)
    world.sleep(2 * DAY_MS)
    world.restart(off_ms=off_ms)
    world.live(30)
    assert world.book.find(ANNA) == (contract, ACTIVE)
    world.jump(-off_ms)
    world.advance()
    assert world.book.clock.trusted
    assert world.book.find(ANNA)[1] is GRACE


@pytest.mark.parametrize("jump_ms", [YEAR_MS, 30 * DAY_MS, 2 * HOUR_MS])
def test_restarts_do_not_make_a_clock_that_was_ahead_right(world: World, jump_ms: int) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(jump_ms)
    for _ in range(3):
        world.restart()
        world.sleep(2 * HOUR_MS)
        assert not world.book.clock.trusted
    world.restart(off_ms=-jump_ms)
    assert world.book.clock.trusted


def test_a_clock_ahead_that_is_set_right_while_off_is_believed(world: World) -> None:
    """Off for five days, which is less than the clock was ahead."""
    world.sleep(2 * DAY_MS)
    world.jump(30 * DAY_MS)
    world.restart(off_ms=5 * DAY_MS - 30 * DAY_MS)
    assert world.book.clock.trusted


def test_a_clock_behind_that_is_right_after_a_restart_is_believed(world: World) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(-YEAR_MS)
    world.restart(off_ms=YEAR_MS + DAY_MS)
    assert world.book.clock.trusted


def test_a_machine_without_a_battery_is_set_right_by_the_network(world: World) -> None:
    """It starts where it stopped; a little later the time jumps by the days it was off."""
    world.sleep(2 * DAY_MS)
    world.restart()
    world.sleep(HOUR_MS)
    world.jump(20 * DAY_MS)
    assert world.book.clock.trusted
    world.jump(2 * HOUR_MS)
    assert not world.book.clock.trusted


def test_a_day_after_the_start_the_network_has_had_its_time(world: World) -> None:
    world.sleep(2 * DAY_MS)
    world.restart()
    world.sleep(DAY_MS)
    world.jump(2 * HOUR_MS)
    assert not world.book.clock.trusted


def test_on_the_first_day_any_step_forward_is_believed(world: World) -> None:
    """A new machine that begins in 1970: there is nothing that could be removed."""
    world.jump(30 * YEAR_MS)
    assert world.book.clock.trusted
    world.jump(YEAR_MS)
    assert not world.book.clock.trusted


def test_the_doubt_itself_survives_a_crash(world: World, tmp_path: Path) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(3 * HOUR_MS)
    copy = world.crashed_copy(tmp_path / "copy")
    assert not copy.book.clock.trusted


def test_while_in_doubt_nothing_moves_and_nothing_ends(world: World) -> None:
    contract = world.join(ANNA, days=400)
    world.sleep(2 * DAY_MS)
    world.jump(2 * YEAR_MS)
    world.live(60)
    assert world.book.find(ANNA) == (contract, ACTIVE)
    assert world.book.to_purge() == []


def test_a_confirmed_clock_still_leaves_every_stage_its_days(world: World) -> None:
    world.join(ANNA, days=400)
    world.sleep(2 * DAY_MS)
    world.jump(2 * YEAR_MS)
    world.book.clock.confirm(world.wall_ms)
    stages = []
    for _ in range(23):
        world.live(1)
        found = world.book.contracts()
        stages.append(found[0][1] if found else GONE)
    assert stages == [GRACE] * 14 + [TRASH] * 7 + [GONE] * 2


def test_a_monotonic_clock_that_steps_back_takes_nothing(world: World) -> None:
    world.sleep(DAY_MS)
    world.up_ms -= HOUR_MS
    world.tick()
    assert world.book.clock.observed_ms == DAY_MS


def test_a_time_that_no_calendar_has_is_still_told(world: World) -> None:
    world.sleep(2 * DAY_MS)
    world.jump(1 << 58)
    assert f"{world.wall_ms} ms" in world.book.clock.doubt


def test_judging_changes_nothing_but_belief() -> None:
    state = ClockState(5, START_MS)
    assert judged(state, START_MS + 1, RUNNING) == ClockState(5, START_MS + 1)
    wrong_ms = START_MS + 2 * HOUR_MS
    assert judged(state, wrong_ms, RUNNING) == ClockState(5, START_MS, wrong_ms)
