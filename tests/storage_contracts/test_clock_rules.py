"""The clock that is not believed, to the millisecond; what it keeps, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.storage.clock import (
    AT_START,
    RUNNING,
    SETTLING,
    START_COUNTS_MS,
    ClockState,
    Tolerance,
    judged,
)
from farmer.storage.errors import VolumeUnavailableError
from tests.storage_contracts.world import DAY_MS, HOUR_MS, START_MS, World

MINUTE_MS = 60_000


def trusted(world: World) -> bool:
    return world.book.clock.trusted


def settled(world: World) -> World:
    """Let the first days pass, in which more is let pass."""
    world.sleep(2 * DAY_MS)
    return world


def look_after(world: World, ms: int, *, off_ms: int = 0, tells_order: bool = False) -> None:
    """Look once after so long, the wall clock being off by so much."""
    world.up_ms += ms
    world.wall_ms += ms + off_ms
    world.tick(tells_order=tells_order)


def statements(world: World, work: Callable[[], object]) -> list[str]:
    """Return what is asked of the database meanwhile."""
    asked: list[str] = []
    world.book._book._rows.set_trace_callback(asked.append)
    work()
    world.book._book._rows.set_trace_callback(None)
    return asked


@pytest.mark.parametrize(
    ("tolerance", "behind_ms", "ahead_ms"),
    [
        (Tolerance(3, 5), 3, 5),
        (RUNNING, HOUR_MS, HOUR_MS),
        (AT_START, 5 * MINUTE_MS, 60 * DAY_MS),
        (SETTLING, HOUR_MS, 60 * DAY_MS),
    ],
)
def test_so_much_is_plausible_and_not_a_millisecond_more(
    tolerance: Tolerance, behind_ms: int, ahead_ms: int
) -> None:
    for off_ms in (-behind_ms, 0, ahead_ms):
        assert tolerance.allows(off_ms)
        state = judged(ClockState(1, START_MS, 7), START_MS + off_ms, tolerance)
        assert state == ClockState(1, START_MS + off_ms)
    for off_ms in (-behind_ms - 1, ahead_ms + 1):
        assert not tolerance.allows(off_ms)
        state = judged(ClockState(1, START_MS), START_MS + off_ms, tolerance)
        assert state == ClockState(1, START_MS, START_MS + off_ms)


@pytest.mark.parametrize("off_ms", [HOUR_MS + 1, -HOUR_MS - 1])
def test_an_hour_and_a_millisecond_is_doubted(world: World, off_ms: int) -> None:
    settled(world).jump(off_ms)
    assert not trusted(world)


@pytest.mark.parametrize("off_ms", [-5 * MINUTE_MS - 1, 60 * DAY_MS + 1])
def test_at_the_start_a_millisecond_too_much_is_doubted(world: World, off_ms: int) -> None:
    settled(world).restart(off_ms=off_ms)
    assert not trusted(world)


def test_a_look_counts_for_ten_minutes_at_most_and_for_what_passed(world: World) -> None:
    for ms, counted_ms in ((1, 1), (9 * MINUTE_MS, 9 * MINUTE_MS), (HOUR_MS, 10 * MINUTE_MS)):
        before_ms = world.book.clock.observed_ms
        look_after(world, ms)
        assert world.book.clock.observed_ms == before_ms + counted_ms


def test_the_first_look_of_a_run_counts_for_no_more_than_a_start(world: World) -> None:
    """What is compared by this time after the restart is later than what came before it."""
    assert world.book.clock.observed_ms == 0
    world.restart(off_ms=DAY_MS)
    assert world.book.clock.observed_ms == START_COUNTS_MS
    world.restart()
    assert world.book.clock.observed_ms == 2 * START_COUNTS_MS


def test_a_start_counts_before_its_first_look(world: World) -> None:
    """Renters may be served by then."""
    world.sleep(HOUR_MS)
    world.book.close()
    assert world.open(ticked=False).clock.observed_ms == HOUR_MS + START_COUNTS_MS
    world.tick()
    assert world.book.clock.observed_ms == HOUR_MS + START_COUNTS_MS


def test_a_file_that_failed_is_tried_again_by_the_next_look(world: World) -> None:
    away = world.path.rename(world.path.with_name("away"))
    with pytest.raises(VolumeUnavailableError):
        world.mint()
    with pytest.raises(VolumeUnavailableError):
        look_after(world, MINUTE_MS)
    away.rename(world.path)
    assert world.book.failure
    look_after(world, MINUTE_MS)
    assert not world.book.failure


def test_what_was_seen_is_kept_every_ten_minutes(world: World, tmp_path: Path) -> None:
    look_after(world, 10 * MINUTE_MS - 1)
    assert world.crashed_copy(tmp_path / "before").book.clock.observed_ms == START_COUNTS_MS
    look_after(world, 1)
    copy = world.crashed_copy(tmp_path / "after")
    assert copy.book.clock.observed_ms == 10 * MINUTE_MS + START_COUNTS_MS


def test_what_tells_an_order_is_kept_at_each_look(world: World, tmp_path: Path) -> None:
    look_after(world, MINUTE_MS, tells_order=True)
    copy = world.crashed_copy(tmp_path / "after")
    assert copy.book.clock.observed_ms == MINUTE_MS + START_COUNTS_MS


def test_a_start_counts_also_if_it_ends_in_a_crash(world: World, tmp_path: Path) -> None:
    """Two starts that count as the same minute would give the same times to what is stored."""
    world.restart()
    copy = world.crashed_copy(tmp_path / "after")
    assert copy.book.clock.observed_ms == 2 * START_COUNTS_MS


def test_the_first_look_of_all_and_a_doubt_that_ends_are_kept_at_once(
    world: World, tmp_path: Path
) -> None:
    assert world.book.clock.first_run
    copy = world.crashed_copy(tmp_path / "first")
    assert not copy.book.clock.first_run
    settled(world).jump(3 * HOUR_MS)
    look_after(world, MINUTE_MS, off_ms=-3 * HOUR_MS)
    assert trusted(world)
    assert trusted(world.crashed_copy(tmp_path / "ended"))


def test_what_the_owner_confirms_is_kept_at_once(world: World, tmp_path: Path) -> None:
    settled(world).jump(300 * DAY_MS)
    world.book.clock.confirm(world.wall_ms)
    copy = world.crashed_copy(tmp_path / "copy")
    assert (copy.book.clock.doubt, trusted(copy)) == ("", True)


def test_a_quiet_disk_may_sleep_between_two_notes(world: World) -> None:
    settled(world)
    assert statements(world, lambda: look_after(world, MINUTE_MS)) == []
    assert statements(world, world.book.clock.save) != []
    assert statements(world, world.book.clock.save) == []
    world.jump(3 * HOUR_MS)
    assert statements(world, lambda: look_after(world, MINUTE_MS)) == []


def test_an_older_database_can_only_add_to_the_observed_time(world: World, tmp_path: Path) -> None:
    world.sleep(HOUR_MS)
    for less_ms in (0, HOUR_MS - 1, HOUR_MS):
        assert statements(world, lambda less_ms=less_ms: world.book.clock.catch_up(less_ms)) == []  # type: ignore[misc]  # mypy does not know the type of a lambda with a default
    assert world.book.clock.observed_ms == HOUR_MS
    world.book.clock.catch_up(HOUR_MS + 1)
    assert world.book.clock.observed_ms == HOUR_MS + 1
    copy = world.crashed_copy(tmp_path / "copy")
    assert copy.book.clock.observed_ms == HOUR_MS + 1 + START_COUNTS_MS


def test_a_doubt_says_which_way_and_how_far(world: World) -> None:
    settled(world)
    expected = "2025-06-17 15:06 UTC"
    world.jump(DAY_MS)
    assert f"2025-06-18 15:06 UTC, which is ahead of the expected {expected}" in (
        world.book.clock.doubt
    )
    world.jump(-2 * DAY_MS)
    assert f"2025-06-16 15:06 UTC, which is behind the expected {expected}" in (
        world.book.clock.doubt
    )


def test_within_a_day_of_the_start_one_step_forward_is_let_pass(world: World) -> None:
    """An hour is no such step."""
    settled(world).restart()
    world.sleep(HOUR_MS)
    world.jump(HOUR_MS)
    world.jump(-HOUR_MS)
    world.sleep(DAY_MS - HOUR_MS - MINUTE_MS)
    world.jump(60 * DAY_MS)
    assert trusted(world)
    world.jump(HOUR_MS + 1)
    assert not trusted(world)


def test_a_step_forward_of_little_more_than_an_hour_is_the_one(world: World) -> None:
    settled(world).restart()
    world.jump(HOUR_MS + 1)
    assert trusted(world)
    world.jump(HOUR_MS + 1)
    assert not trusted(world)


def test_a_step_back_is_never_let_pass(world: World) -> None:
    settled(world).restart()
    world.sleep(HOUR_MS)
    world.jump(-HOUR_MS - 1)
    assert not trusted(world)


def test_a_clock_in_doubt_gets_no_day_to_settle(world: World) -> None:
    settled(world).restart(off_ms=-DAY_MS)
    assert not trusted(world)
    world.jump(DAY_MS + 60 * DAY_MS + MINUTE_MS)
    assert not trusted(world)
    world.jump(-MINUTE_MS)
    assert trusted(world), "held against what was known before"


@pytest.mark.parametrize(
    ("jump_ms", "back_ms"),
    [(2 * HOUR_MS, HOUR_MS), (40 * DAY_MS, HOUR_MS), (200 * DAY_MS, 140 * DAY_MS)],
)
@pytest.mark.parametrize(("short_ms", "is_believed"), [(0, True), (1, False)])
def test_one_that_was_ahead_has_to_go_back_by_an_hour_and_to_within_sixty_days(
    world: World, jump_ms: int, back_ms: int, short_ms: int, is_believed: bool
) -> None:
    settled(world).jump(jump_ms)
    world.restart(off_ms=short_ms - back_ms)
    assert trusted(world) is is_believed


def test_one_that_was_behind_is_held_against_what_was_known(world: World) -> None:
    settled(world).jump(-30 * DAY_MS)
    world.restart(off_ms=30 * DAY_MS - 5 * MINUTE_MS - 1)
    assert not trusted(world)
    world.restart(off_ms=1)
    assert trusted(world)


def test_a_confirmed_clock_is_held_to_an_hour_from_then_on(world: World) -> None:
    world.jump(DAY_MS)
    world.book.clock.confirm(world.wall_ms)
    world.jump(HOUR_MS + 1)
    assert not trusted(world), "also in the days in which more was let pass"


def test_a_clock_that_is_confirmed_before_the_first_look_is_held_to_it(world: World) -> None:
    settled(world)
    world.book.close()
    world.wall_ms += 300 * DAY_MS
    clock = world.open(ticked=False).clock
    clock.confirm(world.wall_ms)
    assert (clock.doubt, clock.trusted) == ("", False)
    world.tick()
    assert trusted(world)


def test_a_monotonic_clock_that_steps_back_counts_for_nothing(world: World) -> None:
    settled(world)
    before_ms = world.book.clock.observed_ms
    world.up_ms -= HOUR_MS
    world.tick()
    assert world.book.clock.observed_ms == before_ms
    assert trusted(world)
